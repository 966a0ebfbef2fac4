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


"""Tests of the search for the best set of host cells.

Host cells are positions in the order of preference.
"""

import itertools
import random

import pytest

from nova_numa_hugepages.core.fit import matching
from nova_numa_hugepages.core.fit import search

# Four cells on two sockets: 0 and 2 on one, 1 and 3 on the other.
CROSSED = (
    (10, 31, 20, 31),
    (31, 10, 31, 20),
    (20, 31, 10, 31),
    (31, 20, 31, 10),
)


def problem(fits, **others):
    others.setdefault('alike', len(set(fits)) <= 1)
    return search.Problem(fits=fits, **others)


def test_without_distances_the_preferred_positions_are_taken():
    assert search.best_set(problem([0b1111, 0b1111])) == [0, 1]


def test_positions_on_which_nothing_fits_are_left_out():
    assert search.best_set(problem([0b1010, 0b1010])) == [1, 3]


def test_the_smallest_sum_of_distances_comes_before_preference():
    found = search.best_set(problem([0b1110, 0b1110], distances=CROSSED))

    assert found == [1, 3]


def test_of_equal_sums_the_preferred_positions_are_taken():
    found = search.best_set(problem([0b1111, 0b1111], distances=CROSSED))

    assert found == [0, 2]


def test_of_equal_sums_of_three_the_preferred_positions_are_taken():
    # Each set of three has one near pair: 20 + 31 + 31.
    found = search.best_set(problem([0b1111] * 3, distances=CROSSED))

    assert found == [0, 1, 2]


def test_the_best_set_need_not_contain_the_nearest_pair():
    # 0 and 1 are nearest to each other, and far from all others.
    distances = (
        (10, 11, 90, 90, 90),
        (11, 10, 90, 90, 90),
        (90, 90, 10, 20, 20),
        (90, 90, 20, 10, 20),
        (90, 90, 20, 20, 10),
    )

    found = search.best_set(problem([0b11111] * 3, distances=distances))

    assert found == [2, 3, 4]


def test_the_smallest_largest_distance_comes_before_the_sum():
    # 11 + 11 + 31 is the smallest sum, and 31 the largest distance of all.
    rows = [[40] * 6 for _ in range(6)]
    for one, other, far in (
        *((0, 1, 11), (1, 2, 11), (0, 2, 31)),
        *((3, 4, 20), (4, 5, 20), (3, 5, 20)),
    ):
        rows[one][other] = rows[other][one] = far

    found = search.best_set(problem([0b111111] * 3, distances=rows))

    assert found == [3, 4, 5]
    assert search.farthest(found, rows) == 20
    assert search.spread(found, rows) == 60


def test_the_largest_distance_is_raised_until_a_set_meets_the_needs():
    found = search.best_set(
        problem([0b1111, 0b1111], distances=CROSSED, touch=[0b0001, 0b0010])
    )

    assert found == [0, 1]


def test_one_guest_cell_takes_the_first_position():
    assert search.best_set(problem([0b110])) == [1]


def test_the_set_touches_each_mask():
    found = search.best_set(problem([0b1111, 0b1111], touch=[0b0100, 0b1100]))

    assert found == [0, 2]


def test_touching_comes_before_distances():
    found = search.best_set(
        problem([0b1111, 0b1111], distances=CROSSED, touch=[0b0100, 0b1000])
    )

    assert found == [2, 3]


def test_there_is_no_set_when_no_candidate_touches():
    assert search.best_set(problem([0b0011, 0b0011], touch=[0b1000])) is None


def test_there_is_no_set_when_one_cell_would_have_to_touch_two_masks():
    assert search.best_set(problem([0b11], touch=[0b01, 0b10])) is None


def test_the_weights_of_the_set_reach_the_sum():
    found = search.best_set(
        problem([0b1111, 0b1111], needs=[([0, 1, 2, 3], 5)])
    )

    assert found == [2, 3]


def test_there_is_no_set_when_all_weights_together_are_too_little():
    found = search.best_set(
        problem([0b1111, 0b1111], needs=[([0, 1, 2, 3], 7)])
    )

    assert found is None


def test_there_is_no_set_when_no_two_weights_are_enough():
    found = search.best_set(
        problem([0b1111, 0b1111], needs=[([2, 2, 2, 2], 5)])
    )

    assert found is None


