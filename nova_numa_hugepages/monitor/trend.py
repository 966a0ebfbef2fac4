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

"""Where a number goes: its slope, how steadily it rises, and when it ends.

Both measures go by the median, so that a few odd points don't decide. Sources:
P. K. Sen, "Estimates of the Regression Coefficient Based on Kendall's Tau",
1968; M. G. Kendall, "A New Measure of Rank Correlation", 1938.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import statistics

Points = Sequence[tuple[float, float]]
"""A time and a value each, the oldest first."""

# Pairs grow with the square of the points.
_MOST_POINTS = 64


def slope(points: Points) -> float | None:
    """Return by how much a value changes in a second, as a rule.

    :returns: the median of the slopes of all pairs of points; None for fewer
        than two points
    """
    slopes = [
        (later[1] - sooner[1]) / (later[0] - sooner[0])
        for sooner, later in _pairs(points)
    ]
    return statistics.median(slopes) if slopes else None


def steadiness(points: Points) -> float:
    """Return how steadily a value rises: Kendall's tau.

    :returns: 1 if it never falls or stays, -1 if it never rises or stays; 0
        for fewer than two points
    """
    signs = [
        (later[1] > sooner[1]) - (later[1] < sooner[1])
        for sooner, later in _pairs(points)
    ]
    return sum(signs) / len(signs) if signs else 0.0


def time_left_s(points: Points, end: float = 0.0) -> float | None:
    """Return when a value that falls will be at its end.

    :returns: seconds after the last point; None if it doesn't fall towards it
    """
    per_s = slope(points)
    if per_s is None or per_s >= 0:
        return None
    return max(0.0, (points[-1][1] - end) / -per_s)


def _pairs(
    points: Points,
) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    step = -(-len(points) // _MOST_POINTS) or 1
    # The last one counts in any case.
    some = [*reversed(points[::-1][::step])]
    for at, sooner in enumerate(some):
        for later in some[at + 1 :]:
            if later[0] > sooner[0]:
                yield sooner, later
