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

"""Resources that a host reports to the scheduler: page totals and stats."""

from __future__ import annotations

import collections
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence

from nova.objects import numa

from nova_numa_hugepages.core.host_stats import HostStats
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import fragmentation
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import nodes
from nova_numa_hugepages.hugepages.snapshot import HostSnapshot


def snapshot_without_pools(fs: hostfs.HostFS) -> HostSnapshot:
    """Return the snapshot of a host whose kernel has no huge pages.

    :raises exception.KernelError: if the kernel's files can't be read
    """
    return HostSnapshot(
        nodes.read_nodes(fs), nodes.memory(fs), {}, {}, can_grow=False
    )


def describe_partial_nodes(topology: numa.NUMATopology) -> None:
    """Describe nodes without CPUs or memory in a way that Nova can use.

    - A node without CPUs (CXL memory, the memory of a GPU) is on no socket of
      the others. If any node has no socket, Nova refuses all devices with the
      policy ``socket``.
    - Which page sizes there are Nova looks up in the first host cell, whether
      that has memory or not. So each has those of all.

    :param topology: changed
    """
    sizes = {fragmentation.BASE_KIB}
    for cell in topology.cells:
        sizes |= {pages.size_kb for pages in cell.mempages}
    for cell in topology.cells:
        if cell.socket is None and not (cell.cpuset or cell.pcpuset):
            cell.socket = -1 - cell.id
        missing = sizes - {pages.size_kb for pages in cell.mempages}
        cell.mempages = [
            *cell.mempages,
            *(
                numa.NUMAPagesTopology(
                    size_kb=size_kib, total=0, used=0, reserved=0
                )
                for size_kib in sorted(missing)
            ),
        ]


def set_page_totals(
    topology: numa.NUMATopology,
    snapshot: HostSnapshot,
    *,
    huge_pages: bool = True,
    accounted: Collection[str] | None = None,
) -> None:
    """Set the page totals of a host's topology to those of a snapshot.

    Host cells that the snapshot doesn't have are left as they are.

    :param topology: changed
    :param huge_pages: whether guests can have huge pages at all
    :param accounted: the instances whose pages Nova takes off by itself; all
        holders if None
    """
    for cell in topology.cells:
        totals = page_totals(
            snapshot, cell.id, huge_pages=huge_pages, accounted=accounted
        )
        for mempages in cell.mempages if totals else ():
            mempages.total = totals.get(mempages.size_kb, 0)


def page_totals(
    snapshot: HostSnapshot,
    node: int,
    *,
    huge_pages: bool = True,
    accounted: Collection[str] | None = None,
) -> dict[int, int]:
    """Return the pages of each size that guests can have on a NUMA node.

    Of huge pages those that exist, and those that can be allocated now. Both
    take memory from each other and from small pages, so the totals overlap;
    none is larger than the node, but for pages of elastic guests that may be
    lent. Of small pages those outside of pools.

    :param huge_pages: whether guests can have huge pages at all
    :param accounted: as for `set_page_totals`
    :returns: page size in KiB to pages; empty if the node isn't known
    """
    memory = snapshot.memory.get(node)
    if memory is None:
        return {}
    totals = {
        key.size_kib: max(
            0,
            min(pool.offered, memory.total_kib // key.size_kib)
            + pool.usage.lendable
            - pool.held_beside(accounted),
        )
        for key, pool in snapshot.pools.items()
        if huge_pages and key.node == node
    }
    small_kib = max(0, memory.total_kib - snapshot.pooled_kib(node))
    totals[fragmentation.BASE_KIB] = small_kib // fragmentation.BASE_KIB
    return totals


def lendable_mib(snapshot: HostSnapshot) -> int:
    """Return how much memory of elastic guests may be lent, in MiB."""
    return (
        model.total_kib(
            (key, pool.usage.lendable) for key, pool in snapshot.pools.items()
        )
        // 1024
    )


def build_stats(
    snapshot: HostSnapshot,
    cell_ids: Sequence[int],
    *,
    huge_pages: bool = True,
) -> HostStats:
    """Return the stats of a host, short enough to be stored.

    :param cell_ids: the ids of all host cells in Nova's order
    :param huge_pages: whether guests can have huge pages at all
    """
    free: dict[int, dict[int, int]] = {}
    allocatable: dict[int, dict[int, int]] = {}
    unusable: dict[int, dict[int, int]] = {}
    lendable: dict[int, dict[int, int]] = {}
    for (node, size_kib), pool in sorted(snapshot.pools.items()):
        if huge_pages and node in cell_ids:
            available = max(0, pool.usage.available)
            free.setdefault(node, {})[size_kib] = available
            allocatable.setdefault(node, {})[size_kib] = pool.allocatable
            unusable.setdefault(node, {})[size_kib] = pool.unusable_permille
            if pool.usage.lendable:
                lent = lendable.setdefault(node, {})
                lent[size_kib] = pool.usage.lendable
    far = distances(snapshot.nodes, cell_ids)
    waiting: dict[str, int] = collections.Counter()
    for wait in snapshot.waits:
        waiting[wait.holder] += wait.kib // 1024
    return HostStats(
        far, free, allocatable, unusable, lendable, dict(waiting)
    ).bounded()


def distances(
    by_id: Mapping[int, nodes.Node], cell_ids: Sequence[int]
) -> dict[int, tuple[int, ...]]:
    """Return the distances between host cells, in the order of the cells.

    :returns: empty if those of a cell aren't known
    """
    rows = {}
    for cell_id in cell_ids:
        node = by_id.get(cell_id)
        if node is None or not set(cell_ids) <= node.distances.keys():
            return {}
        rows[cell_id] = tuple(node.distances[other] for other in cell_ids)
    return rows
