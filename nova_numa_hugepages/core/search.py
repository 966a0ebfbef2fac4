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

from nova_numa_hugepages.core import matching

_Matrix = Sequence[Sequence[int]]


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """What a set of host cells has to meet. Host cells are positions.

    :ivar fits: for each guest cell the mask of host cells that it fits on
    :ivar alike: whether all guest cells fit on the same host cells
    :ivar distances: between positions, symmetric; None if all are equal
    :ivar touch: masks of which the set has to contain a host cell each
    :ivar needs: (weight of each position, sum that the set has to reach)
    :ivar accepts: the last word on a set, given as positions
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
    candidates = 0
    for mask in problem.fits:
        candidates |= mask
    search = _Search(problem, matching.bits(candidates))
    search.descend(0, [], 0, 0)
    return search.best


def spread(chosen: Sequence[int], distances: _Matrix | None) -> int:
    """Sum the distances between chosen host cells, each pair once."""
    if distances is None:
        return 0
    return sum(
        distances[one][other]
        for index, one in enumerate(chosen)
        for other in chosen[:index]
    )


class _Search:
    """One run of `best_set`."""

    def __init__(self, problem: Problem, candidates: list[int]) -> None:
        self.problem = problem
        self.candidates = candidates
        self.size = len(problem.fits)
        self.best: list[int] | None = None
        # Sums below this one are wanted.
        self.bound: float = float('inf')
        self.nearest = 0
        if problem.distances is not None:
            self.nearest = min(
                problem.distances[one][other]
                for one in candidates
                for other in candidates
                if one != other
            )
            if self.size > 2:
                self._bound_by_greed()

    def descend(
        self, start: int, chosen: list[int], mask: int, cost: int
    ) -> bool:
        """Complete a choice from the candidates at and after an index.

        :returns: whether the search is over
        """
        if len(chosen) == self.size:
            if not self._valid(mask, chosen):
                return False
            self.best = list(chosen)
            self.bound = cost
            # Without distances nothing is better than the first.
            return self.problem.distances is None
        missing = self.size - len(chosen)
        for index in range(start, len(self.candidates) - missing + 1):
            if not self._completable(mask, index):
                # The choices left only become fewer from here on.
                return False
            position = self.candidates[index]
            added = self._added(chosen, position)
            chosen.append(position)
            if self._promising(
                chosen, mask | 1 << position, cost + added, index + 1
            ) and self.descend(
                index + 1, chosen, mask | 1 << position, cost + added
            ):
                return True
            chosen.pop()
        return False

    def _added(self, chosen: Sequence[int], position: int) -> int:
        if self.problem.distances is None:
            return 0
        row = self.problem.distances[position]
        return sum(row[other] for other in chosen)

    def _completable(self, mask: int, index: int) -> bool:
        """Tell whether what is chosen and left can meet the needs."""
        problem = self.problem
        if not problem.touch and not problem.needs:
            return True
        left = self.candidates[index:]
        for position in left:
            mask |= 1 << position
        if not all(mask & touched for touched in problem.touch):
            return False
        return all(
            sum(weights[p] for p in matching.bits(mask)) >= least
            for weights, least in problem.needs
        )

    def _promising(
        self, chosen: list[int], mask: int, cost: int, index: int
    ) -> bool:
        problem = self.problem
        if problem.distances is not None:
            missing = self.size - len(chosen)
            least = cost + self.nearest * (missing * (missing - 1) // 2)
            if missing:
                added = sorted(
                    self._added(chosen, position)
                    for position in self.candidates[index:]
                )
                least += sum(added[:missing])
            if least >= self.bound:
                return False
        return problem.alike or matching.uses_all(problem.fits, mask)

    def _valid(self, mask: int, chosen: Sequence[int]) -> bool:
        problem = self.problem
        return (
            all(mask & touched for touched in problem.touch)
            and all(
                sum(weights[position] for position in chosen) >= least
                for weights, least in problem.needs
            )
            and (problem.accepts is None or problem.accepts(chosen))
        )

    def _bound_by_greed(self) -> None:
        """Start with the bound of a set that grows by the nearest."""
        distances = self.problem.distances
        for seed in self.candidates:
            chosen = [seed]
            mask = 1 << seed
            for _ in range(self.size - 1):
                nearest = [
                    (self._added(chosen, position), position)
                    for position in self.candidates
                    if not mask >> position & 1
                    and (
                        self.problem.alike
                        or matching.uses_all(
                            self.problem.fits, mask | 1 << position
                        )
                    )
                ]
                if not nearest:
                    break
                position = min(nearest)[1]
                chosen.append(position)
                mask |= 1 << position
            cost = spread(chosen, distances)
            if (
                len(chosen) == self.size
                and cost < self.bound
                and self._valid(mask, chosen)
            ):
                # One more than found, since the same sum may be reached by
                # host cells that are preferred.
                self.bound = cost + 1
