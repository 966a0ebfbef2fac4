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

"""Runs an experiment: which trial comes when, and how many there are."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import random
from typing import NamedTuple

from nova_numa_hugepages.experiment import analysis
from nova_numa_hugepages.experiment.plan import Arm
from nova_numa_hugepages.experiment.plan import Plan
from nova_numa_hugepages.experiment.trial import Pair
from nova_numa_hugepages.experiment.trial import Place
from nova_numa_hugepages.experiment.workload import Workload

# Is told how many of how many pairs are done, and what is done next.
Progress = Callable[[int, int, str], None]


class Decision(NamedTuple):
    """How many pairs an experiment makes, decided before they are made.

    :ivar pairs: of each workload, load and treatment
    :ivar needed: how many it would take
    """

    pairs: int
    needed: int


class Procedure:
    """Makes the trials of a plan.

    :param place: where
    :param keep: is given each pair once it is there
    :param progress: is told how far it is
    """

    def __init__(
        self,
        plan: Plan,
        workloads: Sequence[Workload],
        place: Place,
        keep: Callable[[Pair], None],
        progress: Progress,
    ) -> None:
        self._plan = plan
        self._workloads = workloads
        self._place = place
        self._keep = keep
        self._progress = progress
        self._random = random.Random(plan.seed)
        self._done = 0
        self._all = 0

    def decide(self) -> Decision:
        """Find out how many pairs it takes.

        Unless the plan says it, some are made for that, which count for
        nothing else.
        """
        plan = self._plan
        if plan.pairs is not None:
            return Decision(plan.pairs, plan.pairs)
        self._all = self._each * plan.first_pairs
        found = [
            pair
            for number in range(plan.first_pairs)
            for pair in self._round(number, first=True)
        ]
        needed = analysis.pairs_needed(plan, self._workloads, found)
        return Decision(min(needed, plan.most_pairs), needed)

    def run(self, decision: Decision) -> None:
        """Make the pairs that count."""
        self._done, self._all = 0, self._each * decision.pairs
        for number in range(decision.pairs):
            for _ in self._round(number, first=False):
                pass

    @property
    def _each(self) -> int:
        plan = self._plan
        return len(self._workloads) * len(plan.loads) * len(plan.treatments)

    def _round(self, number: int, *, first: bool) -> list[Pair]:
        """Make one pair of each kind, in a random order."""
        plan = self._plan
        kinds = [
            (workload, load, arm)
            for workload in self._workloads
            for load in plan.loads
            for arm in plan.treatments
        ]
        self._random.shuffle(kinds)
        made = []
        for workload, load, arm in kinds:
            self._progress(
                self._done, self._all, f'{workload.name}, {load}, {arm.name}'
            )
            arms: list[Arm] = [plan.control, arm]
            self._random.shuffle(arms)
            side_by_side, trials = self._place.run(
                workload, load, arms, number
            )
            pair = Pair(
                number, first, workload.name, load, side_by_side, trials
            )
            self._keep(pair)
            made.append(pair)
            self._done += 1
        return made
