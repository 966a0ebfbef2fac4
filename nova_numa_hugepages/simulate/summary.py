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

"""Figures that sum up the runs of a simulation.

For each phase and policy: the median over the seeds of each figure, and how
far it is to be trusted. Two policies are compared seed by seed, since both
get the same guests in the same order.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import enum
import operator
import random
import statistics

from nova_numa_hugepages.simulate import results

# Of the bootstrap. The same in each process, so that the same runs always
# give the same intervals.
_SEED = 20260101
_RESAMPLES = 2000
_CONFIDENCE = 0.95
# From fewer seeds, percentiles of medians are little more than the values.
_LEAST_CONFIDENT = 5


class Metric(enum.StrEnum):
    """The figures of a run.

    PLACED is in guests, up to the first refusal; BOUND, too, for any policy.
    REFUSED_PERCENT is of the arrivals that count; a fill has none, since it
    ends with its first refusal. The shares of CPUs are of
    the dedicated ones, those of pages of the memory in huge pages: when the
    first guest is refused in a fill, else the mean after the warm-up.
    OF_BOUND_PERCENT is PLACED over BOUND. The last five are of the guests
    that were placed: how far their memory and CPUs lie apart.
    """

    PLACED = 'placed'
    REFUSED_PERCENT = 'refused_percent'
    CPUS_USED_PERCENT = 'cpus_used_percent'
    CPUS_STRANDED_PERCENT = 'cpus_stranded_percent'
    PAGES_USED_PERCENT = 'pages_used_percent'
    PAGES_STRANDED_PERCENT = 'pages_stranded_percent'
    BOUND = 'bound'
    OF_BOUND_PERCENT = 'of_bound_percent'
    CELL_DISTANCE = 'cell_distance'
    CELL_DISTANCE_P95 = 'cell_distance_p95'
    OVER_SOCKETS_PERCENT = 'over_sockets_percent'
    REMOTE_PERCENT = 'remote_percent'
    LATENCY_NS = 'latency_ns'


# They are fields of a sample.
_SHARES = (
    Metric.CPUS_USED_PERCENT,
    Metric.CPUS_STRANDED_PERCENT,
    Metric.PAGES_USED_PERCENT,
    Metric.PAGES_STRANDED_PERCENT,
)


class Interval(enum.StrEnum):
    """What lies between the two ends that go with a median.

    CONFIDENCE: its 95 % confidence interval. RANGE: all values, since there
    are too few for that.
    """

    CONFIDENCE = 'confidence'
    RANGE = 'range'


@dataclasses.dataclass(frozen=True)
class Figure:
    """A median over seeds.

    :ivar low: where its interval begins, None with one seed
    :ivar high: where it ends
    :ivar interval: which one it is
    """

    median: float
    low: float | None = None
    high: float | None = None
    interval: Interval | None = None


@dataclasses.dataclass(frozen=True)
class FlavorRefusals:
    """The refusals of one flavor, in all seeds together.

    :ivar arrivals: those that count
    """

    flavor: str
    arrivals: int
    refused: int

    @property
    def percent(self) -> float:
        """Refusals over arrivals, 0 if there were none."""
        return 100 * self.refused / self.arrivals if self.arrivals else 0.0


@dataclasses.dataclass(frozen=True)
class PolicySummary:
    """One policy in one phase.

    :ivar seeds: of its runs, in ascending order
    :ivar figures: those that the runs have
    :ivar by_flavor: in descending order of arrivals
    :ivar first_refused: flavors that were refused first, with the number of
        runs, in descending order of it; runs without a refusal are not there
    """

    policy: results.PlacementPolicy
    seeds: tuple[int, ...]
    figures: Mapping[Metric, Figure]
    by_flavor: tuple[FlavorRefusals, ...]
    first_refused: tuple[tuple[str, int], ...]

    @property
    def refusals(self) -> FlavorRefusals:
        """Return those of all flavors together."""
        return FlavorRefusals(
            'all',
            sum(one.arrivals for one in self.by_flavor),
            sum(one.refused for one in self.by_flavor),
        )

    @property
    def unrefused(self) -> int:
        """Count the runs in which all guests were placed."""
        return len(self.seeds) - sum(count for _, count in self.first_refused)


@dataclasses.dataclass(frozen=True)
class PhaseSummary:
    """All policies in one phase.

    :ivar policies: those that have runs, stock Nova first
    :ivar ratios: ours over stock, of the seeds that both have; without
        figures of which stock's is 0
    """

    phase: results.Phase
    policies: tuple[PolicySummary, ...]
    ratios: Mapping[Metric, Figure]

    @property
    def bound(self) -> float | None:
        """Guests that any policy can place, at most; None if unknown."""
        for found in self.policies:
            if Metric.BOUND in found.figures:
                return found.figures[Metric.BOUND].median
        return None


def summarise(found: results.Results) -> tuple[PhaseSummary, ...]:
    """Sum up the phases that have runs, of which any may be missing.

    Lending is no such phase: each of its runs has another ratio.
    """
    phases = []
    for phase in results.Phase:
        if phase is results.Phase.LENDING:
            continue
        by_policy = {
            policy: sorted(
                found.of(phase, policy), key=operator.attrgetter('seed')
            )
            for policy in results.PlacementPolicy
        }
        policies = tuple(
            _policy(policy, runs) for policy, runs in by_policy.items() if runs
        )
        if policies:
            ratios = _ratios(*by_policy.values())
            phases.append(PhaseSummary(phase, policies, ratios))
    return tuple(phases)


def measure(run: results.Run) -> dict[Metric, float]:
    """Measure one run.

    :returns: without the shares of the fleet if no sample counts, and without
        the bound if the run has none
    """
    measured = {Metric.PLACED: float(run.placed)}
    if run.phase is not results.Phase.FILL:
        measured[Metric.REFUSED_PERCENT] = 100 * run.refusal_share
    samples = _counted_samples(run)
    if samples:
        for metric in _SHARES:
            field = metric.removesuffix('_percent')
            measured[metric] = 100 * statistics.fmean(
                getattr(sample, field) for sample in samples
            )
    if run.bound is not None:
        measured[Metric.BOUND] = float(run.bound)
        if run.bound:
            measured[Metric.OF_BOUND_PERCENT] = 100 * run.placed / run.bound
    return measured | _apart(run.locality)


def _apart(found: results.Locality | None) -> dict[Metric, float]:
    if found is None:
        return {}
    values = {
        Metric.CELL_DISTANCE: found.distance,
        Metric.CELL_DISTANCE_P95: found.distance_p95,
        Metric.OVER_SOCKETS_PERCENT: 100 * found.over_sockets_share,
        Metric.REMOTE_PERCENT: 100 * found.remote_share,
        Metric.LATENCY_NS: found.latency_ns,
    }
    return {
        metric: value for metric, value in values.items() if value is not None
    }


def _counted_samples(run: results.Run) -> Sequence[results.Sample]:
    if run.phase is results.Phase.FILL:
        return run.samples[-1:]
    warm_up = run.arrivals - sum(run.counted.values())
    return [sample for sample in run.samples if sample.arrivals > warm_up]


def _policy(
    policy: results.PlacementPolicy, runs: Sequence[results.Run]
) -> PolicySummary:
    measured = [measure(run) for run in runs]
    counted: collections.Counter[str] = collections.Counter()
    refused: collections.Counter[str] = collections.Counter()
    for run in runs:
        counted.update(run.counted)
        refused.update(run.refused)
    first = collections.Counter(
        run.first_refused for run in runs if run.first_refused is not None
    )
    return PolicySummary(
        policy=policy,
        seeds=tuple(run.seed for run in runs),
        figures=_figures(measured),
        by_flavor=tuple(
            FlavorRefusals(flavor, counted[flavor], refused[flavor])
            for flavor in sorted(
                counted | refused, key=lambda name: (-counted[name], name)
            )
        ),
        first_refused=tuple(
            sorted(first.items(), key=lambda item: (-item[1], item[0]))
        ),
    )


def _ratios(
    stock: Sequence[results.Run], ours: Sequence[results.Run]
) -> dict[Metric, Figure]:
    theirs = {run.seed: measure(run) for run in stock}
    found = _figures(
        [
            {
                metric: value / theirs[run.seed][metric]
                for metric, value in measure(run).items()
                if theirs[run.seed].get(metric)
            }
            for run in ours
            if run.seed in theirs
        ]
    )
    # The bound is the same for both.
    found.pop(Metric.BOUND, None)
    return found


def _figures(
    measured: Sequence[Mapping[Metric, float]],
) -> dict[Metric, Figure]:
    found = {}
    for metric in Metric:
        values = [values[metric] for values in measured if metric in values]
        if values:
            found[metric] = figure(values)
    return found


def figure(values: Sequence[float]) -> Figure:
    """Return the median, and its interval if there are several values.

    The confidence interval is that of the bootstrap: between percentiles of
    the medians of samples drawn from the values, with replacement (B. Efron,
    "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7,
    1979).

    :param values: one for each seed, at least one
    """
    median = statistics.median(values)
    if len(values) == 1:
        return Figure(median)
    if len(values) < _LEAST_CONFIDENT:
        return Figure(median, min(values), max(values), Interval.RANGE)
    dice = random.Random(_SEED)
    medians = sorted(
        statistics.median(dice.choices(values, k=len(values)))
        for _ in range(_RESAMPLES)
    )
    outside = round((1 - _CONFIDENCE) / 2 * _RESAMPLES)
    return Figure(
        median, medians[outside], medians[-1 - outside], Interval.CONFIDENCE
    )
