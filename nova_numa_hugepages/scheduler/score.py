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

"""The cost of one guest on each of the hosts that it might go to."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

from nova.scheduler import host_manager

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core import units
from nova_numa_hugepages.core.capacity import cell_room
from nova_numa_hugepages.core.capacity import consume
from nova_numa_hugepages.core.capacity import counter
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
    """The cost of a guest on a host; the least is the best.

    :ivar cost: see `scarcity.cost`; for a guest that has no NUMA topology,
        what the host is worth to those that have one
    :ivar grow_kib: memory in huge pages to allocate for it
    :ivar imbalance: see `tie_breaks.imbalance`; 0 as long as nothing else is
        equal
    """

    cost: float
    grow_kib: int = 0
    imbalance: float = 0.0


@dataclasses.dataclass(slots=True)
class ScoredHost:
    """A host of the fleet, and what the guest costs there.

    :ivar room: its room without the guest
    :ivar before: its slots of each kind without the guest
    :ivar after: and with it, once it was scored
    :ivar needs: what the guest cells take, by the id of the host cell, once
        it was scored
    :ivar score: None if it was not scored, or the guest doesn't fit
    """

    checked: request_cache.CheckedHost
    room: slots.HostRoom
    before: Sequence[int]
    after: Sequence[int] = ()
    needs: dict[int, cell_room.CellNeed] = dataclasses.field(
        default_factory=dict
    )
    score: Score | None = None


class Scorer:
    """Scores the hosts of one request.

    :param count: counts the slots of the kinds in the demand
    :param shares: of these kinds, which sum up to 1
    :param hosts: all hosts of the fleet that were read
    """

    def __init__(
        self,
        count: counter.Counter,
        shares: Sequence[float],
        hosts: Iterable[request_cache.CheckedHost],
        fitter: Fitter | None,
    ) -> None:
        self._counter = count
        self._fitter = fitter
        self._hosts: dict[tuple[str, str], ScoredHost] = {}
        for checked in hosts:
            room = count.measure(
                checked.topology,
                checked.limits,
                checked.small_mib() if count.small_matters else None,
            )
            self._hosts[checked.host.host, checked.host.nodename] = ScoredHost(
                checked, room, count.slots(room)
            )
        # There may be none: hosts that report no NUMA topology aren't read.
        nowhere = [0] * len(count.kinds)
        self._left = [
            sum(column)
            for column in zip(
                nowhere,
                *[scored.before for scored in self._hosts.values()],
                strict=True,
            )
        ]
        self._worths = scarcity.worth(self._left, shares)
        # Under a thread policy it matters which CPUs a guest takes.
        self._pinned = count.cores_matter or (
            fitter is not None
            and any(
                guest.thread_policy is model.ThreadPolicy.ISOLATE
                for guest in fitter.request.cells
            )
        )
        self._needs = cell_room.needs_of(fitter.request) if fitter else []

    def score(self, host: host_manager.HostState) -> ScoredHost | None:
        """Score a host.

        :returns: the host with its score; None if it has no NUMA topology
        """
        scored = self._hosts.get((host.host, host.nodename))
        if scored is not None:
            scored.score = self._score(scored)
        return scored

    def _score(self, scored: ScoredHost) -> Score | None:
        if self._fitter is None:
            scored.after = [0] * len(scored.before)
            return Score(
                scarcity.cost(scored.before, scored.after, self._worths)
            )
        checked = scored.checked
        claimed = checked.claimed(self._fitter)
        if claimed is None:
            return None
        topology = checked.topology
        scored.needs = self._needs_by_cell(claimed)
        after = None
        cells = None
        if isinstance(claimed, host_fit.Choice) and not topology.allocatable:
            after = self._counter.after_needs(
                scored.room, topology, scored.needs
            )
        if after is None:
            cells = self._cells(claimed, topology)
            after = self._counter.after(
                scored.room, topology, cells, checked.limits
            )
        scored.after = self._counter.slots(after)
        return Score(
            scarcity.cost(scored.before, scored.after, self._worths),
            tie_breaks.grow_kib(topology, cells) if cells else 0,
        )

    def add_imbalance(self, scored: ScoredHost) -> None:
        """Complete a score where others are equal to it."""
        if scored.score is None or not scored.needs:
            return
        taken = {
            cell_id: (need.cpus, need.memory // units.KIB_PER_MIB)
            for cell_id, need in scored.needs.items()
        }
        scored.score = scored.score._replace(
            imbalance=tie_breaks.imbalance(
                scored.checked.topology.cells, taken
            )
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
        """Return what is left of the host cells that a guest takes."""
        assert self._fitter is not None
        if isinstance(claimed, host_fit.Choice):
            if not self._pinned:
                return consume.after_choice(self._fitter, claimed)
            claimed = self._fitter.plan(claimed)
        return consume.after_plan(self._fitter.request, claimed, host)

    def explain(self, scored: ScoredHost | None) -> str:
        """Describe a score, for an operator who wonders about a decision.

        :param scored: what `score` returned for the host
        """
        if scored is None:
            return 'cost 0, no NUMA topology'
        assert scored.score is not None
        kinds = self._name_kinds(scored)
        if self._fitter is None:
            text = f'holds {scored.score.cost:.4%} of the scarce slots'
            return f'{text}: {kinds}' if kinds else text
        text = f'cost {scored.score.cost:.4%}'
        if kinds:
            text += f', takes {kinds}'
        if scored.score.grow_kib:
            text += f', allocates {units.format_kib(scored.score.grow_kib)}'
        return text

    def _name_kinds(self, scored: ScoredHost) -> str:
        """Name the kinds that make up most of a score."""
        lost = [
            ((had - has) * worth, had - has, left, kind)
            for had, has, worth, left, kind in zip(
                scored.before,
                scored.after,
                self._worths,
                self._left,
                self._counter.kinds,
                strict=True,
            )
            if had > has
        ]
        lost.sort(key=lambda entry: entry[0], reverse=True)
        return ' and '.join(
            f'{count} of {left} slots for {guest_kinds.describe(kind)}'
            for _, count, left, kind in lost[:_NAMED]
        )
