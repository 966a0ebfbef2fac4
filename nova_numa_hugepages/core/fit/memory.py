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

"""Guest memory onto the pages of one host cell.

Nova's rules, and two that it does not have. Guests on small pages are
admitted only against memory that is in no page pool, since pages of a pool
can't serve them. And where the reported totals of several page sizes overlap,
because the pools of a host can grow, the guests of all sizes together never
exceed the memory of the cell.
"""

from __future__ import annotations

from collections.abc import Mapping

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core import units
from nova_numa_hugepages.core.rejection import Miss
from nova_numa_hugepages.core.rejection import Reason

# Less than anything that counts.
_ROUNDING_KIB = 1e-6


def pool_for(
    guest: model.GuestCell, cell: model.HostCell, common: int | None
) -> model.PagePool | Miss | None:
    """Find the pages that a guest cell takes on a host cell.

    :param common: the size in KiB that stands for ``large`` and ``any``,
        which is the same for all cells of a guest
    :returns: a pool of the host cell, or a `Miss`; without a wish the pool
        of the smallest size, or None if the host cell names none
    """
    pools = cell.pools
    size = guest.page_size
    if size is None:
        return pools[0] if pools else None
    if size < 0:
        if size == model.PageRequest.SMALL:
            if pools:
                return pools[0]
            return Miss(Reason.PAGE_SIZE)
        if (
            size == model.PageRequest.LARGE
            and pools
            and common == pools[0].size_kib
        ):
            return Miss(Reason.PAGE_SIZE, page_size_kib=common)
        size = common
    for pool in pools:
        if pool.size_kib == size:
            return pool
    return Miss(Reason.PAGE_SIZE, page_size_kib=size)


def on_small_pages(
    guest: model.GuestCell, cell: model.HostCell, common: int | None
) -> bool:
    """Check whether a guest cell takes a host cell's smallest pages.

    :param common: as for `pool_for`, which found pages
    """
    size = guest.page_size
    if size is None or size == model.PageRequest.SMALL or not cell.pools:
        return True
    return cell.pools[0].size_kib == (size if size > 0 else common)


def memory_miss(
    guest: model.GuestCell,
    cell: model.HostCell,
    common: int | None,
    *,
    limits: model.Limits | None,
    account_small_pages: bool,
    allocatable: Mapping[int, int] = model.NO_PAGES,
) -> Miss | None:
    """Check the memory of a guest cell on a host cell.

    :param common: as for `pool_for`
    :param limits: the overcommit ratios, None for no check against them
    :param account_small_pages: whether small pages are accounted
    :param allocatable: page size in KiB to pages of the total that don't
        exist yet
    :returns: None if the memory fits
    """
    own = guest.cpu_policy is not model.CPUPolicy.SHARED
    pool = pool_for(guest, cell, common)
    if pool is None:
        best = cell.free_memory_mib if own else cell.memory_mib
        if best < guest.memory_mib:
            return Miss(Reason.MEMORY, guest.memory_mib, best)
        return None
    if isinstance(pool, Miss):
        return pool
    size_kib, total, used, reserved = pool
    if size_kib <= 0:
        # No such pages exist; a host that reports them is in error.
        return Miss(Reason.PAGE_SIZE, page_size_kib=size_kib)
    # Without a wish for pages a guest may share its memory with others, but
    # never overcommits against itself.
    if guest.page_size is None and not own:
        room = total
    else:
        room = total - used - reserved
    pages, rest = divmod(guest.memory_mib * units.KIB_PER_MIB, size_kib)
    if rest:
        return Miss(
            Reason.WHOLE_PAGES,
            guest.memory_mib,
            page_size_kib=size_kib,
        )
    if pages > room:
        return Miss(Reason.PAGES, pages, max(0, room), size_kib)
    pools = cell.pools
    small = pool is pools[0]
    if small and account_small_pages:
        miss = _small_page_miss(guest, cell, limits, own, allocatable)
        if miss:
            return miss
    reported = 0
    for pool in pools:
        reported += pool[0] * pool[1]
    # Nova cuts the memory of a cell to whole MiB.
    if reported // units.KIB_PER_MIB <= cell.memory_mib:
        return None
    return _overlap_miss(guest, cell, limits, own, small, allocatable)


