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

"""Where a number goes."""

from __future__ import annotations

import pytest

from nova_numa_hugepages.monitor import trend


def test_a_slope_is_that_of_most_points() -> None:
    line = [(float(x), 2.0 * x) for x in range(20)]
    line[7] = (7.0, 500.0)
    assert trend.slope(line) == 2.0


@pytest.mark.parametrize('points', [[], [(0.0, 1.0)], [(1.0, 1.0)] * 3])
def test_no_slope_of_too_few_points(
    points: list[tuple[float, float]],
) -> None:
    assert trend.slope(points) is None
    assert trend.steadiness(points) == 0.0
    assert trend.time_left_s(points) is None


def test_many_points_are_thinned_out_and_the_last_one_counts() -> None:
    line = [(float(x), 3.0 * x) for x in range(1000)]
    assert trend.slope(line) == 3.0
    pairs = [*trend._pairs(line)]
    assert len(pairs) <= 64 * 63 // 2
    assert pairs[-1][1] == (999.0, 2997.0)


def test_how_steadily_it_rises() -> None:
    assert trend.steadiness([(0, 1), (1, 2), (2, 5)]) == 1
    assert trend.steadiness([(0, 5), (1, 2), (2, 1)]) == -1
    assert trend.steadiness([(0, 1), (1, 3), (2, 2)]) == pytest.approx(1 / 3)


def test_how_long_it_lasts() -> None:
    falls = [(0.0, 100.0), (10.0, 80.0), (20.0, 60.0)]
    assert trend.time_left_s(falls) == 30.0
    assert trend.time_left_s(falls, end=40.0) == 10.0
    assert trend.time_left_s(falls, end=70.0) == 0.0
    assert trend.time_left_s([(0.0, 1.0), (1.0, 1.0)]) is None
