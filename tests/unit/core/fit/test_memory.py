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


"""Tests of guest memory on the pages of one host cell."""

import dataclasses
from typing import ClassVar

import pytest

from nova_numa_hugepages.core.fit import memory
from nova_numa_hugepages.core.model import Limits
from nova_numa_hugepages.core.model import PagePool
from nova_numa_hugepages.core.model import PageRequest
from nova_numa_hugepages.core.rejection import Miss
from nova_numa_hugepages.core.rejection import Reason
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import giant
from tests.unit.core.builders import GIB_1
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import KIB_4
from tests.unit.core.builders import MIB_2
from tests.unit.core.builders import mixed_cell
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import small

ALL_SIZES = host_cell(pools=(small(4096), huge(1024), giant(4)))
ONLY_SMALL = host_cell(pools=(small(4096),))
NO_POOLS = host_cell(memory_mib=4096, memory_used_mib=3072)


def pool(wish, cell, common=None):
    return memory.pool_for(pinned_cell(1, 1024, wish), cell, common)


def miss(
    guest,
    cell,
    page_size=None,
    *,
    limits=None,
    account_small_pages=True,
    **others,
):
    return memory.memory_miss(
        dataclasses.replace(guest, page_size=page_size),
        cell,
        None,
        limits=limits,
        account_small_pages=account_small_pages,
        **others,
    )


class TestPageSize:
    """What a wish for pages comes to on a host cell."""

    def test_no_wish_is_the_smallest_size(self):
        assert pool(None, ALL_SIZES) == small(4096)

    def test_no_wish_goes_without_known_sizes(self):
        assert pool(None, NO_POOLS) is None

    @pytest.mark.parametrize('which', [0, 1, 2])
    def test_a_size_that_the_cell_has_is_taken(self, which):
        wanted = ALL_SIZES.pools[which]

        assert pool(wanted.size_kib, ALL_SIZES) == wanted

    @pytest.mark.parametrize('cell', [ONLY_SMALL, NO_POOLS])
    def test_a_size_that_the_cell_lacks_is_a_miss(self, cell):
        assert pool(MIB_2, cell) == Miss(Reason.PAGE_SIZE, page_size_kib=MIB_2)

    def test_small_is_the_smallest_size(self):
        only_huge = host_cell(pools=(huge(4),))

        assert pool(PageRequest.SMALL, ALL_SIZES, GIB_1) == small(4096)
        assert pool(PageRequest.SMALL, only_huge) == huge(4)

    @pytest.mark.parametrize('wish', list(PageRequest))
    def test_a_cell_without_pools_has_no_size(self, wish):
        assert pool(wish, NO_POOLS) == Miss(Reason.PAGE_SIZE)

    @pytest.mark.parametrize('wish', [PageRequest.LARGE, PageRequest.ANY])
    def test_large_and_any_are_the_common_size(self, wish):
        assert pool(wish, ALL_SIZES, MIB_2) == huge(1024)
        assert pool(wish, ALL_SIZES, GIB_1) == giant(4)

    def test_any_may_be_the_smallest_size_and_large_may_not(self):
        assert pool(PageRequest.ANY, ALL_SIZES, KIB_4) == small(4096)
        assert pool(PageRequest.LARGE, ALL_SIZES, KIB_4) == Miss(
            Reason.PAGE_SIZE, page_size_kib=KIB_4
        )

    def test_large_is_not_the_only_size_of_a_cell(self):
        only_huge = host_cell(pools=(huge(1024),))

        assert pool(PageRequest.LARGE, only_huge, MIB_2) == Miss(
            Reason.PAGE_SIZE, page_size_kib=MIB_2
        )

    @pytest.mark.parametrize('wish', [PageRequest.LARGE, PageRequest.ANY])
    def test_a_common_size_that_the_cell_lacks_is_a_miss(self, wish):
        assert pool(wish, ONLY_SMALL, GIB_1) == Miss(
            Reason.PAGE_SIZE, page_size_kib=GIB_1
        )

    def test_a_miss_of_the_size_is_a_miss_of_the_memory(self):
        assert miss(pinned_cell(1), ONLY_SMALL, MIB_2) == Miss(
            Reason.PAGE_SIZE, page_size_kib=MIB_2
        )


