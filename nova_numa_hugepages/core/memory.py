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

Nova's rules, and two that it lacks. Guests on small pages are admitted only
against memory that is in no page pool, since pages of a pool can't serve
them. And where the reported totals of several page sizes overlap, because
the pools of a host can grow, the guests of all sizes together never exceed
the memory of the cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core import reasons
from nova_numa_hugepages.core import units

_NOTHING: Mapping[int, int] = {}


class Miss(NamedTuple):
    """The rule that a guest cell fails on a host cell, and by how much."""

    reason: reasons.Reason
    needed: int = 0
    best: int = 0
    page_size_kib: int | None = None


def page_size_on(
    guest: model.GuestCell, cell: model.HostCell, common: int | None
) -> int | Miss | None:
    """Resolve the page size that a guest cell asks for on a host cell.

    :param common: the size in KiB that stands for ``large`` and ``any``,
        which is the same for all cells of a guest
    :returns: a size in KiB that the host cell has, a `Miss`, or None if the
        guest has no wish
    """
    wish = guest.page_size
    if wish is None:
        return None
    if wish > 0:
        size: int | None = wish
    elif not cell.pools:
        size = None
    elif wish == model.PageRequest.SMALL:
        size = cell.pools[0].size_kib
    else:
        size = common
        if (
            wish == model.PageRequest.LARGE
            and size == cell.pools[0].size_kib
        ):
            return Miss(reasons.Reason.PAGE_SIZE, page_size_kib=size)
    for pool in cell.pools:
        if pool.size_kib == size:
            return size
    return Miss(reasons.Reason.PAGE_SIZE, page_size_kib=size)


def memory_miss(
    guest: model.GuestCell,
    cell: model.HostCell,
    size_kib: int | None,
    *,
    limits: model.Limits | None,
    account_small_pages: bool,
    allocatable: Mapping[int, int] = _NOTHING,
) -> Miss | None:
    """Judge the memory of a guest cell on a host cell.

    :param size_kib: the page size from `page_size_on`
    :param limits: the overcommit ratios, None for no check against them
    :param account_small_pages: whether small pages are accounted
    :param allocatable: page size in KiB to pages of the total that don't
        exist yet
    :returns: None if the memory fits
    """
    own = guest.cpu_policy is not model.CPUPolicy.SHARED
    if size_kib is None:
        if not cell.pools:
            best = cell.free_memory_mib if own else cell.memory_mib
            if best < guest.memory_mib:
                return Miss(reasons.Reason.MEMORY, guest.memory_mib, best)
            return None
        pool = cell.pools[0]
        # Without a wish for pages a guest may share its memory with others,
        # but never overcommits against itself.
        room = pool.free if own else pool.total
    else:
        pool = next(p for p in cell.pools if p.size_kib == size_kib)
        room = pool.free
    pages = units.pages_for(guest.memory_mib, pool.size_kib)
    if pages is None:
        return Miss(
            reasons.Reason.WHOLE_PAGES,
            guest.memory_mib,
            page_size_kib=pool.size_kib,
        )
    if pages > room:
        return Miss(reasons.Reason.PAGES, pages, room, pool.size_kib)
    small = pool is cell.pools[0]
    if small and account_small_pages:
        miss = _small_page_miss(guest, cell, limits, own, allocatable)
        if miss:
            return miss
    return _overlap_miss(guest, cell, limits, own, small)


def small_capacity_kib(
    cell: model.HostCell, allocatable: Mapping[int, int] = _NOTHING
) -> int:
    """Tell how much memory of a host cell is in no page pool, in KiB.

    :param allocatable: page size in KiB to pages of the total that don't
        exist yet, and so take no memory yet
    """
    memory = cell.memory_mib * units.KIB_PER_MIB
    if not cell.pools:
        return memory
    smallest = cell.pools[0]
    pooled = sum(
        max(0, pool.total - allocatable.get(pool.size_kib, 0)) * pool.size_kib
        for pool in cell.pools[1:]
    )
    if pooled > memory:
        # More than there is: the totals overlap and say nothing about what
        # is left, `_overlap_miss` judges the sum instead.
        pooled = 0
    usable = (smallest.total - smallest.reserved) * smallest.size_kib
    return max(0, min(usable, memory - pooled))


def small_used_kib(cell: model.HostCell) -> int:
    """Tell how much memory guests on small pages have here, in KiB."""
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
        reasons.Reason.SMALL_PAGES,
        guest.memory_mib,
        max(0, int(room) // units.KIB_PER_MIB),
    )


def _overlap_miss(
    guest: model.GuestCell,
    cell: model.HostCell,
    limits: model.Limits | None,
    own: bool,
    small: bool,
) -> Miss | None:
    memory = cell.memory_mib * units.KIB_PER_MIB
    if sum(p.total * p.size_kib for p in cell.pools) <= memory:
        return None
    ratio = max(1.0, limits.ram_ratio) if limits else 1.0
    huge = sum((p.used + p.reserved) * p.size_kib for p in cell.pools[1:])
    # In overcommitted memory, of which pages of a pool take `ratio` times
    # their size, since they are never overcommitted.
    weight = 1.0 if small and not own else ratio
    room = (memory - huge) * ratio - small_used_kib(cell)
    if guest.memory_mib * units.KIB_PER_MIB * weight <= room:
        return None
    return Miss(
        reasons.Reason.CELL_MEMORY,
        guest.memory_mib,
        max(0, int(room / weight) // units.KIB_PER_MIB),
    )
