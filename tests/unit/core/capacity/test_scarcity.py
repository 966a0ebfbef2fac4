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


"""What a plan costs the fleet, given the demand."""

from __future__ import annotations

import math
from typing import Any

import hypothesis
from hypothesis import strategies as st
import pytest

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.capacity import cell_room
from nova_numa_hugepages.core.capacity import consume
from nova_numa_hugepages.core.capacity import scarcity
from nova_numa_hugepages.core.capacity import slots
from nova_numa_hugepages.core.capacity.guest_kinds import guest_kind
from nova_numa_hugepages.core.capacity.scarcity import cost
from nova_numa_hugepages.core.capacity.scarcity import Scarcity
from nova_numa_hugepages.core.capacity.scarcity import worth
from nova_numa_hugepages.core.model import Plan
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import host
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import KIB_4
from tests.unit.core.builders import MIB_2
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import request
from tests.unit.core.builders import small
from tests.unit.core.capacity.slot_strategies import Count
from tests.unit.core.capacity.slot_strategies import counts
from tests.unit.core.capacity.slot_strategies import with_cells
from tests.unit.core.dice import examples

LITTLE = guest_kind(request(pinned_cell(1, 2, MIB_2)))
LARGE = guest_kind(request(pinned_cell(4, 8, MIB_2)))
FLOATING = guest_kind(request(floating_cell(1, 4)))


def on_huge_pages(guest: model.GuestCell) -> bool:
    return guest.page_size is not None and guest.page_size > KIB_4


class TestCounting:
    def test_all_kinds_on_a_host(self):
        counts = Scarcity([LITTLE, LARGE], model.Strategy())
        offers = counts.measure(
            host(
                *[
                    host_cell(number, cores=6, pools=(small(64), huge(8)))
                    for number in range(2)
                ]
            )
        )

        assert counts.slots(offers) == (12, 2)

    def test_without_limits_nothing_is_overcommitted(self):
        counts = Scarcity([FLOATING], model.Strategy())
        free = host(host_cell(shared_cores=2, pools=(small(64),)))

        assert counts.slots(counts.measure(free)) == (2,)
        assert counts.slots(counts.measure(free, model.Limits(4, 1))) == (8,)

    def test_small_pages_of_the_whole_host_are_used_up(self):
        # Given a host of which other guests leave 9 MiB
        counts = Scarcity([FLOATING], model.Strategy())
        free = host(host_cell(shared_cores=8, pools=(small(64), huge(8))))
        before = counts.measure(free, small_mib=9)
        assert counts.small_matters
        # When a guest takes 4 MiB on small pages, or on huge ones
        (cell,) = free.cells

        def left(size_kib: int | None) -> tuple[int, ...]:
            after = consume.consume(
                cell, floating_cell(1, 4), cpus=set(), size_kib=size_kib
            )
            return tuple(counts.slots(counts.after(before, free, {0: after})))

        # Then only the former are gone
        assert tuple(counts.slots(before)) == (2,)
        assert left(None) == (1,)
        assert left(MIB_2) == (2,)

    def test_isolated_guests_may_be_kept_off_thread_siblings(self):
        kinds = [
            guest_kind(
                request(pinned_cell(1, 2, threads=model.ThreadPolicy.ISOLATE))
            ),
            guest_kind(request(pinned_cell(1, 2))),
        ]
        hosts = [
            host(host_cell(cores=4, threads=threads, pools=(small(64),)))
            for threads in (1, 2)
        ]

        def count(*, by_placement: bool) -> list[tuple[int, ...]]:
            counted = Scarcity(
                kinds, model.Strategy(), by_placement=by_placement
            )
            return [
                tuple(counted.slots(counted.measure(each))) for each in hosts
            ]

        assert count(by_placement=False) == [(4, 4), (4, 8)]
        assert count(by_placement=True) == [(4, 4), (0, 8)]

    def test_it_tells_whether_it_matters_which_cpus_are_free(self):
        isolated = guest_kind(
            request(pinned_cell(1, 2, threads=model.ThreadPolicy.ISOLATE))
        )

        assert [
            Scarcity([kind], model.Strategy()).cores_matter
            for kind in (LITTLE, FLOATING, isolated)
        ] == [False, False, True]


