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

"""The best set of host cells for a guest: branch and bound.

Of all sets the best is that whose largest distance is the smallest, then that
whose sum of distances is. So the sets without distances above a limit are
searched first, with the limit raised from the smallest distance on until there
is one.

The sets are walked in lexicographic order of preference, so that among equal
sums of distances the first one found is the preferred one. A branch is left
when what it has chosen can't be completed or can't become better:

- the chosen host cells can't be used by different guest cells (matching);
- a network or a number of PCI devices that the guest needs is on none of the
  chosen nor of the remaining host cells;
- the distances between the chosen host cells, plus the least that the
  remaining choices add, reach the best sum found so far.

A clique of least weight is NP-hard to find in general; hosts have up to 16
cells, and the bounds leave few branches. With unknown or equal distances
the first valid set is taken at once.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import heapq
import itertools

from nova_numa_hugepages.core.fit import matching

_Matrix = Sequence[Sequence[int]]

# What counts as the distance between host cells that are too far apart: more
# than any sum of distances, of which none is above 255.
_TOO_FAR = 1 << 30


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """The conditions on a set of host cells, which are given as positions.

    :ivar fits: for each guest cell the mask of host cells that it fits on
    :ivar alike: whether all guest cells fit on the same host cells
    :ivar distances: between positions, symmetric; None if all are equal
    :ivar touch: masks of which the set has to contain a host cell each
    :ivar needs: (weight of each position, sum that the set has to reach)
    :ivar accepts: a check of a whole set, given as positions, that costs
        more than the others
    """

    fits: Sequence[int]
    alike: bool
    distances: _Matrix | None = None
    touch: Sequence[int] = ()
    needs: Sequence[tuple[Sequence[int], int]] = ()
    accepts: Callable[[Sequence[int]], bool] | None = None


def best_set(problem: Problem) -> list[int] | None:
    """Find the best set of host cells.

    :returns: positions in ascending order, as many as there are guest cells;
        None if no set meets everything
    """
    mask = 0
    for fits in problem.fits:
        mask |= fits
    candidates = matching.bits(mask)
    if len(candidates) < len(problem.fits):
        return None
    if problem.alike and not (
        problem.touch or problem.needs or problem.accepts
    ):
        known = problem.distances
        if known is None:
            return candidates[: len(problem.fits)]
        if len(problem.fits) == 2:
            # The usual case, for which there is little to bound.
            pairs = itertools.combinations(candidates, 2)
            _, one, other = min((known[a][b], a, b) for a, b in pairs)
            return [one, other]
    for limit in _limits(problem, candidates):
        search = _Search(problem, candidates, limit)
        search.descend(0, [], 0, 0, [0] * len(candidates))
        if search.best is not None:
            return search.best
    return None


def farthest(chosen: Sequence[int], distances: _Matrix | None) -> int:
    """Return the largest distance between chosen host cells.

    :returns: 0 for one host cell, and where distances are unknown
    """
    if distances is None:
        return 0
    return max(
        (
            distances[one][other]
            for one, other in itertools.combinations(chosen, 2)
        ),
        default=0,
    )


def _limits(problem: Problem, candidates: list[int]) -> list[int]:
    """List what the largest distance of a set can be, ascending.

    A host cell of a set has as many neighbours as the set has further cells,
    so there are as many host cells whose neighbours are that near.
    """
    known = problem.distances
    size = len(problem.fits)
    if known is None or size == 1:
        return [0]
    reach = sorted(
        sorted([known[one][other] for other in candidates if other != one])[
            size - 2
        ]
        for one in candidates
    )
    if len(candidates) == size:
        return [reach[-1]]
    least = reach[size - 1]
    pairs = itertools.combinations(candidates, 2)
    distances = {known[one][other] for one, other in pairs}
    return sorted([far for far in distances if far >= least])


def spread(chosen: Sequence[int], distances: _Matrix | None) -> int:
    """Sum the distances between chosen host cells, each pair once."""
    if distances is None:
        return 0
    pairs = itertools.combinations(chosen, 2)
    return sum([distances[one][other] for one, other in pairs])


class _Search:
    """The search for a set without distances above a limit.

    Distances are kept between candidates, which are numbered by their place
    in the list of candidates.
    """

    def __init__(
        self, problem: Problem, candidates: list[int], limit: int
    ) -> None:
        self.problem = problem
        self.candidates = candidates
        self.size = len(problem.fits)
        self.best: list[int] | None = None
        # Sums from this one on are not wanted.
        self.bound = _TOO_FAR
        # What each further pair of host cells adds at least.
        self.nearest = 0
        self.constrained = bool(problem.touch or problem.needs)
        known = problem.distances
        self.rows: list[list[int]] | None = None
        if known is not None:
            self.rows = [
                [
                    far if far <= limit else _TOO_FAR
                    for far in (known[one][other] for other in candidates)
                ]
                for one in candidates
            ]
            if self.size > 2:
                self.nearest = min(
                    min(row[:index] + row[index + 1 :])
                    for index, row in enumerate(self.rows)
                )
                self._bound_by_greed(self.rows)

    def descend(
        self,
        start: int,
        chosen: list[int],
        mask: int,
        cost: int,
        added: list[int],
    ) -> bool:
        """Complete a choice from the candidates at and after an index.

        :param added: what each candidate would add to the cost
        :returns: whether the search is over
        """
        missing = self.size - len(chosen)
        for index in range(start, len(self.candidates) - missing + 1):
            if self.constrained and not self._completable(
                chosen, self.candidates[index:]
            ):
                # The choices left only become fewer from here on.
                return False
            total = cost + added[index]
            if total >= self.bound:
                continue
            position = self.candidates[index]
            with_it = mask | 1 << position
            if not self.problem.alike and not matching.uses_all(
                self.problem.fits, with_it
            ):
                continue
            if missing == 1:
                if self._valid([*chosen, position]):
                    self.best = [*chosen, position]
                    self.bound = total
                    if self.rows is None:
                        # All sums are equal, and this is the first.
                        return True
                continue
            then = added
            if self.rows is not None:
                then = [
                    sum(pair)
                    for pair in zip(added, self.rows[index], strict=True)
                ]
                if total + self._least(then[index + 1 :], missing - 1) >= (
                    self.bound
                ):
                    continue
            if self.descend(
                index + 1, [*chosen, position], with_it, total, then
            ):
                return True
        return False

    def _least(self, added: list[int], missing: int) -> int:
        """Return what the missing choices add to the cost at least."""
        among = self.nearest * (missing * (missing - 1) // 2)
        if missing == 1:
            return min(added)
        added.sort()
        return sum(added[:missing]) + among

    def _completable(self, chosen: list[int], left: Sequence[int]) -> bool:
        """Check whether what is chosen and left can meet the needs.

        Of what is left only as many host cells count as are missing, those
        that provide most.
        """
        at_hand = [*chosen, *left]
        for touched in self.problem.touch:
            if not any(touched >> position & 1 for position in at_hand):
                return False
        missing = self.size - len(chosen)
        for weights, least in self.problem.needs:
            most = heapq.nlargest(missing, (weights[p] for p in left))
            if sum(most) + sum(weights[p] for p in chosen) < least:
                return False
        return True

    def _valid(self, chosen: list[int]) -> bool:
        if self.constrained and not self._completable(chosen, ()):
            return False
        accepts = self.problem.accepts
        return accepts is None or accepts(chosen)

    def _bound_by_greed(self, rows: list[list[int]]) -> None:
        """Start with the bound of a set that grows by the nearest.

        Whatever the first candidates look like, branches that leave a good
        neighbourhood are then left early.
        """
        for seed in range(len(rows)):
            if self.problem.alike:
                chosen = sorted(
                    range(len(rows)), key=lambda index: rows[seed][index]
                )[: self.size]
            else:
                chosen = self._grow(rows, seed)
            cost = spread(chosen, rows)
            if cost + 1 >= self.bound or len(chosen) < self.size:
                continue
            positions = sorted(self.candidates[index] for index in chosen)
            if self._valid(positions):
                # One more than found, since the same sum may be reached by
                # host cells that are preferred.
                self.bound = cost + 1

    def _grow(self, rows: list[list[int]], seed: int) -> list[int]:
        """Add the nearest host cells that can be used together."""
        chosen = [seed]
        mask = 1 << self.candidates[seed]
        for index in sorted(range(len(rows)), key=lambda one: rows[seed][one]):
            with_it = mask | 1 << self.candidates[index]
            if (
                len(chosen) < self.size
                and index != seed
                and matching.uses_all(self.problem.fits, with_it)
            ):
                chosen.append(index)
                mask = with_it
        return chosen
