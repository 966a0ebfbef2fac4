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

"""The measuring of the room that host cells have (``cell_room.py``)."""

from __future__ import annotations

from collections.abc import Mapping

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core import units
from nova_numa_hugepages.core.capacity import cell_room
from nova_numa_hugepages.core.fit import memory
from nova_numa_hugepages.core.fit import pinning


class CellMeasurer:
    """Measures the room of host cells.

    :param needs: what will be asked of the rooms; what none of them needs is
        not measured
    :param account_small_pages: as `model.Strategy.account_small_pages`
    :ivar cores_matter: whether it matters which CPUs are free, not only how
        many
    :ivar short: whether only numbers of CPUs and huge pages matter
    """

    def __init__(
        self,
        needs: tuple[cell_room.CellNeed, ...],
        *,
        account_small_pages: bool,
    ) -> None:
        policies = {n.thread_policy for n in needs if n.cpus}
        self._cores = model.ThreadPolicy.ISOLATE in policies
        self._siblings = model.ThreadPolicy.REQUIRE in policies
        self._shared = any(
            n.cpu_policy is not model.CPUPolicy.DEDICATED for n in needs
        )
        sizes = {n.page_size for n in needs}
        self._small = any(
            size is None or size <= cell_room.LARGEST_BASE_KIB
            for size in sizes
        )
        self._account_small_pages = account_small_pages
        self.cores_matter = self._cores or self._siblings
        self.short = not (self.cores_matter or self._shared or self._small)

    def measure(
        self,
        cell: model.HostCell,
        *,
        limits: model.Limits,
        floats: bool,
        allocatable: Mapping[int, int] = model.NO_PAGES,
    ) -> cell_room.CellRoom:
        """Measure a host cell.

        :param floats: whether vCPUs may float on threads beside those of
            guests that isolate theirs, which keeps these away
        :param allocatable: page size in KiB to pages that don't exist yet
        """
        overlaps, pages, small = self._pages(cell, limits, allocatable)
        shared = cell_room.NO_SHARED
        if self._shared:
            count = len(cell.shared_cpus)
            ram = cell.memory_mib * limits.ram_ratio - cell.memory_used_mib
            shared = cell_room.Shared(
                count,
                int(count * limits.cpu_ratio) - cell.shared_used,
                max(0, int(ram)) * units.KIB_PER_MIB,
                *small,
            )
        return cell_room.CellRoom(
            len(cell.dedicated_cpus - cell.pinned_cpus),
            pages,
            overlaps,
            pinning.isolated_room(cell) if self._cores else (0, 0),
            self._cores and floats and pinning.shares_cores(cell),
            pinning.free_siblings(cell) if self._siblings else (),
            shared,
        )

    def _pages(
        self,
        cell: model.HostCell,
        limits: model.Limits,
        allocatable: Mapping[int, int],
    ) -> tuple[bool, tuple[tuple[int, int], ...], tuple[int, int, int]]:
        """Measure `CellRoom.overlaps` and `pages`, and the end of `Shared`."""
        reported = 0
        pages = []
        for size, total, used, reserved in cell.pools:
            free = int(total - used - reserved)
            # No pages of no size exist; a host that reports them is in error.
            pages.append((size, free) if size > 0 < free else (size, 0))
            reported += size * total
        if not pages:
            memory_kib = cell.memory_mib * units.KIB_PER_MIB
            free = max(0, cell.free_memory_mib) * units.KIB_PER_MIB
            return False, ((0, free),), (memory_kib, 0, cell_room.NO_LIMIT)
        overlaps = reported // units.KIB_PER_MIB > cell.memory_mib
        size, free = pages[0]
        # Where a host cell has huge pages only, its smallest are those.
        if not (overlaps or self._small or size > cell_room.LARGEST_BASE_KIB):
            return False, tuple(pages), (0, 0, 0)
        own = small = free * size
        overcommitted = cell_room.NO_LIMIT
        if self._account_small_pages:
            used = memory.small_used_kib(cell)
            capacity = memory.small_capacity_kib(cell, allocatable)
            own = min(own, int(capacity - used))
            overcommitted = int(capacity * limits.ram_ratio - used)
        if overlaps:
            exist = memory.existing_pages(cell, allocatable)
            room = memory.overlap_room_kib(cell, limits, exist)
            for index, (kib, free) in enumerate(pages[1:], 1):
                most = room + memory.idle_kib(cell, kib, exist)
                pages[index] = kib, min(free, most // kib)
            if not self._account_small_pages:
                exist = memory.busy_pages(cell)
                room = memory.overlap_room_kib(cell, limits, exist)
            own = min(own, room)
            overcommitted = min(
                overcommitted,
                memory.overlap_room_kib(cell, limits, exist, overcommits=True),
            )
        pages[0] = (size, max(0, own) // size if size > 0 else 0)
        return (
            overlaps,
            tuple(pages),
            (
                cell.pools[0].total * size,
                max(0, min(small, overcommitted)),
                max(0, overcommitted),
            ),
        )
