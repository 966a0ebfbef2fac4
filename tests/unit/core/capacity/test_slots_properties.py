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


"""Slots against the fit: how many guests does it really place?"""

from __future__ import annotations

import dataclasses

import hypothesis
from hypothesis import strategies as st

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core import units
from nova_numa_hugepages.core.fit import memory
from tests.unit.core.builders import host
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import MIB_2
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import request
from tests.unit.core.builders import small
from tests.unit.core.capacity.slot_strategies import Count
from tests.unit.core.capacity.slot_strategies import counts
from tests.unit.core.capacity.slot_strategies import pairs
from tests.unit.core.dice import examples
from tests.unit.core.dice import Focus


def anywhere(count: Count) -> Count:
    """Take the limit of distances away."""
    return dataclasses.replace(count, farthest=None)


def overcommits_what_overlaps(count: Count) -> bool:
    """Check whether there may be a few more guests than `how_many` counts.

    That is so for guests with dedicated CPUs, on the smallest pages.
    """
    if count.limits.ram_ratio <= 1.0 or all(
        guest.cpu_policy is model.CPUPolicy.SHARED
        for guest in count.request.cells
    ):
        return False
    return any(
        sum(pool.total * pool.size_kib for pool in cell.pools)
        // units.KIB_PER_MIB
        > cell.memory_mib
        for cell in count.host.cells
    )


