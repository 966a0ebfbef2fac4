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

"""An upper bound of the guests that any policy can place.

A configuration is a number of guest cells of each kind that fit together in
one host cell. The linear program chooses for each kind of host cell how many
have which configuration, also in fractions, so that as many guests as possible
are covered. It has too many configurations to list; they are generated as
they are needed, each as the solution of a knapsack problem (P. C. Gilmore and
R. E. Gomory, "A Linear Programming Approach to the Cutting-Stock Problem",
Operations Research 9, 1961).

The bound is optimistic: a guest of several cells is taken apart, and its cells
may lie on any host cells, also of different hosts. Distances, sockets, PCI
devices and networks don't count. Guests without a NUMA topology take nothing.

What is returned is never the value of a program that is only partly solved,
but follows from its prices: whatever these are, no fleet holds guest cells of
more worth than its host cells can hold each (A. A. Farley, "A Note on Bounding
a Class of Linear Programming Problems, Including Cutting Stock Problems",
Operations Research 38, 1990).
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
import dataclasses
import itertools

import numpy as np
from scipy import optimize

from nova_numa_hugepages import exception
from nova_numa_hugepages.simulate import cell_kinds
from nova_numa_hugepages.simulate import results
from nova_numa_hugepages.simulate import scenario

# Relative; the solvers are exact to about 1e-7.
_TOLERANCE = 1e-6

# A program ends by itself, after some dozens of rounds. Should rounding keep
# it going, the bound of that moment holds, too.
_ROUNDS = 1000

# A configuration: the index of a kind of host cell, and how many guest cells
# of each kind are in it.
_Column = tuple[int, tuple[int, ...]]


class BoundError(exception.NUMAHugepagesError):
    """The solver has failed on a program that has a solution."""


def add_bounds(
    play: scenario.Scenario, found: results.Results
) -> results.Results:
    """Add the bound to each run that fills a fleet."""
    solver = Bound(play)
    seeds = dict.fromkeys(
        run.seed for run in found.runs if run.phase is results.Phase.FILL
    )
    bounds = {seed: _of_seed(play, solver, seed) for seed in seeds}
    return dataclasses.replace(
        found,
        runs=tuple(
            dataclasses.replace(run, bound=bounds[run.seed])
            if run.phase is results.Phase.FILL
            else run
            for run in found.runs
        ),
    )


def _of_seed(play: scenario.Scenario, solver: Bound, seed: int) -> int:
    # Longer and longer sequences, until not all of them can be placed.
    length = 256
    while True:
        arrivals = scenario.arrivals(play, results.Phase.FILL, seed)
        names = [guest.flavor for guest in itertools.islice(arrivals, length)]
        most = solver.sequence(names)
        if most < len(names) or len(names) < length:
            return most
        length *= 2


class Bound:
    """The bounds of a scenario.

    Configurations that one question has brought up serve the next one.
    """

    def __init__(self, play: scenario.Scenario) -> None:
        self._demand = {
            flavor.name: cell_kinds.guest_cells(flavor)
            for flavor in play.flavors
        }
        self._guests = sorted(
            {kind for cells in self._demand.values() for kind in cells},
            key=repr,
        )
        hosts: collections.Counter[cell_kinds.Knapsack] = collections.Counter()
        for host in play.hosts:
            for node in host.nodes:
                hosts[cell_kinds.knapsack(host, node, self._guests)] += (
                    host.count
                )
        self._counts = list(hosts.values())
        self._knapsacks = list(hosts)
        # One for every guest cell that fits anywhere, to begin with. A
        # dictionary, for it keeps the order.
        self._columns: dict[_Column, None] = {}
        for number, sack in enumerate(self._knapsacks):
            for choice, guest in enumerate(sack.choices):
                column = [0] * len(self._guests)
                column[guest] = sack.most(choice)
                self._columns[number, tuple(column)] = None

    def sequence(self, flavors: Sequence[str]) -> int:
        """Bound the guests placed of a sequence before the first refusal.

        :param flavors: the flavors of the arrivals, in their order
        :returns: the most arrivals from the first one on that could all be
            placed
        :raises KeyError: for a flavor that the scenario doesn't have
        """
        low, high = 0, len(flavors)
        if self._holds(flavors):
            return high
        while high - low > 1:
            middle = (low + high) // 2
            if self._holds(flavors[:middle]):
                low = middle
            else:
                high = middle
        return low

    def _holds(self, flavors: Sequence[str]) -> bool:
        """Return whether the fleet may hold a guest of each of the flavors."""
        cells = dict.fromkeys(self._guests, 0)
        for name, number in collections.Counter(flavors).items():
            for kind, count in self._demand[name].items():
                cells[kind] += number * count
        demand = list(cells.values())
        if not any(demand):
            return True
        for guest, needed in enumerate(demand):
            if needed and not any(
                column[guest] for _, column in self._columns
            ):
                return False
        for _ in range(_ROUNDS):
            times, prices = self._master(demand)
            worth, columns = self._price(prices)
            if worth < 1 - _TOLERANCE:
                return False
            if (
                times >= 1
                or worth <= times * (1 + _TOLERANCE)
                or self._columns.keys() >= columns.keys()
            ):
                break
            self._columns.update(columns)
        return True

    def _master(self, demand: Sequence[float]) -> tuple[float, list[float]]:
        """Solve the program over the configurations that there are.

        :returns: how many times the demand is covered, and the price of a
            guest cell of each kind; those of the demand cost 1 together
        """
        guests, hosts = len(self._guests), len(self._counts)
        # The last variable is how many times the demand is covered.
        rows = np.zeros((guests + hosts, len(self._columns) + 1))
        for number, (host, column) in enumerate(self._columns):
            rows[:guests, number] = [-count for count in column]
            rows[guests + host, number] = 1
        rows[:guests, -1] = demand
        objective = np.zeros(len(self._columns) + 1)
        objective[-1] = -1
        solved = optimize.linprog(
            objective,
            A_ub=rows,
            b_ub=[0.0] * guests + [float(count) for count in self._counts],
            method='highs',
        )
        if solved.status != 0:
            raise BoundError(f'linear program: {solved.message}')
        prices = np.maximum(0, -solved.ineqlin.marginals[:guests])
        cost = prices @ demand
        if not cost:
            raise BoundError('linear program: no prices')
        return -float(solved.fun), [float(price / cost) for price in prices]

    def _price(
        self, prices: Sequence[float]
    ) -> tuple[float, dict[_Column, None]]:
        """Find the configuration of most worth for each kind of host cell.

        :returns: what all host cells can hold, in worth, and the
            configurations
        """
        total = 0.0
        columns: dict[_Column, None] = {}
        for host, sack in enumerate(self._knapsacks):
            if not any(prices[guest] for guest in sack.choices):
                continue
            worth, numbers = self._fill(sack, prices)
            total += self._counts[host] * worth
            column = [0] * len(self._guests)
            for guest, number in zip(sack.choices, numbers, strict=True):
                column[guest] += number
            columns[host, tuple(column)] = None
        return total, columns

    def _fill(
        self, sack: cell_kinds.Knapsack, prices: Sequence[float]
    ) -> tuple[float, list[int]]:
        """Solve a knapsack problem.

        :returns: an upper bound of the worth, and how many guest cells of
            each choice
        """
        worth = [prices[guest] for guest in sack.choices]
        # HiGHS compares with absolute tolerances.
        scale = max(worth)
        solved = optimize.milp(
            [-price / scale for price in worth],
            integrality=1,
            constraints=optimize.LinearConstraint(
                np.array(sack.rows, dtype=float),
                ub=np.array(sack.capacities, dtype=float),
            ),
            options={'mip_rel_gap': 0},
        )
        if solved.status != 0:
            raise BoundError(f'knapsack problem: {solved.message}')
        bound = max(-float(solved.mip_dual_bound), -float(solved.fun))
        return bound * scale, [round(number) for number in solved.x]
