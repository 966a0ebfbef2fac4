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


"""Slots of one host, and the kinds of guests that they are counted for."""

from __future__ import annotations

from collections.abc import Sequence
import functools
import itertools

import hypothesis
from hypothesis import strategies as st
import pytest

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.capacity import cell_room
from nova_numa_hugepages.core.capacity import guest_kinds
from nova_numa_hugepages.core.capacity import measure
from nova_numa_hugepages.core.capacity.counter import Counter
from nova_numa_hugepages.core.capacity.guest_kinds import describe
from nova_numa_hugepages.core.capacity.guest_kinds import guest_kind
from nova_numa_hugepages.core.capacity.guest_kinds import GuestKind
from nova_numa_hugepages.core.capacity.slots import HostRoom
from nova_numa_hugepages.core.capacity.slots import rounds
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import GIB_1
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import KIB_4
from tests.unit.core.builders import MIB_2
from tests.unit.core.builders import mixed_cell
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import request
from tests.unit.core.builders import small
from tests.unit.core.dice import examples

DEDICATED = model.CPUPolicy.DEDICATED
PREFER = model.ThreadPolicy.PREFER
# Two pairs of host cells, far from each other.
PAIRS = (
    (10, 20, 40, 40),
    (20, 10, 40, 40),
    (40, 40, 10, 20),
    (40, 40, 20, 10),
)
# A row of host cells, each near to the next.
ROW = ((10, 20, 40), (20, 10, 20), (40, 20, 10))


def measured(
    *cells: model.HostCell,
    kinds: Sequence[GuestKind] = (),
    distances: Sequence[Sequence[int]] | None = None,
    small_mib: int | None = None,
) -> HostRoom:
    """Measure a host for all that any guest may ask for."""
    needs = tuple(need for kind in kinds for need, _ in kind.needs)
    measurer = measure.CellMeasurer(needs, account_small_pages=True)
    return HostRoom(
        tuple(
            measurer.measure(
                cell,
                limits=model.Limits(),
                floats=any(cell.shared_cpus for cell in cells),
            )
            for cell in cells
        ),
        distances,
        small_mib,
    )


def count(kind: GuestKind, *cells: model.HostCell, **others: object) -> int:
    """Count the slots of one kind on a host."""
    (found,) = Counter([kind], model.Strategy()).slots(
        measured(*cells, kinds=[kind], **others)  # type: ignore[arg-type]
    )
    return found


def need(
    vcpus: int, memory_mib: int, *, cpus: int | None = None
) -> cell_room.CellNeed:
    return cell_room.CellNeed(
        vcpus=vcpus,
        cpus=vcpus if cpus is None else cpus,
        shared=0,
        memory=memory_mib * 1024,
        page_size=MIB_2,
        cpu_policy=DEDICATED,
        thread_policy=PREFER,
        plain=True,
    )


def free_cells(*huge_pages: int, cores: int = 8) -> list[model.HostCell]:
    return [
        host_cell(number, cores=cores, pools=(small(1024), huge(pages)))
        for number, pages in enumerate(huge_pages)
    ]


