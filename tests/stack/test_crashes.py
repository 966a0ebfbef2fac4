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

"""A compute service, or its host, that ends in the middle of things."""

from __future__ import annotations

import signal

import pytest

from tests.stack import api
from tests.stack import checks
from tests.stack import host_state
from tests.stack import hosts


@pytest.mark.smoke
@pytest.mark.scenario(8, 'killed in the middle of a spawn: reconciled')
def test_killed_in_a_spawn(
    client: api.Client, node1: hosts.ComputeHost
) -> None:
    # Given a guest that runs, and one whose pages are held but which does
    # not run yet when the service is killed,
    runs = client.boot(client.pages(mib=128), host=node1.name)
    [spawning] = client.create(client.pages(cells=2, mib=512), host=node1.name)
    key = spawning, checks.GUEST
    held = api.wait_until(
        lambda: host_state.read(node1).holds.get(key),
        lambda: client.server(spawning),
        interval_s=0.2,
    )
    node1.stop_service(signal.SIGKILL)
    assert sum(held.values()) == 256
    assert client.server(spawning)['status'] == 'BUILD'

    # when it is started again,
    node1.start_service()
    node1.wait_for_service()

    # then the guest that runs has its pages, and the other one is in error
    # and has what was held for it until it is deleted, whether it runs or
    # not.
    client.wait(spawning, 'ERROR', 'ACTIVE')
    checks.check_instance(client, node1, runs)
    state = host_state.read(node1)
    assert state.holds[key] == held
    assert state.placed.get(spawning, held) == held
    assert state.total == state.held
    assert client.allocations(spawning).keys() == {node1.name}
    client.delete([spawning])
    state = host_state.read(node1)
    assert state.holds.keys() == {(runs, checks.GUEST)}
    assert sum(state.total) == 64
    assert client.allocations(spawning) == {}


@pytest.mark.scenario(6, 'evacuation from a host that was killed, and back')
def test_evacuation(
    client: api.Client,
    node1: hosts.ComputeHost,
    node2: hosts.ComputeHost,
) -> None:
    server = client.boot(client.pages(cells=2, mib=256), host=node2.name)
    checks.check_instance(client, node2, server)
    for gone, there in ((node2, node1), (node1, node2)):
        gone.power_off()
        client.force_down(gone.name, True)

        client.act(server, 'evacuate', {'host': there.name})
        # Nova leaves it off there.
        client.wait_for_host(server, there.name, 'SHUTOFF')
        holds = host_state.read(there).holds
        client.act(server, 'os-start')
        client.wait(server, 'ACTIVE')
        checks.check_instance(client, there, server, left=gone.name)
        assert host_state.read(there).holds == holds

        # What came back holds nothing for it.
        gone.boot()
        gone.start_service()
        gone.wait_for_service()
        # Not before it has put its evacuations in order.
        client.force_down(gone.name, False)
        checks.check_empty(gone)
        checks.check_instance(client, there, server)
