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

"""What elastic instances and pages made ready bring: made up, and replayed.

``python -m benchmarks.elastic``. No figure depends on the machine.
"""

from __future__ import annotations

import statistics
import sys

from nova_numa_hugepages.hugepages import elastic
from nova_numa_hugepages.hugepages import forecast
from nova_numa_hugepages.simulate import lending
from nova_numa_hugepages.simulate import readiness
from nova_numa_hugepages.simulate import scenario
from tests.fixtures import arrivals

_SEEDS = range(1, 6)
_LEARNED_S = 6.0 * forecast.WEEK_S
_END_S = 8.0 * forecast.WEEK_S
# How many instances fit without lending.
_INSTANCES = 40
_POOL = lending.HostPool('host', 0, 2048)
# 16 GiB, of which half is the base, in blocks of 128 MiB.
_CELL = lending.LentCell(_POOL, 4096, 8192, 64)


def main() -> int:
    """Measure, and print tables in Markdown."""
    print(
        '| ratio | instances | waits in a week | median, longest | share of '
        'the time | largest regret |\n'
        '| ---: | ---: | ---: | ---: | ---: | ---: |'
    )
    for ratio in lending.RATIOS:
        found = lending.live(
            {_POOL: _INSTANCES * _CELL.ceiling},
            [(_CELL,)] * int(_INSTANCES * ratio),
            scenario.Use(),
            seed=1,
            marks=elastic.Marks(),
        )
        print(
            f'| {ratio} | {found.instances} | {found.waits} | '
            f'{found.median_wait_s / 60:.0f}, '
            f'{found.longest_wait_s / 60:.0f} min | '
            f'{found.waiting_share:.2%} | '
            f'{found.most_lent_mib / 1024:.0f} GiB |',
            flush=True,
        )
    print(
        '\n| starts | found their pages | idle GiB-hours in two weeks | a '
        'fixed margin that does as well | less |\n'
        '| --- | ---: | ---: | ---: | ---: |'
    )
    for pattern in (arrivals.office, arrivals.classes):
        rows = [
            readiness.compare(
                {_POOL: pattern(seed, 8)},
                lambda pool: pool.size_kib,
                _END_S,
                risk=0.01,
                learned_s=_LEARNED_S,
            )
            for seed in _SEEDS
        ]
        share, idle, fixed, less = (
            statistics.median(values)
            for values in zip(
                *(
                    (
                        row.ready_share,
                        row.idle_gib_hours,
                        row.fixed_gib_hours,
                        1 - row.idle_gib_hours / row.fixed_gib_hours,
                    )
                    for row in rows
                ),
                strict=True,
            )
        )
        print(
            f'| {pattern.__name__} | {share:.1%} | {idle:,.0f} | '
            f'{fixed:,.0f} | {less:.0%} |',
            flush=True,
        )
    return 0


if __name__ == '__main__':
    sys.exit(main())
