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

"""How many starts find their pages ready, and what that costs.

Starts and ends of a simulation are replayed on each pool: with the margins
that the compute service learns from what it has seen before, and with a fixed
one that does as well.
"""

from __future__ import annotations

import bisect
import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Final
from typing import NamedTuple
from typing import TypeVar

from nova_numa_hugepages.hugepages import forecast
from nova_numa_hugepages.simulate import results

# The service makes pages ready once a minute.
PAUSE_S: Final = 60.0
LEAST_S: Final = 2 * 24.0 * forecast.HOUR_S
# Of the time, what the service learns from.
_LEARNED: Final = 0.75
_STEP_MIB: Final = 256
_MOST_MIB: Final = 1 << 20

_Key = TypeVar('_Key')


class Replay(NamedTuple):
    """What keeping pages ready has come to.

    :ivar starts: how many there were
    :ivar found: how many of them found their pages
    :ivar idle_page_hours: idle pages, summed over time
    """

    starts: int
    found: int
    idle_page_hours: float

    @property
    def ready(self) -> float:
        """The share of starts that found their pages."""
        return self.found / max(1, self.starts)


class Stay(NamedTuple):
    """An instance that started and ended, with its pages in one pool."""

    start_s: float
    end_s: float
    pages: int


def replay(
    stays: Sequence[Stay],
    margins: Sequence[int],
    *,
    pause_s: float,
    until_s: float,
    from_s: float = 0.0,
) -> Replay:
    """Replay starts and ends on a pool that keeps a margin.

    :param stays: in the order of their starts
    :param margins: idle pages to keep, by hour of the week
    :param pause_s: after how many seconds the margin is kept up again
    :param from_s: from when on it counts
    """
    events = sorted(
        [(stay.start_s, 1, stay.pages) for stay in stays]
        + [(stay.end_s, 0, stay.pages) for stay in stays]
    )
    idle = margins[0]
    ready = starts = 0
    page_seconds = 0.0
    now = 0.0

    def wait(until: float) -> None:
        nonlocal now, page_seconds
        if until > from_s:
            page_seconds += idle * (until - max(now, from_s))
        now = until

    next_pass = 0.0
    times = [event[0] for event in events]
    at = 0
    while next_pass < until_s:
        end = bisect.bisect_left(times, next_pass + pause_s, at)
        wait(next_pass)
        idle = forecast.kept(margins, next_pass)
        for time_s, is_start, pages in events[at:end]:
            wait(time_s)
            if not is_start:
                idle += pages
                continue
            if time_s >= from_s:
                starts += 1
                ready += pages <= idle
            idle = max(0, idle - pages)
        at = end
        next_pass += pause_s
    return Replay(starts, ready, page_seconds / forecast.HOUR_S)


def counted(
    stays: Iterable[Stay], until_s: float
) -> dict[forecast.Start, int]:
    """Count starts as the compute service does.

    :param until_s: those that are later don't count
    """
    counts: dict[forecast.Start, int] = collections.Counter()
    taken: dict[int, int] = collections.Counter()
    for stay in stays:
        if stay.start_s < until_s:
            of_pause = int(stay.start_s // PAUSE_S)
            taken[of_pause] += stay.pages
            counts[forecast.start(stay.start_s, taken[of_pause])] += 1
    return counts


def compare(
    pools: Mapping[_Key, Sequence[Stay]],
    size_kib: Callable[[_Key], int],
    end_s: float,
    *,
    risk: float,
    limit_kib: Callable[[_Key], int] | None = None,
    learned_s: float | None = None,
) -> results.Ready:
    """Compare what is learned with a fixed margin that does as well.

    :param pools: who comes and goes on each pool, in the order of starts
    :param size_kib: returns the size of the pages of a pool
    :param end_s: when all ends; it begins at 0
    :param risk: the share of starts that may find too few pages
    :param limit_kib: returns how much of the node of a pool is kept ready at
        most, as the service has it; without, there is no limit
    :param learned_s: so long it is learned before anything counts
    """
    if learned_s is None:
        learned_s = end_s * _LEARNED // forecast.HOUR_S * forecast.HOUR_S

    def all_of(
        margins: Callable[[_Key], Sequence[int]],
    ) -> tuple[int, int, float]:
        found = {
            key: replay(
                stays,
                margins(key),
                pause_s=PAUSE_S,
                from_s=learned_s,
                until_s=end_s,
            )
            for key, stays in pools.items()
        }
        return (
            sum(one.starts for one in found.values()),
            sum(one.found for one in found.values()),
            sum(
                one.idle_page_hours * size_kib(key) / (1 << 20)
                for key, one in found.items()
            ),
        )

    def learned(key: _Key) -> Sequence[int]:
        margins = forecast.margins(
            counted(pools[key], learned_s), learned_s, risk=risk, began_s=0.0
        )
        if limit_kib is None:
            return margins
        most = limit_kib(key) // size_kib(key)
        return [min(margin, most) for margin in margins]

    starts, ready, idle = all_of(learned)

    def fixed(mib: int) -> tuple[int, int, float]:
        return all_of(
            lambda key: [mib * 1024 // size_kib(key)] * forecast.HOURS
        )

    # In steps; with so many of them everything finds its pages.
    low, high = -1, 1
    while fixed(high * _STEP_MIB)[1] < ready and high * _STEP_MIB < _MOST_MIB:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if fixed(middle * _STEP_MIB)[1] >= ready:
            high = middle
        else:
            low = middle
    return results.Ready(
        hours=(end_s - learned_s) / forecast.HOUR_S,
        starts=starts,
        ready_share=ready / max(1, starts),
        idle_gib_hours=idle,
        fixed_mib=high * _STEP_MIB,
        fixed_gib_hours=fixed(high * _STEP_MIB)[2],
    )
