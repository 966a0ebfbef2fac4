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

"""What an experiment shows of arms whose difference is known.

``python -m benchmarks.comparing [RUNS]``. Real programs on this machine, with
as many pairs as the experiment itself finds out that it takes: two arms that
are equal, and two of which one does 3 % more.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
import sys
import tempfile

from nova_numa_hugepages.experiment import analysis
from nova_numa_hugepages.experiment import local
from nova_numa_hugepages.experiment import workload
from nova_numa_hugepages.experiment.plan import Arm
from nova_numa_hugepages.experiment.plan import Plan
from nova_numa_hugepages.experiment.plan import THP
from nova_numa_hugepages.experiment.procedure import Procedure
from nova_numa_hugepages.experiment.trial import Pair
from nova_numa_hugepages.experiment.workload import Measure
from nova_numa_hugepages.hugepages.kernel import hostfs

_RUNS = 100
_LOOPS = 5_000_000
_DIFFERENCE = 0.03


class Count(workload.Workload):
    """Counts; in an arm with transparent huge pages so many times as far."""

    name = 'count'

    def __init__(self, times: float) -> None:
        super().__init__()
        self._times = times

    @property
    def measures(self) -> Sequence[Measure]:
        return [Measure('time', 's')]

    @property
    def memory_mib(self) -> int:
        return 0

    def command(
        self, probe: str, pages: str, folder: pathlib.Path
    ) -> Sequence[str]:
        loops = _LOOPS * (self._times if pages == THP else 1)
        return ['awk', f'BEGIN {{ for (i = 0; i < {loops:.0f}; i++) x += i }}']

    def read(self, output: str) -> Mapping[str, Sequence[float]]:
        return {}


def main() -> int:
    """Measure, and print what was shown."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else _RUNS
    print(
        '| difference | runs | shown | pairs, from, to |\n| ---: | ---: '
        '| ---: | ---: |'
    )
    for difference in (0.0, _DIFFERENCE):
        shown, pairs = 0, []
        for seed in range(runs):
            is_shown, count = _run(1 + difference, seed)
            shown += is_shown
            pairs.append(count)
        print(
            f'| {difference:.0%} | {runs} | {shown} | {min(pairs)}, '
            f'{max(pairs)} |',
            flush=True,
        )
    return 0


def _run(times: float, seed: int) -> tuple[bool, int]:
    """Carry out an experiment.

    :returns: whether it shows a difference, and how many pairs it made
    """
    plan = Plan(
        (Arm('control'), Arm('other', THP)),
        {'count': {}},
        difference=_DIFFERENCE,
        seed=seed,
    )
    work = Count(times)
    made: list[Pair] = []
    with tempfile.TemporaryDirectory() as folder:
        place = local.LocalHost(plan, pathlib.Path(folder), hostfs.HostFS())
        place.prepare([work])
        try:
            procedure = Procedure(
                plan, [work], place, made.append, lambda *_: None
            )
            decision = procedure.decide()
            procedure.run(decision)
        finally:
            place.close()
    (found,) = analysis.compare(plan, [work], made)
    assert found.ratio is not None, 'too few pairs count'
    return found.ratio.differs, decision.pairs


if __name__ == '__main__':
    sys.exit(main())
