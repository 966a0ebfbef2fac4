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

"""Guests without huge pages, beside guests and pools that have them."""

from __future__ import annotations

import pytest

from tests.stack import client as client_module
from tests.stack import hosts
from tests.stack import processes
from tests.stack import stack as stack_module

_POOLS = '/sys/devices/system/node/node{}/hugepages/hugepages-2048kB'


@pytest.mark.scenario(11, 'plain guests are steered off scarce hosts')
def test_steered_off(client: client_module.Client) -> None:
    """The hosts with pages and distances are few, and wanted for these."""
    wanted = client.pages(cells=4, mib=1024)
    asked = [client.boot(wanted, zone=stack_module.REAL)]
    plain = [client.boot(client.flavor(mib=128)) for _ in range(4)]

    assert {client.host(server) for server in asked} <= {'node1', 'node2'}
    assert all(client.host(server).startswith('sim') for server in plain)


@pytest.mark.scenario(11, 'plain guests are kept out of pools')
def test_kept_out_of_pools(
    client: client_module.Client, node1: hosts.ComputeHost
) -> None:
    # Given pools that an operator has made of most of the memory,
    plain = client.flavor(mib=2560)
    _set_pools(node1, 500)
    node1.restart_service()
    try:
        # when a guest wants more of small pages than there is,
        [server] = client.create(plain, host=node1.name)

        # then it is refused, as no host has that.
        refused = client.wait(server, 'ERROR')
        assert 'No valid host was found' in refused['fault']['message']
        log = processes.log('nova-scheduler').read_text()
        assert 'small pages' in log
    finally:
        client.delete([server])
        _set_pools(node1, 0)


def _set_pools(host: hosts.ComputeHost, pages: int) -> None:
    for node in range(4):
        host.machine.write(f'{_POOLS.format(node)}/nr_hugepages', f'{pages}')