class TestKinds:
    def test_equal_cells_are_counted_together(self):
        assert guest_kind(
            request(
                pinned_cell(2, 4, MIB_2), pinned_cell(2, 4, MIB_2, first=2)
            ),
            20,
        ) == GuestKind(((need(2, 4), 2),), 20)

    def test_the_cell_with_the_emulator_is_another_one(self):
        assert guest_kind(
            request(
                pinned_cell(2, 4, MIB_2),
                pinned_cell(2, 4, MIB_2, first=2),
                emulator_isolated=True,
            )
        ) == GuestKind(((need(2, 4), 1), (need(2, 4, cpus=3), 1)))

    def test_the_order_of_cells_makes_no_other_kind(self):
        one = pinned_cell(2, 4, MIB_2)
        other = pinned_cell(4, 8, MIB_2, first=2)

        assert guest_kind(request(one, other)) == guest_kind(
            request(other, one)
        )

    @pytest.mark.parametrize(
        ('cells', 'expected'),
        [
            ([pinned_cell(2, 4)], True),
            ([pinned_cell(2, 0)], False),
            ([pinned_cell(2, -4)], False),
            ([pinned_cell(1, 4, first=n) for n in range(64)], True),
            ([pinned_cell(1, 4, first=n) for n in range(65)], False),
            ([pinned_cell(4097, 4)], False),
            ([pinned_cell(1, (1 << 30) + 1)], False),
        ],
    )
    def test_what_no_host_could_take_is_not_plausible(self, cells, expected):
        assert guest_kinds.plausible(guest_kind(request(*cells))) is expected

    def test_many_unlike_cells_are_described_in_short(self):
        found = guest_kinds.describe(
            guest_kind(
                request(*[pinned_cell(n, n, MIB_2) for n in range(1, 6)])
            )
        )

        assert found.endswith(' + 2 other cells')

    def test_a_guest_that_floats_has_no_cpu_for_its_emulator(self):
        ((found, _),) = guest_kind(
            request(floating_cell(2), emulator_isolated=True)
        ).needs

        assert (found.cpus, found.shared) == (0, 2)

    def test_one_cell_is_not_far_from_itself(self):
        assert guest_kind(request(pinned_cell(2)), 10).farthest is None

    def test_networks_and_devices_make_no_other_kind(self):
        plain = guest_kind(request(pinned_cell(2)))

        assert plain == guest_kind(
            request(
                pinned_cell(2),
                physnets={'red'},
                tunneled=True,
                asks_devices=True,
            )
        )

    @pytest.mark.parametrize(
        ('asked', 'words'),
        [
            (request(pinned_cell(4, 8192)), '4 CPUs and 8 GiB'),
            (
                request(pinned_cell(4, 8192, MIB_2), emulator_isolated=True),
                '5 CPUs and 8 GiB in 2 MiB pages',
            ),
            (
                request(
                    pinned_cell(4, 512, GIB_1),
                    pinned_cell(4, 512, GIB_1, first=4),
                ),
                '2 x 4 CPUs and 512 MiB in 1 GiB pages',
            ),
            (
                request(floating_cell(2, 64, model.PageRequest.LARGE)),
                '2 shared CPUs and 64 MiB in large pages',
            ),
            (
                request(
                    mixed_cell(1, 2, 64, threads=model.ThreadPolicy.ISOLATE)
                ),
                '2 CPUs and 1 shared CPUs and 64 MiB (isolate)',
            ),
            (
                request(
                    pinned_cell(2, 64, KIB_4),
                    pinned_cell(4, 128, KIB_4, first=2),
                ),
                '1 x 2 CPUs and 64 MiB in 4 KiB pages + '
                '1 x 4 CPUs and 128 MiB in 4 KiB pages',
            ),
        ],
    )
    def test_they_have_names(self, asked, words):
        assert describe(guest_kind(asked)) == words


@functools.cache
def dealt(copies: tuple[int, ...], cells: int) -> int:
    """Deal rounds of different host cells in all ways, and take the best."""
    best = 0
    holding = [index for index, number in enumerate(copies) if number]
    for chosen in itertools.combinations(holding, cells):
        rest = tuple(
            sorted(
                number - (index in chosen)
                for index, number in enumerate(copies)
            )
        )
        best = max(best, 1 + dealt(rest, cells))
    return best


class TestRounds:
    @examples(0.02)
    @hypothesis.given(
        st.lists(st.integers(0, 4), max_size=5), st.integers(1, 5)
    )
    def test_they_are_as_many_as_can_be_dealt(
        self, copies: list[int], cells: int
    ) -> None:
        assert rounds(copies, cells) == dealt(tuple(sorted(copies)), cells)

    @pytest.mark.parametrize(
        ('copies', 'cells', 'found'),
        [
            ([], 1, 0),
            ([], 2, 0),
            ([], 3, 0),
            ([3, 4], 1, 7),
            ([9, 1], 2, 1),
            ([9, 1, 1], 2, 2),
            ([2, 2, 2], 2, 3),
            ([9, 9, 1, 1], 3, 2),
            ([1 << 40] * 4, 4, 1 << 40),
        ],
    )
    def test_examples(self, copies, cells, found):
        assert rounds(copies, cells) == found


