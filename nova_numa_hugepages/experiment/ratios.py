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

"""Ratios of paired measurements, their intervals, and how many pairs it takes.

The logarithms of the ratios are what is averaged, so that twice and half are
equally far from the same. The interval is a studentized bootstrap (B. Efron
and R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 12): with
a dozen pairs, one by percentiles says too often that arms differ.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import NamedTuple

import numpy as np
from scipy import stats

# With fewer, resamples of two or three pairs decide where an interval ends.
LEAST_PAIRS = 12
# So many tell how far pairs vary.
LEAST_FIRST_PAIRS = 6
# The chance to find a difference as small as is wanted.
POWER = 0.9
MOST_PAIRS = 1000

# Beyond each end of an interval, and altogether; drawn in parts.
_RESAMPLES_BEYOND = 100
_MOST_RESAMPLES = 400_000
_RESAMPLES_AT_ONCE = 20_000
# The spread that the first pairs show is an estimate; the true one is above
# this limit in one case of five.
_SPREAD_RISK = 0.2
_SEED = 20


class Ratio(NamedTuple):
    """How many times as much a treatment measures as control.

    :ivar mean: the geometric mean over the pairs
    :ivar low: the lower end of the interval
    :ivar high: its upper end
    :ivar effect: the mean of the logarithms by their standard deviation
        (J. Cohen's d for pairs), 0 if they don't vary
    :ivar pairs: how many
    """

    mean: float
    low: float
    high: float
    effect: float
    pairs: int

    @property
    def differs(self) -> bool:
        """Whether a difference is shown."""
        return not self.low <= 1 <= self.high

    @property
    def within(self) -> float:
        """How large a difference can be at most, as 0.03 for 3 %."""
        return max(self.high, 1 / self.low) - 1


def warm_up(values: Sequence[float]) -> int:
    """Find how many of the first values are warm-up.

    They are left out where the mean of the rest becomes more exact by it
    (MSER; K. P. White, "An effective truncation heuristic for bias reduction
    in simulation output", Simulation 69, 1997).

    :param values: in the order in which they were measured
    :returns: up to half of them
    """
    found = np.asarray(values, dtype=float)
    if len(found) < 4:
        return 0
    errors = [
        np.var(found[first:]) / (len(found) - first)
        for first in range(len(found) // 2 + 1)
    ]
    return int(np.argmin(errors))


def compare(
    control: Sequence[float], treatment: Sequence[float], confidence: float
) -> Ratio:
    """Compare what was measured in pairs.

    :param control: one value of each pair, above 0
    :param treatment: the other one
    :param confidence: of the interval, between 0 and 1
    :raises ValueError: if there are fewer than `LEAST_PAIRS`
    """
    logs = _logs(control, treatment)
    if len(logs) < LEAST_PAIRS:
        raise ValueError(f'{len(logs)} pairs, expected {LEAST_PAIRS} or more')
    mean, spread = float(np.mean(logs)), float(np.std(logs, ddof=1))
    # All alike, but for what a computer rounds.
    if spread < 1e-12:
        ratio = math.exp(mean)
        return Ratio(ratio, ratio, ratio, 0.0, len(logs))
    low, high = _interval(logs, mean, spread, confidence)
    return Ratio(
        math.exp(mean),
        math.exp(low),
        math.exp(high),
        mean / spread,
        len(logs),
    )


def _logs(control: Sequence[float], treatment: Sequence[float]) -> np.ndarray:
    """Return the logarithms of the ratios."""
    found: np.ndarray = np.log(np.asarray(treatment, dtype=float))
    return found - np.log(np.asarray(control, dtype=float))


def _interval(
    logs: np.ndarray, mean: float, spread: float, confidence: float
) -> tuple[float, float]:
    # The same for the same measurements, whenever it is made again.
    random = np.random.default_rng(_SEED)
    count = len(logs)
    tail = (1 - confidence) / 2
    resamples = min(_RESAMPLES_BEYOND / tail, _MOST_RESAMPLES)
    parts = []
    for _ in range(math.ceil(resamples / _RESAMPLES_AT_ONCE)):
        drawn = logs[random.integers(0, count, (_RESAMPLES_AT_ONCE, count))]
        spreads = np.std(drawn, axis=1, ddof=1)
        varied = spreads > 1e-12
        parts.append((np.mean(drawn, axis=1)[varied] - mean) / spreads[varied])
    below, above = np.quantile(np.concatenate(parts), [tail, 1 - tail])
    return mean - above * spread, mean - below * spread


def pairs_needed(
    control: Sequence[float],
    treatment: Sequence[float],
    difference: float,
    confidence: float,
) -> int:
    """Count the pairs that it takes to find a difference.

    :param control: one value of each of some first pairs
    :param treatment: the other one
    :param difference: to be found, for example 0.03 for 3 %
    :param confidence: of the interval, between 0 and 1
    :returns: from `LEAST_PAIRS` to `MOST_PAIRS`
    """
    logs = _logs(control, treatment)
    freedom = len(logs) - 1
    spread = float(np.std(logs, ddof=1)) * math.sqrt(
        freedom / stats.chi2.ppf(_SPREAD_RISK, freedom)
    )
    low, high = LEAST_PAIRS, MOST_PAIRS
    while low < high:
        middle = (low + high) // 2
        if _power(difference, spread, confidence, middle) >= POWER:
            high = middle
        else:
            low = middle + 1
    return low


def _power(
    difference: float, spread: float, confidence: float, pairs: int
) -> float:
    """Return the chance that so many pairs show a difference."""
    if spread < 1e-12:
        return 1.0
    shift = math.log1p(difference) / spread * math.sqrt(pairs)
    limit = stats.t.ppf(1 - (1 - confidence) / 2, pairs - 1)
    # Where it is far above, the distribution is 0, or cannot be had.
    if shift > limit + 10:
        return 1.0
    return float(stats.nct.sf(limit, pairs - 1, shift))
