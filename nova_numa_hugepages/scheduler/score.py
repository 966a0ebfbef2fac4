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


"""What one guest costs on each of the hosts that were seen for it."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from typing import NamedTuple

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core import units
from nova_numa_hugepages.core.capacity import cell_room
from nova_numa_hugepages.core.capacity import consume
from nova_numa_hugepages.core.capacity import guest_kinds
from nova_numa_hugepages.core.capacity import scarcity
from nova_numa_hugepages.core.capacity import slots
from nova_numa_hugepages.core.capacity import tie_breaks
from nova_numa_hugepages.core.fit import host_fit
from nova_numa_hugepages.core.fit.fitter import Fitter
from nova_numa_hugepages.scheduler import request_cache

# Kinds of guests that are named when a score is explained.
_NAMED = 2


class Score(NamedTuple):
    """What a guest costs on a host; the least is the best.

    :ivar cost: see `scarcity.cost`; for a guest that has no NUMA topology,
        what the host is worth to those that have one
    :ivar grow_kib: memory in huge pages that has to be made for it
    :ivar imbalance: see `balance.imbalance`; 0 as long as nothing else is
        equal
    """

    cost: float
    grow_kib: int = 0
    imbalance: float = 0.0


class Scorer:
    """Scores the hosts of one request.

    :param shares: of the kinds of ``counts``, which sum up to 1
    :param sightings: all hosts of the fleet that were seen
    """

    def __init__(
        self,
        counts: scarcity.Scarcity,
        shares: Sequence[float],
        sightings: Iterable[request_cache.CheckedHost],
        fitter: Fitter | None,
    ) -> None:
        self._counts = counts
        self._fitter = fitter
        self._rooms: dict[int, slots.HostRoom] = {}
        self._slots: dict[int, Sequence[int]] = {}
        self._after: dict[int, Sequence[int]] = {}
        self._taken: dict[int, dict[int, cell_room.CellNeed]] = {}
        for sighting in sightings:
            offers = counts.measure(
                sighting.read,
                sighting.ratios,
                sighting.small_mib() if counts.small_matters else None,
            )
            self._rooms[id(sighting)] = offers
            self._slots[id(sighting)] = counts.slots(offers)
        # There may be none: hosts that report no NUMA topology aren't seen.
        nowhere = [0] * len(counts.kinds)
        self._left = [
            sum(column)
            for column in zip(nowhere, *self._slots.values(), strict=True)
        ]
        self._worths = scarcity.worth(self._left, shares)
        # Under a thread policy it matters which CPUs a guest takes.
        self._pinned = counts.cores_matter or (
            fitter is not None
            and any(
                guest.thread_policy is model.ThreadPolicy.ISOLATE
                for guest in fitter.request.cells
            )
        )
        self._needs = (
            []
            if fitter is None
            else [
                cell_room.need(guest, fitter.request.emulator_cpus(index))
                for index, guest in enumerate(fitter.request.cells)
            ]
        )

    def score(self, sighting: request_cache.CheckedHost) -> Score | None:
        """Score a host, which is one of the sightings.

        :returns: None if the guest doesn't fit on it
        """
        before = self._slots[id(sighting)]
        if self._fitter is None:
            nothing = [0] * len(before)
            return Score(scarcity.cost(before, nothing, self._worths))
        claimed = sighting.claimed(self._fitter)
        if claimed is None:
            return None
        host = sighting.read
        needs = self._needs_by_cell(claimed)
        after = None
        cells = None
        if isinstance(claimed, host_fit.Choice) and not host.allocatable:
            after = self._counts.after_needs(
                self._rooms[id(sighting)], host, needs
            )
        if after is None:
            cells = self._cells(claimed, host)
            after = self._counts.after(
                self._rooms[id(sighting)], host, cells, sighting.ratios
            )
        left = self._after[id(sighting)] = self._counts.slots(after)
        self._taken[id(sighting)] = needs
        return Score(
            scarcity.cost(before, left, self._worths),
            tie_breaks.grow_kib(host, cells) if cells else 0,
        )

    def balanced(
        self, sighting: request_cache.CheckedHost, score: Score
    ) -> Score:
        """Complete a score where others are equal to it.

        :param score: what `score` returned for the host
        """
        needs = self._taken.get(id(sighting))
        if needs is None:
            return score
        taken = {
            cell_id: (need.cpus, need.memory // units.KIB_PER_MIB)
            for cell_id, need in needs.items()
        }
        return score._replace(
            imbalance=tie_breaks.imbalance(sighting.read.cells, taken)
        )

    def _needs_by_cell(
        self, claimed: host_fit.Choice | model.Plan
    ) -> dict[int, cell_room.CellNeed]:
        if isinstance(claimed, model.Plan):
            ids = [planned.host_cell for planned in claimed.cells]
        else:
            ids = [cell.id for cell in claimed.cells]
        return dict(zip(ids, self._needs, strict=True))

    def _cells(
        self,
        claimed: host_fit.Choice | model.Plan,
        host: model.HostTopology,
    ) -> dict[int, model.HostCell]:
        """Tell what is left of the host cells that a guest takes."""
        assert self._fitter is not None
        if isinstance(claimed, host_fit.Choice):
            if not self._pinned:
                return consume.after_choice(self._fitter, claimed)
            claimed = self._fitter.plan(claimed)
        return consume.after_plan(self._fitter.request, claimed, host)

    def explain(
        self, sighting: request_cache.CheckedHost | None, score: Score
    ) -> str:
        """Tell a score in words, for somebody who wonders about a decision.

        :param sighting: None if the host has no NUMA topology
        :param score: what `score` returned for the host
        """
        if sighting is None:
            return 'costs nothing, as it has no NUMA topology'
        before = self._slots[id(sighting)]
        if self._fitter is None:
            lost = self._name(before, [0] * len(before), 'has')
            return f'holds {score.cost:.4%} of what is scarce{lost}'
        lost = self._name(before, self._after[id(sighting)], 'takes')
        text = f'costs {score.cost:.4%} of what is scarce{lost}'
        if score.grow_kib:
            text += f', makes {units.format_kib(score.grow_kib)} of pages'
        return text

    def _name(
        self, before: Sequence[int], after: Sequence[int], verb: str
    ) -> str:
        """Name the kinds that make up most of a score."""
        lost = [
            ((had - has) * worth, had - has, left, kind)
            for had, has, worth, left, kind in zip(
                before,
                after,
                self._worths,
                self._left,
                self._counts.kinds,
                strict=True,
            )
            if had > has
        ]
        lost.sort(key=lambda entry: entry[0], reverse=True)
        names = [
            f'{count} of {left} slots for {guest_kinds.describe(kind)}'
            for _, count, left, kind in lost[:_NAMED]
        ]
        return f' ({verb} {" and ".join(names)})' if names else ''