class TestPages:
    """Whole pages, and as many as are free."""

    CELL = host_cell(
        pools=(small(16384), huge(1024, used=500, reserved=12), giant(4, 3))
    )

    def test_all_free_pages_can_be_taken(self):
        assert miss(pinned_cell(1, 1024), self.CELL, MIB_2) is None
        assert miss(floating_cell(1, 1024), self.CELL, GIB_1) is None

    def test_one_page_more_is_a_miss(self):
        assert miss(floating_cell(1, 1026), self.CELL, MIB_2) == Miss(
            Reason.PAGES, needed=513, best=512, page_size_kib=MIB_2
        )

    def test_memory_has_to_be_whole_pages(self):
        assert miss(pinned_cell(1, 1025), self.CELL, MIB_2) == Miss(
            Reason.WHOLE_PAGES, needed=1025, page_size_kib=MIB_2
        )

    def test_explicit_small_pages_are_never_overcommitted(self):
        used = host_cell(pools=(small(4096, used_mib=4000), huge(8)))

        assert miss(floating_cell(1, 100), used, KIB_4) == Miss(
            Reason.PAGES, needed=25600, best=24576, page_size_kib=KIB_4
        )

    def test_without_a_wish_a_pinned_guest_needs_free_memory(self):
        used = host_cell(pools=(small(4096, used_mib=3072),))

        for guest in (pinned_cell(1, 1028), mixed_cell(1, 1, 1028)):
            assert miss(guest, used) == Miss(
                Reason.PAGES,
                needed=263168,
                best=262144,
                page_size_kib=KIB_4,
            )
        assert miss(pinned_cell(1, 1024), used) is None

    def test_without_a_wish_a_floating_guest_may_share_its_memory(self):
        used = host_cell(pools=(small(4096, used_mib=4096),))

        assert miss(floating_cell(1, 4096), used) is None

    def test_no_guest_overcommits_against_itself(self):
        used = host_cell(pools=(small(4096),))

        assert miss(floating_cell(1, 4100), used) == Miss(
            Reason.PAGES, needed=1049600, best=1048576, page_size_kib=KIB_4
        )

    def test_without_pools_memory_is_counted_in_mib(self):
        assert miss(pinned_cell(1, 1024), NO_POOLS) is None
        assert miss(mixed_cell(1, 1, 1025), NO_POOLS) == Miss(
            Reason.MEMORY, needed=1025, best=1024
        )
        assert miss(floating_cell(1, 4096), NO_POOLS) is None
        assert miss(floating_cell(1, 4097), NO_POOLS) == Miss(
            Reason.MEMORY, needed=4097, best=4096
        )


