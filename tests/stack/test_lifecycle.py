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

from tests.stack import api
from tests.stack import checks
from tests.stack import cloud_setup
from tests.stack import host_state
from tests.stack import hosts
from tests.stack import stack

pytestmark = pytest.mark.scenario(6, '')

_RESIZE = 'resize'


@pytest.fixture(autouse=True)
def _only_one_host(
    client: api.Client, node2: hosts.ComputeHost
) -> Iterator[None]:
    """Nothing moves to the other host, as nothing could copy its disk."""
    client.enable(node2.name, False)
    yield
    client.enable(node2.name, True)


@pytest.fixture
def server(client: api.Client) -> str:
    """A server with two cells on the first host."""
    flavor = client.pages(cells=2, mib=256)
    return client.boot(flavor, zone=stack.REAL)


@pytest.mark.scenario(6, 'stop, start, hard reboot, suspend, resume')
def test_off_and_on(
    client: api.Client, node1: hosts.ComputeHost, server: str
) -> None:
    checks.check_instance(client, node1, server)
    for action, body, status in (
        ('os-stop', None, 'SHUTOFF'),
        ('os-start', None, 'ACTIVE'),
        ('reboot', {'type': 'HARD'}, 'ACTIVE'),
        ('suspend', None, 'SUSPENDED'),
        ('resume', None, 'ACTIVE'),
    ):
        before = host_state.read(node1)
        allocations = client.allocations(server)
        client.act(server, action, body)
        client.wait(server, status)
        if status == 'ACTIVE':
            checks.check_instance(client, node1, server)
        else:
            # A guest that is off keeps what it needs to come back.
            state = host_state.read(node1)
            assert state.holds == before.holds
            assert server not in state.placed
            assert state.total == before.total == state.free
            assert client.allocations(server) == allocations


@pytest.mark.scenario(6, 'rescue, unrescue, rebuild')
def test_rescue_and_rebuild(
    client: api.Client, node1: hosts.ComputeHost, server: str
) -> None:
    for action, body, status in (
        ('rescue', {}, 'RESCUE'),
        ('unrescue', None, 'ACTIVE'),
        ('rebuild', {'imageRef': client.image(cloud_setup.EMPTY)}, 'ACTIVE'),
    ):
        client.act(server, action, body)
        client.wait(server, status)
        checks.check_instance(client, node1, server)


@pytest.mark.scenario(6, 'shelve, unshelve')
def test_shelve(
    client: api.Client, node1: hosts.ComputeHost, server: str
) -> None:
    client.act(server, 'shelve')
    client.wait(server, 'SHELVED_OFFLOADED')
    checks.check_empty(node1)
    assert client.allocations(server) == {}

    client.act(server, 'unshelve')
    client.wait(server, 'ACTIVE')
    checks.check_instance(client, node1, server)


@pytest.mark.scenario(6, 'resize, revert; resize, confirm')
def test_resize(
    client: api.Client, node1: hosts.ComputeHost, server: str
) -> None:
    small = host_state.read(node1).holds[server, checks.GUEST]
    allocation = client.allocations(server)
    larger = client.pages(cells=2, mib=512)
    client.act(server, 'resize', {'flavorRef': larger})
    client.wait(server, 'VERIFY_RESIZE')
    # What it had is kept for it until it is confirmed.
    checks.check_instance(client, node1, server)
    state = host_state.read(node1)
    assert state.holds.keys() == {(server, checks.GUEST), (server, _RESIZE)}
    assert state.holds[server, _RESIZE] == small
    assert sum(state.total) == 128 + 256
    assert client.allocations(client.last_migration(server)) == allocation

    client.act(server, 'revertResize')
    client.wait(server, 'ACTIVE')
    checks.check_instance(client, node1, server)
    state = host_state.read(node1)
    assert state.holds == {(server, checks.GUEST): small}
    assert client.allocations(server) == allocation

    client.act(server, 'resize', {'flavorRef': larger})
    client.wait(server, 'VERIFY_RESIZE')
    client.act(server, 'confirmResize')
    client.wait(server, 'ACTIVE')
    checks.check_instance(client, node1, server)
    state = host_state.read(node1)
    assert state.holds.keys() == {(server, checks.GUEST)}
    assert sum(state.total) == 256