class TestLikeCells:
    def test_one_cell_can_be_on_any_host_cell(self):
        kind = guest_kind(request(pinned_cell(2, 4, MIB_2)))

        assert count(kind, *free_cells(8, 3, 0)) == 4 + 1 + 0

    def test_two_cells_are_on_different_host_cells(self):
        kind = guest_kind(
            request(
                pinned_cell(2, 4, MIB_2), pinned_cell(2, 4, MIB_2, first=2)
            )
        )

        assert count(kind, *free_cells(8, 2)) == 1
        assert count(kind, *free_cells(8, 8, 8)) == 6

    def test_a_host_without_cells_has_none(self):
        usual = guest_kind(request(pinned_cell(2, 4, MIB_2)))
        other = guest_kind(request(floating_cell(2)))

        assert Counter([usual, other], model.Strategy()).slots(
            HostRoom(())
        ) == (0, 0)

    def test_all_kinds_are_counted_in_their_order(self):
        kinds = [
            guest_kind(request(pinned_cell(vcpus, 4, MIB_2)))
            for vcpus in (1, 4, 8, 9)
        ]

        assert Counter(kinds, model.Strategy()).slots(
            measured(*free_cells(16, 16), kinds=kinds)
        ) == (16, 4, 2, 0)

    def test_nothing_is_counted_for_no_kind(self):
        assert (
            Counter([], model.Strategy()).slots(measured(*free_cells(8))) == ()
        )


class TestUnlikeCells:
    def test_they_may_share_a_host_cell(self):
        # Each host cell holds one guest cell on pages and one on none, and so
        # three guests find their places by turns.
        kind = guest_kind(
            request(pinned_cell(1, 8, MIB_2), pinned_cell(1, 8, first=1))
        )
        cells = [
            host_cell(number, cores=2, pools=(small(8), huge(4)))
            for number in range(3)
        ]

        assert count(kind, *cells) == 3

    def test_the_emulator_takes_a_cpu_of_one_of_them(self):
        kind = guest_kind(
            request(
                pinned_cell(4, 4, MIB_2),
                pinned_cell(4, 4, MIB_2, first=4),
                emulator_isolated=True,
            )
        )

        assert count(kind, *free_cells(8, 8, cores=4)) == 0
        assert count(kind, *free_cells(8, 8, cores=5)) == 1
        assert count(kind, *free_cells(8, 8, cores=8)) == 1
        assert count(kind, *free_cells(8, 8, cores=9)) == 2

    def test_they_need_pages_for_all_of_them(self):
        kind = guest_kind(
            request(
                pinned_cell(1, 2, MIB_2), pinned_cell(1, 12, MIB_2, first=1)
            )
        )

        assert count(kind, *free_cells(7, 7)) == 2
        assert count(kind, *free_cells(7, 6)) == 1

    def test_more_than_five_kinds_of_cells_are_counted_too(self):
        cells = [pinned_cell(n, 2, MIB_2, first=n * 8) for n in range(1, 8)]
        kind = guest_kind(request(*cells))

        assert len(kind.needs) == 7
        assert count(kind, *free_cells(*[8] * 7)) == 2
        assert count(kind, *free_cells(*[8] * 6)) == 0


class TestDistances:
    KIND = guest_kind(
        request(pinned_cell(8, 4, MIB_2), pinned_cell(8, 4, MIB_2, first=8)),
        20,
    )

    def test_near_host_cells_are_counted_together(self):
        # One of four host cells has no pages left.
        cells = free_cells(8, 8, 8, 0)

        assert count(self.KIND, *cells, distances=PAIRS) == 1
        assert count(self.KIND, *free_cells(*[8] * 4), distances=PAIRS) == 2

    def test_where_distances_are_unknown_all_are_near(self):
        assert count(self.KIND, *free_cells(8, 0, 8, 0)) == 1

    def test_the_neighbours_of_neighbours_count_as_near(self):
        # More than there are: the first and the last host cell are too far
        # apart, and only they have pages.
        assert count(self.KIND, *free_cells(8, 0, 8), distances=ROW) == 1


