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
from collections.abc import Sequence

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
    for other in pools:
        reported += other[0] * other[1]
    # Nova cuts the memory of a cell to whole MiB.
    if reported // units.KIB_PER_MIB <= cell.memory_mib:
        return None
    if small and not account_small_pages:
        exist = busy_pages(cell)
    else:
        exist = existing_pages(cell, allocatable)
    return _overlap_miss(guest, cell, limits, own, pool, exist)


def small_capacity_kib(
    cell: model.HostCell, allocatable: Mapping[int, int] = model.NO_PAGES
) -> int:
    """Return how much memory of a host cell is in no page pool, in KiB.

    What the operator reserves of it is taken off.

    :param allocatable: page size in KiB to pages of the total that don't
        exist yet, and so take no memory yet
    """
    if not cell.pools:
        return cell.memory_mib * units.KIB_PER_MIB
    return _outside_kib(cell, existing_pages(cell, allocatable))


def _outside_kib(cell: model.HostCell, exist: Sequence[int]) -> int:
    """Return the memory that is in no pool and not reserved, in KiB.

    :param exist: pages of each size but the smallest
    """
    smallest, *larger = cell.pools
    outside = cell.memory_mib * units.KIB_PER_MIB
    for pool, pages in zip(larger, exist, strict=True):
        outside -= pages * pool.size_kib
    outside = min(outside, smallest.total * smallest.size_kib)
    return max(0, outside - smallest.reserved * smallest.size_kib)


def existing_pages(
    cell: model.HostCell, allocatable: Mapping[int, int]
) -> list[int]:
    """Count the pages that exist of each size but the smallest.

    :param allocatable: as for `small_capacity_kib`
    """
    exist = []
    pooled = 0
    for size_kib, total, used, reserved in cell.pools[1:]:
        pages = max(total - allocatable.get(size_kib, 0), used + reserved)
        exist.append(pages)
        pooled += pages * size_kib
    if pooled // units.KIB_PER_MIB > cell.memory_mib:
        # The totals overlap, so not all of these pages exist. Those that are
        # in use do.
        return busy_pages(cell)
    return exist


def idle_kib(
    cell: model.HostCell, size_kib: int | None, exist: Sequence[int]
) -> int:
    """Return the memory in pages of one size that exist and are not in use.

    :param exist: pages of each size but the smallest, see `existing_pages`
    :returns: in KiB; 0 for the smallest pages, which are in no pool
    """
    return sum(
        (pages - pool.used - pool.reserved) * pool.size_kib
        for pool, pages in zip(cell.pools[1:], exist, strict=True)
        if pool.size_kib == size_kib
    )


def busy_pages(cell: model.HostCell) -> list[int]:
    """Count the pages of each size but the smallest that are not idle."""
    return [pool.used + pool.reserved for pool in cell.pools[1:]]


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
    exist: Sequence[int],
    *,
    overcommits: bool = False,
) -> int:
    """Return the memory left for small pages or new ones, in KiB.

    For host cells whose reported totals overlap. The pages that exist are no
    memory for other sizes, idle ones neither.

    :param limits: the overcommit ratios, None if they aren't known
    :param exist: pages of each size but the smallest, see `existing_pages`
    :param overcommits: whether it is for a guest whose memory may be
        overcommitted
    """
    ratio = 1.0
    used = small_used_kib(cell)
    capacity = _outside_kib(cell, exist)
    if limits is not None:
        ratio = max(1.0, limits.ram_ratio)
    else:
        # How far small pages are overcommitted isn't known. What they take
        # in fact is at most what there is of them.
        used = min(used, capacity)
    # In overcommitted memory, of which pages of a pool take `ratio` times
    # their size, since they are never overcommitted.
    weight = 1.0 if overcommits else ratio
    # A ratio such as 1.1 isn't exact, and must not take a KiB off.
    return max(0, int((capacity * ratio - used) / weight + _ROUNDING_KIB))


def _overlap_miss(
    guest: model.GuestCell,
    cell: model.HostCell,
    limits: model.Limits | None,
    own: bool,
    pool: model.PagePool,
    exist: Sequence[int],
) -> Miss | None:
    """Check the sum over page sizes whose reported totals overlap."""
    overcommits = pool is cell.pools[0] and not own
    if overcommits and limits is None:
        return None
    room = overlap_room_kib(cell, limits, exist, overcommits=overcommits)
    room += idle_kib(cell, pool.size_kib, exist)
    if guest.memory_mib * units.KIB_PER_MIB <= room:
        return None
    return Miss(
        Reason.CELL_MEMORY,
        guest.memory_mib,
        room // units.KIB_PER_MIB,
    )
