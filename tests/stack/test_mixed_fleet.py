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

"""Hosts with the stock driver, and guests without huge pages, among ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.host import scene
from tests.host.rig import virtual
from tests.stack import api
from tests.stack import checks
from tests.stack import configuration
from tests.stack import hosts
from tests.stack import processes
from tests.stack import stack

# On each node of the host with the stock driver.
_PAGES = 300
# With each cell of two, more than half of a node's pages, on both hosts.
_LARGE_MIB = 800
# What Nova says of a claim.
_REFUSED = 'Failed to claim'
_TAKEN = 'Claim successful'
# The hosts with four nodes.
_SCARCE = {'node1', 'node2', 'sim4'}


@pytest.fixture(scope='module')
def stock(cloud: stack.Stack) -> Iterator[hosts.ComputeHost]:
    """A host with pools of its operator, and Nova's own driver."""
    host = cloud.nodes['node2']
    scene.set_pools(host.machine, *[_PAGES] * virtual.NODES)
    host.restart_service(configuration.STOCK_DRIVER)
    yield host
    host.stop_service()
    scene.set_pools(host.machine, *[0] * virtual.NODES)
    host.driver = configuration.OUR_DRIVER
    host.start_service()


@pytest.mark.scenario(9, 'a stock compute gets nothing that it refuses')
@pytest.mark.parametrize(
    'wanted',
    [
        pytest.param({}, id='pages'),
        # Of each node there is one CPU to give away.
        pytest.param({'hw__cpu_policy': 'dedicated'}, id='CPUs'),
    ],
)
def test_mixed_fleet(
    client: api.Client,
    node1: hosts.ComputeHost,
    stock: hosts.ComputeHost,
    wanted: dict[str, Any],
) -> None:
    """Each of two hosts has room for two; one more is asked for."""
    before = len(stock.log)
    flavor = client.flavor(
        vcpus=2,
        mib=_LARGE_MIB,
        hw__numa_nodes='2',
        hw__mem_page_size='2048',
        **wanted,
    )

    # One after the other, so that the scheduler knows what is left.
    servers = [client.boot(flavor, zone=stack.REAL) for _ in range(4)]
    [refused] = client.create(flavor, zone=stack.REAL)
    client.wait(refused, 'ERROR')

    where = [client.host(server) for server in servers]
    assert sorted(where) == ['node1', 'node1', 'node2', 'node2']
    for server, name in zip(servers, where, strict=True):
        checks.check_instance(
            client, {'node1': node1}.get(name, stock), server
        )
    assert client.allocations(refused) == {}
    logged = stock.log[before:]
    assert logged.count(_TAKEN) == 2
    assert _REFUSED not in logged


@pytest.mark.scenario(11, 'plain guests are kept out of page pools')
def test_kept_out_of_pools(
    client: api.Client, stock: hosts.ComputeHost
) -> None:
    """Placement has the memory for it, and no node has."""
    log = processes.log('nova-scheduler')
    before = log.stat().st_size

    [server] = client.create(client.flavor(mib=4608), host=stock.name)

    refused = client.wait(server, 'ERROR')
    assert 'No valid host was found' in refused['fault']['message']
    with log.open() as file:
        file.seek(before)
        assert 'left outside of the huge page pools' in file.read()


@pytest.mark.scenario(11, 'plain guests are steered off scarce hosts')
def test_steered_off(client: api.Client, stock: hosts.ComputeHost) -> None:
    """Hosts with four free nodes are few, and wanted by others."""
    wanted = client.pages(cells=4, mib=1024)
    asked = client.boot(wanted, zone=stack.REAL)
    plain = [client.boot(client.flavor(mib=128)) for _ in range(4)]

    # Those that can have another such guest are left alone. Stock Nova takes
    # the host with most memory, which is one of them.
    full = client.host(asked)
    assert full in ('node1', 'node2')
    wanted_still = _SCARCE - {full}
    assert not wanted_still & {client.host(server) for server in plain}
    assert all(
        client.allocations(server).keys() == {client.host(server)}
        for server in plain
    )
