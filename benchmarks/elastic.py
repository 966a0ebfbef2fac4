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

from benchmarks import lending
from nova_numa_hugepages.hugepages import forecast
from tests.fixtures import arrivals

_SEEDS = range(1, 6)
_LEARNED_S = 6.0 * forecast.WEEK_S
_END_S = 8.0 * forecast.WEEK_S
_PAGES_PER_GIB = 512


def main() -> int:
    """Measure, and print tables in Markdown."""
    print(
        '| ratio | instances | waits in a week | median, longest | share of '
        'the time | largest regret |\n'
        '| ---: | ---: | ---: | ---: | ---: | ---: |'
    )
    for ratio in lending.RATIOS:
        found = lending.measure(ratio)
        print(
            f'| {found.ratio} | {found.instances} | {found.waits} | '
            f'{found.median_wait_min:.0f}, {found.longest_wait_min:.0f} min | '
            f'{found.waiting_share:.2%} | {found.most_lent_gib:.0f} GiB |',
            flush=True,
        )
    print(
        '\n| starts | found their pages | idle GiB-hours in two weeks | a '
        'fixed margin that does as well | less |\n'
        '| --- | ---: | ---: | ---: | ---: |'
    )
    for pattern in (arrivals.office, arrivals.classes):
        rows = []
        for seed in _SEEDS:
            stays = pattern(seed, 8)
            ours = forecast.replay(
                stays,
                forecast.margins(
                    arrivals.counted(stays, _LEARNED_S),
                    _LEARNED_S,
                    risk=0.01,
                    began_s=0.0,
                ),
                pause_s=arrivals.PAUSE_S,
                from_s=_LEARNED_S,
                until_s=_END_S,
            )
            fixed = arrivals.fixed(stays, ours.ready, _LEARNED_S, _END_S)
            rows.append((ours, fixed))
        ready = statistics.median(ours.ready for ours, _ in rows)
        idle, instead = (
            statistics.median(one[number].idle_page_hours for one in rows)
            / _PAGES_PER_GIB
            for number in (0, 1)
        )
        less = statistics.median(
            1 - ours.idle_page_hours / fixed.idle_page_hours
            for ours, fixed in rows
        )
        print(
            f'| {pattern.__name__} | {ready:.1%} | {idle:,.0f} | '
            f'{instead:,.0f} | {less:.0%} |',
            flush=True,
        )
    return 0


if __name__ == '__main__':
    sys.exit(main())