@examples(0.02)
@hypothesis.given(counts(), counts())
def test_what_is_left_is_what_is_measured_anew(
    count: Count, other: Count
) -> None:
    # Given the slots of two kinds of guests, one of which comes to a host
    kinds = [
        guest_kind(count.request, count.farthest),
        guest_kind(other.request, other.farthest),
    ]
    counted = Scarcity(kinds, count.strategy)
    before = counted.measure(count.host, count.limits)
    plan = count.fit()
    hypothesis.assume(isinstance(plan, Plan))
    assert isinstance(plan, Plan)
    # When what is left is told from what was there before
    cells = consume.after_plan(count.request, plan, count.host)
    after = counted.after(before, count.host, cells, count.limits)
    # Then it is what is there
    assert after == counted.measure(
        with_cells(count.host, cells), count.limits
    )
    assert counted.slots(after) == Scarcity(kinds, count.strategy).slots(after)


@examples(0.03)
@hypothesis.given(
    counts(),
    st.integers(1, 2),
    st.integers(1, 2),
    st.sampled_from((1024, 2048, 4096)),
)
def test_the_short_way_leads_to_the_same(
    count: Count, cells: int, vcpus: int, size_kib: int
) -> None:
    # Given slots of guests that need CPUs and huge pages only, and one like
    # that which comes to a host whose pages all exist
    counted = Scarcity([LITTLE, LARGE], count.strategy)
    guest = request(
        *[
            pinned_cell(vcpus, size_kib // 1024, size_kib, first=number * 8)
            for number in range(cells)
        ]
    )
    found = model.HostTopology(count.host.cells, count.host.distances)
    count = Count(guest, found, count.limits, count.strategy)
    before = counted.measure(found, count.limits)
    plan = count.fit()
    hypothesis.assume(isinstance(plan, Plan))
    assert isinstance(plan, Plan)
    needs = {
        planned.host_cell: cell_room.need(asked, 0)
        for asked, planned in zip(guest.cells, plan.cells, strict=True)
    }
    # When what is left is told from the needs of the guest
    short = counted.after_needs(before, found, needs)
    # Then it is what is measured, where it is told at all
    hypothesis.event(f'told: {short is not None}')
    if short is not None:
        cells_left = consume.after_plan(guest, plan, found)
        assert short == counted.after(before, found, cells_left, count.limits)


def test_the_short_way_of_a_guest_of_two_cells() -> None:
    counted = Scarcity([LITTLE, LARGE], model.Strategy())
    free = host(
        *[
            host_cell(number, cores=6, pools=(small(64), huge(16)))
            for number in range(3)
        ]
    )
    before = counted.measure(free)
    need = cell_room.need(pinned_cell(3, 8, MIB_2), 0)

    after = counted.after_needs(before, free, {0: need, 2: need})

    assert after is not None
    assert counted.slots(before) == (18, 3)
    assert counted.slots(after) == (12, 1)


def test_there_is_no_short_way_for_others() -> None:
    counted = Scarcity([LITTLE, FLOATING], model.Strategy())
    free = host(host_cell(pools=(small(64), huge(8))))
    need = cell_room.need(pinned_cell(1, 2, MIB_2), 0)

    assert counted.after_needs(counted.measure(free), free, {0: need}) is None


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
    counted = Scarcity(kinds, count.strategy)
    plan = count.fit()
    hypothesis.assume(isinstance(plan, Plan))
    assert isinstance(plan, Plan)
    cells = consume.after_plan(count.request, plan, count.host)
    before = counted.measure(count.host, count.limits)
    has = counted.slots(counted.after(before, count.host, cells, count.limits))
    had = counted.slots(before)
    # When it costs what it takes
    found = cost(had, has, worth(had, [0.5, 0.5]))
    # Then that is a part of all that there is
    assert 0 <= found <= 1
    # And the cost is the same again
    again = Scarcity(kinds, count.strategy)
    assert again.slots(again.measure(count.host, count.limits)) == had


def test_kinds_and_strategy_are_kept() -> None:
    strategy = model.Strategy(pack=True)
    counted = scarcity.Scarcity([LARGE, LITTLE], strategy)

    assert (counted.kinds, counted.strategy) == ((LARGE, LITTLE), strategy)
    assert counted.slots(slots.HostRoom(())) == (0, 0)


def test_the_numbers_of_the_operators_guide() -> None:
    # Given six slots for small guests and one for twins, which are two in
    # five of the guests
    worths = worth([6, 1], [0.6, 0.4])

    # Then a small guest costs much where it breaks the only pair of nodes
    assert [round(one, 3) for one in worths] == [0.025, 0.4]
    assert round(cost((4, 1), (3, 0), worths), 3) == 0.425
    assert round(cost((2, 0), (1, 0), worths), 3) == 0.025