def test_the_last_word_is_asked_in_order_of_preference():
    asked = []

    def accepts(chosen):
        asked.append(tuple(chosen))
        return asked[-1] == (0, 3)

    found = search.best_set(problem([0b1111, 0b1111], accepts=accepts))

    assert found == [0, 3]
    assert asked == [(0, 1), (0, 2), (0, 3)]


def test_there_is_no_set_when_all_are_refused():
    found = search.best_set(
        problem([0b1111, 0b1111], accepts=lambda chosen: False)
    )

    assert found is None


def test_a_bound_is_not_taken_from_a_set_that_is_refused():
    # The nearest three of each seed are refused, one beyond them is not.
    wanted = [0, 1, 3]

    found = search.best_set(
        problem(
            [0b1111] * 3,
            distances=CROSSED,
            accepts=lambda chosen: sorted(chosen) == wanted,
        )
    )

    assert found == wanted


def test_guest_cells_that_fit_on_different_positions_are_all_placed():
    # Guest cell 0 only on 0 or 1, guest cell 1 only on 1, guest cell 2 on 3.
    found = search.best_set(problem([0b0011, 0b0010, 0b1000]))

    assert found == [0, 1, 3]


def test_different_guest_cells_take_the_nearest_positions_they_fit_on():
    found = search.best_set(
        problem([0b0011, 0b1110, 0b1110], distances=CROSSED)
    )

    assert found == [0, 1, 2]


def test_there_is_no_set_for_guest_cells_that_compete():
    assert search.best_set(problem([0b1, 0b1])) is None
    assert search.best_set(problem([0b01, 0b01, 0b11], alike=False)) is None


def test_there_is_no_set_when_one_position_is_left_for_two():
    distances = ((10, 20), (20, 10))

    assert search.best_set(problem([0b01] * 2, distances=distances)) is None


def test_greed_that_ends_early_sets_no_bound():
    # No seed on 2 can be completed by greed: guest cells 0 and 1 need both
    # 0 and 1.
    fits = [0b001, 0b010, 0b101]
    distances = ((10, 30, 20), (30, 10, 30), (20, 30, 10))

    assert search.best_set(problem(fits, distances=distances)) == [0, 1, 2]


@pytest.mark.parametrize('seed', range(200))
def test_the_best_set_is_that_of_trying_all(seed):
    dice = random.Random(seed)
    count, guests = dice.randint(2, 7), dice.randint(2, 4)
    fits = [dice.getrandbits(count) | 1 << dice.randrange(count)] * guests
    if dice.random() < 0.5:
        fits = [dice.getrandbits(count) for _ in range(guests)]
    # The fit asks for guest cells only that all find a place.
    fits = [mask | 0b11 for mask in fits]
    distances = [[10] * count for _ in range(count)]
    for one, other in itertools.combinations(range(count), 2):
        far = dice.choice((12, 20, 21, 31))
        distances[one][other] = distances[other][one] = far
    touch = [dice.getrandbits(count) | 1 for _ in range(dice.randint(0, 1))]
    needs = [([dice.randint(0, 2) for _ in range(count)], dice.randint(0, 3))]

    sets = [
        (
            search.farthest(chosen, distances),
            search.spread(chosen, distances),
            list(chosen),
        )
        for chosen in itertools.combinations(range(count), guests)
        if matching.uses_all(fits, sum(1 << one for one in chosen))
        and all(any(mask >> one & 1 for one in chosen) for mask in touch)
        and all(
            sum(weights[one] for one in chosen) >= least
            for weights, least in needs
        )
    ]
    found = search.best_set(
        problem(fits, distances=distances, touch=touch, needs=needs)
    )

    assert found == (min(sets)[-1] if sets else None)


def test_spread_counts_each_pair_once():
    assert search.spread([0, 1, 2], CROSSED) == 31 + 20 + 31
    assert search.spread([3], CROSSED) == 0
    assert search.spread([], CROSSED) == 0


def test_the_farthest_is_the_largest_distance_of_a_pair():
    assert search.farthest([0, 1, 2], CROSSED) == 31
    assert search.farthest([0, 2], CROSSED) == 20
    assert search.farthest([3], CROSSED) == 0
    assert search.farthest([0, 1], None) == 0


def test_spread_is_nothing_where_distances_are_unknown():
    assert search.spread([0, 1, 2], None) == 0
