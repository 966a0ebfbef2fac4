# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Checks of where a server is: all that know of it have to agree."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.stack import api
from tests.stack import configuration
from tests.stack import host_state
from tests.stack import hosts

GUEST = 'guest'
TAKEN = 'taken'
_NONE = [0, 0, 0, 0]


def check_empty(host: hosts.ComputeHost) -> None:
    """Check that nothing is held on a host, and no page is left."""
    state = host_state.read(host)
    assert state.holds == {}, host.name
    assert state.placed == {}, host.name
    assert state.total == _NONE, host.name


def wait_until_empty(host: hosts.ComputeHost) -> None:
    """Wait until nothing is held on a host, and no page is left."""

    def is_empty() -> bool:
        state = host_state.read(host)
        return not state.holds and not sum(state.total)

    api.wait_until(is_empty, lambda: host_state.read(host), interval_s=5)
    check_empty(host)


def wait_until_reported(client: api.Client, names: Iterable[str]) -> None:
    """Wait until the scheduler knows that hosts are empty.

    What was resized or migrated and is deleted counts until a host reports.
    """

    def reported() -> bool:
        used = client.vcpus_used()
        return not any(used[name] for name in names)

    api.wait_until(
        reported,
        client.vcpus_used,
        limit_s=3 * hosts.REPORT_S,
        interval_s=5,
    )


def wait_for_room(
    client: api.Client, flavor: str, host: hosts.ComputeHost
) -> None:
    """Wait until the scheduler knows that a host has room again."""

    def has_room() -> bool:
        [server] = client.create(flavor, host=host.name)
        status = client.wait(server, 'ACTIVE', 'ERROR')['status']
        client.delete([server])
        return bool(status == 'ACTIVE')

    api.wait_until(
        has_room,
        lambda: f'{host.name} has reported no room',
        limit_s=2 * hosts.REPORT_S,
        interval_s=10,
    )


def check_instance(
    client: api.Client,
    host: hosts.ComputeHost,
    server: str,
    *,
    left: str | None = None,
    migration: str | None = None,
) -> list[int]:
    """Check that a server has its pages where it should.

    The API, Placement, the domain in libvirt, the kernel's maps of its memory
    and its counters, and our ledger have to agree. With our driver there are
    no pages on the host but those that are held.

    :param left: the name of a host that can't say yet that the guest has left
        it, and so has it in Placement, too
    :param migration: the uuid of a migration that didn't come to its end, and
        may still have what the server had before
    :returns: the node of each of its cells
    """
    assert client.host(server) == host.name
    topology = client.topology(server)
    assert topology['pagesize_kb'] == host_state.PAGE_KIB
    pages = host_state.expected(topology)
    state = host_state.read(host)
    assert state.placed.get(server) == pages
    assert state.surplus == _NONE
    used = [
        sum(nodes.get(node, 0) for nodes in state.placed.values())
        for node in range(len(state.total))
    ]
    assert [*map(sum, zip(state.free, used, strict=True))] == state.total
    if host.driver == configuration.OUR_DRIVER:
        assert state.holds.get((server, GUEST)) == pages
        assert state.states[server, GUEST] == {TAKEN}
        assert state.total == state.held

    domain = host_state.domain(host, server)
    nodes = [cell['host_node'] for cell in topology['nodes']]
    assert domain.nodes == nodes
    assert domain.returns == (host.driver != configuration.OUR_DRIVER)
    pins = _pins(topology)
    assert {vcpu: domain.cpus[vcpu] for vcpu in pins} == pins

    allocations = client.allocations(server)
    if migration is not None:
        allocations = {**client.allocations(migration), **allocations}
    assert allocations.keys() - {left} == {host.name}, allocations
    allocated = {**allocations[host.name], 'DISK_GB': 0}
    needs = _needs(topology)
    assert allocated == needs, (allocated, needs)
    return nodes


def _pins(topology: dict[str, Any]) -> dict[str, str]:
    """Which CPU each vCPU has to itself, as the API says."""
    return {
        vcpu: str(cpu)
        for cell in topology['nodes']
        for vcpu, cpu in cell['cpu_pinning'].items()
    }


def _needs(topology: dict[str, Any]) -> dict[str, int]:
    """What Placement has to have for a guest, but for its disk."""
    dedicated = len(_pins(topology))
    vcpus = sum(len(cell['vcpu_set']) for cell in topology['nodes'])
    needs = {
        'MEMORY_MB': sum(cell['memory_mb'] for cell in topology['nodes']),
        'PCPU': dedicated,
        'VCPU': vcpus - dedicated,
    }
    return {
        'DISK_GB': 0,
        **{name: count for name, count in needs.items() if count},
    }
