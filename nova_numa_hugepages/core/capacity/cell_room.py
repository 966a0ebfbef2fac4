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

"""The room of a host cell, and how many guest cells it holds.

A `CellRoom` is a host cell as far as guest cells of some kinds see it: a
handful of integers, so that equal ones are counted once. A `CellNeed` is a
guest cell as a host cell sees it. `how_many` counts the guest cells of one
kind that a host cell holds, one after the other, by the rules of the fit
(``cell_fit.py``, ``memory.py``, ``pinning.py``); it is 0 exactly where the
fit finds no room. Rooms are measured in ``measure.py``.

With more room there are never fewer copies, since each count is the least of
several quotients. More memory may be less room, though: as long as a host
cell reports more pages than its memory holds, those without a guest count as
missing (``memory.small_capacity_kib``); once they fit, they count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core import units
from nova_numa_hugepages.core.fit import pinning
from nova_numa_hugepages.core.fit.emulator import emulator_cpus

# Linux's own page size is this at most; larger ones are huge pages.
LARGEST_BASE_KIB = 64

# The count where nothing limits it.
NO_LIMIT = 1 << 40

_PlainNeeds = list[tuple[int, int, int]]


class Shared(NamedTuple):
    """The room of a host cell for vCPUs that float. Memory is in KiB.

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


NO_SHARED = Shared()


class CellRoom(NamedTuple):
    """The room of a host cell for guest cells; no count is below 0.

    :ivar cpus: free dedicated CPUs
    :ivar pages: (size in KiB, free pages), smallest first; of the smallest
        size as many as a guest with dedicated CPUs can have. A host cell
        that names no pages has (0, free memory in KiB) there
    :ivar overlaps: whether the pages reported add up to more than there is,
        so that those of one size take from those of others
    :ivar cores: whole free cores for isolated vCPUs, and all of them
    :ivar shares_cores: whether a guest whose CPUs are all dedicated can't
        have cores of its own, since other guests may be on their threads
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
    shared: Shared = NO_SHARED


class CellNeed(NamedTuple):
    """The need of a guest cell: what it takes of a host cell.

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


def need(guest: model.GuestCell, emulator: int) -> CellNeed:
    """Return the need of a guest cell.

    :param emulator: dedicated CPUs for the emulator, see
        `emulator.emulator_cpus`
    """
    return new_need(
        vcpus=len(guest.dedicated_vcpus),
        emulator=emulator,
        shared=len(guest.shared_vcpus),
        memory_kib=guest.memory_mib * units.KIB_PER_MIB,
        page_size=guest.page_size,
        cpu_policy=guest.cpu_policy,
        thread_policy=guest.thread_policy,
    )


def needs_of(request: model.Request) -> list[CellNeed]:
    """Return the needs of the guest cells of a request, in their order."""
    return [
        need(guest, emulator_cpus(request, index))
        for index, guest in enumerate(request.cells)
    ]


def new_need(
    *,
    vcpus: int,
    emulator: int,
    shared: int,
    memory_kib: int,
    page_size: int | None,
    cpu_policy: model.CPUPolicy,
    thread_policy: model.ThreadPolicy,
) -> CellNeed:
    """Make the need of a guest cell from its numbers.

    :param emulator: as for `need`
    """
    return CellNeed(
        vcpus=vcpus,
        cpus=vcpus + emulator,
        shared=shared,
        memory=memory_kib,
        page_size=page_size,
        cpu_policy=cpu_policy,
        thread_policy=thread_policy,
        plain=(
            cpu_policy is model.CPUPolicy.DEDICATED
            and thread_policy is model.ThreadPolicy.PREFER
            and page_size is not None
            and page_size > 0
            and vcpus > 0
        ),
    )


def take(need: CellNeed, room: CellRoom) -> CellRoom | None:
    """Return what is left of a room after a guest cell has come.

    The short way, for rooms of a `measure.CellMeasurer` that is ``short``.

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


def how_many(
    need: CellNeed, room: CellRoom, size_kib: int | None = None
) -> int:
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


def plain_needs(needs: Sequence[CellNeed]) -> _PlainNeeds | None:
    """Prepare needs for `how_many_plain`.

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


def how_many_plain(needs: _PlainNeeds, room: CellRoom) -> tuple[int, ...]:
    """Count the same as `how_many` for plain needs, in a fraction of the time.

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


def cpu_copies(need: CellNeed, room: CellRoom) -> int:
    """Count the guest cells of one kind that have CPUs on a host cell."""
    count = NO_LIMIT
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
    if pinning.most_siblings(siblings) < vcpus:
        return 0
    if siblings[0] == 2:
        return len(siblings) // -(-vcpus // 2)
    return max(1, sum(siblings) // vcpus)


def _memory_copies(need: CellNeed, room: CellRoom, common: int | None) -> int:
    memory_kib = need.memory
    own = need.cpu_policy is not model.CPUPolicy.SHARED
    ratio = NO_LIMIT
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
