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

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import resource
from typing import Any

from nova.objects import instance_numa
from nova.objects import numa

from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.hugepages import snapshot
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import nodes
from nova_numa_hugepages.hugepages.model import PageNeed

# The size of small pages.
BASE_KIB = resource.getpagesize() // 1024


def without_pools(fs: hostfs.HostFS) -> snapshot.HostSnapshot:
    """Look at a host that has no huge pages.

    :raises exception.KernelError: if the kernel's files can't be read
    """
    return snapshot.HostSnapshot(
        nodes.read_nodes(fs), nodes.memory(fs), {}, {}
    )


def totals(view: snapshot.HostSnapshot, node: int) -> dict[int, int]:
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
    view: snapshot.HostSnapshot, cell_ids: Sequence[int]
) -> host_stats.HostStats:
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
            ('free', max(0, pool.usage.available)),
            ('allocatable', pool.allocatable),
            ('unusable_permille', pool.unusable_permille),
        ):
            known[name].setdefault(key.node, {})[key.size_kib] = value
    return host_stats.HostStats(
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


def needs(
    topology: instance_numa.InstanceNUMATopology | None,
    base_kib: int,
    host_cells: Mapping[int, int] | None = None,
) -> list[PageNeed]:
    """Tell which huge pages a guest needs that was fitted on a host.

    :param topology: the guest's, as the fit wrote it; None for a guest that
        has none
    :param base_kib: the size of small pages
    :param host_cells: number of a guest cell to its host cell, if that is not
        the one that the topology names
    :returns: one need for each guest cell on huge pages
    """
    found = []
    for index, cell in enumerate(topology.cells if topology else ()):
        size_kib = (cell.pagesize if 'pagesize' in cell else None) or 0
        if size_kib > base_kib:
            node = cell.id if host_cells is None else host_cells[index]
            count = -(-cell.memory * 1024 // size_kib)
            found.append(PageNeed(index, node, size_kib, count))
    return found


def planned_cells(migrate_data: Any) -> dict[int, int]:
    """Tell where a guest's cells go in a live migration.

    :param migrate_data: a ``nova.objects.LibvirtLiveMigrateData``
    :returns: number of each guest cell to its host cell at the destination;
        empty if the guest has no cells, or a service is too old to tell
    """
    if not ('dst_numa_info' in migrate_data and migrate_data.dst_numa_info):
        return {}
    known = migrate_data.dst_numa_info
    pins = known.cell_pins if 'cell_pins' in known else {}
    return {int(cell): min(nodes) for cell, nodes in pins.items()}


def set_totals(
    topology: numa.NUMATopology,
    totals: Callable[[int], Mapping[int, int]],
) -> None:
    """Write how many pages a host has into its topology.

    :param totals: tells page size in KiB to pages, given the id of a host
        cell; nothing if it isn't known
    """
    for cell in topology.cells:
        known = totals(cell.id)
        for mempages in cell.mempages if known else ():
            mempages.total = known.get(mempages.size_kb, 0)
