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

"""Forecast of the huge pages that instances will want, pool by pool.

For each start it is known how many idle pages there should have been for it to
find its own: what it takes, and what others took since idle pages were last
made. By these, hour by hour of the week, it chooses how many are kept ready:
so many that all but a share of the starts find their pages, with as little
idle memory as that takes. Where hardly anything starts, at night, it accepts
that a start waits; where many start at once, it keeps more.

Pure: what was seen comes in, a number of pages for each hour comes out.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Final
from typing import NamedTuple

HOURS: Final = 168
HOUR_S: Final = 3600
WEEK_S: Final = HOURS * HOUR_S
# So many weeks are looked at, each counting this much less than the next.
WEEKS: Final = 5
_FADE: Final = 0.8

# What an hour wants is there so long before it begins.
AHEAD_S: Final = 300
# Below this nothing is foretold.
LEAST_STARTS: Final = 20
# How much the same hour of all days, and all hours, weigh beside an hour of
# the week, in weeks.
_DAYS_WEIGHT: Final = 1.0
_ALL_WEIGHT: Final = 0.005
# What was seen is a sample: the next weeks bring rarer things.
_CARE: Final = 0.2
# Needs are rounded up to this many steps for each doubling.
_STEPS: Final = 8


class Start(NamedTuple):
    """Starts that were alike.

    :ivar week: weeks since the epoch
    :ivar hour: hours since the week began
    :ivar need: how many idle pages each would have needed
    """

    week: int
    hour: int
    need: int


def start(time_s: float, need: int) -> Start:
    """Return what is remembered of a start.

    :param time_s: in seconds since the epoch
    :param need: how many idle pages it would have needed; rounded up, so that
        few are told apart
    """
    week, rest = divmod(int(time_s), WEEK_S)
    step = max(1, (1 << max(0, need.bit_length() - 1)) // _STEPS)
    return Start(week, rest // HOUR_S, -(-need // step) * step)


def margins(
    starts: Mapping[Start, int], now_s: float, *, risk: float, began_s: float
) -> list[int]:
    """Return how many idle pages of a pool to keep, by hour of the week.

    :param starts: how often each was seen
    :param now_s: in seconds since the epoch
    :param risk: the share of starts that may find too few pages
    :param began_s: since when starts were counted, in seconds since the epoch
    :returns: a number for each hour; zeros if too little was seen
    """
    if sum(starts.values()) < LEAST_STARTS:
        return [0] * HOURS
    hours = _expected(starts, now_s, began_s)
    total = sum(count for hour in hours for count in hour.values())
    curves = [_curve(hour) for hour in hours]
    target = risk * _CARE * total
    low, high = 0.0, 1.0
    while _all_missed(curves, high) > target and high < 1e12:
        low, high = high, high * 4
    for _ in range(30):
        middle = (low + high) / 2
        if _all_missed(curves, middle) > target:
            low = middle
        else:
            high = middle
    return [_choose(curve, high).pages for curve in curves]


def _expected(
    starts: Mapping[Start, int], now_s: float, began_s: float
) -> list[dict[int, float]]:
    """Estimate how many starts there will be in each hour, by what they need.

    An hour of which little is known is taken to be like the same hour of other
    days, and a bit like all hours.
    """
    seen = [_nothing() for _ in range(HOURS)]
    for one, count in starts.items():
        seen[one.hour][one.need] += count * _weight(one.week, now_s)
    weeks = _weeks(now_s, began_s)
    of_days = [
        _mean(seen, weeks, range(hour, HOURS, 24)) for hour in range(24)
    ]
    of_all = _mean(seen, weeks, range(HOURS))
    found = []
    for hour in range(HOURS):
        expected = _nothing()
        expected.update(seen[hour])
        for mean, weight in (
            (of_days[hour % 24], _DAYS_WEIGHT),
            (of_all, _ALL_WEIGHT),
        ):
            for need, rate in mean.items():
                expected[need] += rate * weight
        scale = weeks[hour] + _DAYS_WEIGHT + _ALL_WEIGHT
        found.append({need: count / scale for need, count in expected.items()})
    return found


def _nothing() -> collections.defaultdict[int, float]:
    return collections.defaultdict(float)


def _weight(week: int, now_s: float) -> float:
    """Return how much a week counts."""
    age = int(now_s) // WEEK_S - week
    return float(_FADE**age) if 0 <= age < WEEKS else 0.0


def _weeks(now_s: float, began_s: float) -> list[float]:
    """Return how often each hour of the week was seen, weighted."""
    found = [0.0] * HOURS
    last = int(now_s) // HOUR_S
    first = max(int(began_s) // HOUR_S, last - WEEKS * HOURS)
    for hour in range(first, last + 1):
        found[hour % HOURS] += _weight(hour // HOURS, now_s)
    return found


def _mean(
    seen: Sequence[Mapping[int, float]], weeks: Sequence[float], hours: range
) -> dict[int, float]:
    """Return the starts an hour, over some hours of the week."""
    found = _nothing()
    for hour in hours:
        for need, count in seen[hour].items():
            found[need] += count
    span = sum(weeks[hour] for hour in hours)
    return {need: count / max(span, 1e-9) for need, count in found.items()}


class _Kept(NamedTuple):
    """What an hour comes to if some pages are kept.

    :ivar missed: how many starts find too few
    """

    pages: int
    missed: float


def _curve(expected: Mapping[int, float]) -> list[_Kept]:
    """Return what an hour comes to, by what may be kept, nothing first.

    :param expected: starts by what they need
    """
    curve = []
    missed = 0.0
    for need in sorted(expected, reverse=True):
        # Keeping a need meets it and all smaller ones.
        curve.append(_Kept(need, missed))
        missed += expected[need]
    return [_Kept(0, missed), *reversed(curve)]


def _choose(curve: Sequence[_Kept], price: float) -> _Kept:
    """Choose what to keep in an hour.

    :param price: how many pages for an hour a start is worth that finds its
        own
    """
    return min(curve, key=lambda kept: kept.pages + price * kept.missed)


def _all_missed(curves: Sequence[Sequence[_Kept]], price: float) -> float:
    """Return how many starts of a week find too few pages, at a price."""
    return sum(_choose(curve, price).missed for curve in curves)


def kept(margins: Sequence[int], now_s: float) -> int:
    """Return how many pages to keep now: what this hour wants, or the next.

    :param margins: by hour of the week
    """
    return max(
        margins[int(time_s) // HOUR_S % HOURS]
        for time_s in (now_s, now_s + AHEAD_S)
    )
