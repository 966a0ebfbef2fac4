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

"""Made measurements: a workload and a place that need no machine."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
import random

from nova_numa_hugepages.experiment import workload
from nova_numa_hugepages.experiment.plan import Arm
from nova_numa_hugepages.experiment.trial import Trial
from nova_numa_hugepages.experiment.workload import Measure

SURROUNDINGS = {
    'host': 'node1',
    'time': 1_700_000_000.0,
    'kernel': '6.12',
    'virtual': False,
    'emulated': False,
    'governor': 'performance',
    'numa_balancing': '0',
    'nodes': [
        {'id': 0, 'cpus': '0-3', 'distances': [10, 21], 'memory_mib': 4096},
        {'id': 1, 'cpus': '4-7', 'distances': [21, 10], 'memory_mib': 4096},
    ],
}


class Work(workload.Workload):
    """Takes so many seconds."""

    name = 'work'

    @property
    def measures(self) -> Sequence[Measure]:
        return [Measure('time', 's')]

    @property
    def memory_mib(self) -> int:
        return 64

    def command(
        self, probe: str, pages: str, folder: pathlib.Path
    ) -> Sequence[str]:
        return ['true']

    def read(self, output: str) -> Mapping[str, Sequence[float]]:
        return {'time': [float(output)]}


def trial(arm: str, *values: float, problem: str = '') -> Trial:
    """Return a trial that measured values."""
    return Trial(
        arm,
        {'time': list(values)},
        0.5,
        1.0,
        (10, 0),
        0.0,
        {},
        {},
        [problem] if problem else [],
    )


class Place:
    """Measures what it is told to, with noise.

    :param times: how many times as much each arm takes, by name
    :param noise: of each trial; what disturbs both arms of a pair is larger
    """

    def __init__(
        self, times: Mapping[str, float], noise: float, seed: int
    ) -> None:
        self._times = times
        self._noise = noise
        self._random = random.Random(seed)
        self.orders: list[tuple[str, ...]] = []

    @property
    def emulates(self) -> bool:
        return False

    def prepare(self, workloads: Sequence[workload.Workload]) -> None:
        pass

    def run(
        self,
        workload: workload.Workload,
        load: str,
        arms: Sequence[Arm],
        turn: int,
    ) -> tuple[bool, list[Trial]]:
        self.orders.append(tuple(arm.name for arm in arms))
        both = self._random.lognormvariate(0, 0.2)
        return True, [
            trial(
                arm.name,
                both
                * self._times.get(arm.name, 1.0)
                * self._random.lognormvariate(0, self._noise),
            )
            for arm in arms
        ]

    def close(self) -> None:
        pass