class TestPagesByName:
    def test_each_guest_has_pages_of_one_size(self):
        kind = guest_kind(
            request(
                pinned_cell(1, 4, model.PageRequest.ANY),
                pinned_cell(1, 4, model.PageRequest.ANY, first=1),
            )
        )
        # One host cell has small pages only, the other one huge ones only.
        cells = [
            host_cell(0, pools=(small(8), huge(0))),
            host_cell(1, pools=(small(0), huge(4))),
        ]

        assert count(kind, *cells) == 0
        assert count(kind, *free_cells(4, 4)) == 8

    def test_large_pages_are_never_the_smallest(self):
        kind = guest_kind(request(pinned_cell(1, 4, model.PageRequest.LARGE)))

        assert count(kind, host_cell(pools=(small(64),))) == 0
        assert count(kind, host_cell(pools=(small(64), huge(4)))) == 2

    def test_unlike_cells_have_cpus_for_all_sizes_together(self):
        kind = guest_kind(
            request(
                pinned_cell(1, 4, model.PageRequest.ANY),
                pinned_cell(3, 4, model.PageRequest.ANY, first=1),
            )
        )

        assert count(kind, *free_cells(64, 64, cores=4)) == 2


class TestSmallPagesOfTheHost:
    @pytest.mark.parametrize('wish', [None, model.PageRequest.SMALL, KIB_4])
    def test_they_limit_guests_on_small_pages(self, wish):
        kind = guest_kind(request(pinned_cell(1, 8, wish)))
        cells = free_cells(8, 8)

        assert count(kind, *cells, small_mib=None) == 16
        assert count(kind, *cells, small_mib=31) == 3
        assert count(kind, *cells, small_mib=-1) == 0

    @pytest.mark.parametrize('wish', [MIB_2, model.PageRequest.LARGE])
    def test_they_limit_no_others(self, wish):
        kind = guest_kind(request(pinned_cell(1, 8, wish)))

        assert count(kind, *free_cells(8, 8), small_mib=0) == 4

    def test_it_says_whether_they_matter(self):
        kinds = [
            guest_kind(request(pinned_cell(1, 8, wish)))
            for wish in (None, model.PageRequest.ANY, KIB_4, MIB_2)
        ]

        assert [
            Counter([kind], model.Strategy()).small_matters for kind in kinds
        ] == [
            True,
            True,
            True,
            False,
        ]


class TestMemory:
    """A counter remembers what it has counted."""

    def test_it_counts_the_same_again(self):
        kinds = [
            guest_kind(request(pinned_cell(2, 4, MIB_2))),
            guest_kind(request(floating_cell(1, 4))),
        ]
        counter = Counter(kinds, model.Strategy())
        here = measured(*free_cells(8, 8), kinds=kinds)
        there = measured(*free_cells(8, 2), kinds=kinds)

        first = [counter.slots(here), counter.slots(there)]

        assert [counter.slots(here), counter.slots(there)] == first
        assert [
            Counter(kinds, model.Strategy()).slots(each)
            for each in (here, there)
        ] == first

    @pytest.mark.parametrize('wish', [MIB_2, model.PageRequest.LARGE])
    def test_it_forgets_rather_than_growing_for_ever(self, wish):
        # given: slots of cells, or of hosts, that are counted and kept
        kinds = [guest_kind(request(pinned_cell(2, 4, wish)))]
        counter = Counter(kinds, model.Strategy(), kept=2)
        slots = (
            counter._slots_of_cells
            if counter._cells_suffice
            else counter._slots_of_host
        )

        # when
        for pages in (*range(8), *range(8)):
            here = measured(*free_cells(pages), kinds=kinds)
            assert counter.slots(here) == (pages // 2,)

        # then
        assert counter._cells_suffice == (wish == MIB_2)
        assert counter.copies.cache_info().currsize == 2
        assert slots.cache_info().currsize == 2
