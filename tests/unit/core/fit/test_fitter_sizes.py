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


"""Tests of the fit: page sizes, limits and memory."""

import pytest

from nova_numa_hugepages.core.fit.fitter import fit
from nova_numa_hugepages.core.model import Limits
from nova_numa_hugepages.core.model import PageRequest
from nova_numa_hugepages.core.model import Strategy
from nova_numa_hugepages.core.rejection import Reason
from nova_numa_hugepages.core.rejection import Rejection
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import giant
from tests.unit.core.builders import GIB_1
from tests.unit.core.builders import host
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import KIB_4
from tests.unit.core.builders import MIB_2
from tests.unit.core.builders import mixed_cell
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import request
from tests.unit.core.builders import small
from tests.unit.core.fit.fitting import cells_of


class TestPageSizes:
    """Page sizes asked for by name and by number."""

    CELLS = (
        host_cell(
            0, pools=(small(8192), huge(1024), giant(1)), memory_mib=16384
        ),
        host_cell(
            1, pools=(small(8192), huge(1024), giant(4)), memory_mib=16384
        ),
    )

    def sizes(self, *wishes, topology=None, memory_mib=2048):
        outcome = fit(
            request(
                *[
                    pinned_cell(1, memory_mib, wish, first=number)
                    for number, wish in enumerate(wishes)
                ]
            ),
            topology or host(*self.CELLS),
        )
        return [
            (cell.host_cell, cell.page_size_kib, cell.pages)
            for cell in outcome.cells
        ]

    @pytest.mark.parametrize(
        ('wish', 'cell', 'size', 'pages'),
        [
            (None, 0, None, None),
            (PageRequest.SMALL, 0, KIB_4, 524288),
            (KIB_4, 0, KIB_4, 524288),
            (MIB_2, 0, MIB_2, 1024),
            (GIB_1, 1, GIB_1, 2),
            (PageRequest.LARGE, 1, GIB_1, 2),
            (PageRequest.ANY, 1, GIB_1, 2),
        ],
    )
    def test_each_wish_is_met(self, wish, cell, size, pages):
        assert self.sizes(wish) == [(cell, size, pages)]

    @pytest.mark.parametrize('wish', [PageRequest.LARGE, PageRequest.ANY])
    def test_all_cells_of_a_guest_get_one_size(self, wish):
        # 2 GiB on giant pages fit on cell 1 only.
        assert self.sizes(wish, wish) == [(0, MIB_2, 1024), (1, MIB_2, 1024)]

    def test_any_comes_down_to_small_pages_and_large_doesn_t(self):
        no_huge = host(
            host_cell(0, pools=(small(8192), huge(1024, used=1023))),
            host_cell(1, pools=(small(8192), huge(1024, used=1))),
        )

        assert self.sizes(PageRequest.ANY, topology=no_huge) == [
            (0, KIB_4, 524288)
        ]
        assert fit(
            request(pinned_cell(1, 2048, PageRequest.LARGE)), no_huge
        ) == Rejection(
            Reason.PAGES, 1024, 1023, guest_cell=0, page_size_kib=MIB_2
        )

    def test_a_size_that_only_one_cell_has_can_be_taken(self):
        different = host(
            host_cell(0, pools=(small(8192), huge(2048))),
            host_cell(1, pools=(small(8192), giant(8))),
        )

        assert self.sizes(PageRequest.LARGE, topology=different) == [
            (1, GIB_1, 2)
        ]

    def test_cells_may_ask_for_different_sizes(self):
        assert self.sizes(GIB_1, MIB_2) == [
            (1, GIB_1, 2),
            (0, MIB_2, 1024),
        ]

    def test_memory_that_is_no_whole_page_goes_on_smaller_ones(self):
        assert self.sizes(PageRequest.LARGE, memory_mib=1026) == [
            (0, MIB_2, 513)
        ]

    @pytest.mark.parametrize('wish', [PageRequest.LARGE, PageRequest.ANY])
    def test_no_size_by_name_without_known_sizes(self, wish):
        outcome = fit(request(pinned_cell(1, 64, wish)), host(host_cell()))

        assert outcome == Rejection(Reason.PAGE_SIZE)

    def test_the_size_that_comes_nearest_is_reported(self):
        topology = host(host_cell(pools=(small(8192), huge(1024), giant(1))))

        outcome = fit(
            request(pinned_cell(8, 2049, PageRequest.LARGE)), topology
        )

        # On giant pages and on huge ones it is no whole number of pages.
        assert outcome == Rejection(
            Reason.WHOLE_PAGES, 2049, 0, guest_cell=0, page_size_kib=GIB_1
        )


