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

"""Guests get pages on the nodes that were planned, or are refused."""

from __future__ import annotations

from concurrent import futures
import re
from typing import Any

import pytest

from tests.host import scene
from tests.stack import api
from tests.stack import checks
from tests.stack import cloud_setup
from tests.stack import host_state
from tests.stack import hosts
from tests.stack import processes
from tests.stack import stack

# Half of a node's memory may be in pages: of this there are two on each node.
_HALF_MIB = 256
# Of this there is one.
WHOLE_MIB = 512
# To be faster than a host reports.
_ATTEMPTS = 4
# Under emulation in an emulated host.
_BOOT_S = 600.0


@pytest.mark.smoke
@pytest.mark.scenario(1, 'one cell: pages made on its node, and given back')
def test_one_cell(client: api.Client, node1: hosts.ComputeHost) -> None:
    assert host_state.read(node1).total == [0, 0, 0, 0]

    server = client.boot(client.pages(mib=128), host='node1')

    [node] = checks.check_instance(client, node1, server)
    state = host_state.read(node1)
    assert state.total == [64 if one == node else 0 for one in range(4)]
    assert client.allocations(server)['node1']['PCPU'] == 1

    client.delete([server])
    assert client.allocations(server) == {}
    assert host_state.read(node1).total == [0, 0, 0, 0]


@pytest.mark.smoke
@pytest.mark.scenario(2, 'two cells: nearest nodes, and their distances')
def test_two_cells(client: api.Client, node1: hosts.ComputeHost) -> None:
    server = _boot_two_cells(client, node1)

    domain = host_state.domain(node1, server)
    assert domain.distances == [['10', '12'], ['12', '10']]


@pytest.mark.scenario(2, 'two cells: the distances as the guest sees them')
def test_two_cells_inside(
    client: api.Client, node1: hosts.ComputeHost
) -> None:
    server = _boot_two_cells(client, node1, image=cloud_setup.BOOTS)

    client.wait_for_console(server, 'beat 1', limit_s=_BOOT_S)
    printed = re.findall(
        r'node (\d): cpus (\S+), distances (.*?)\s*$',
        client.console(server),
        re.MULTILINE,
    )
    assert printed == [('0', '0', '10 12'), ('1', '1', '12 10')]


def _boot_two_cells(
    client: api.Client, node1: hosts.ComputeHost, **wanted: Any
) -> str:
    # Given one of the nodes without a CPU to give away, so that there are
    # three, of which only two are near each other,
    [taken] = checks.check_instance(
        client, node1, client.boot(client.pages(), host='node1')
    )
    flavor = client.flavor(
        vcpus=2,
        mib=384,
        hw__cpu_policy='dedicated',
        hw__mem_page_size='2048',
        hw__numa_nodes='2',
        numa_hugepages__guest_distances='true',
    )

    server = client.boot(flavor, host='node1', **wanted)

    # then it is on these two.
    nodes = checks.check_instance(client, node1, server)
    assert sorted(nodes) == ([2, 3] if taken < 2 else [0, 1])
    return server


@pytest.mark.smoke
@pytest.mark.scenario(3, 'no room: refused with reasons; then room again')
def test_no_room(client: api.Client, node1: hosts.ComputeHost) -> None:
    flavor = client.pages(cells=2, mib=2 * WHOLE_MIB)
    log = processes.log('nova-scheduler')
    first, second = (client.boot(flavor, host='node1') for _ in range(2))
    assert sorted(
        checks.check_instance(client, node1, first)
        + checks.check_instance(client, node1, second)
    ) == [0, 1, 2, 3]
    before = log.stat().st_size

    [third] = client.create(flavor, host='node1')
    refused = client.wait(third, 'ERROR')
    assert 'No valid host was found' in refused['fault']['message']
    with log.open() as file:
        file.seek(before)
        logged = file.read()
    assert re.search(r'rejected 1 of 1 hosts: .*(CPU|page)', logged)
    assert client.allocations(third) == {}

    client.delete([first])
    fourth = client.boot(flavor, host='node1')
    checks.check_instance(client, node1, fourth)


@pytest.mark.scenario(4, 'the scheduler was wrong: the next host is taken')
def test_next_host(client: api.Client, cloud: stack.Stack) -> None:
    flavor = client.pages(cells=4, mib=4 * WHOLE_MIB)
    for _ in range(_ATTEMPTS):
        # Given the host that the scheduler takes, on which since then the
        # memory of one node was scattered,
        probe = client.boot(flavor, zone=stack.REAL)
        first = cloud.nodes[client.host(probe)]
        client.delete([probe])
        with scene.scattered(first.machine, 2):
            # when a guest needs pages there,
            before = len(first.log)
            server = client.boot(flavor, zone=stack.REAL)
            logged = first.log[before:]
        if 'Claim successful' in logged:
            break
        # The host has reported to the scheduler meanwhile.
        client.delete([server])
        checks.wait_for_room(client, flavor, first)

    # then the claim passes and the pages can't be had, so it is elsewhere.
    [second] = set(cloud.nodes.values()) - {first}
    assert client.host(server) == second.name
    assert 'pages of 2 MiB on NUMA node 2 are missing' in logged
    checks.check_empty(first)
    checks.check_instance(client, second, server)
    checks.wait_for_room(client, flavor, first)


@pytest.mark.scenario(5, 'ten at once with room for seven')
def test_ten_at_once(client: api.Client, node1: hosts.ComputeHost) -> None:
    flavor = client.flavor(
        mib=_HALF_MIB, hw__mem_page_size='2048', hw__numa_nodes='1'
    )
    before = client.boot(flavor, host='node1')

    with futures.ThreadPoolExecutor(10) as pool:
        asked = [
            pool.submit(client.create, flavor, host='node1') for _ in range(10)
        ]
        servers = [server for job in asked for server in job.result()]

    ended = {one: client.wait(one, 'ACTIVE', 'ERROR') for one in servers}
    active = [one for one in servers if ended[one]['status'] == 'ACTIVE']
    refused = [one for one in servers if ended[one]['status'] == 'ERROR']
    assert (len(active), len(refused)) == (7, 3)
    for one in refused:
        # Of requests that pass the scheduler at the same time, the claim on
        # the host refuses those that are too many.
        fault = ended[one]['fault']['message']
        assert re.search('No valid host|Exhausted all hosts', fault), fault
        assert client.allocations(one) == {}
    for one in (before, *active):
        checks.check_instance(client, node1, one)
    state = host_state.read(node1)
    assert state.total == [2 * _HALF_MIB // 2] * 4
    assert state.holds.keys() == {
        (server, checks.GUEST) for server in (before, *active)
    }
