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

"""The policy of elastic memory: how much an instance should have, by its use.

Pure: what the guest says of its memory comes in, a number of pages for each of
its cells comes out. It grows fast and shrinks slowly.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any
from typing import NamedTuple

from nova_numa_hugepages.hugepages.sample import MemoryInside

# Statistics that are older say nothing of now.
STALE_S = 60.0
# So much of its ceiling a guest gets, or gives back, at a time.
_GROW_STEP_PERCENT = 25
_SHRINK_STEP_PERCENT = 12
# So long a guest that can't be given more isn't tried again at first, and at
# last, in seconds.
_FIRST_WAIT_S = 15.0
_LAST_WAIT_S = 120.0
# So many accesses a second that wait for a disk tell of too little memory.
_MAJOR_FAULTS_PER_S = 20.0


@dataclasses.dataclass(frozen=True, slots=True)
class Marks:
    """The marks that the memory which is usable in a guest is kept between.

    :ivar grow_percent: below it the guest grows
    :ivar shrink_percent: above it the guest shrinks
    :ivar shrink_delay_s: how long it has to be above it, in seconds
    :ivar pause_s: how long nothing changes after a change, in seconds; a
        guest that swaps and has no room doesn't wait
    """

    grow_percent: int = 10
    shrink_percent: int = 25
    shrink_delay_s: float = 300.0
    pause_s: float = 30.0

    @classmethod
    def read(cls, group: Any) -> Marks:
        """Read them from the configuration.

        :param group: the options of the group ``[numa_hugepages]``
        """
        return cls(
            group.elastic_grow_percent,
            group.elastic_shrink_percent,
            group.elastic_shrink_delay,
            group.elastic_pause,
        )

    @property
    def middle(self) -> float:
        """The share that is aimed at."""
        return (self.grow_percent + self.shrink_percent) / 200


class Cell(NamedTuple):
    """An elastic guest cell. All counts are pages.

    :ivar asked: what the guest was asked to have
    :ivar current: what it has
    :ivar block: the steps in which it can change
    """

    number: int
    base: int
    asked: int
    current: int
    ceiling: int
    block: int
    size_kib: int


class CellMemory(NamedTuple):
    """What the kernel of a guest says of the memory of one of its nodes.

    :ivar total_kib: what it has
    :ivar usable_kib: what programs can have of it without swapping
    """

    total_kib: int
    usable_kib: int


class Decision(NamedTuple):
    """A change of the size of a guest.

    :ivar pages: what cells should have; those that stay are left out
    :ivar why: a sentence for each of them
    """

    pages: Mapping[int, int]
    why: Mapping[int, str]


@dataclasses.dataclass(slots=True)
class Track:
    """What is remembered of a guest from one look to the next.

    :ivar last: what its kernel said last
    :ivar roomy_since: since when it has had more than it needs; None if it
        hasn't
    :ivar changed: when its size was last changed; all times are in seconds
        since the epoch
    :ivar enough: the cells of which it is known that they need no more
    :ivar cells: the same of each cell, where that is known
    """

    last: MemoryInside | None = None
    roomy_since: float | None = None
    changed: float = 0.0
    enough: set[int] = dataclasses.field(default_factory=set)
    cells: dict[int, Track] = dataclasses.field(default_factory=dict)

    def change(self, cell: int, now: float) -> None:
        """Note that the size of a cell has changed."""
        self.changed = now
        self.of(cell).changed = now

    def of(self, cell: int) -> Track:
        """Return what is remembered of a cell."""
        return self.cells.setdefault(cell, Track())

    def forget_use(self) -> None:
        """Forget how it was used, as that isn't followed now."""
        self.last = None
        self.roomy_since = None


def decide(
    cells: Sequence[Cell],
    inside: MemoryInside | None,
    track: Track,
    marks: Marks,
    now: float,
    pressed: Collection[int] = (),
) -> Decision | None:
    """Decide how much memory a guest should have.

    :param cells: its elastic cells
    :param inside: what its kernel says
    :param track: what is known from before; changed
    :param now: in seconds since the epoch
    :param pressed: cells that give back at once what they don't need, as
        others wait for it
    :returns: None if it should stay as it is, or that can't be told
    """
    for cell in track.cells.values():
        cell.forget_use()
    track.enough = set()
    before, track.last = track.last, inside
    if (
        inside is None
        or inside.age_s > STALE_S
        or inside.available_kib is None
        or inside.usable_kib is None
        or inside.available_kib <= 0
    ):
        track.roomy_since = None
        return None
    share = inside.usable_kib / inside.available_kib
    roomy = share * 100 > marks.shrink_percent
    if not roomy:
        track.roomy_since = None
    elif track.roomy_since is None:
        track.roomy_since = now
    trouble = _trouble(before, inside, roomy=roomy)
    is_new = before is None or inside.updated > before.updated
    if is_new and not trouble and share * 100 >= marks.grow_percent:
        track.enough = {cell.number for cell in cells}
    if any(cell.asked > cell.current for cell in cells):
        # It is still on its way.
        return None
    # What it doesn't give back it has.
    stuck = {
        cell.number: cell.current
        for cell in cells
        if cell.asked < cell.current
    }
    cells = [cell._replace(asked=cell.current) for cell in cells]
    # Set back, the clock must not keep it for long.
    track.changed = min(track.changed, now)
    if track.roomy_since is not None:
        track.roomy_since = min(track.roomy_since, now)
    if inside.updated <= track.changed or (
        now - track.changed < marks.pause_s and not trouble
    ):
        return None
    delta_kib = int(
        (marks.middle * inside.available_kib - inside.usable_kib)
        / (1 - marks.middle)
    )
    percent = f'{int(share * 100)} % of its memory is usable'
    if trouble or share * 100 < marks.grow_percent:
        pages = {**stuck, **_grown(cells, max(delta_kib, 1))}
        return _decision(pages, trouble or percent)
    if track.roomy_since is not None and not stuck:
        if now - track.roomy_since < marks.shrink_delay_s:
            cells = [cell for cell in cells if cell.number in pressed]
        pages = _shrunk(cells, -delta_kib)
        waited = int(now - track.roomy_since)
        why = f'{percent}, and was for {waited} s'
        return _decision(pages, why)
    return None


