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

"""Where a guest is: the same by all who tell of it."""

from __future__ import annotations

from tests.stack import client as client_module
from tests.stack import hosts
from tests.stack import look

TAKEN = 'taken'


def check(
    client: client_module.Client,
    host: hosts.ComputeHost,
    server: str,
    *,
    left: str | None = None,
) -> list[int]:
    """Make sure that a guest has its pages where it should.

    The API, Placement, the domain in libvirt, the kernel's maps of its memory
    and our ledger have to agree.

    :param left: the name of a host that can't say yet that the guest has left
        it, and so has it in Placement, too
    :returns: the node of each of its cells
    """
    assert client.host(server) == host.name
    topology = client.topology(server)
    assert topology['pagesize_kb'] == look.PAGE_KIB
    pages = look.expected(topology)
    seen = look.look(host)
    assert seen.placed.get(server) == pages
    assert seen.held.get(server) == pages
    assert seen.states[server] == {TAKEN}
    for node, total in enumerate(seen.total):
        placed = sum(nodes.get(node, 0) for nodes in seen.placed.values())
        assert total >= placed
        assert seen.free[node] == total - placed
    nodes = [cell['host_node'] for cell in topology['nodes']]
    assert look.domain_nodes(host, server) == nodes
    allocation = client.allocations(server)
    assert allocation.keys() - {left} == {host.name}
    mib = sum(cell['memory_mb'] for cell in topology['nodes'])
    assert allocation[host.name]['MEMORY_MB'] == mib
    return nodes
