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


"""Tests of guests that are in no cell, against small-page memory."""

from nova_numa_hugepages.core.fit import host_memory
from nova_numa_hugepages.core.model import PageRequest
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
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import request
from tests.unit.core.builders import small

# Two cells of 16 GiB; 12 GiB of one and 8 GiB of the other are in pools, of
# which guests use 2 GiB. 12 GiB are left for small pages.
POOLED = host(
    host_cell(0, pools=(small(4096), huge(6144, used=1024))),
    host_cell(1, pools=(small(8192), giant(8))),
)


def miss(
    topology, memory_mib, *, total_mib=None, used_mib=2048, ram_ratio=1.0
):
    if total_mib is None:
        total_mib = sum(cell.memory_mib for cell in topology.cells)
    room = host_memory.room_mib(
        topology,
        total_mib=total_mib,
        used_mib=used_mib,
        ram_ratio=ram_ratio,
    )
    return host_memory.miss(memory_mib, room)


def growing(**others):
    """100 GiB that may be of any size, 60 GiB of them in use as 2 MiB."""
    return host_cell(
        pools=(small(102400), huge(51200, used=30720), giant(100)),
        memory_mib=102400,
        **others,
    )


def test_all_that_the_pools_leave_can_be_taken():
    assert miss(POOLED, 12288) is None


def test_more_is_a_miss():
    assert miss(POOLED, 12289) == Rejection(
        Reason.HOST_MEMORY, needed=12289, best=12288
    )


def test_memory_of_guests_and_of_the_operator_is_taken_off():
    # 2 of the 6 GiB in use are on huge pages.
    assert miss(POOLED, 8192, used_mib=6144) is None
    assert miss(POOLED, 8193, used_mib=6144) == Rejection(
        Reason.HOST_MEMORY, needed=8193, best=8192
    )


def test_the_ratio_of_the_host_counts_for_what_is_left():
    assert miss(POOLED, 14336, used_mib=6144, ram_ratio=1.5) is None
    assert miss(POOLED, 14337, used_mib=6144, ram_ratio=1.5) == Rejection(
        Reason.HOST_MEMORY, needed=14337, best=14336
    )


def test_a_host_without_pools_is_not_checked():
    only_small = host(host_cell(0, pools=(small(4096),)))
    empty_pool = host(host_cell(0, pools=(small(4096), huge(0))))

    for topology in (host(), only_small, empty_pool, host(host_cell(0))):
        assert miss(topology, 99999) is None


def test_nothing_is_left_when_more_is_in_use_than_there_is():
    assert miss(POOLED, 1, used_mib=99999) == Rejection(
        Reason.HOST_MEMORY, needed=1, best=0
    )


def test_less_in_use_than_the_pools_have_is_none_on_small_pages():
    # The account of the host and that of its cells are not read at once.
    assert miss(POOLED, 12288, used_mib=0) is None


def test_pages_that_don_t_exist_yet_take_no_memory():
    growing = host(
        host_cell(0, pools=(small(16384), huge(6144)), memory_mib=16384),
        host_cell(1, pools=(small(16384), huge(6144)), memory_mib=16384),
        allocatable=({MIB_2: 6144}, {}),
    )

    assert miss(growing, 16384 + 4096, used_mib=0) is None
    assert miss(growing, 16384 + 4097, used_mib=0) == Rejection(
        Reason.HOST_MEMORY, needed=20481, best=20480
    )


class TestSmallMemory:
    """How much of a guest with cells ends on small pages."""

    CELLS = (
        host_cell(0, pools=(small(4096), huge(512))),
        host_cell(1, pools=(small(4096), huge(512))),
    )

    def memory_mib(self, *guests, common=None, cells=CELLS):
        return host_memory.needed_mib(
            request(*guests), host(*cells), cells, common, ram_ratio=1.0
        )

    def test_guests_without_a_wish_are_on_small_pages(self):
        assert (
            self.memory_mib(pinned_cell(1, 100), floating_cell(1, 24)) == 124
        )

    def test_only_the_cells_on_small_pages_count(self):
        assert (
            self.memory_mib(
                pinned_cell(1, 100, KIB_4), pinned_cell(1, 24, MIB_2)
            )
            == 100
        )

    def test_what_large_and_any_come_to_counts(self):
        guests = (
            pinned_cell(1, 100, PageRequest.ANY),
            pinned_cell(1, 24, PageRequest.ANY),
        )

        assert self.memory_mib(*guests, common=KIB_4) == 124
        assert self.memory_mib(*guests, common=MIB_2) == 0

    def test_without_known_sizes_all_pages_are_small(self):
        cells = (host_cell(0), host_cell(1))

        assert (
            self.memory_mib(
                pinned_cell(1, 100), floating_cell(1, 24), cells=cells
            )
            == 124
        )

    def test_guests_on_giant_pages_are_not_on_small_ones(self):
        cells = (host_cell(0, pools=(small(4096), giant(4))),)

        assert self.memory_mib(pinned_cell(1, 1024, GIB_1), cells=cells) == 0


class TestAllocatedPages:
    """Two cells of 64 GiB, with 16 GiB each in idle pages of 1 GiB.

    Guests in no cell have 60 GiB. 41 GiB of each cell can be allocated.
    """

    CELLS = tuple(
        host_cell(
            number,
            pools=(small(49152), huge(20992 + 512), giant(16)),
            memory_mib=65536 + 1024,
        )
        for number in range(2)
    )
    HOST = host(*CELLS, allocatable=({MIB_2: 20992, GIB_1: 0},) * 2)

    def needed_mib(self, memory_mib, page_size, *, common=None, ratio=1.0):
        return host_memory.needed_mib(
            request(*[pinned_cell(1, memory_mib, page_size)] * 2),
            self.HOST,
            self.CELLS,
            common,
            ram_ratio=ratio,
        )

    def test_they_come_out_of_what_guests_in_no_cell_share(self):
        needed = self.needed_mib(30720, MIB_2)

        # 1 GiB is there in each cell.
        assert needed == 2 * (30720 - 1024)
        assert miss(self.HOST, needed, used_mib=61440) == Rejection(
            Reason.HOST_MEMORY, needed=needed, best=2 * 49152 - 61440
        )

    def test_pages_that_are_there_take_nothing(self):
        assert self.needed_mib(16384, GIB_1) == 0
        assert self.needed_mib(1024, MIB_2) == 0

    def test_what_large_comes_to_counts(self):
        needed = self.needed_mib(30720, PageRequest.LARGE, common=MIB_2)

        assert needed == 2 * (30720 - 1024)

    def test_they_are_not_overcommitted(self):
        assert self.needed_mib(2048, MIB_2, ratio=1.5) == 2 * 1024 * 1.5


def test_pages_in_use_are_taken_off_where_totals_overlap():
    assert miss(host(growing()), 40960, used_mib=61440) is None
    assert miss(host(growing()), 40961, used_mib=61440) == Rejection(
        Reason.HOST_MEMORY, needed=40961, best=40960
    )


def test_pages_in_use_exist_whatever_is_said_to_be_allocatable():
    pools = (small(102400), huge(51200, used=30720))
    topology = host(
        host_cell(pools=pools, memory_mib=102400),
        allocatable=({MIB_2: 51200},),
    )

    assert miss(topology, 40960, used_mib=61440) is None
    assert miss(topology, 40961, used_mib=61440) is not None


def test_a_host_whose_guests_are_on_files_is_not_checked():
    # It reports the size of the files as its memory.
    assert miss(POOLED, 65536, total_mib=131072) is None