class TestSmallPages:
    """Small-page guests against memory that is in no pool (b08)."""

    # Nova reports all 16 GiB as small pages, 12 GiB of which are huge.
    CELL = host_cell(
        pools=(small(16384, used_mib=1024), huge(6144)), memory_mib=16384
    )

    def test_a_pinned_guest_gets_what_the_pools_leave(self):
        assert miss(pinned_cell(1, 3072), self.CELL) is None
        assert miss(pinned_cell(1, 3073), self.CELL) == Miss(
            Reason.SMALL_PAGES, needed=3073, best=3072
        )

    def test_a_guest_that_names_small_pages_is_accounted_as_well(self):
        assert miss(pinned_cell(1, 3072), self.CELL, KIB_4) is None
        assert miss(pinned_cell(1, 3073), self.CELL, KIB_4) == Miss(
            Reason.SMALL_PAGES, needed=3073, best=3072
        )

    def test_a_floating_guest_gets_as_much_with_the_ratio_of_the_host(self):
        def with_ratio(memory_mib, ratio):
            return miss(
                floating_cell(1, memory_mib),
                self.CELL,
                limits=Limits(ram_ratio=ratio),
            )

        assert with_ratio(3072, 1.0) is None
        assert with_ratio(3073, 1.0) == Miss(
            Reason.SMALL_PAGES, needed=3073, best=3072
        )
        assert with_ratio(5120, 1.5) is None
        assert with_ratio(5121, 1.5) == Miss(
            Reason.SMALL_PAGES, needed=5121, best=5120
        )
        assert with_ratio(1025, 0.5) == Miss(
            Reason.SMALL_PAGES, needed=1025, best=1024
        )

    def test_a_pinned_guest_has_no_ratio(self):
        assert miss(
            pinned_cell(1, 3073), self.CELL, limits=Limits(ram_ratio=16.0)
        ) == Miss(Reason.SMALL_PAGES, needed=3073, best=3072)

    def test_a_floating_guest_without_limits_is_not_accounted(self):
        # Nova checks no ratio without limits either.
        cell = host_cell(pools=(small(4096, used_mib=4096), huge(512)))

        assert miss(floating_cell(1, 4096), cell) is None

    def test_nothing_is_left_when_more_is_in_use_than_there_is(self):
        full = host_cell(
            pools=(small(16384, used_mib=8192), huge(6144)), memory_mib=16384
        )

        assert miss(pinned_cell(1, 4), full) == Miss(
            Reason.SMALL_PAGES, needed=4, best=0
        )

    def test_with_the_option_off_nothing_is_accounted(self):
        nearly_full = host_cell(
            pools=(small(16384, used_mib=16000), huge(6144))
        )
        guest, limits = floating_cell(1, 1024), Limits()

        assert miss(guest, nearly_full, limits=limits) == Miss(
            Reason.SMALL_PAGES, needed=1024, best=384
        )
        assert (
            miss(guest, nearly_full, limits=limits, account_small_pages=False)
            is None
        )

    def test_huge_page_guests_are_not_concerned(self):
        full = host_cell(
            pools=(small(1024, used_mib=1024), huge(512)), memory_mib=2048
        )

        assert miss(pinned_cell(1, 1024), full, MIB_2) is None

    def test_pages_that_don_t_exist_yet_take_no_memory(self):
        # Of the 6144 pages reported, 2048 could only be made.
        assert (
            miss(pinned_cell(1, 7168), self.CELL, allocatable={MIB_2: 2048})
            is None
        )


class TestSmallCapacity:
    """How much memory of a host cell is in no page pool."""

    @pytest.mark.parametrize(
        ('cell', 'capacity_mib'),
        [
            pytest.param(NO_POOLS, 4096, id='no pools known'),
            pytest.param(ONLY_SMALL, 4096, id='only small pages'),
            pytest.param(
                host_cell(pools=(small(4096), huge(1024)), memory_mib=6144),
                4096,
                id='totals that add up',
            ),
            pytest.param(
                host_cell(pools=(small(6144), huge(1024)), memory_mib=6144),
                4096,
                id='small pages reported with the pool',
            ),
            pytest.param(
                host_cell(
                    pools=(small(4096, reserved_mib=96), huge(1024)),
                    memory_mib=6144,
                ),
                4000,
                id='small pages held back by the operator',
            ),
            pytest.param(
                host_cell(pools=(small(4096), giant(4)), memory_mib=4096),
                0,
                id='all in a pool',
            ),
            pytest.param(
                host_cell(
                    pools=(small(4096), huge(2048), giant(4)),
                    memory_mib=4096,
                ),
                4096,
                id='totals of two pools that overlap say nothing',
            ),
        ],
    )
    def test_it_is_what_the_pools_leave(self, cell, capacity_mib):
        assert memory.small_capacity_kib(cell) == capacity_mib * 1024

    def test_pages_that_don_t_exist_yet_take_no_memory(self):
        cell = host_cell(pools=(small(16384), huge(6144)), memory_mib=16384)

        assert memory.small_capacity_kib(cell, {MIB_2: 2048}) == 8192 * 1024

    def test_more_allocatable_pages_than_reported_take_none(self):
        cell = host_cell(pools=(small(4096), huge(1024)), memory_mib=4096)

        assert memory.small_capacity_kib(cell, {MIB_2: 9999}) == 4096 * 1024

    def test_memory_in_use_is_that_of_the_smallest_pool(self):
        assert memory.small_used_kib(NO_POOLS) == 3072 * 1024
        assert (
            memory.small_used_kib(
                host_cell(pools=(small(4096, used_mib=7), huge(9, used=9)))
            )
            == 7 * 1024
        )


