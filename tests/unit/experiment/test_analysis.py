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

import pytest

from nova_numa_hugepages.experiment import analysis
from nova_numa_hugepages.experiment.plan import Arm
from nova_numa_hugepages.experiment.plan import Plan
from nova_numa_hugepages.experiment.trial import Pair
from tests.unit.experiment import made

PLAN = Plan((Arm('control'), Arm('huge', '2048')), {'work': {}})


def pair(number: int, *values: float, problem: str = '') -> Pair:
    return Pair(
        number,
        False,
        'work',
        'idle',
        True,
        [
            made.trial('huge', *values, problem=problem),
            made.trial('control', 2.0, 2.0, 2.0),
        ],
    )


def test_what_is_not_what_it_says_does_not_count() -> None:
    pairs = [pair(number, 1.0) for number in range(12)]
    pairs.append(pair(12, 50.0, problem='it has no huge pages'))
    (found,) = analysis.compare(PLAN, [made.Work()], pairs)

    assert found.left_out == 1
    assert found.treatment == 1.0
    assert found.control == 2.0
    assert found.ratio is not None
    assert found.ratio.mean == pytest.approx(0.5)
    assert found.is_better


def test_too_few_that_count() -> None:
    (found,) = analysis.compare(PLAN, [made.Work()], [pair(0, 1.0)])

    assert found.ratio is None
    assert found.is_better is None


def test_nothing_at_all() -> None:
    (found,) = analysis.compare(PLAN, [made.Work()], [])

    assert (found.control, found.treatment) == (None, None)


def test_warm_up_is_left_out() -> None:
    pairs = [pair(n, 90.0, 1.0, 1.0, 1.0, 1.0, 1.0) for n in range(12)]
    (found,) = analysis.compare(PLAN, [made.Work()], pairs)

    assert found.treatment == 1.0


def test_more_comparisons_have_wider_intervals() -> None:
    pairs = [pair(n, 1.0 + n / 100) for n in range(12)]
    arms = (*PLAN.arms, Arm('far', far=True), Arm('gigantic', '1048576'))
    few, many = (
        analysis.compare(Plan(chosen, PLAN.workloads), [made.Work()], pairs)[0]
        for chosen in (PLAN.arms, arms)
    )

    assert few.ratio is not None
    assert many.ratio is not None
    assert many.ratio.low < few.ratio.low
    assert many.ratio.high > few.ratio.high
