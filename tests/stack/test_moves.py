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

"""A server that is off moves to the other host, and its disk with it."""

from __future__ import annotations

from collections.abc import Iterator
import signal

import pytest

from tests.stack import api
from tests.stack import checks
from tests.stack import host_state
from tests.stack import hosts
from tests.stack import stack
from tests.stack.test_placement import WHOLE_MIB

pytestmark = pytest.mark.scenario(7, '')

_RESIZE = 'resize'


@pytest.fixture
def server(client: api.Client, node1: hosts.ComputeHost) -> str:
    """A server with two cells on the first host, for the real ones only."""
    return client.boot(
        client.pages(cells=2, mib=256), host=node1.name, zone=stack.REAL
    )


@pytest.fixture
def elsewhere(client: api.Client, node1: hosts.ComputeHost) -> Iterator[None]:
    """What is resized goes to the other host."""
    client.enable(node1.name, False)
    yield
    client.enable(node1.name, True)


def check_kept(
    host: hosts.ComputeHost, server: str, pages: dict[int, int]
) -> None:
    """Check that a host keeps what a server had there, and nothing else."""
    state = host_state.read(host)
    assert state.holds == {(server, _RESIZE): pages}
    assert state.placed == {}
    assert state.total == state.free == state.held


@pytest.mark.scenario(7, 'cold migration, revert; cold migration, confirm')
def test_cold_migration(
    client: api.Client,
    node1: hosts.ComputeHost,
    node2: hosts.ComputeHost,
    server: str,
) -> None:
    _move_twice(
        client, (node1, node2), server, 'migrate', {'host': node2.name}, 128
    )


@pytest.mark.scenario(7, 'resize across hosts, revert; resize, confirm')
def test_resize_across_hosts(
    client: api.Client,
    node1: hosts.ComputeHost,
    node2: hosts.ComputeHost,
    server: str,
    elsewhere: None,
) -> None:
    larger = {'flavorRef': client.pages(cells=2, mib=512)}
    _move_twice(client, (node1, node2), server, 'resize', larger, 256)


def _move_twice(
    client: api.Client,
    nodes: tuple[hosts.ComputeHost, hosts.ComputeHost],
    server: str,
    action: str,
    body: dict[str, str],
    pages: int,
) -> None:
    """Move a server to the other host and back, and there for good.

    :param pages: how many it has there
    """
    here, there = nodes
    before = host_state.read(here).holds[server, checks.GUEST]

    client.act(server, action, body)
    client.wait(server, 'VERIFY_RESIZE')
    checks.check_instance(client, there, server)
    assert sum(host_state.read(there).total) == pages
    check_kept(here, server, before)

    client.act(server, 'revertResize')
    client.wait(server, 'ACTIVE')
    checks.check_instance(client, here, server)
    assert host_state.read(here).holds == {(server, checks.GUEST): before}
    checks.check_empty(there)

    client.act(server, action, body)
    client.wait(server, 'VERIFY_RESIZE')
    client.act(server, 'confirmResize')
    client.wait(server, 'ACTIVE')
    checks.check_instance(client, there, server)
    checks.check_empty(here)


@pytest.mark.scenario(7, 'resize across hosts, deleted before it is confirmed')
def test_deleted_before_it_is_confirmed(
    client: api.Client,
    node1: hosts.ComputeHost,
    node2: hosts.ComputeHost,
    server: str,
    elsewhere: None,
) -> None:
    client.act(server, 'resize', {'flavorRef': client.pages(mib=512)})
    client.wait(server, 'VERIFY_RESIZE')
    client.delete([server])
    checks.check_empty(node1)
    checks.check_empty(node2)


@pytest.mark.scenario(7, 'shelved while others take its pages')
def test_shelved_while_others_take_its_pages(
    client: api.Client,
    node1: hosts.ComputeHost,
    node2: hosts.ComputeHost,
    server: str,
) -> None:
    client.enable(node2.name, False)
    try:
        client.act(server, 'shelve')
        client.wait(server, 'SHELVED_OFFLOADED')
        checks.check_empty(node1)
        # So much that it doesn't fit beside them. Not all: of a host that has
        # run for long some memory is in pieces.
        flavor = client.pages(cells=4, mib=4 * (WHOLE_MIB - 64))
        checks.wait_for_room(client, flavor, node1)
        other = client.boot(flavor, host=node1.name)

        # There is no room for it, and it stays what it is.
        client.act(server, 'unshelve')
        client.wait(server, 'SHELVED_OFFLOADED')
        holds = host_state.read(node1).holds
        assert holds.keys() == {(other, checks.GUEST)}
    finally:
        client.enable(node2.name, True)

    client.act(server, 'unshelve')
    client.wait(server, 'ACTIVE')
    checks.check_instance(client, node2, server)
    checks.check_instance(client, node1, other)


@pytest.mark.scenario(8, 'killed while it finishes a resize')
def test_killed_while_it_finishes_a_resize(
    client: api.Client,
    node1: hosts.ComputeHost,
    node2: hosts.ComputeHost,
    server: str,
    elsewhere: None,
) -> None:
    pages = host_state.read(node1).holds[server, checks.GUEST]
    larger = client.pages(cells=2, mib=512)
    client.act(server, 'resize', {'flavorRef': larger})
    # When the service is killed that has just held its pages,
    held = api.wait_until(
        lambda: host_state.read(node2).holds.get((server, checks.GUEST)),
        lambda: client.server(server),
        interval_s=0.2,
    )
    node2.stop_service(signal.SIGKILL)
    node2.start_service()
    node2.wait_for_service()

    # then what it needs stays held on both, until it is deleted.
    assert host_state.read(node2).holds[server, checks.GUEST] == held
    check_kept(node1, server, pages)
    client.delete([server])
    checks.wait_until_empty(node1)
    checks.wait_until_empty(node2)
