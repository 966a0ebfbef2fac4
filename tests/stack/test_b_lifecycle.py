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

"""What happens to a server in its life, with its pages right after each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stack import client as client_module
from tests.stack import contents
from tests.stack import hosts
from tests.stack import look
from tests.stack import placed
from tests.stack import stack as stack_module

pytestmark = pytest.mark.scenario(6, '')

_RESIZE = 'resize'


@pytest.fixture(autouse=True)
def _only_one_host(
    client: client_module.Client, node2: hosts.ComputeHost
) -> Iterator[None]:
    """Nothing moves to the other host, as nothing could copy its disk."""
    client.enable(node2.name, False)
    yield
    client.enable(node2.name, True)


@pytest.fixture
def server(client: client_module.Client) -> str:
    """A server with two cells on the first host."""
    flavor = client.pages(cells=2, mib=256)
    return client.boot(flavor, zone=stack_module.REAL)


@pytest.mark.scenario(6, 'stop, start, hard reboot, suspend, resume')
def test_off_and_on(
    client: client_module.Client, node1: hosts.ComputeHost, server: str
) -> None:
    placed.check(client, node1, server)
    for action, body, status in (
        ('os-stop', None, 'SHUTOFF'),
        ('os-start', None, 'ACTIVE'),
        ('reboot', {'type': 'HARD'}, 'ACTIVE'),
        ('suspend', None, 'SUSPENDED'),
        ('resume', None, 'ACTIVE'),
    ):
        before = look.look(node1)
        allocations = client.allocations(server)
        client.act(server, action, body)
        client.wait(server, status)
        if status == 'ACTIVE':
            placed.check(client, node1, server)
        else:
            # A guest that is off keeps what it needs to come back.
            seen = look.look(node1)
            assert seen.holds == before.holds
            assert server not in seen.placed
            assert seen.total == before.total == seen.free
            assert client.allocations(server) == allocations


@pytest.mark.scenario(6, 'rescue, unrescue, rebuild')
def test_rescue_and_rebuild(
    client: client_module.Client, node1: hosts.ComputeHost, server: str
) -> None:
    for action, body, status in (
        ('rescue', {}, 'RESCUE'),
        ('unrescue', None, 'ACTIVE'),
        ('rebuild', {'imageRef': client.image(contents.EMPTY)}, 'ACTIVE'),
    ):
        client.act(server, action, body)
        client.wait(server, status)
        placed.check(client, node1, server)


@pytest.mark.scenario(6, 'shelve, unshelve')
def test_shelve(
    client: client_module.Client, node1: hosts.ComputeHost, server: str
) -> None:
    client.act(server, 'shelve')
    client.wait(server, 'SHELVED_OFFLOADED')
    seen = look.look(node1)
    assert (seen.holds, seen.total) == ({}, [0, 0, 0, 0])
    assert client.allocations(server) == {}

    client.act(server, 'unshelve')
    client.wait(server, 'ACTIVE')
    placed.check(client, node1, server)


@pytest.mark.scenario(6, 'resize, revert; resize, confirm')
def test_resize(
    client: client_module.Client, node1: hosts.ComputeHost, server: str
) -> None:
    small = look.look(node1).holds[server, placed.GUEST]
    allocation = client.allocations(server)
    larger = client.pages(cells=2, mib=512)
    client.act(server, 'resize', {'flavorRef': larger})
    client.wait(server, 'VERIFY_RESIZE')
    # What it had is kept for it until it is confirmed.
    placed.check(client, node1, server)
    seen = look.look(node1)
    assert seen.holds.keys() == {(server, placed.GUEST), (server, _RESIZE)}
    assert seen.holds[server, _RESIZE] == small
    assert sum(seen.total) == 128 + 256
    assert client.allocations(client.last_migration(server)) == allocation

    client.act(server, 'revertResize')
    client.wait(server, 'ACTIVE')
    placed.check(client, node1, server)
    seen = look.look(node1)
    assert seen.holds == {(server, placed.GUEST): small}
    assert client.allocations(server) == allocation

    client.act(server, 'resize', {'flavorRef': larger})
    client.wait(server, 'VERIFY_RESIZE')
    client.act(server, 'confirmResize')
    client.wait(server, 'ACTIVE')
    placed.check(client, node1, server)
    seen = look.look(node1)
    assert seen.holds.keys() == {(server, placed.GUEST)}
    assert sum(seen.total) == 256