class TestLimits:
    """The overcommit ratios, which concern floating guests."""

    # Of 4 CPUs 6 are in use, of 16 GiB 20.
    BUSY = host_cell(
        cores=4, shared_cores=4, shared_used=6, memory_used_mib=20480
    )

    @pytest.mark.parametrize('guest', [floating_cell(2), mixed_cell(2, 1)])
    def test_up_to_the_cpu_ratio_a_guest_fits(self, guest):
        topology = host(self.BUSY._replace(memory_used_mib=0))

        assert cells_of(
            fit(request(guest), topology, limits=Limits(2.0, 2.0))
        ) == [0]
        assert fit(
            request(guest), topology, limits=Limits(1.9, 2.0)
        ) == Rejection(Reason.CPU_RATIO, 2, 1, guest_cell=0)
        assert fit(
            request(guest), topology, limits=Limits(1.0, 2.0)
        ) == Rejection(Reason.CPU_RATIO, 2, 0, guest_cell=0)

    def test_up_to_the_ram_ratio_a_guest_fits(self):
        topology = host(self.BUSY)
        limits = Limits(16.0, 1.5)

        assert cells_of(
            fit(request(floating_cell(1, 4096)), topology, limits=limits)
        ) == [0]
        assert fit(
            request(floating_cell(1, 4097)),
            topology,
            limits=limits,
            strategy=Strategy(account_small_pages=False),
        ) == Rejection(Reason.RAM_RATIO, 4097, 4096, guest_cell=0)
        assert fit(
            request(floating_cell(1, 4097)),
            topology,
            limits=Limits(16.0, 1.0),
            strategy=Strategy(account_small_pages=False),
        ) == Rejection(Reason.RAM_RATIO, 4097, 0, guest_cell=0)

    def test_a_pinned_guest_has_no_ratios(self):
        topology = host(self.BUSY._replace(memory_used_mib=0))

        assert cells_of(
            fit(
                request(pinned_cell(4, 16384)),
                topology,
                limits=Limits(0.1, 0.1),
            )
        ) == [0]

    def test_without_limits_no_ratio_is_checked(self):
        assert cells_of(
            fit(request(floating_cell(4, 16384)), host(self.BUSY))
        ) == [0]


class TestMemory:
    """What goes beyond Nova's rules for memory."""

    def test_small_page_guests_are_kept_out_of_the_pools(self):
        pooled = host(
            host_cell(pools=(small(16384), huge(6144)), memory_mib=16384)
        )

        assert fit(request(pinned_cell(1, 8192)), pooled) == Rejection(
            Reason.SMALL_PAGES, 8192, 4096, guest_cell=0
        )
        assert cells_of(fit(request(pinned_cell(1, 4096)), pooled)) == [0]

    def test_with_the_option_off_they_get_what_nova_gives(self):
        pooled = host(
            host_cell(
                cores=0,
                shared_cores=4,
                pools=(small(4096, used_mib=4096), huge(6144)),
            )
        )
        guest, limits = request(floating_cell(1, 4096)), Limits()

        assert fit(guest, pooled, limits=limits) == Rejection(
            Reason.SMALL_PAGES, 4096, 0, guest_cell=0
        )
        assert cells_of(
            fit(
                guest,
                pooled,
                limits=limits,
                strategy=Strategy(account_small_pages=False),
            )
        ) == [0]

    def test_pages_that_don_t_exist_yet_leave_room_for_small_ones(self):
        cells = [
            host_cell(
                number, pools=(small(16384), huge(6144)), memory_mib=16384
            )
            for number in (0, 1)
        ]
        guest = request(pinned_cell(1, 8192))

        assert cells_of(
            fit(guest, host(*cells, allocatable=({}, {MIB_2: 2048})))
        ) == [1]
        assert fit(
            guest, host(*cells, allocatable=({}, {MIB_2: 2047}))
        ) == Rejection(Reason.SMALL_PAGES, 8192, 8190, guest_cell=0)

    def test_guests_of_all_sizes_stay_within_the_memory_of_a_cell(self):
        growing = host(
            host_cell(
                pools=(small(8192), huge(4096, used=2048), giant(8)),
                memory_mib=8192,
            )
        )

        assert cells_of(
            fit(request(pinned_cell(1, 4096, GIB_1)), growing)
        ) == [0]
        assert fit(request(pinned_cell(1, 5120, GIB_1)), growing) == Rejection(
            Reason.CELL_MEMORY, 5120, 4096, guest_cell=0
        )