def contradicts(found: model.HostTopology) -> list[bool]:
    """List which host cells report larger pages than they have memory."""
    verdicts = []
    for index, cell in enumerate(found.cells):
        made = found.allocatable[index] if found.allocatable else {}
        exist_kib = sum(
            pool.size_kib
            * max(
                pool.total - made.get(pool.size_kib, 0),
                pool.used + pool.reserved,
            )
            for pool in cell.pools[1:]
        )
        verdicts.append(exist_kib // units.KIB_PER_MIB > cell.memory_mib)
    return verdicts


def assert_slots_if_it_fits(count: Count) -> None:
    # Given a guest of any kind, and a host
    count = anywhere(count)
    # When slots are counted, and one guest is fitted
    slots = count.slots()
    fits = isinstance(count.fit(), model.Plan)
    # Then there are slots if it fits, and none if it doesn't
    hypothesis.event(f'fits: {fits}')
    assert (slots > 0) == fits


@examples(0.08)
@hypothesis.given(counts())
def test_there_are_slots_if_and_only_if_a_guest_fits(count: Count) -> None:
    assert_slots_if_it_fits(count)


@examples(0.04)
@hypothesis.given(counts(Focus.CPUS))
def test_there_are_slots_if_and_only_if_it_has_cpus(count: Count) -> None:
    assert_slots_if_it_fits(count)


@examples(0.04)
@hypothesis.given(counts(Focus.MEMORY))
def test_there_are_slots_if_and_only_if_it_has_pages(count: Count) -> None:
    assert_slots_if_it_fits(count)


@examples(0.02)
@hypothesis.given(counts(Focus.PLACES))
def test_a_guest_that_is_near_enough_has_slots(count: Count) -> None:
    # Given a guest that limits how far apart its host cells are
    hypothesis.assume(count.farthest is not None)
    assert count.farthest is not None
    # When it is fitted
    plan = count.fit()
    slots = count.slots()
    # Then there are slots if its host cells are near enough. There may also
    # be some if they aren't: the fit takes the nearest host cells in sum, and
    # host cells are grouped by their neighbours.
    if isinstance(plan, model.Plan) and plan.farthest <= count.farthest:
        assert slots > 0
    # And none if it fits nowhere; a limit never adds any
    if not isinstance(plan, model.Plan):
        assert slots == 0
    assert slots <= anywhere(count).slots()


def assert_not_less_than_are_placed(count: Count) -> None:
    # Given a guest of any kind, and a host
    count = anywhere(count)
    hypothesis.assume(not overcommits_what_overlaps(count))
    # When guests come until none fits any more
    slots = count.slots()
    placed = count.fill()
    # Then there were as many slots, or more
    hypothesis.event(f'exact: {placed == slots}')
    assert placed <= slots


@examples(0.04)
@hypothesis.given(counts())
def test_no_more_guests_come_than_there_are_slots(count: Count) -> None:
    assert_not_less_than_are_placed(count)


@examples(0.02)
@hypothesis.given(counts(Focus.CPUS))
def test_no_more_guests_get_cpus_than_there_are_slots(count: Count) -> None:
    assert_not_less_than_are_placed(count)


@examples(0.02)
@hypothesis.given(counts(Focus.MEMORY))
def test_no_more_guests_get_pages_than_there_are_slots(count: Count) -> None:
    assert_not_less_than_are_placed(count)


def assert_exact(count: Count) -> None:
    # Given a guest of one cell that takes what it takes of one thing: not of
    # pages of whatever size, nor of threads of cores that are more than pairs
    (guest,) = count.request.cells
    hypothesis.assume(
        guest.page_size not in (model.PageRequest.LARGE, model.PageRequest.ANY)
        and not overcommits_what_overlaps(count)
        and (
            guest.thread_policy is not model.ThreadPolicy.REQUIRE
            or all(
                len(core) <= 2
                for cell in count.host.cells
                for core in cell.siblings
            )
        )
    )
    # When guests come until none fits any more
    # Then there were as many slots
    assert count.fill() == count.slots()


@examples(0.02)
@hypothesis.given(counts(most_cells=1))
def test_slots_for_one_cell_are_exact(count: Count) -> None:
    assert_exact(count)


@examples(0.02)
@hypothesis.given(counts(Focus.CPUS, most_cells=1))
def test_slots_for_the_cpus_of_one_cell_are_exact(count: Count) -> None:
    assert_exact(count)


@examples(0.02)
@hypothesis.given(counts(Focus.MEMORY, most_cells=1))
def test_slots_for_the_pages_of_one_cell_are_exact(count: Count) -> None:
    assert_exact(count)


@examples(0.02)
@hypothesis.given(
    st.lists(st.integers(0, 12), min_size=1, max_size=6),
    st.integers(1, 4),
    st.integers(1, 3),
)
def test_slots_for_equal_cells_are_exact_where_the_order_is_right(
    free: list[int], cells: int, vcpus: int
) -> None:
    # Given host cells with enough pages, and a guest of equal cells. The fit
    # takes the host cells with most free CPUs first, and so wastes none.
    count = Count(
        request(
            *[
                pinned_cell(vcpus, 2, MIB_2, first=number * vcpus)
                for number in range(cells)
            ]
        ),
        host(
            *[
                host_cell(number, cores=cores, pools=(small(64), huge(64)))
                for number, cores in enumerate(free)
            ]
        ),
        model.Limits(),
        model.Strategy(),
    )
    # When guests come until none fits any more
    # Then there were as many slots. Only a guest with as many cells as the
    # host has no choice.
    assert count.fill() == count.slots()


def assert_more_room_is_not_less(both: tuple[Count, Count]) -> None:
    # Given a host, and the same one with more free
    less, more = both
    # And pages that were in contradiction to the memory still are: else
    # pages begin to exist that the fit took for not there
    hypothesis.assume(contradicts(less.host) == contradicts(more.host))
    # When slots are counted
    before, after = less.slots(), more.slots()
    # Then there are not fewer
    hypothesis.event(f'more: {after > before}')
    assert after >= before


@examples(0.04)
@hypothesis.given(pairs())
def test_more_room_never_gives_fewer_slots(
    both: tuple[Count, Count],
) -> None:
    assert_more_room_is_not_less(both)


@examples(0.02)
@hypothesis.given(pairs(Focus.CPUS))
def test_more_cpus_never_give_fewer_slots(both: tuple[Count, Count]) -> None:
    assert_more_room_is_not_less(both)


@examples(0.02)
@hypothesis.given(pairs(Focus.MEMORY))
def test_more_pages_never_give_fewer_slots(both: tuple[Count, Count]) -> None:
    assert_more_room_is_not_less(both)


def test_memory_in_which_more_pages_can_exist_leaves_less_for_small_ones() -> (
    None
):
    # Given a host cell that reports more huge pages than it has memory, and
    # one with the memory for them
    contradicting = host_cell(pools=(small(16), huge(9)), memory_mib=16)
    consistent = host_cell(pools=(small(18), huge(9)), memory_mib=18)

    # Then the fit takes it that those without a guest exist only in the other
    assert memory.small_capacity_kib(contradicting) == 16 * 1024
    assert memory.small_capacity_kib(consistent) == 0


def test_the_cases_are_of_use() -> None:
    # Given some of the cases that the tests above are made of
    slots: list[int] = []

    @hypothesis.settings(
        max_examples=300,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(counts())
    def draw(count: Count) -> None:
        slots.append(count.slots())

    # When their slots are counted
    draw()
    # Then many have some, and several of them
    assert sum(number > 0 for number in slots) > 60
    assert sum(number > 2 for number in slots) > 15
