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

"""What the scheduler is told of a host, out of what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import resource

from nova_numa_hugepages.core import facts
from nova_numa_hugepages.virt import hostfs
from nova_numa_hugepages.virt import nodes
from nova_numa_hugepages.virt import survey

# The size of small pages.
BASE_KIB = resource.getpagesize() // 1024


def without_pools(fs: hostfs.HostFS) -> survey.HostView:
    """Look at a host that has no huge pages.

    :raises exception.KernelError: if the kernel's files can't be read
    """
    return survey.HostView(nodes.read_nodes(fs), nodes.memory(fs), {}, {})


def totals(view: survey.HostView, node: int) -> dict[int, int]:
    """Tell how many pages of each size guests can have on a node altogether.

    Of huge pages those that are there, and those that can be made now. Both
    take memory from each other and from small pages, so the totals overlap;
    none is larger than the node. Of small pages what is in no pool.

    :returns: page size in KiB to pages; empty if the node isn't known
    """
    memory = view.memory.get(node)
    if memory is None:
        return {}
    found = {
        key.size_kib: min(pool.offered, memory.total_kib // key.size_kib)
        for key, pool in view.pools.items()
        if key.node == node
    }
    found[BASE_KIB] = (
        max(0, memory.total_kib - view.pooled_kib(node)) // BASE_KIB
    )
    return found


def host_facts(
    view: survey.HostView, cell_ids: Sequence[int]
) -> facts.HostFacts:
    """Tell the facts of a host, as they go into its stats.

    :param cell_ids: the ids of all host cells in Nova's order
    :returns: facts whose value isn't too long
    """
    known: dict[str, dict[int, dict[int, int]]] = {
        'free': {},
        'allocatable': {},
        'unusable_permille': {},
    }
    for key, pool in sorted(view.pools.items()):
        if key.node not in cell_ids:
            continue
        for name, value in (
            ('free', max(0, pool.standing.available)),
            ('allocatable', pool.allocatable),
            ('unusable_permille', pool.unusable_permille),
        ):
            known[name].setdefault(key.node, {})[key.size_kib] = value
    return facts.HostFacts(
        distances=distances(view.nodes, cell_ids),
        free=known['free'],
        allocatable=known['allocatable'],
        unusable_permille=known['unusable_permille'],
    ).bounded()


def distances(
    known: Mapping[int, nodes.Node], cell_ids: Sequence[int]
) -> dict[int, tuple[int, ...]]:
    """Order the distances between nodes like a host's cells.

    :returns: none if those of a cell aren't known
    """
    rows = {}
    for cell_id in cell_ids:
        node = known.get(cell_id)
        if node is None or not set(cell_ids) <= node.distances.keys():
            return {}
        rows[cell_id] = tuple(node.distances[other] for other in cell_ids)
    return rows
