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

import math
import random

import numpy as np
import pytest

from nova_numa_hugepages.experiment import ratios

SPREAD = 0.02


def drawn(count: int, seed: int) -> list[float]:
    random_ = random.Random(seed)
    return [random_.lognormvariate(0, SPREAD) for _ in range(count)]


def test_a_ratio() -> None:
    found = ratios.compare([1, 2, 4, 8] * 3, [2, 4, 8, 16] * 3, 0.99)

    assert found == ratios.Ratio(2.0, 2.0, 2.0, 0.0, 12)
    assert found.differs


def test_twice_and_half_are_the_same_on_average() -> None:
    found = ratios.compare([1] * 12, [2, 0.5] * 6, 0.99)

    assert found.mean == pytest.approx(1)
    assert found.low < 0.6
    assert found.high > 1.7
    assert not found.differs


@pytest.mark.parametrize('count', [12, 30])
def test_an_interval_holds_as_often_as_it_says(count: int) -> None:
    shown = sum(
        ratios.compare([1.0] * count, drawn(count, seed), 0.95).differs
        for seed in range(200)
    )

    # 10 are expected; 20 or more come by chance once in 300 times.
    assert shown < 20


def test_the_same_measurements_give_the_same_interval() -> None:
    values = drawn(12, 1)

    assert ratios.compare([1.0] * 12, values, 0.99) == ratios.compare(
        [1.0] * 12, values, 0.99
    )


def test_the_effect_size() -> None:
    values = [math.exp(number) for number in (1, 2, 3) * 4]

    assert ratios.compare([1] * 12, values, 0.99).effect == pytest.approx(
        2 / np.std([1, 2, 3] * 4, ddof=1)
    )


def test_too_few_pairs() -> None:
    with pytest.raises(ValueError, match='11 pairs, expected 12 or more'):
        ratios.compare([1] * 11, [1] * 11, 0.99)


@pytest.mark.parametrize(
    ('values', 'first'),
    [
        ([1, 1, 1], 0),
        ([5, 5, 5, 5], 0),
        ([9, 5, 5, 5, 5, 5], 1),
        ([9, 8, 7, 5, 5.1, 4.9, 5, 5.05, 4.95, 5], 3),
        # It never settles: no more than half is left out.
        ([8, 7, 6, 5, 4, 3, 2, 1], 4),
    ],
)
def test_warm_up(values: list[float], first: int) -> None:
    assert ratios.warm_up(values) == first


def test_more_pairs_find_less() -> None:
    first = drawn(8, 3)
    one = [1.0] * 8
    needed = [
        ratios.pairs_needed(one, first, difference, 0.99)
        for difference in (0.5, 0.05, 0.03, 0.01)
    ]

    assert needed == sorted(needed)
    assert needed[0] == ratios.LEAST_PAIRS
    assert needed[-1] > 40


def test_values_that_do_not_vary_need_the_least() -> None:
    assert ratios.pairs_needed([1.0] * 8, [1.0] * 8, 0.03, 0.99) == 12


def test_values_that_vary_wildly_have_a_limit() -> None:
    one, other = [1.0] * 8, [0.01, 100.0] * 4

    assert ratios.pairs_needed(one, other, 0.001, 0.99) == ratios.MOST_PAIRS


def test_how_large_a_difference_can_be() -> None:
    assert ratios.Ratio(1.01, 0.99, 1.03, 0.1, 8).within == pytest.approx(0.03)
    assert ratios.Ratio(0.95, 0.9, 1.01, 0.1, 8).within == pytest.approx(1 / 9)
