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

"""Ratios that are wanted of an experiment, as a pipeline checks them."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import re
from typing import NamedTuple

from nova_numa_hugepages import exception
from nova_numa_hugepages.experiment import analysis
from nova_numa_hugepages.experiment import report
from nova_numa_hugepages.experiment import workload
from nova_numa_hugepages.experiment.analysis import Comparison
from nova_numa_hugepages.experiment.plan import Plan

_FORM = re.compile(
    r'^ *([^/]+?) */ *([^/]+?) */ *([^/<>]+?) *([<>]) *(\d+\.?\d*|\.\d+) *$'
)


class BadExpectation(exception.NUMAHugepagesError):
    """It has another form, or there is no such figure."""


class Expectation(NamedTuple):
    """A ratio that is wanted.

    :ivar less: whether the ratio has to be below the number, not above
    """

    arm: str
    workload: str
    measure: str
    less: bool
    number: float

    def is_met(self, found: Comparison) -> bool:
        """Check a comparison: its whole interval counts."""
        if found.ratio is None:
            return False
        if self.less:
            return found.ratio.high < self.number
        return found.ratio.low > self.number


def parse(texts: Sequence[str]) -> list[Expectation]:
    """Read expectations.

    :raises BadExpectation: if one has another form
    """
    found = []
    for text in texts:
        match = _FORM.match(text)
        if match is None:
            raise BadExpectation(
                f'--expect {text!r}: expected ARM/WORKLOAD/MEASURE<RATIO, for '
                'example "huge pages/chase/latency, 128 MiB<0.9".'
            )
        arm, name, measure, sign, number = match.groups()
        found.append(
            Expectation(arm, name, measure, sign == '<', float(number))
        )
    return found


def check(expected: Sequence[Expectation], planned: Plan) -> None:
    """Check that there will be a figure for each.

    :raises BadExpectation: if there won't
    """
    classes = workload.classes()
    for each in expected:
        arms = [arm.name for arm in planned.treatments]
        for kind, name, known in (
            ('arm to compare', each.arm, arms),
            ('workload', each.workload, list(planned.workloads)),
        ):
            if name not in known:
                raise BadExpectation(
                    f'--expect: no {kind} {name!r} in the plan, which has '
                    f'{", ".join(known)}.'
                )
        settings = planned.workloads[each.workload]
        measures = [
            measure.name
            for measure in analysis.measures(classes[each.workload](settings))
        ]
        if each.measure not in measures:
            raise BadExpectation(
                f'--expect: {each.workload} does not measure '
                f'{each.measure!r}, but {"; ".join(measures)}.'
            )


def unmet(
    expected: Sequence[Expectation], found: Sequence[Comparison]
) -> Iterator[str]:
    """Find the ratios that are not as expected, a line each."""
    for each in expected:
        for one in found:
            if (one.arm, one.workload, one.measure.name) != each[:3]:
                continue
            if not each.is_met(one):
                sign = '<' if each.less else '>'
                has = report.interval(one.ratio) if one.ratio else 'unknown'
                yield (
                    f'Not as expected: {each.arm}/{each.workload}/'
                    f'{each.measure}, {one.load}: {has}, expected '
                    f'{sign} {each.number:g}'
                )