class TestOverlap:
    """Totals of several sizes that stand for the same memory."""

    # A host whose pools can grow: 8 GiB that may be of any size. 1 GiB is
    # in use on small pages, 2 GiB on 2 MiB pages, 1 GiB is held back.
    CELL = host_cell(
        pools=(
            small(8192, used_mib=1024),
            huge(4096, used=1024),
            giant(8, reserved=1),
        ),
        memory_mib=8192,
    )

    def checked(self, guest, size_kib, limits=None):
        return miss(
            guest,
            self.CELL,
            size_kib,
            limits=limits,
            account_small_pages=False,
        )

    @pytest.mark.parametrize('size_kib', [None, KIB_4, MIB_2, GIB_1])
    def test_guests_of_all_sizes_fit_in_the_memory(self, size_kib):
        assert self.checked(pinned_cell(1, 4096), size_kib) is None
        assert self.checked(pinned_cell(1, 5120), size_kib) == Miss(
            Reason.CELL_MEMORY, needed=5120, best=4096
        )

    @pytest.mark.parametrize('account_small_pages', [False, True])
    def test_the_option_for_small_pages_changes_nothing(
        self, account_small_pages
    ):
        assert miss(
            pinned_cell(1, 5120),
            self.CELL,
            MIB_2,
            limits=None,
            account_small_pages=account_small_pages,
        ) == Miss(Reason.CELL_MEMORY, needed=5120, best=4096)

    def test_floating_small_page_guests_may_overcommit_what_is_left(self):
        # Twice the 5120 MiB that huge pages leave, less what is in use.
        double = Limits(ram_ratio=2.0)

        assert self.checked(floating_cell(1, 8192), None, double) is None
        fuller = self.CELL._replace(
            pools=(small(8192, used_mib=3072), *self.CELL.pools[1:])
        )
        assert miss(
            floating_cell(1, 7172),
            fuller,
            limits=double,
            account_small_pages=False,
        ) == Miss(Reason.CELL_MEMORY, needed=7172, best=7168)

    def test_huge_pages_are_not_overcommitted(self):
        # Small pages take half of what they hold: 5120 - 512.
        double = Limits(ram_ratio=2.0)

        assert self.checked(pinned_cell(1, 4608), MIB_2, double) is None
        assert self.checked(pinned_cell(1, 4610), MIB_2, double) == Miss(
            Reason.CELL_MEMORY, needed=4610, best=4608
        )

    def test_a_ratio_below_one_doesn_t_shrink_huge_pages(self):
        half = Limits(ram_ratio=0.5)

        assert self.checked(pinned_cell(1, 4096), MIB_2, half) is None

    def test_totals_that_add_up_are_not_judged(self):
        exact = host_cell(
            pools=(small(4096, used_mib=4096), huge(2048)), memory_mib=8192
        )

        assert miss(pinned_cell(1, 4096), exact, MIB_2) is None

    def test_nothing_is_left_when_more_is_in_use_than_there_is(self):
        overfull = self.CELL._replace(
            pools=(small(8192, used_mib=8192), *self.CELL.pools[1:])
        )

        assert miss(pinned_cell(1, 2), overfull, MIB_2) == Miss(
            Reason.CELL_MEMORY, needed=2, best=0
        )


def test_a_custom_page_size_is_judged_as_any_other():
    cell = host_cell(pools=(small(1024), PagePool(65536, 16, used=8)))

    assert miss(pinned_cell(1, 512), cell, 65536) is None
    assert miss(pinned_cell(1, 576), cell, 65536) == Miss(
        Reason.PAGES, needed=9, best=8, page_size_kib=65536
    )


class TestOddKibibytes:
    """A cell of 64 GiB and 500 KiB, of which Nova knows the whole MiB.

    48 GiB are in pages of 2 MiB, 38 GiB of them in use; guests overcommit the
    small pages by half.
    """

    CELL = host_cell(
        pools=(
            PagePool(KIB_4, 16384 * 256 + 125, 20480 * 256),
            huge(24576, 19456),
        ),
        memory_mib=65536,
        shared_cores=4,
    )

    @pytest.mark.parametrize('limits', [None, Limits(ram_ratio=1.5)])
    def test_pools_that_exist_are_not_taken_for_an_overlap(self, limits):
        wanted = floating_cell(1, 8192)

        assert miss(wanted, self.CELL, MIB_2, limits=limits) is None

    def test_without_limits_nothing_is_known_of_overcommit(self):
        growing = self.CELL._replace(
            pools=(small(65536, used_mib=60000), huge(24576, 19456))
        )

        assert miss(floating_cell(1, 8192), growing, None) is None

    def test_small_pages_take_no_more_than_there_are(self):
        # 38 GiB are in use, and the small pages can't take more than the
        # other 26 GiB.
        growing = self.CELL._replace(
            pools=(small(65536, used_mib=90000), huge(33280, 19456))
        )

        assert miss(pinned_cell(1, 8192), growing, MIB_2) == Miss(
            Reason.CELL_MEMORY, needed=8192, best=0
        )


