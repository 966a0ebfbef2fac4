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


"""Tests of the counter of slots: capacity for several kinds of guests."""

from __future__ import annotations

import hypothesis
from hypothesis import strategies as st

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.capacity import cell_room
from nova_numa_hugepages.core.capacity import consume
from nova_numa_hugepages.core.capacity import slots
from nova_numa_hugepages.core.capacity.counter import Counter
from nova_numa_hugepages.core.capacity.guest_kinds import guest_kind
from nova_numa_hugepages.core.model import Plan
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import host
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
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


class TestCounting:
    def test_all_kinds_on_a_host(self):
        counts = Counter([LITTLE, LARGE], model.Strategy())
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
        counts = Counter([FLOATING], model.Strategy())
        free = host(host_cell(shared_cores=2, pools=(small(64),)))

        assert counts.slots(counts.measure(free)) == (2,)
        assert counts.slots(counts.measure(free, model.Limits(4, 1))) == (8,)

    def test_small_pages_of_the_whole_host_are_used_up(self):
        # Given a host of which other guests leave 9 MiB
        counts = Counter([FLOATING], model.Strategy())
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
            counter = Counter(
                kinds, model.Strategy(), by_placement=by_placement
            )
            return [
                tuple(counter.slots(counter.measure(each))) for each in hosts
            ]

        assert count(by_placement=False) == [(4, 4), (4, 8)]
        assert count(by_placement=True) == [(4, 4), (0, 8)]

    def test_it_says_whether_it_matters_which_cpus_are_free(self):
        isolated = guest_kind(
            request(pinned_cell(1, 2, threads=model.ThreadPolicy.ISOLATE))
        )

        assert [
            Counter([kind], model.Strategy()).cores_matter
            for kind in (LITTLE, FLOATING, isolated)
        ] == [False, False, True]


@examples(0.02)
@hypothesis.given(counts(), counts())
def test_what_is_left_is_what_is_measured_again(
    count: Count, other: Count
) -> None:
    # Given the slots of two kinds of guests, one of which comes to a host
    kinds = [
        guest_kind(count.request, count.farthest),
        guest_kind(other.request, other.farthest),
    ]
    counter = Counter(kinds, count.strategy)
    before = counter.measure(count.host, count.limits)
    plan = count.fit()
    hypothesis.assume(isinstance(plan, Plan))
    assert isinstance(plan, Plan)
    # When what is left is computed from what was there before
    cells = consume.after_plan(count.request, plan, count.host)
    after = counter.after(before, count.host, cells, count.limits)
    # Then it is what is there
    assert after == counter.measure(
        with_cells(count.host, cells), count.limits
    )
    assert counter.slots(after) == Counter(kinds, count.strategy).slots(after)


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
    counter = Counter([LITTLE, LARGE], count.strategy)
    guest = request(
        *[
            pinned_cell(vcpus, size_kib // 1024, size_kib, first=number * 8)
            for number in range(cells)
        ]
    )
    found = model.HostTopology(count.host.cells, count.host.distances)
    count = Count(guest, found, count.limits, count.strategy)
    before = counter.measure(found, count.limits)
    plan = count.fit()
    hypothesis.assume(isinstance(plan, Plan))
    assert isinstance(plan, Plan)
    needs = {
        planned.host_cell: cell_room.need(asked, 0)
        for asked, planned in zip(guest.cells, plan.cells, strict=True)
    }
    # When what is left is computed from the needs of the guest
    short = counter.after_needs(before, found, needs)
    # Then it is what is measured, where it is computed at all
    hypothesis.event(f'computed: {short is not None}')
    if short is not None:
        cells_left = consume.after_plan(guest, plan, found)
        assert short == counter.after(before, found, cells_left, count.limits)


def test_the_short_way_of_a_guest_of_two_cells() -> None:
    counter = Counter([LITTLE, LARGE], model.Strategy())
    free = host(
        *[
            host_cell(number, cores=6, pools=(small(64), huge(16)))
            for number in range(3)
        ]
    )
    before = counter.measure(free)
    need = cell_room.need(pinned_cell(3, 8, MIB_2), 0)

    after = counter.after_needs(before, free, {0: need, 2: need})

    assert after is not None
    assert counter.slots(before) == (18, 3)
    assert counter.slots(after) == (12, 1)


def test_there_is_no_short_way_for_others() -> None:
    counter = Counter([LITTLE, FLOATING], model.Strategy())
    free = host(host_cell(pools=(small(64), huge(8))))
    need = cell_room.need(pinned_cell(1, 2, MIB_2), 0)

    assert counter.after_needs(counter.measure(free), free, {0: need}) is None


def test_kinds_and_strategy_are_kept() -> None:
    strategy = model.Strategy(pack=True)
    counter = Counter([LARGE, LITTLE], strategy)

    assert (counter.kinds, counter.strategy) == ((LARGE, LITTLE), strategy)
    assert counter.slots(slots.HostRoom(())) == (0, 0)
