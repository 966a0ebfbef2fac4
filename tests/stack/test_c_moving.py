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
import time

import pytest

from tests.host.rig import virtual
from tests.stack import client as client_module
from tests.stack import contents
from tests.stack import hosts
from tests.stack import look
from tests.stack import placed

# MiB/s: slow enough to be stopped in time.
_SLOW = '1'
_INCOMING = 'incoming'


def _occupy(
    client: client_module.Client, host: hosts.ComputeHost, node: int
) -> None:
    """Have a guest on a node, and so no other that wants a CPU to itself."""
    booted = []
    for _ in range(virtual.NODES):
        booted.append(client.boot(client.pages(mib=128), host=host.name))
        if placed.check(client, host, booted[-1]) == [node]:
            break
    else:
        pytest.fail(f'no guest came onto node {node} of {host.name}')
    client.delete(booted[:-1])


@pytest.mark.scenario(7, 'live migration, onto other nodes')
def test_live_migration(
    client: client_module.Client,
    node1: hosts.ComputeHost,
    node2: hosts.ComputeHost,
) -> None:
    # Given a guest whose node is taken on the other host,
    server = client.boot(client.pages(mib=256), host=node1.name)
    [before] = placed.check(client, node1, server)
    _occupy(client, node2, before)
    logged = len(node2.log)

    # when it moves there,
    client.act(
        server,
        'os-migrateLive',
        {'host': node2.name, 'block_migration': 'auto'},
    )
    client.wait_for_host(server, node2.name)

    # then it has pages on another node there, which were held first, and
    # nothing is left here.
    [after] = placed.check(client, node2, server)
    assert after != before
    assert re.search(
        rf'{server}\] Reserved .* \(purpose: incoming', node2.log[logged:]
    )
    seen = look.look(node1)
    assert (seen.holds, seen.total) == ({}, [0, 0, 0, 0])


@pytest.mark.scenario(7, 'live migration that is aborted')
def test_aborted_live_migration(
    client: client_module.Client,
    node1: hosts.ComputeHost,
    node2: hosts.ComputeHost,
) -> None:
    server = client.boot(
        client.pages(mib=256), image=contents.BOOTS, host=node1.name
    )
    nodes = placed.check(client, node1, server)
    # Where it is to go, it would be on another node.
    _occupy(client, node2, nodes[0])
    before = look.look(node2)
    # Enough in its memory that it takes a while.
    time.sleep(10)
    node1.machine.virsh('migrate-setspeed', server, _SLOW)

    client.act(
        server,
        'os-migrateLive',
        {'host': node2.name, 'block_migration': 'auto'},
    )
    migration = client.running_migration(server)
    holds = look.look(node2).holds
    assert holds.keys() - before.holds.keys() == {(server, _INCOMING)}
    client.abort(server, migration)
    client.wait(server, 'ACTIVE')

    # Nova doesn't wait for the other host to clean up.
    def as_before() -> bool:
        seen = look.look(node2)
        return (seen.holds, seen.total) == (before.holds, before.total)

    client_module.wait_until(as_before, lambda: look.look(node2))
    assert placed.check(client, node1, server) == nodes
