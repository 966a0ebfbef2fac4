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

"""Slots: the guests of one kind that a host holds, one after the other.

Counted from the copies of each guest cell that each host cell holds
(``cell_room.py``), not by fitting one guest after the other. A guest takes as
many host cells as it has cells. For a guest of *k* equal cells the host holds
*n* guests if and only if::

    sum over host cells of min(copies, n)  >=  n * k

since *n* rounds of *k* different host cells can then be dealt out (Hall's
theorem; the rounds are an edge colouring of a bipartite graph, which is
König's). Guests of unlike cells need that for every subset of their cells,
and CPUs and pages for all of them together: this counts not less than there
are, and 0 only if there is no room. The same holds for guests that ask for
``large`` or ``any`` pages. Guests that limit distances may have none where
slots are counted, since near host cells are grouped by their neighbours.

More room never gives fewer slots.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import functools
import itertools

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core import units
from nova_numa_hugepages.core.capacity import cell_room
from nova_numa_hugepages.core.capacity import guest_kinds

# Subsets of unlike guest cells that are looked at; all up to this many kinds.
_ALL_SUBSETS = 3

_Count = Callable[[cell_room.CellNeed, cell_room.CellRoom], int]


@dataclasses.dataclass(frozen=True, slots=True)
class HostRoom:
    """The room of a host.

    :ivar cells: the rooms of its cells
    :ivar distances: as `model.HostTopology.distances`
    :ivar small_mib: memory on small pages that the whole host has left, None
        if nothing limits it
    """

    cells: tuple[cell_room.CellRoom, ...]
    distances: Sequence[Sequence[int]] | None = None
    small_mib: int | None = None


def rounds(copies: Sequence[int], cells: int) -> int:
    """Count the rounds in which that many different host cells are dealt.

    :param copies: how often each host cell can be dealt
    """
    total = sum(copies)
    if cells == 1:
        return total
    if cells == 2:
        return min(total // 2, total - max(copies, default=0))
    count = total // cells
    while True:
        fewer = sum([min(c, count) for c in copies]) // cells
        if fewer >= count:
            return count
        count = fewer


def copies_suffice(kind: guest_kinds.GuestKind) -> bool:
    """Check whether the copies of its only need are all that counts."""
    need = kind.needs[0][0]
    return (
        len(kind.needs) == 1
        and need.plain
        and need.page_size is not None
        and need.page_size > cell_room.LARGEST_BASE_KIB
        and kind.farthest is None
    )


def count_slots(
    kind: guest_kinds.GuestKind,
    host: HostRoom,
    copies: Sequence[Sequence[int]],
) -> int:
    """Count the slots of one kind on a host.

    :param copies: of each of the kind's needs, for each host cell
    """
    count = 0
    for group in _near_groups(host, kind.farthest):
        if len(group) < kind.cells:
            continue
        cells = [host.cells[i] for i in group]
        if kind.by_name:
            count += _by_name(kind, cells)
            continue
        count += _least(
            kind,
            [[of_need[i] for i in group] for of_need in copies],
            cells,
            cell_room.how_many,
        )
    if host.small_mib is not None and count:
        small = sum(
            number * need.memory
            for need, number in kind.needs
            if _on_small_pages(need, host)
        )
        if small:
            limit = max(0, host.small_mib) * units.KIB_PER_MIB
            count = min(count, limit // small)
    return count


def _near_groups(
    host: HostRoom, farthest: int | None
) -> Sequence[Sequence[int]]:
    everywhere = range(len(host.cells))
    if farthest is None or host.distances is None:
        return (everywhere,)
    return _components(tuple(map(tuple, host.distances)), farthest)


@functools.lru_cache(maxsize=1024)
def _components(
    distances: tuple[tuple[int, ...], ...], farthest: int
) -> tuple[tuple[int, ...], ...]:
    """Group host cells that are near each other, or near the same ones."""
    groups: list[set[int]] = []
    for one, row in enumerate(distances):
        near = {i for i, far in enumerate(row) if far <= farthest} | {one}
        for group in [group for group in groups if group & near]:
            groups.remove(group)
            near |= group
        groups.append(near)
    return tuple(tuple(sorted(group)) for group in groups)


def _by_name(
    kind: guest_kinds.GuestKind, cells: Sequence[cell_room.CellRoom]
) -> int:
    """Count the slots of a guest that asks for ``large`` or ``any``.

    Each guest has pages of one size, but not all of them of the same.
    """
    sizes = {size for cell in cells for size, _ in cell.pages if size > 0}
    each = 0
    total = [[0] * len(cells) for _ in kind.needs]
    for size in sizes:
        count = functools.partial(cell_room.how_many, size_kib=size)
        copies = [
            [count(need, cell) for cell in cells] for need, _ in kind.needs
        ]
        each += _least(kind, copies, cells, count)
        for sums, row in zip(total, copies, strict=True):
            sums[:] = [a + b for a, b in zip(sums, row, strict=True)]
    for sums, (need, _) in zip(total, kind.needs, strict=True):
        limits = [cell_room.cpu_copies(need, cell) for cell in cells]
        sums[:] = [min(a, b) for a, b in zip(sums, limits, strict=True)]
    return min(each, _least(kind, total, cells, cell_room.cpu_copies))


def _least(
    kind: guest_kinds.GuestKind,
    copies: Sequence[Sequence[int]],
    cells: Sequence[cell_room.CellRoom],
    count: _Count,
) -> int:
    """Count the slots of guest cells, unlike ones perhaps.

    :param copies: of each of the kind's needs, for each host cell
    :param count: counts the copies of any other need on a host cell
    """
    if len(copies) == 1:
        return rounds(copies[0], kind.cells)
    counts = [
        rounds(
            [
                _together(some, [need for need, _ in needs], cell, count)
                for *some, cell in zip(*rows, cells, strict=True)
            ],
            sum(number for _, number in needs),
        )
        for rows, needs in _subsets(copies, kind.needs)
    ]
    # All of their cells together.
    cpus = sum(number * need.cpus for need, number in kind.needs)
    if cpus:
        counts.append(sum(cell.cpus for cell in cells) // cpus)
    for size in {need.page_size for need, _ in kind.needs}:
        if size is not None and size > 0 and not _small(size, cells):
            wanted = sum(
                number * need.memory
                for need, number in kind.needs
                if need.page_size == size
            )
            pages = sum(dict(cell.pages).get(size, 0) for cell in cells)
            counts.append(pages * size // wanted)
    return min(counts)


def _together(
    copies: Sequence[int],
    needs: Sequence[cell_room.CellNeed],
    cell: cell_room.CellRoom,
    count: _Count,
) -> int:
    """Count the guest cells of several kinds that a host cell holds.

    Not less than there are: they may take of different things. If they take
    of the same ones, no more than if each were as small as the smallest.

    :param copies: of each of the needs
    """
    most = sum(copies)
    fitting = [need for need, held in zip(needs, copies, strict=True) if held]
    asks = {(n.page_size, n.cpu_policy, n.thread_policy) for n in fitting}
    if len(fitting) < 2 or len(asks) > 1:
        return most
    smallest = fitting[0]._replace(
        vcpus=min(need.vcpus for need in fitting),
        cpus=min(need.cpus for need in fitting),
        shared=min(need.shared for need in fitting),
        memory=min(need.memory for need in fitting),
        plain=all(need.plain for need in fitting),
    )
    return min(most, count(smallest, cell))


def _small(size: int, cells: Sequence[cell_room.CellRoom]) -> bool:
    # Memory on small pages may be overcommitted.
    return any(cell.pages[0][0] == size for cell in cells)


def _subsets(
    rows: Sequence[Sequence[int]],
    needs: Sequence[tuple[cell_room.CellNeed, int]],
) -> Iterator[
    tuple[list[Sequence[int]], list[tuple[cell_room.CellNeed, int]]]
]:
    pairs = [*zip(rows, needs, strict=True)]
    for length in range(1, len(pairs) + 1):
        if 1 < length < len(pairs) > _ALL_SUBSETS:
            continue
        for some in itertools.combinations(pairs, length):
            yield [row for row, _ in some], [need for _, need in some]


def _on_small_pages(need: cell_room.CellNeed, host: HostRoom) -> bool:
    if need.page_size is None or need.page_size == model.PageRequest.SMALL:
        return True
    return need.page_size > 0 and any(
        cell.pages[0][0] == need.page_size for cell in host.cells
    )
