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


"""Tests of the cost of a plan to the fleet, given the demand."""

from __future__ import annotations

import math
from typing import Any

import hypothesis
from hypothesis import strategies as st
import pytest

from nova_numa_hugepages.core.capacity import consume
from nova_numa_hugepages.core.capacity.counter import Counter
from nova_numa_hugepages.core.capacity.guest_kinds import guest_kind
from nova_numa_hugepages.core.capacity.scarcity import cost
from nova_numa_hugepages.core.capacity.scarcity import worth
from nova_numa_hugepages.core.model import Plan
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import MIB_2
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import request
from tests.unit.core.capacity.slot_strategies import Count
from tests.unit.core.capacity.slot_strategies import counts
from tests.unit.core.dice import examples

LITTLE = guest_kind(request(pinned_cell(1, 2, MIB_2)))
LARGE = guest_kind(request(pinned_cell(4, 8, MIB_2)))
FLOATING = guest_kind(request(floating_cell(1, 4)))


class TestWorth:
    @pytest.mark.parametrize(
        ('left', 'shares', 'found'),
        [
            ([], [], []),
            ([0], [1.0], [0.0]),
            ([4], [1.0], [0.25]),
            ([4, 4], [0.5, 0.5], [0.125, 0.125]),
            ([2, 8], [0.5, 0.5], [0.25, 0.015625]),
            ([2, 0], [0.5, 0.5], [0.25, 0.0]),
            ([4, 4], [1.0, 0.0], [0.25, 0.0]),
        ],
    )
    def test_examples(self, left, shares, found):
        assert worth(left, shares) == found

    def test_a_slot_is_worth_more_the_fewer_are_left(self):
        assert [worth([left], [1.0])[0] for left in (1, 2, 10)] == [
            1.0,
            0.5,
            0.1,
        ]

    def test_a_cost_is_what_is_lost(self):
        assert cost([8, 4], [6, 4], [0.1, 0.5]) == pytest.approx(0.2)
        assert cost([8, 4], [9, 2], [0.1, 0.5]) == 1.0
        assert cost([], [], []) == 0.0


@st.composite
def fleets(draw: Any) -> tuple[list[list[int]], list[float]]:
    """Draw the slots of some kinds by host, and the shares of the kinds."""
    kinds = draw(st.integers(1, 5))
    row = st.lists(st.integers(0, 1 << 41), min_size=kinds, max_size=kinds)
    rows = draw(st.lists(row, min_size=1, max_size=6))
    wishes = draw(
        st.lists(
            st.floats(1e-9, 1e9, allow_nan=False),
            min_size=kinds,
            max_size=kinds,
        )
    )
    return rows, [wish / sum(wishes) for wish in wishes]


@examples(0.04)
@hypothesis.given(fleets(), st.randoms(use_true_random=False))
def test_costs_are_of_use(
    fleet: tuple[list[list[int]], list[float]], random: Any
) -> None:
    # Given the slots that a fleet has, and what is left of a host's
    rows, shares = fleet
    left = [sum(column) for column in zip(*rows, strict=True)]
    worths = worth(left, shares)
    after = [random.randint(0, had) for had in rows[0]]
    # When a guest costs what is gone
    found = cost(rows[0], after, worths)
    # Then that is a part of all that there is
    assert all(math.isfinite(value) and value >= 0 for value in worths)
    assert 0 <= found <= 1 + 1e-9
    assert cost(rows[0], [0] * len(after), worths) >= found
    # And the order of the hosts makes no difference
    random.shuffle(rows)
    again = [sum(column) for column in zip(*rows, strict=True)]
    assert worth(again, shares) == worths


@examples(0.02)
@hypothesis.given(counts(), counts())
def test_a_guest_never_costs_less_than_nothing(
    count: Count, other: Count
) -> None:
    # Given a fleet of one host, and a guest that comes to it
    kinds = [guest_kind(count.request), guest_kind(other.request)]
    counter = Counter(kinds, count.strategy)
    plan = count.fit()
    hypothesis.assume(isinstance(plan, Plan))
    assert isinstance(plan, Plan)
    cells = consume.after_plan(count.request, plan, count.host)
    before = counter.measure(count.host, count.limits)
    has = counter.slots(counter.after(before, count.host, cells, count.limits))
    had = counter.slots(before)
    # When it costs what it takes
    found = cost(had, has, worth(had, [0.5, 0.5]))
    # Then that is a part of all that there is
    assert 0 <= found <= 1
    # And the cost is the same again
    again = Counter(kinds, count.strategy)
    assert again.slots(again.measure(count.host, count.limits)) == had


def test_the_numbers_of_the_operators_guide() -> None:
    # Given six slots for small guests and one for twins, which are two in
    # five of the guests
    worths = worth([6, 1], [0.6, 0.4])

    # Then a small guest costs much where it breaks the only pair of nodes
    assert [round(one, 3) for one in worths] == [0.025, 0.4]
    assert round(cost((4, 1), (3, 0), worths), 3) == 0.425
    assert round(cost((2, 0), (1, 0), worths), 3) == 0.025