def small_capacity_kib(
    cell: model.HostCell, allocatable: Mapping[int, int] = model.NO_PAGES
) -> int:
    """Return how much memory of a host cell is in no page pool, in KiB.

    :param allocatable: page size in KiB to pages of the total that don't
        exist yet, and so take no memory yet
    """
    memory = cell.memory_mib * units.KIB_PER_MIB
    if not cell.pools:
        return memory
    smallest = cell.pools[0]
    taken = pooled = 0
    for pool in cell.pools[1:]:
        busy = pool.used + pool.reserved
        exist = max(pool.total - allocatable.get(pool.size_kib, 0), busy)
        taken += busy * pool.size_kib
        pooled += exist * pool.size_kib
    if pooled // units.KIB_PER_MIB > cell.memory_mib:
        # The totals overlap, so not all of these pages exist. Those that are
        # in use do.
        pooled = taken
    usable = (smallest.total - smallest.reserved) * smallest.size_kib
    return max(0, min(usable, memory - pooled))


def small_used_kib(cell: model.HostCell) -> int:
    """Return the memory of the guests on small pages here, in KiB."""
    if not cell.pools:
        return cell.memory_used_mib * units.KIB_PER_MIB
    smallest = cell.pools[0]
    return smallest.used * smallest.size_kib


def _small_page_miss(
    guest: model.GuestCell,
    cell: model.HostCell,
    limits: model.Limits | None,
    own: bool,
    allocatable: Mapping[int, int],
) -> Miss | None:
    if own:
        ratio = 1.0
    elif limits is None:
        return None
    else:
        ratio = limits.ram_ratio
    room = small_capacity_kib(cell, allocatable) * ratio - small_used_kib(cell)
    if guest.memory_mib * units.KIB_PER_MIB <= room:
        return None
    return Miss(
        Reason.SMALL_PAGES,
        guest.memory_mib,
        max(0, int(room) // units.KIB_PER_MIB),
    )


def overlap_room_kib(
    cell: model.HostCell,
    limits: model.Limits | None,
    allocatable: Mapping[int, int] = model.NO_PAGES,
    *,
    overcommits: bool = False,
) -> int:
    """Return the memory left for pages of all sizes together, in KiB.

    For host cells whose reported totals overlap.

    :param limits: the overcommit ratios, None if they aren't known
    :param allocatable: page size in KiB to pages of the total that don't
        exist yet
    :param overcommits: whether it is for a guest whose memory may be
        overcommitted
    """
    ratio = 1.0
    used = small_used_kib(cell)
    if limits is not None:
        ratio = max(1.0, limits.ram_ratio)
    else:
        # How far small pages are overcommitted isn't known. What they take
        # in fact is at most what there is of them.
        used = min(used, small_capacity_kib(cell, allocatable))
    taken = cell.pools[0].reserved * cell.pools[0].size_kib
    taken += sum((p.used + p.reserved) * p.size_kib for p in cell.pools[1:])
    # In overcommitted memory, of which pages of a pool take `ratio` times
    # their size, since they are never overcommitted.
    weight = 1.0 if overcommits else ratio
    room = (cell.memory_mib * units.KIB_PER_MIB - taken) * ratio - used
    # A ratio such as 1.1 isn't exact, and must not take a KiB off.
    return max(0, int(room / weight + _ROUNDING_KIB))


def _overlap_miss(
    guest: model.GuestCell,
    cell: model.HostCell,
    limits: model.Limits | None,
    own: bool,
    small: bool,
    allocatable: Mapping[int, int],
) -> Miss | None:
    """Check the sum over page sizes whose reported totals overlap."""
    overcommits = small and not own
    if overcommits and limits is None:
        return None
    room = overlap_room_kib(cell, limits, allocatable, overcommits=overcommits)
    if guest.memory_mib * units.KIB_PER_MIB <= room:
        return None
    return Miss(
        Reason.CELL_MEMORY,
        guest.memory_mib,
        room // units.KIB_PER_MIB,
    )
