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

"""What the trials of an experiment show."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import statistics

from nova_numa_hugepages.experiment import ratios
from nova_numa_hugepages.experiment import trial
from nova_numa_hugepages.experiment.plan import Plan
from nova_numa_hugepages.experiment.ratios import Ratio
from nova_numa_hugepages.experiment.trial import Pair
from nova_numa_hugepages.experiment.trial import Trial
from nova_numa_hugepages.experiment.workload import Measure
from nova_numa_hugepages.experiment.workload import Workload


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What a treatment is against control in one measure.

    :ivar control: the median of what control measured, None if nothing counts
    :ivar treatment: the same of the treatment
    :ivar ratio: of the treatment to control; None if there are too few pairs
    :ivar left_out: pairs that don't count, as an arm was not what it says
    """

    workload: str
    load: str
    arm: str
    measure: Measure
    control: float | None
    treatment: float | None
    ratio: Ratio | None
    left_out: int

    @property
    def is_better(self) -> bool | None:
        """Whether the treatment is; None if no difference is shown."""
        if self.ratio is None or not self.ratio.differs:
            return None
        return (self.ratio.mean > 1) is self.measure.more_is_better


def measures(workload: Workload) -> list[Measure]:
    """List what is measured where a workload runs."""
    own = list(workload.measures)
    return [*own, trial.CPU_TIME] if workload.fixed else own


def compare(
    plan: Plan, workloads: Sequence[Workload], pairs: Sequence[Pair]
) -> list[Comparison]:
    """Compare each treatment with control, in each measure."""
    pairs = [pair for pair in pairs if not pair.first]
    confidence = _each_confidence(plan, workloads)
    found = []
    for workload, load, arm, measure in _kinds(plan, workloads):
        control, treatment, left_out = _values(
            plan, pairs, workload.name, load, arm, measure
        )
        enough = len(control) >= ratios.LEAST_PAIRS
        found.append(
            Comparison(
                workload.name,
                load,
                arm,
                measure,
                statistics.median(control) if control else None,
                statistics.median(treatment) if treatment else None,
                ratios.compare(control, treatment, confidence)
                if enough
                else None,
                left_out,
            )
        )
    return found


def pairs_needed(
    plan: Plan, workloads: Sequence[Workload], pairs: Sequence[Pair]
) -> int:
    """Count the pairs that it takes to find what the plan wants to find."""
    confidence = _each_confidence(plan, workloads)
    needed = [ratios.LEAST_PAIRS]
    for workload, load, arm, measure in _kinds(plan, workloads):
        control, treatment, _ = _values(
            plan, pairs, workload.name, load, arm, measure
        )
        if len(control) > 1:
            needed.append(
                ratios.pairs_needed(
                    control, treatment, plan.difference, confidence
                )
            )
    return max(needed)


def _each_confidence(plan: Plan, workloads: Sequence[Workload]) -> float:
    """Return the confidence of each interval, so that all hold together.

    By Bonferroni's inequality.
    """
    count = sum(1 for _ in _kinds(plan, workloads))
    return 1 - (1 - plan.confidence) / max(1, count)


def _kinds(
    plan: Plan, workloads: Sequence[Workload]
) -> Iterator[tuple[Workload, str, str, Measure]]:
    for workload in workloads:
        for load in plan.loads:
            for arm in plan.treatments:
                for measure in measures(workload):
                    yield workload, load, arm.name, measure


def _values(
    plan: Plan,
    pairs: Sequence[Pair],
    workload: str,
    load: str,
    arm: str,
    measure: Measure,
) -> tuple[list[float], list[float], int]:
    """Collect what was measured in pairs.

    :returns: of control and of the treatment, one for each pair that counts;
        and how many don't
    """
    control, treatment, left_out = [], [], 0
    for pair in pairs:
        found = {trial.arm: trial for trial in pair.trials}
        if (pair.workload, pair.load) != (workload, load) or arm not in found:
            continue
        if any(trial.problems for trial in pair.trials):
            left_out += 1
            continue
        control.append(_value(found[plan.control.name], measure))
        treatment.append(_value(found[arm], measure))
    return control, treatment, left_out


def _value(found: Trial, measure: Measure) -> float:
    """Return one value for a trial: the median once it is warm."""
    if measure == trial.CPU_TIME:
        return found.cpu_s
    values = found.values[measure.name]
    return statistics.median(values[ratios.warm_up(values) :])
