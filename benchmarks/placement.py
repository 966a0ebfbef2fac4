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


"""How many guests fit: our filter and weigher against stock Nova's.

The scenarios are files for ``nova-numa-hugepages simulate``, which is what
runs them. The demand is learned from the guests that arrive, from nothing on;
no mix and no flavors are given.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import pathlib

from nova_numa_hugepages.simulate import bound
from nova_numa_hugepages.simulate import results
from nova_numa_hugepages.simulate import runner
from nova_numa_hugepages.simulate import scenario
from nova_numa_hugepages.simulate import scenario_file
from nova_numa_hugepages.simulate import summary
from nova_numa_hugepages.simulate.summary import Metric

_FOLDER = pathlib.Path(__file__).parent / 'scenarios'


@dataclasses.dataclass(frozen=True)
class Goal:
    """The figures to reach.

    :ivar ratio: times stock Nova's guests before the first refusal
    :ivar of_bound: percent of the bound, of the median over seeds
    :ivar refused: percent of the arrivals under churn, at most
    """

    ratio: float = 1.0
    of_bound: float = 0.0
    refused: float | None = None


@dataclasses.dataclass(frozen=True)
class Case:
    """A scenario, with a few words about it."""

    name: str
    words: str
    goal: Goal = Goal()


CASES = (
    Case('usual', 'seven flavors of 1, 2 and 4 cells', Goal(1.85, 95, 0.3)),
    Case('burst', 'the same, all at once', Goal(1.85, 95)),
    Case('no-quad', 'the same, without 4 cells', Goal(1.06, 90)),
    Case('small-pages', 'small pages among them', Goal(1.0)),
    Case('isolated', 'isolated threads among them', Goal(1.0)),
)


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of a case.

    :ivar known: guests placed before the first refusal, if our weigher knows
        the flavors, or the mix, beforehand; None where it was not measured
    """

    case: Case
    found: results.Results
    phases: dict[results.Phase, summary.PhaseSummary]
    known: dict[scenario.Learning, float] | None = None


def measure(
    case: Case,
    *,
    processes: int,
    progress: Callable[[str, float], None] | None = None,
) -> Result:
    """Run a case.

    :param progress: called with what runs, and how much of it is done
    """
    play = scenario_file.load(_FOLDER / f'{case.name}.yaml')
    planned = runner.plan(
        play, list(results.PlacementPolicy), scenario.Learning.LEARNED
    )
    unbound = _run(case.name, planned, processes, progress)
    found = bound.add_bounds(play, unbound)
    known = None
    if case.name == 'usual':
        known = {}
        for learning in (scenario.Learning.FLAVORS, scenario.Learning.PINNED):
            fill = [
                task
                for task in runner.plan(
                    play, [results.PlacementPolicy.OURS], learning
                )
                if task.phase is results.Phase.FILL
            ]
            runs = _run(f'{case.name}, {learning}', fill, processes, progress)
            phase = summary.summarise(runs)[0]
            figures = phase.policies[0].figures
            known[learning] = figures[Metric.PLACED].median
    return Result(
        case,
        found,
        {phase.phase: phase for phase in summary.summarise(found)},
        known,
    )


def _run(
    name: str,
    planned: list[scenario.Task],
    processes: int,
    progress: Callable[[str, float], None] | None,
) -> results.Results:
    shares = [0.0] * len(planned)

    def report(number: int, share: float) -> None:
        shares[number] = max(share, shares[number])
        if progress is not None:
            progress(name, sum(shares) / len(shares))

    found = runner.run(planned, processes=processes, progress=report)
    if not found.complete:
        raise KeyboardInterrupt
    return found


def figure(
    result: Result,
    phase: results.Phase,
    metric: Metric,
    policy: results.PlacementPolicy,
) -> float | None:
    """Get the median of a figure, None if it wasn't measured."""
    if phase not in result.phases:
        return None
    for one in result.phases[phase].policies:
        if one.policy is policy and metric in one.figures:
            return one.figures[metric].median
    return None


def ratio(result: Result) -> float:
    """Return how many times the guests of stock Nova ours places.

    Of the medians over the seeds.
    """
    fill = results.Phase.FILL
    ours = figure(result, fill, Metric.PLACED, results.PlacementPolicy.OURS)
    stock = figure(result, fill, Metric.PLACED, results.PlacementPolicy.STOCK)
    assert ours is not None
    assert stock
    return ours / stock


def misses(result: Result) -> list[str]:
    """List the goals that are missed, and by how much."""
    goal = result.case.goal
    found = []
    times = ratio(result)
    if times < goal.ratio:
        found.append(f'{times:.2f} times stock Nova, the goal is {goal.ratio}')
    share = figure(
        result,
        results.Phase.FILL,
        Metric.OF_BOUND_PERCENT,
        results.PlacementPolicy.OURS,
    )
    if share is not None and share < goal.of_bound:
        found.append(f'{share:.1f} % of the bound, not {goal.of_bound} %')
    refused = figure(
        result,
        results.Phase.CHURN,
        Metric.REFUSED_PERCENT,
        results.PlacementPolicy.OURS,
    )
    if goal.refused is not None and (
        refused is None or refused > goal.refused
    ):
        found.append(f'{refused} % refused, the goal is {goal.refused} %')
    return [f'{result.case.name}: {text}' for text in found]
