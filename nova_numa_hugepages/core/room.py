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

"""What a host cell still offers, and how many guest cells that holds.

A `Room` is a host cell as far as guest cells of some kinds see it: a handful
of integers, so that equal ones are counted once. A `Need` is a guest cell as
a host cell sees it. `copies` tells how many guest cells of one kind a host
cell holds, one after the other, by the rules of the fit (``cellfit.py``,
``memory.py``, ``pinning.py``); it is 0 exactly where the fit finds no room.

More room never holds less: every count is the least of quotients. (More
memory may be less room: where the pages that a host cell reports don't fit in
its memory, ``memory.small_capacity_kib`` takes it that those without a guest
don't exist, until they do fit.)
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

from nova_numa_hugepages.core import memory
from nova_numa_hugepages.core import model
from nova_numa_hugepages.core import pinning
from nova_numa_hugepages.core import units

_NOTHING: Mapping[int, int] = {}

# Linux's own page size is this at most; larger ones are huge pages.
LARGEST_BASE_KIB = 64

# For a need that takes nothing of something.
_NO_LIMIT = 1 << 40


_PlainNeeds = list[tuple[int, int, int]]


class Shared(NamedTuple):
    """What a host cell offers to vCPUs that float. Memory is in KiB.

    :ivar cpus: CPUs that vCPUs float on
    :ivar vcpus: vCPUs that may float beside those that do already, below 0
        if there are too many
    :ivar ram: memory that the RAM allocation ratio leaves
    :ivar total: all memory on the smallest pages, in use or not
    :ivar small: free memory on small pages for guests that ask for them
    :ivar overcommitted: the same for guests that ask for no page size
    """

    cpus: int = 0
    vcpus: int = 0
    ram: int = 0
    total: int = 0
    small: int = 0
    overcommitted: int = 0


_NO_SHARED = Shared()


class Room(NamedTuple):
    """What a host cell offers to guest cells; no count is below 0.

    :ivar cpus: free dedicated CPUs
    :ivar pages: (size in KiB, free pages), smallest first; of the smallest
        size as many as a guest with dedicated CPUs can have. A host cell
        that names no pages has (0, free memory in KiB) there
    :ivar overlaps: whether the pages reported add up to more than there is,
        so that those of one size take from those of others
    :ivar cores: whole free cores for isolated vCPUs, and all of them
    :ivar shares_cores: whether a guest whose CPUs are all dedicated can't
        have cores for itself, because there may be others on their threads
    :ivar siblings: free threads of each core that has two or more, largest
        first
    :ivar shared: for guests whose vCPUs float
    """

    cpus: int
    pages: tuple[tuple[int, int], ...]
    overlaps: bool = False
    cores: tuple[int, int] = (0, 0)
    shares_cores: bool = False
    siblings: tuple[int, ...] = ()
    shared: Shared = _NO_SHARED


class Need(NamedTuple):
    """What a guest cell takes of a host cell.

    :ivar vcpus: dedicated vCPUs
    :ivar cpus: dedicated CPUs, one more than vCPUs for an isolated emulator
    :ivar shared: floating vCPUs
    :ivar memory: its memory in KiB
    :ivar page_size: as `model.GuestCell.page_size`
    :ivar plain: whether it takes free CPUs and pages of a given size only
    """

    vcpus: int
    cpus: int
    shared: int
    memory: int
    page_size: int | None
    cpu_policy: model.CPUPolicy
    thread_policy: model.ThreadPolicy
    plain: bool


def need(guest: model.GuestCell, emulator: int) -> Need:
    """Tell what a guest cell takes.

    :param emulator: dedicated CPUs more for the emulator's threads
    """
    vcpus = len(guest.dedicated_vcpus)
    return Need(
        vcpus=vcpus,
        cpus=vcpus + emulator,
        shared=len(guest.shared_vcpus),
        memory=guest.memory_mib * units.KIB_PER_MIB,
        page_size=guest.page_size,
        cpu_policy=guest.cpu_policy,
        thread_policy=guest.thread_policy,
        plain=(
            guest.cpu_policy is model.CPUPolicy.DEDICATED
            and guest.thread_policy is model.ThreadPolicy.PREFER
            and guest.page_size is not None
            and guest.page_size > 0
            and vcpus > 0
        ),
    )


class Surveyor:
    """Measures the room of host cells.

    :param needs: what will be asked of the rooms; what none of them needs is
        not measured
    :param account_small_pages: as `model.Strategy.account_small_pages`
    """

    def __init__(
        self, needs: tuple[Need, ...], *, account_small_pages: bool
    ) -> None:
        policies = {n.thread_policy for n in needs if n.cpus}
        self._cores = model.ThreadPolicy.ISOLATE in policies
        self._siblings = model.ThreadPolicy.REQUIRE in policies
        self._shared = any(
            n.cpu_policy is not model.CPUPolicy.DEDICATED for n in needs
        )
        sizes = {n.page_size for n in needs}
        self._small = any(
            size is None or size <= LARGEST_BASE_KIB for size in sizes
        )
        self._account_small_pages = account_small_pages

    @property
    def short(self) -> bool:
        """Whether only numbers of CPUs and huge pages matter."""
        return not (
            self._cores or self._siblings or self._shared or self._small
        )

    @property
    def cores_matter(self) -> bool:
        """Whether it matters which CPUs are free, not only how many."""
        return self._cores or self._siblings

    def measure(
        self,
        cell: model.HostCell,
        *,
        limits: model.Limits,
        floats: bool,
        allocatable: Mapping[int, int] = _NOTHING,
    ) -> Room:
        """Measure a host cell.

        :param limits: the overcommit ratios
        :param floats: whether vCPUs may float on threads beside those of
            guests that isolate theirs, which keeps these away
        :param allocatable: page size in KiB to pages that don't exist yet
        """
        overlaps, pages, small = self._pages(cell, limits, allocatable)
        shared = _NO_SHARED
        if self._shared:
            count = len(cell.shared_cpus)
            ram = cell.memory_mib * limits.ram_ratio - cell.memory_used_mib
            shared = Shared(
                count,
                int(count * limits.cpu_ratio) - cell.shared_used,
                max(0, int(ram)) * units.KIB_PER_MIB,
                *small,
            )
        return Room(
            len(cell.dedicated_cpus - cell.pinned_cpus),
            pages,
            overlaps,
            pinning.isolated_room(cell) if self._cores else (0, 0),
            self._cores and floats and pinning.shares_cores(cell),
            _siblings(cell) if self._siblings else (),
            shared,
        )

    def _pages(
        self,
        cell: model.HostCell,
        limits: model.Limits,
        allocatable: Mapping[int, int],
    ) -> tuple[bool, tuple[tuple[int, int], ...], tuple[int, int, int]]:
        """Measure `Room.overlaps`, `Room.pages`, and the end of `Shared`."""
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
            return False, ((0, free),), (memory_kib, 0, _NO_LIMIT)
        overlaps = reported // units.KIB_PER_MIB > cell.memory_mib
        size, free = pages[0]
        # Where a host cell has huge pages only, its smallest are those.
        if not (overlaps or self._small or size > LARGEST_BASE_KIB):
            return False, tuple(pages), (0, 0, 0)
        own = small = free * size
        overcommitted = _NO_LIMIT
        if self._account_small_pages:
            used = memory.small_used_kib(cell)
            capacity = memory.small_capacity_kib(cell, allocatable)
            own = min(own, int(capacity - used))
            overcommitted = int(capacity * limits.ram_ratio - used)
        if overlaps:
            most = memory.overlap_room_kib(cell, limits, allocatable)
            own = min(own, most)
            pages = [(size, min(free, most // size)) for size, free in pages]
            overcommitted = min(
                overcommitted,
                memory.overlap_room_kib(
                    cell, limits, allocatable, overcommits=True
                ),
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


def take(need: Need, room: Room) -> Room | None:
    """Tell what is left of a room after a guest cell has come.

    The short way, for rooms of a surveyor that is `Surveyor.short`.

    :returns: None if it has to be measured
    """
    if not need.plain or room.overlaps:
        return None
    pages = []
    for size, free in room.pages:
        if size == need.page_size:
            if size <= LARGEST_BASE_KIB:
                return None
            free -= need.memory // size
        pages.append((size, free))
    return room._replace(cpus=room.cpus - need.cpus, pages=tuple(pages))


def copies(need: Need, room: Room, size_kib: int | None = None) -> int:
    """Count the guest cells of one kind that a host cell holds.

    There may be a few more where the totals of page sizes overlap and memory
    is overcommitted: a guest with dedicated CPUs on the smallest pages has to
    find all of its memory there, but leaves some of that to others.

    :param size_kib: the page size that stands for ``large`` and ``any``
    """
    if need.plain:
        for size, free in room.pages:
            if size == need.page_size:
                if need.memory % size:
                    return 0
                return min(room.cpus // need.cpus, free * size // need.memory)
        return 0
    count = cpu_copies(need, room)
    return min(count, _memory_copies(need, room, size_kib)) if count else 0


def plain_needs(needs: Sequence[Need]) -> _PlainNeeds | None:
    """Prepare needs for `plain_copies`.

    :returns: dedicated CPUs, page size in KiB and pages of each; None if not
        all of them are plain
    """
    prepared = []
    for need in needs:
        size = need.page_size
        if not need.plain or size is None or need.memory % size:
            return None
        prepared.append((need.cpus, size, need.memory // size))
    return prepared


def plain_copies(needs: _PlainNeeds, room: Room) -> tuple[int, ...]:
    """Count the same as `copies` for plain needs, in a fraction of the time.

    Most of what a weigher does is this.
    """
    cpus = room.cpus
    free = dict(room.pages)
    counts = []
    for each, size, pages in needs:
        by_cpus = cpus // each
        by_pages = free.get(size, 0) // pages
        counts.append(by_cpus if by_cpus < by_pages else by_pages)
    return tuple(counts)


def cpu_copies(need: Need, room: Room) -> int:
    """Count the guest cells of one kind that have CPUs on a host cell."""
    count = _NO_LIMIT
    if need.cpus:
        count = room.cpus // need.cpus
        if need.thread_policy is model.ThreadPolicy.ISOLATE:
            if room.shares_cores and (
                need.cpu_policy is model.CPUPolicy.DEDICATED
            ):
                return 0
            for_vcpus, whole = room.cores
            count = min(count, whole // need.cpus)
            if need.vcpus:
                count = min(count, for_vcpus // need.vcpus)
        elif need.vcpus and need.thread_policy is model.ThreadPolicy.REQUIRE:
            count = min(count, _sibling_copies(need.vcpus, room.siblings))
    if need.cpu_policy is not model.CPUPolicy.DEDICATED:
        if need.shared > min(room.shared.cpus, room.shared.vcpus):
            return 0
        if need.shared:
            count = min(count, room.shared.vcpus // need.shared)
    return count


def _sibling_copies(vcpus: int, siblings: tuple[int, ...]) -> int:
    """Count the guest cells whose vCPUs are all siblings of each other.

    Exact for two threads a core, where a guest cell with an odd number of
    vCPUs leaves a thread that is no use to another one; with more threads
    not less than there are, and 0 where there are none.
    """
    most = max(
        (
            threads * sum(size >= threads for size in siblings)
            for threads in range(2, max(siblings, default=0) + 1)
        ),
        default=0,
    )
    if most < vcpus:
        return 0
    if siblings[0] == 2:
        return len(siblings) // -(-vcpus // 2)
    return max(1, sum(siblings) // vcpus)


def _memory_copies(need: Need, room: Room, common: int | None) -> int:
    memory_kib = need.memory
    own = need.cpu_policy is not model.CPUPolicy.SHARED
    ratio = _NO_LIMIT
    if need.cpu_policy is not model.CPUPolicy.DEDICATED:
        ratio = room.shared.ram // memory_kib
    wish = need.page_size
    smallest, free = room.pages[0]
    if wish is None and not smallest:
        if own:
            return min(ratio, free // memory_kib)
        return ratio if memory_kib <= room.shared.total else 0
    if wish is None or wish == model.PageRequest.SMALL:
        size = smallest
    elif wish > 0:
        size = wish
    elif common is None or (
        wish == model.PageRequest.LARGE and common == smallest
    ):
        return 0
    else:
        size = common
    if size <= 0 or memory_kib % size:
        return 0
    if size != smallest or own:
        found = dict(room.pages).get(size, 0) * size
    elif wish is not None:
        found = room.shared.small
    elif memory_kib > room.shared.total:
        found = 0
    else:
        found = room.shared.overcommitted
    return min(ratio, found // memory_kib)


def _siblings(cell: model.HostCell) -> tuple[int, ...]:
    if pinning.threads_per_core(cell) == 1:
        return ()
    sizes = [len(core) for core in pinning.free_cores(cell)]
    return tuple(sorted((s for s in sizes if s > 1), reverse=True))
