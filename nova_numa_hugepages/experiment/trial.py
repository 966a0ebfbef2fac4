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

"""Trials: one workload, run once by each of two arms or more."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any
from typing import Protocol

from nova_numa_hugepages import exception
from nova_numa_hugepages.experiment.plan import Arm
from nova_numa_hugepages.experiment.workload import Measure
from nova_numa_hugepages.experiment.workload import Workload

# Measured of each trial, beside what the workload measures.
CPU_TIME = Measure('CPU time', 's')


class TrialError(exception.NUMAHugepagesError):
    """A trial could not be made, so the experiment can't go on."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """What one arm measured.

    :ivar arm: its name
    :ivar values: for each measure a value a round, in order
    :ivar cpu_s: the time of CPUs that it took
    :ivar wall_s: how long it ran
    :ivar faults: page faults, minor and major
    :ivar stolen_s: the time that the hypervisor took of its CPUs meanwhile
    :ivar counters: of the processor, as far as there are some
    :ivar in_place: what it had, as `InPlace.as_json` returns it
    :ivar problems: in what it was not what the arm says; none if it counts
    """

    arm: str
    values: Mapping[str, Sequence[float]]
    cpu_s: float
    wall_s: float
    faults: tuple[int, int]
    stolen_s: float
    counters: Mapping[str, int]
    in_place: Mapping[str, Any]
    problems: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Pair:
    """Trials of one workload that are compared with each other.

    :ivar number: from 0
    :ivar first: whether it was made to find out how many it takes
    :ivar side_by_side: whether they ran at the same time; else one after the
        other, in a random order
    :ivar trials: one for each arm
    """

    number: int
    first: bool
    workload: str
    load: str
    side_by_side: bool
    trials: Sequence[Trial]

    def as_json(self) -> dict[str, Any]:
        """Return it for the raw data."""
        return dataclasses.asdict(self)


def from_json(found: Mapping[str, Any]) -> Pair:
    """Return the pair that `Pair.as_json` described."""
    trials = [
        Trial(**{**trial, 'faults': tuple(trial['faults'])})
        for trial in found['trials']
    ]
    return Pair(**{**found, 'trials': trials})


class Place(Protocol):
    """Where arms run."""

    @property
    def emulates(self) -> bool:
        """Whether what runs there is emulated.

        Ratios mean nothing for real machines then.
        """

    def prepare(self, workloads: Sequence[Workload]) -> None:
        """Make everything ready.

        :raises exception.NUMAHugepagesError: if something is missing here
        """

    def run(
        self, workload: Workload, load: str, arms: Sequence[Arm], turn: int
    ) -> tuple[bool, list[Trial]]:
        """Run a workload once in each arm.

        :param arms: in the order in which they run, if not at the same time
        :param turn: by which the arms take turns in what is left to choose, as
            the CPUs
        :returns: whether they ran at the same time, and a trial for each
        :raises TrialError: if one of them fails
        """

    def close(self) -> None:
        """Take away everything that was made."""
