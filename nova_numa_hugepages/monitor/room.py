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

"""How many more instances of a kind a host has room for, and lost room for.

Kinds are those of instances on huge pages that were seen here, by the name of
their flavor, and those that the operator names.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

from nova_numa_hugepages.core import model as core_model
from nova_numa_hugepages.core.capacity import cell_room
from nova_numa_hugepages.core.capacity import guest_kinds
from nova_numa_hugepages.core.capacity import slots
from nova_numa_hugepages.hugepages.sample import Domain
from nova_numa_hugepages.hugepages.sample import HostSample

# Kinds that are remembered; those that were seen last.
_MOST_KINDS = 32


class Cell(NamedTuple):
    """What a guest cell takes.

    :ivar cpus: CPUs that it has for itself; 0 if its vCPUs float
    :ivar memory_kib: its memory
    :ivar size_kib: its page size
    """

    cpus: int
    memory_kib: int
    size_kib: int


class Kind(NamedTuple):
    """A kind of instance.

    :ivar name: of its flavor
    """

    name: str
    cells: tuple[Cell, ...]

    @property
    def guest_kind(self) -> guest_kinds.GuestKind:
        """The kind, as it is counted."""
        counts: dict[cell_room.CellNeed, int] = {}
        for cell in self.cells:
            need = cell_room.new_need(
                # Where none is needed there is no limit; see `_count`.
                vcpus=cell.cpus or 1,
                emulator=0,
                shared=0,
                memory_kib=cell.memory_kib,
                page_size=cell.size_kib,
                cpu_policy=core_model.CPUPolicy.DEDICATED,
                thread_policy=core_model.ThreadPolicy.PREFER,
            )
            counts[need] = counts.get(need, 0) + 1
        return guest_kinds.GuestKind(tuple(counts.items()))


class Slots(NamedTuple):
    """Room for instances of a kind.

    :ivar now: how many more there is room for
    :ivar whole: how many there would be room for if free memory were in one
        piece
    """

    now: int
    whole: int

    @property
    def lost(self) -> int:
        """How many there is no room for because memory is fragmented."""
        return max(0, self.whole - self.now)


def kind_of(domain: Domain) -> Kind | None:
    """Return the kind of an instance.

    :returns: None if it has no flavor or no huge pages, or they aren't known
    """
    plan = domain.plan
    if not plan.flavor or not domain.needs:
        return None
    cells = tuple(
        Cell(
            len(plan.cells.get(need.cell, frozenset()) & plan.own_cpus.keys()),
            need.pages * need.size_kib,
            need.size_kib,
        )
        for need in domain.needs
    )
    kind = Kind(plan.flavor, cells)
    return kind if guest_kinds.plausible(kind.guest_kind) else None


class Kinds:
    """The kinds of instances that are counted.

    :param named: those that the operator names
    """

    def __init__(self, named: Collection[Kind] = ()) -> None:
        self._named = {kind.name: kind for kind in named}
        self._seen: dict[str, Kind] = {}

    def see(self, sample: HostSample) -> bool:
        """Remember the kinds of the instances that run.

        :returns: whether one is new
        """
        before = self._seen.copy()
        for instance in sample.instances.values():
            kind = kind_of(instance.domain) if instance.domain else None
            if kind is not None:
                # Those that were seen last are at the end.
                self._seen.pop(kind.name, None)
                self._seen[kind.name] = kind
        for name in [*self._seen][:-_MOST_KINDS]:
            del self._seen[name]
        return self._seen != before

    def all(self) -> list[Kind]:
        """List them, by name."""
        return sorted({**self._seen, **self._named}.values())

    def as_json(self) -> list[Any]:
        """Return those that were seen, to be kept."""
        return [[kind.name, kind.cells] for kind in self._seen.values()]

    def restore(self, kept: Any) -> None:
        """Remember what was kept.

        :raises TypeError: if it is something else
        :raises ValueError: if it is something else
        """
        for name, cells in kept or ():
            kind = Kind(
                str(name), tuple(Cell(*map(int, cell)) for cell in cells)
            )
            if guest_kinds.plausible(kind.guest_kind):
                self._seen[kind.name] = kind


def count(
    sample: HostSample,
    kinds: Collection[Kind],
    dedicated: Collection[int] | None,
) -> dict[str, Slots]:
    """Count the slots of each kind: how many more of them fit.

    By huge pages and dedicated CPUs; devices, networks and limits of Nova
    don't count.

    :param dedicated: the CPUs that pinned vCPUs may have; None if that isn't
        known, and CPUs don't count
    """
    pinned: set[int] = set()
    for instance in sample.instances.values():
        plan = instance.domain.plan if instance.domain else None
        if plan is not None:
            pinned.update(plan.own_cpus.values())
    free = None if dedicated is None else set(dedicated) - pinned
    return {
        kind.name: Slots(
            _count(kind, sample, free, whole=False),
            _count(kind, sample, free, whole=True),
        )
        for kind in kinds
    }


def _count(
    kind: Kind, sample: HostSample, free: set[int] | None, *, whole: bool
) -> int:
    guest = kind.guest_kind
    rooms = tuple(
        cell_room.CellRoom(
            cell_room.NO_LIMIT
            if free is None or not any(cell.cpus for cell in kind.cells)
            else len(free & node.cpus),
            tuple(sorted(_pages(sample, node.id, whole=whole).items())),
        )
        for node in sample.snapshot.nodes.values()
    )
    copies = [
        [cell_room.how_many(need, room) for room in rooms]
        for need, _ in guest.needs
    ]
    return slots.count_slots(guest, slots.HostRoom(rooms), copies)


def _pages(sample: HostSample, node: int, *, whole: bool) -> Mapping[int, int]:
    """Return how many pages new instances can have, by size in KiB."""
    return {
        key.size_kib: max(0, pool.usage.available)
        + pool.allocatable
        + (pool.fragmented if whole else 0)
        for key, pool in sample.snapshot.pools.items()
        if key.node == node
    }
