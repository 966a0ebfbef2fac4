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

"""Our weigher over a fleet of which next to nothing changes.

A scheduler reads its hosts for each request. In a simulation they stay, so
what a guest of a flavor takes of a host is kept until the host changes. What
that costs depends on the whole fleet, and is computed for each guest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

from nova.objects import request_spec
from nova.scheduler import host_manager
import numpy as np
from numpy import typing as npt

from nova_numa_hugepages.core.capacity import guest_kinds
from nova_numa_hugepages.core.capacity import scarcity
from nova_numa_hugepages.scheduler import demand
from nova_numa_hugepages.scheduler import score
from nova_numa_hugepages.scheduler import weights

_Array = npt.NDArray[Any]


class KeptWeigher(weights.NUMAHugepagesWeigher):
    """Gives the weights of `weights.NUMAHugepagesWeigher`.

    :param hosts: all of the fleet
    :param alike: a number for each, the same for those that are alike; may
        change later
    """

    def __init__(
        self,
        learned: demand.Demand,
        hosts: Sequence[host_manager.HostState],
        alike: _Array,
    ) -> None:
        super().__init__(learned)
        self._hosts = hosts
        self._alike = alike
        # In an order that stays when that of the demand changes.
        self._kinds: tuple[guest_kinds.GuestKind, ...] = ()
        self._kept: dict[str, _Kept] = {}

    def changed(self, place: int) -> None:
        """Forget what is kept of a host."""
        for kept in self._kept.values():
            kept.known[place] = False

    def weigh(
        self,
        candidates: _Array,
        passing: _Array,
        spec: request_spec.RequestSpec,
    ) -> _Array:
        """Weigh hosts as `weigh_objects` does.

        :param candidates: places of the hosts that Placement proposes
        :param passing: places of those that passed the filter
        :returns: a weight for each that passed
        """
        kinds, shares = self._demand.mix()
        if set(kinds) != set(self._kinds):
            self._kinds = kinds
            self._kept.clear()
        kept = self._kept.setdefault(
            spec.flavor.name, _nothing(len(self._hosts), len(kinds))
        )
        self._read(kept, candidates[~kept.known[candidates]], spec)
        columns = [self._kinds.index(kind) for kind in kinds]
        left = kept.before[candidates].sum(axis=0)[columns].tolist()
        cost = np.zeros(len(passing))
        for column, worth in zip(
            columns, scarcity.worth(left, shares), strict=True
        ):
            # As `scarcity.cost` does, and in the same order.
            cost += kept.lost[passing, column] * worth
        rank = _ranks(cost, kept.grow_kib[passing])
        equal = np.bincount(rank)[rank] > 1
        rank = _ranks(rank, np.where(equal, kept.imbalance[passing], 0.0))
        last = min(rank.max() + 1, weights.PLACES) - 1
        return last - np.minimum(rank, last)

    def _read(
        self, kept: _Kept, places: _Array, spec: request_spec.RequestSpec
    ) -> None:
        """Find what a guest takes of some hosts."""
        asked, copies = one_of_each(places, self._alike)
        cache = self._cache([self._hosts[place] for place in asked], spec)
        scorer = score.Scorer(
            self._counter_of(self._kinds),
            [0.0] * len(self._kinds),
            cache.hosts(),
            cache.fitter,
        )
        for place in asked:
            scored = scorer.score(self._hosts[place])
            assert scored is not None, self._hosts[place]
            kept.known[place] = True
            kept.before[place] = scored.before
            if scored.score is None:
                continue
            scorer.add_imbalance(scored)
            kept.lost[place] = np.subtract(scored.before, scored.after).clip(0)
            _, kept.grow_kib[place], kept.imbalance[place] = scored.score
        for array in kept:
            array[places] = array[copies]


class _Kept(NamedTuple):
    """What is known of each host of the fleet, for guests of one flavor.

    :ivar known: whether anything is
    :ivar before: its slots of each kind
    :ivar lost: those that a guest takes away, if it fits
    :ivar grow_kib: see `score.Score`
    :ivar imbalance: see `score.Score`, as if others were equal
    """

    known: _Array
    before: _Array
    lost: _Array
    grow_kib: _Array
    imbalance: _Array


def _nothing(hosts: int, kinds: int) -> _Kept:
    return _Kept(
        np.zeros(hosts, bool),
        np.zeros((hosts, kinds), int),
        np.zeros((hosts, kinds), int),
        np.zeros(hosts, int),
        np.zeros(hosts),
    )


def one_of_each(places: _Array, alike: _Array) -> tuple[_Array, _Array]:
    """Pick one of the hosts that are alike.

    :param alike: a number for each host of the fleet
    :returns: the places that were picked, and for each of the given places
        the one that was picked for it
    """
    _, first, inverse = np.unique(
        alike[places], return_index=True, return_inverse=True
    )
    return places[first], places[first][inverse]


def _ranks(first: _Array, second: _Array) -> _Array:
    """Rank pairs of values, equal ones alike, from 0 for the least."""
    order = np.lexsort((second, first))
    rises = (np.diff(first[order]) != 0) | (np.diff(second[order]) != 0)
    ranks = np.zeros(len(order), int)
    ranks[order[1:]] = np.cumsum(rises)
    return ranks
