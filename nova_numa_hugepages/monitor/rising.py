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

"""Numbers that only rise, by the hours of a history.

What comes and goes, settles, or steps up once doesn't.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import itertools
from typing import NamedTuple

from nova_numa_hugepages.monitor import trend
from nova_numa_hugepages.monitor.history import HOUR_S
from nova_numa_hugepages.monitor.history import Point

HOURS = 48
"""For how many hours a number has to rise."""

LEAST_KNOWN = 0.9
"""The share of a time that has to be known for a verdict on it."""

# In each of so many parts of these hours.
_PARTS = 8
_STEADY = 0.9


class Rise(NamedTuple):
    """How a number has risen.

    :ivar since: in seconds since the epoch
    :ivar first: what it was
    :ivar gain: by how much
    """

    since: float
    first: float
    gain: float


def _window(points: Sequence[Point], now: float) -> list[Point]:
    """Return the last hours; empty if too few of them are known."""
    window = [point for point in points if point.time > now - HOURS * HOUR_S]
    if len(window) < HOURS * LEAST_KNOWN:
        return []
    # It is looked at in parts of one length.
    return window[len(window) % _PARTS :]


def change(points: Sequence[Point], now: float) -> Iterator[float]:
    """Return by how much a number has changed; nothing if it isn't known."""
    window = _window(points, now)
    if window:
        yield window[-1].mean - window[0].mean


def rise(points: Sequence[Point], now: float) -> Rise | None:
    """Return how a number has risen, None if it has not done so steadily."""
    window = _window(points, now)
    if not window:
        return None
    size = len(window) // _PARTS
    lows = [
        min(point.low for point in window[at : at + size])
        for at in range(0, size * _PARTS, size)
    ]
    if any(later <= sooner for sooner, later in itertools.pairwise(lows)):
        return None
    if trend.steadiness([(p.time, p.mean) for p in window]) < _STEADY:
        return None
    # What slows down comes to an end.
    half = len(lows) // 2
    if lows[-1] - lows[half] < (lows[half] - lows[0]) / 2:
        return None
    return Rise(window[0].time, lows[0], lows[-1] - lows[0])