def decide_each(
    cells: Sequence[Cell],
    inside: MemoryInside | None,
    memory: Mapping[int, CellMemory],
    track: Track,
    marks: Marks,
    now: float,
    pressed: Collection[int] = (),
) -> Decision | None:
    """Decide how much memory each cell of a guest should have, by its own.

    For the parameters see `decide`.

    :param memory: what its kernel says of each of the cells
    """
    track.forget_use()
    track.enough = set()
    pages: dict[int, int] = {}
    why: dict[int, str] = {}
    for cell in cells:
        # Of swapping and of waiting for disks only the whole tells.
        own = inside and inside._replace(
            available_kib=memory[cell.number].total_kib,
            usable_kib=memory[cell.number].usable_kib,
        )
        own_track = track.of(cell.number)
        decision = decide([cell], own, own_track, marks, now, pressed)
        track.enough |= own_track.enough
        if decision is not None:
            pages.update(decision.pages)
            why.update(decision.why)
    return Decision(pages, why) if pages else None


def longer_wait(wait_s: float) -> float:
    """Return after how long a guest is tried again that can't be given more.

    :param wait_s: how long that was before, 0 if it was given some; in seconds
    """
    return min(_LAST_WAIT_S, max(_FIRST_WAIT_S, 2 * wait_s))


def _decision(pages: Mapping[int, int], why: str) -> Decision | None:
    return Decision(pages, dict.fromkeys(pages, why)) if pages else None


def _trouble(
    before: MemoryInside | None, inside: MemoryInside, *, roomy: bool
) -> str:
    """Say what tells that a guest needs memory at once; empty if nothing."""
    if before is None or inside.updated <= before.updated:
        return ''
    swapped = _risen(before.swap_in_kib, inside.swap_in_kib) + _risen(
        before.swap_out_kib, inside.swap_out_kib
    )
    if swapped and not roomy:
        return f'it swapped {swapped} KiB'
    faults = _risen(before.major_faults, inside.major_faults)
    rate = faults / (inside.updated - before.updated)
    if rate >= _MAJOR_FAULTS_PER_S and not roomy:
        return f'{int(rate)} accesses a second wait for a disk'
    return ''


def _risen(before: int | None, now: int | None) -> int:
    """Return by how much a counter has risen; 0 if it isn't known."""
    if before is None or now is None:
        return 0
    return max(0, now - before)


def _grown(cells: Sequence[Cell], delta_kib: int) -> dict[int, int]:
    """Distribute more memory over cells, by how much of theirs they have."""
    limit_kib = _step_kib(cells, _GROW_STEP_PERCENT)
    left_kib = min(delta_kib, limit_kib)
    sizes = {cell.number: cell.asked for cell in cells}
    while left_kib > 0:
        able = [
            cell
            for cell in cells
            if sizes[cell.number] + cell.block <= cell.ceiling
        ]
        if not able:
            break
        cell = min(able, key=lambda cell: _filled(cell, sizes))
        sizes[cell.number] += cell.block
        left_kib -= cell.block * cell.size_kib
    return _changed(cells, sizes)


def _shrunk(cells: Sequence[Cell], delta_kib: int) -> dict[int, int]:
    """Take memory from cells, no more than there is too much."""
    left_kib = min(delta_kib, _step_kib(cells, _SHRINK_STEP_PERCENT))
    sizes = {cell.number: cell.asked for cell in cells}
    while True:
        able = [
            cell
            for cell in cells
            if sizes[cell.number] - cell.block >= cell.base
            and cell.block * cell.size_kib <= left_kib
        ]
        if not able:
            return _changed(cells, sizes)
        cell = max(able, key=lambda cell: _filled(cell, sizes))
        sizes[cell.number] -= cell.block
        left_kib -= cell.block * cell.size_kib


def _step_kib(cells: Iterable[Cell], percent: int) -> int:
    """Return how much may change at a time; a block of a cell at least."""
    return max(
        sum(cell.ceiling * cell.size_kib for cell in cells) * percent // 100,
        max((cell.block * cell.size_kib for cell in cells), default=0),
    )


def _filled(cell: Cell, sizes: Mapping[int, int]) -> float:
    return (sizes[cell.number] - cell.base) / (cell.ceiling - cell.base)


def _changed(
    cells: Iterable[Cell], sizes: Mapping[int, int]
) -> dict[int, int]:
    return {
        cell.number: sizes[cell.number]
        for cell in cells
        if sizes[cell.number] != cell.asked
    }
