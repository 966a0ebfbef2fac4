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

"""The counter of slots: the capacity of hosts for some kinds of guests.

It measures the room of a host (``measure.py``), also after a guest has come
to it, and counts the slots in it (``slots.py``). Hosts of one type have many
equal cells, and most of a fleet is as it was at the last request, so what was
counted is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import functools

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.capacity import cell_room
from nova_numa_hugepages.core.capacity import guest_kinds
from nova_numa_hugepages.core.capacity import measure
from nova_numa_hugepages.core.capacity import slots
from nova_numa_hugepages.core.capacity.slots import HostRoom
from nova_numa_hugepages.core.fit import memory

_UNLIMITED = model.Limits()


class Counter:
    """Counts the slots of some kinds of guests on any number of hosts.

    :param kinds: whose slots to count
    :param strategy: as the fit gets it
    :param by_placement: count no slots for guests with dedicated CPUs that
        isolate threads on hosts with thread siblings. The fit would take such
        a host, but Nova asks Placement for others
    :param kept: cell rooms, and hosts, whose counts are kept
    :ivar kinds: as given
    :ivar strategy: as given
    :ivar needs: what the guest cells of these kinds need
    :ivar small_matters: whether small pages of the whole host can be what
        limits the slots
    :ivar cores_matter: whether it matters which CPUs are free, not only how
        many
    :ivar copies: counts the guest cells of each of `needs` that a host cell
        holds, given its `cell_room.CellRoom`
    """

    def __init__(
        self,
        kinds: Sequence[guest_kinds.GuestKind],
        strategy: model.Strategy,
        *,
        by_placement: bool = False,
        kept: int = 20_000,
    ) -> None:
        self.kinds = tuple(kinds)
        self.strategy = strategy
        self._by_placement = by_placement
        self._numbers: dict[cell_room.CellNeed, int] = {}
        for kind in kinds:
            for need, _ in kind.needs:
                self._numbers.setdefault(need, len(self._numbers))
        self.needs = tuple(self._numbers)
        # Of each kind the number of its only need, where copies suffice.
        self._only_needs = [
            self._numbers[kind.needs[0][0]]
            if slots.copies_suffice(kind)
            else None
            for kind in kinds
        ]
        self._cells_suffice = None not in self._only_needs
        self._plain = cell_room.plain_needs(self.needs)
        self._measurer = measure.CellMeasurer(
            self.needs, account_small_pages=strategy.account_small_pages
        )
        self.cores_matter = self._measurer.cores_matter
        self.small_matters = any(
            need.page_size is None
            or need.page_size <= cell_room.LARGEST_BASE_KIB
            for need in self.needs
        )
        keep = functools.lru_cache(kept)
        self.copies = keep(self._count_copies)
        self._slots_of_cells = keep(self._count_in_cells)
        self._slots_of_host = keep(self._count_slots)

    def measure(
        self,
        host: model.HostTopology,
        limits: model.Limits | None = None,
        small_mib: int | None = None,
    ) -> HostRoom:
        """Measure the room of a host.

        :param limits: the overcommit ratios, 1 if None
        :param small_mib: memory on small pages that the whole host has left,
            None if nothing limits it
        """
        limits = limits or _UNLIMITED
        floats = self._floats(host)
        return HostRoom(
            tuple(
                [
                    self._measurer.measure(
                        cell,
                        limits=limits,
                        floats=floats,
                        allocatable=host.allocatable_of(index),
                    )
                    for index, cell in enumerate(host.cells)
                ]
            ),
            host.distances,
            small_mib,
        )

    def _floats(self, host: model.HostTopology) -> bool:
        """Check whether thread siblings keep guests with own cores away."""
        return self._by_placement or any(
            cell.shared_cpus for cell in host.cells
        )

    def after(
        self,
        before: HostRoom,
        host: model.HostTopology,
        cells: Mapping[int, model.HostCell],
        limits: model.Limits | None = None,
    ) -> HostRoom:
        """Measure the room of a host after a guest has come to it.

        :param before: its room without the guest
        :param cells: id of each host cell that the guest takes something of
            to that cell with the guest
        """
        limits = limits or _UNLIMITED
        rooms = list(before.cells)
        floats = self._floats(host)
        small_mib = before.small_mib
        for index, had in enumerate(host.cells):
            has = cells.get(had.id)
            if has is None:
                continue
            rooms[index] = self._measurer.measure(
                has,
                limits=limits,
                floats=floats,
                allocatable=host.allocatable_of(index),
            )
            if small_mib is not None and (
                memory.small_used_kib(has) != memory.small_used_kib(had)
            ):
                small_mib -= has.memory_used_mib - had.memory_used_mib
        return HostRoom(tuple(rooms), host.distances, small_mib)

    def after_needs(
        self,
        before: HostRoom,
        host: model.HostTopology,
        needs: Mapping[int, cell_room.CellNeed],
    ) -> HostRoom | None:
        """Compute the same as `after` from what guest cells need.

        :param needs: id of each host cell that the guest takes something of
            to what it takes
        :returns: None where it has to be measured
        """
        if not self._measurer.short:
            return None
        rooms = list(before.cells)
        for index, cell in enumerate(host.cells):
            need = needs.get(cell.id)
            if need is None:
                continue
            left = cell_room.take(need, rooms[index])
            if left is None:
                return None
            rooms[index] = left
        return HostRoom(tuple(rooms), host.distances, before.small_mib)

    def slots(self, host: HostRoom) -> Sequence[int]:
        """Count the slots of each kind on a host, in the order of `kinds`."""
        if self._cells_suffice:
            return self._slots_of_cells(host.cells)
        return self._slots_of_host(host)

    def _count_copies(self, cell: cell_room.CellRoom) -> tuple[int, ...]:
        if self._plain is not None:
            return cell_room.how_many_plain(self._plain, cell)
        return tuple([cell_room.how_many(need, cell) for need in self.needs])

    def _count_in_cells(
        self, cells: tuple[cell_room.CellRoom, ...]
    ) -> tuple[int, ...]:
        return self._count_slots(HostRoom(cells))

    def _count_slots(self, host: HostRoom) -> tuple[int, ...]:
        by_need = [*zip(*map(self.copies, host.cells), strict=True)]
        if not by_need:
            return (0,) * len(self.kinds)
        return tuple(
            [
                slots.rounds(by_need[number], kind.cells)
                if number is not None
                else slots.count_slots(
                    kind,
                    host,
                    [by_need[self._numbers[need]] for need, _ in kind.needs],
                )
                for number, kind in zip(
                    self._only_needs, self.kinds, strict=True
                )
            ]
        )
