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

"""Servers that move between the hosts, and their pages with them."""

from __future__ import annotations

import re
import signal
import time

import pytest

from tests.host.rig import virtual
from tests.stack import api
from tests.stack import checks
from tests.stack import cloud_setup
from tests.stack import host_state
from tests.stack import hosts
from tests.stack import stack

# MiB/s: slow enough to be stopped in time.
_SLOW = '1'
_INCOMING = 'incoming'


def _occupy(client: api.Client, host: hosts.ComputeHost, node: int) -> None:
    """Have a guest on a node, and so no other that wants a CPU to itself."""
    booted = []
    for _ in range(virtual.NODES):
        booted.append(client.boot(client.pages(mib=128), host=host.name))
        if checks.check_instance(client, host, booted[-1]) == [node]:
            break
    else:
        pytest.fail(f'no guest came onto node {node} of {host.name}')
    client.delete(booted[:-1])


def _migrate(client: api.Client, server: str, host: hosts.ComputeHost) -> None:
    client.act(
        server,
        'os-migrateLive',
        {'host': host.name, 'block_migration': 'auto'},
    )


def _slow_down(host: hosts.ComputeHost, server: str) -> None:
    """Have the live migration of a server that was just booted take long."""
    # Until there is enough in its memory.
    time.sleep(10)
    host.machine.virsh('migrate-setspeed', server, _SLOW)


@pytest.mark.smoke
@pytest.mark.scenario(7, 'live migration, onto other nodes')
def test_live_migration(
    client: api.Client,
    node1: hosts.ComputeHost,
    node2: hosts.ComputeHost,
) -> None:
    # Given a guest whose node is taken on the other host,
    server = client.boot(client.pages(mib=256), host=node1.name)
    [before] = checks.check_instance(client, node1, server)
    _occupy(client, node2, before)
    logged = len(node2.log)

    # when it moves there,
    _migrate(client, server, node2)
    client.wait_for_host(server, node2.name)

    # then it has pages on another node there, which were held first, and
    # nothing is left here.
    [after] = checks.check_instance(client, node2, server)
    assert after != before
    assert re.search(
        rf'{server}\] Reserved .* \(purpose: incoming', node2.log[logged:]
    )
    checks.check_empty(node1)


@pytest.mark.scenario(7, 'live migration that is aborted')
def test_aborted_live_migration(
    client: api.Client,
    node1: hosts.ComputeHost,
    node2: hosts.ComputeHost,
) -> None:
    server = client.boot(
        client.pages(mib=256), image=cloud_setup.BOOTS, host=node1.name
    )
    nodes = checks.check_instance(client, node1, server)
    # Where it is to go, it would be on another node.
    _occupy(client, node2, nodes[0])
    before = host_state.read(node2)
    _slow_down(node1, server)

    _migrate(client, server, node2)
    migration = client.running_migration(server)
    holds = host_state.read(node2).holds
    assert holds.keys() - before.holds.keys() == {(server, _INCOMING)}
    client.abort(server, migration)
    client.wait(server, 'ACTIVE')

    # Nova doesn't wait for the other host to clean up.
    def as_before() -> bool:
        state = host_state.read(node2)
        return (state.holds, state.total) == (before.holds, before.total)

    api.wait_until(as_before, lambda: host_state.read(node2))
    assert checks.check_instance(client, node1, server) == nodes


@pytest.mark.scenario(8, 'killed in the middle of a live migration')
@pytest.mark.parametrize('killed', ['node1', 'node2'])
def test_killed_in_a_live_migration(
    client: api.Client,
    cloud: stack.Stack,
    node1: hosts.ComputeHost,
    node2: hosts.ComputeHost,
    killed: str,
) -> None:
    server = client.boot(
        client.pages(mib=256), image=cloud_setup.BOOTS, host=node1.name
    )
    _slow_down(node1, server)
    _migrate(client, server, node2)
    client.running_migration(server)
    cloud.nodes[killed].stop_service(signal.SIGKILL)
    cloud.nodes[killed].start_service()
    cloud.nodes[killed].wait_for_service()

    # Nova gives it up, too, if the other host doesn't answer in time.
    status = client.wait(server, 'ACTIVE', 'ERROR')['status']
    # libvirt may go on without the service, or not.
    where = _only_place(cloud, server)
    [other] = set(cloud.nodes.values()) - {where}
    # Wherever it is, its pages are there, and none elsewhere.
    checks.wait_until_empty(other)
    # Nova leaves the migration as it was, and so its allocations.
    migration = client.last_migration(server)
    known = client.host(server) == where.name
    if known and status == 'ACTIVE':
        checks.check_instance(
            client, where, server, left=other.name, migration=migration
        )
        return
    # Nova has lost it, or given it up. It runs, so it has a right to its
    # pages.
    state = host_state.read(where)
    assert state.holds == {(server, checks.GUEST): state.placed[server]}
    assert state.total == state.held
    if not known:
        where.machine.virsh('destroy', server)
        where.machine.virsh('undefine', '--nvram', server)
        checks.wait_until_empty(where)


def _only_place(cloud: stack.Stack, server: str) -> hosts.ComputeHost:
    """Wait until a guest runs on one host only, and return that."""

    def places() -> list[hosts.ComputeHost]:
        return [
            host
            for host in cloud.nodes.values()
            if server in host_state.read(host).placed
        ]

    [where] = api.wait_until(
        lambda: len(found := places()) == 1 and found, places, interval_s=5
    )
    return where
