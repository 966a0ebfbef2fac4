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

"""Kinds of guests, for counting how many of them a host holds."""

from __future__ import annotations

import collections
import dataclasses

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core import units
from nova_numa_hugepages.core.capacity import cell_room

# Unlike cells that are described.
_DESCRIBED = 3

# The largest guests that count.
MOST_CELLS = 64
MOST_VCPUS = 4096
MOST_MEMORY_KIB = 1 << 40


@dataclasses.dataclass(frozen=True, slots=True)
class GuestKind:
    """A kind of guest, as far as it matters how many of them a host holds.

    Networks and PCI devices don't: other things than room decide on them.

    :ivar needs: what its guest cells take, each with the number of guest
        cells that take it
    :ivar farthest: host cells may be this far apart at most, None for any
        distance
    """

    needs: tuple[tuple[cell_room.CellNeed, int], ...]
    farthest: int | None = None

    @property
    def cells(self) -> int:
        """The number of guest cells."""
        return sum(count for _, count in self.needs)

    @property
    def by_name(self) -> bool:
        """Whether it asks for ``large`` or ``any`` pages."""
        return any(
            need.page_size in model.SEVERAL_SIZES for need, _ in self.needs
        )


def guest_kind(
    request: model.Request, farthest: int | None = None
) -> GuestKind:
    """Return the kind of a guest.

    :param farthest: as in `GuestKind`
    """
    counts = collections.Counter(cell_room.needs_of(request))
    # Which of the cells comes first makes no other kind.
    return GuestKind(
        tuple(sorted(counts.items(), key=repr)),
        farthest if len(request.cells) > 1 else None,
    )


def plausible(kind: GuestKind) -> bool:
    """Check whether guests of a kind are worth counting.

    Nova accepts flavors and images that no host could take, and some that
    take no memory at all, of which any number would fit.
    """
    return 0 < kind.cells <= MOST_CELLS and all(
        0 < need.memory <= MOST_MEMORY_KIB
        and need.cpus + need.shared <= MOST_VCPUS
        for need, _ in kind.needs
    )


def describe(kind: GuestKind) -> str:
    """Name a kind of guest in a few words."""
    cells = []
    for need, number in kind.needs:
        parts = []
        if need.cpus:
            parts.append(f'{need.cpus} CPUs')
        if need.shared:
            parts.append(f'{need.shared} shared CPUs')
        parts.append(units.format_kib(need.memory))
        text = ' and '.join(parts)
        if need.page_size is not None:
            size = need.page_size
            text += ' in {} pages'.format(
                units.format_kib(size)
                if size > 0
                else model.PageRequest(size).name.lower()
            )
        if need.thread_policy is not model.ThreadPolicy.PREFER:
            text += f' ({need.thread_policy.value})'
        cells.append(f'{number} x {text}' if kind.cells > 1 else text)
    if len(cells) > _DESCRIBED:
        cells[_DESCRIBED:] = [f'{len(cells) - _DESCRIBED} other cells']
    return ' + '.join(cells)
