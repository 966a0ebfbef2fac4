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


"""What a plan costs the fleet, given the demand.

Free CPUs and pages are worth what they can be used for. The slots of a kind
of guest are how many of them a host holds (``slots.py``). A plan takes slots
away, from the guests of its own kind and from others. What that costs is::

    sum over kinds of  slots that the plan takes * worth of a slot

    worth of a slot = pressure * pressure / highest pressure of all kinds
    pressure        = share of the demand / slots left in the fleet

The pressure of a kind is the inverse of how long its slots will last, so a
slot is worth most where it is asked for and scarce, and nothing where nobody
asks for it or nobody can use it any more. Pressure enters twice: what runs out
first decides when the first guest is refused, and kinds that last long may
well give way to it. (With pressure once, fleets held about 2 % fewer guests;
see ``benchmarks``.)

The host on which a guest costs least is the best one for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.capacity import cell_room
from nova_numa_hugepages.core.capacity import guest_kinds
from nova_numa_hugepages.core.capacity import slots
from nova_numa_hugepages.core.capacity.measure import Surveyor
from nova_numa_hugepages.core.fit import memory

_UNLIMITED = model.Limits()

_NOTHING: Mapping[int, int] = {}


class Scarcity:
    """Some kinds of guests, to be counted on any number of hosts.

    :param kinds: the kinds in the demand
    :param strategy: as the fit gets it
    :param by_placement: count no slots for guests with dedicated CPUs that
        isolate threads on hosts with thread siblings. The fit would take such
        a host, but Nova asks Placement for others
    :ivar kinds: as given
    :ivar strategy: as given
    """

    def __init__(
        self,
        kinds: Sequence[guest_kinds.GuestKind],
        strategy: model.Strategy,
        *,
        by_placement: bool = False,
    ) -> None:
        self.kinds = tuple(kinds)
        self.strategy = strategy
        self._by_placement = by_placement
        self._counter = slots.Counter(kinds)
        self._surveyor = Surveyor(
            self._counter.needs,
            account_small_pages=strategy.account_small_pages,
        )

    @property
    def small_matters(self) -> bool:
        """Whether small pages of the whole host can be what limits slots."""
        return self._counter.small_matters

    @property
    def cores_matter(self) -> bool:
        """Whether it matters which CPUs are free, not only how many."""
        return self._surveyor.cores_matter

    def measure(
        self,
        host: model.HostTopology,
        limits: model.Limits | None = None,
        small_mib: int | None = None,
    ) -> slots.HostRoom:
        """Measure what a host offers.

        :param limits: the overcommit ratios, 1 if None
        :param small_mib: memory on small pages that the whole host has left,
            None if nothing limits it
        """
        limits = limits or _UNLIMITED
        known = host.allocatable
        floats = self._floats(host)
        return slots.HostRoom(
            tuple(
                [
                    self._surveyor.measure(
                        cell,
                        limits=limits,
                        floats=floats,
                        allocatable=known[index] if known else _NOTHING,
                    )
                    for index, cell in enumerate(host.cells)
                ]
            ),
            host.distances,
            small_mib,
        )

    def _floats(self, host: model.HostTopology) -> bool:
        """Tell whether thread siblings keep guests with own cores away."""
        return self._by_placement or any(
            cell.shared_cpus for cell in host.cells
        )

    def after(
        self,
        before: slots.HostRoom,
        host: model.HostTopology,
        cells: Mapping[int, model.HostCell],
        limits: model.Limits | None = None,
    ) -> slots.HostRoom:
        """Measure what a host offers after a guest has come.

        :param before: what it offers without the guest
        :param cells: id of each host cell that the guest takes something of
            to that cell with the guest
        """
        limits = limits or _UNLIMITED
        rooms = list(before.cells)
        floats = self._floats(host)
        small_mib = before.small_mib
        known = host.allocatable
        for index, had in enumerate(host.cells):
            has = cells.get(had.id)
            if has is None:
                continue
            rooms[index] = self._surveyor.measure(
                has,
                limits=limits,
                floats=floats,
                allocatable=known[index] if known else _NOTHING,
            )
            if small_mib is not None and (
                memory.small_used_kib(has) != memory.small_used_kib(had)
            ):
                small_mib -= has.memory_used_mib - had.memory_used_mib
        return slots.HostRoom(tuple(rooms), host.distances, small_mib)

    def after_needs(
        self,
        before: slots.HostRoom,
        host: model.HostTopology,
        needs: Mapping[int, cell_room.CellNeed],
    ) -> slots.HostRoom | None:
        """Tell the same from what guest cells need, in a short way.

        :param needs: id of each host cell that the guest takes something of
            to what it takes
        :returns: None where it has to be measured
        """
        if not self._surveyor.short:
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
        return slots.HostRoom(tuple(rooms), host.distances, before.small_mib)

    def slots(self, host: slots.HostRoom) -> Sequence[int]:
        """Count the slots of each kind on a host, in the order of kinds."""
        return self._counter.slots(host)


def worth(left: Sequence[int], shares: Sequence[float]) -> list[float]:
    """Tell what a slot of each kind is worth.

    :param left: slots of each kind in the whole fleet
    :param shares: how much each kind is asked for; they sum up to 1
    :returns: so that all slots of a kind together are worth its share of the
        demand if it is under the highest pressure, and less if not
    """
    pressures = [
        share / count if count > 0 else 0.0
        for count, share in zip(left, shares, strict=True)
    ]
    highest = max(pressures, default=0.0)
    if not highest:
        return pressures
    return [pressure * (pressure / highest) for pressure in pressures]


def cost(
    before: Sequence[int], after: Sequence[int], worths: Sequence[float]
) -> float:
    """Tell what a plan costs.

    :param before: slots of each kind on the host without the guest
    :param after: and with it
    :param worths: what a slot of each kind is worth, see `worth`
    :returns: from 0 to 1
    """
    total = 0.0
    for had, has, value in zip(before, after, worths, strict=True):
        # Never fewer than none are taken, even where a host reports pages
        # that contradict its memory (``memory.small_capacity_kib``).
        if had > has:
            total += (had - has) * value
    return total