def test_small_pages_that_the_operator_reserves_are_in_the_sum():
    cell = host_cell(
        pools=(small(102400, reserved_mib=20480), huge(51200)),
        memory_mib=102400,
    )

    def checked(memory_mib):
        return miss(
            pinned_cell(1, memory_mib),
            cell,
            MIB_2,
            allocatable={MIB_2: 51200},
        )

    assert checked(81920) is None
    assert checked(97280) == Miss(Reason.CELL_MEMORY, needed=97280, best=81920)


class TestIdlePages:
    """A cell of 64 GiB, of which 16 GiB are in idle pages of 1 GiB.

    Guests with dedicated CPUs have 40 GiB of small pages. They were just
    started and have touched little, so that 41 GiB can be allocated.
    """

    CELL = host_cell(
        pools=(small(49152, used_mib=40960), huge(20992), giant(16)),
        memory_mib=65536,
    )
    ALLOCATABLE: ClassVar = {MIB_2: 20992, GIB_1: 0}

    def checked(self, memory_mib, size_kib, cell=CELL, **others):
        return miss(
            pinned_cell(1, memory_mib),
            cell,
            size_kib,
            allocatable=self.ALLOCATABLE,
            **others,
        )

    @pytest.mark.parametrize('account_small_pages', [False, True])
    def test_they_are_no_memory_for_pages_of_another_size(
        self, account_small_pages
    ):
        account = {'account_small_pages': account_small_pages}
        assert self.checked(8192, MIB_2, **account) is None
        assert self.checked(24576, MIB_2, **account) == Miss(
            Reason.CELL_MEMORY, needed=24576, best=8192
        )

    def test_they_are_there_for_guests_that_ask_for_them(self):
        assert self.checked(16384, GIB_1) is None

    def test_they_are_there_even_where_small_pages_are_all_in_use(self):
        full = self.CELL._replace(
            pools=(small(49152, used_mib=49152), *self.CELL.pools[1:])
        )

        assert self.checked(16384, GIB_1, full) is None
        assert self.checked(2, MIB_2, full) == Miss(
            Reason.CELL_MEMORY, needed=2, best=0
        )

    def test_what_is_missing_of_them_comes_out_of_small_pages(self):
        some = self.CELL._replace(
            pools=(
                small(47104, used_mib=40960),
                huge(20992 + 1024),
                giant(16),
            )
        )

        assert self.checked(2048 + 6144, MIB_2, some) is None
        assert self.checked(2048 + 6146, MIB_2, some) == Miss(
            Reason.CELL_MEMORY, needed=8194, best=8192
        )

    def test_small_pages_admit_as_stock_nova_does_if_configured(self):
        # Idle pages count as memory then, and those of 2 MiB are not there.
        wanted = pinned_cell(1, 8192)

        assert (
            miss(
                wanted,
                self.CELL,
                allocatable=self.ALLOCATABLE,
                account_small_pages=False,
            )
            is None
        )


@pytest.mark.parametrize('ratio', [1.0, 1.1, 1.3, 1.5, 1.7, 2.3, 16.0])
def test_a_guest_that_takes_all_memory_fits_with_any_ratio(ratio):
    # A host cell whose reported totals overlap: 15 MiB of each of two sizes.
    cell = host_cell(pools=(small(15), PagePool(1024, 15)), memory_mib=15)

    found = memory.memory_miss(
        pinned_cell(1, 15, 1024),
        cell,
        None,
        limits=Limits(1.0, ratio),
        account_small_pages=False,
        allocatable={1024: 15},
    )

    assert found is None
