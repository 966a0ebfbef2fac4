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


"""Tests of the fit as a whole: what is placed where, and what is rejected."""

import copy
import dataclasses

import pytest

from nova_numa_hugepages.core.fit.fitter import fit
from nova_numa_hugepages.core.fit.fitter import Fitter
from nova_numa_hugepages.core.model import CellPlan
from nova_numa_hugepages.core.model import Limits
from nova_numa_hugepages.core.model import PageRequest
from nova_numa_hugepages.core.model import Plan
from nova_numa_hugepages.core.model import Strategy
from nova_numa_hugepages.core.model import ThreadPolicy
from nova_numa_hugepages.core.rejection import Reason
from nova_numa_hugepages.core.rejection import Rejection
from tests.unit.core.builders import Cards
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

PACK = Strategy(pack=True)
ISOLATE = ThreadPolicy.ISOLATE
REQUIRE = ThreadPolicy.REQUIRE

# Four free cells on two sockets: 0 and 2 on one, 1 and 3 on the other.
TWO_SOCKETS = (
    (10, 31, 20, 31),
    (31, 10, 31, 20),
    (20, 31, 10, 31),
    (31, 20, 31, 10),
)


def cells_of(outcome):
    """Tell the host cells of a plan; a rejection fails the test."""
    assert isinstance(outcome, Plan), str(outcome)
    return [cell.host_cell for cell in outcome.cells]


def four_free_cells(**others):
    return tuple(
        host_cell(number, pools=(small(4096), huge(2048)), **others)
        for number in range(4)
    )


class TestPlan:
    """Plans as whole values."""

    def test_a_pinned_guest_on_huge_pages(self):
        topology = host(host_cell(pools=(small(4096), huge(2048))))

        assert fit(request(pinned_cell(2, 1024, MIB_2)), topology) == Plan(
            cells=(CellPlan(0, MIB_2, 512, ((0, 0), (1, 1))),)
        )

    def test_a_floating_guest_without_a_wish(self):
        topology = host(host_cell(cores=0, shared_cores=4))

        assert fit(request(floating_cell(2)), topology) == Plan(
            cells=(CellPlan(0, None, None),)
        )

    def test_a_floating_guest_without_a_wish_where_there_are_pools(self):
        topology = host(
            host_cell(cores=0, shared_cores=4, pools=(small(4096), huge(8)))
        )

        assert fit(request(floating_cell(2)), topology) == Plan(
            cells=(CellPlan(0, None, None),)
        )

    def test_a_mixed_guest_with_an_isolated_emulator(self):
        topology = host(host_cell(cores=4, shared_cores=2))

        plan = fit(request(mixed_cell(1, 2), emulator_isolated=True), topology)

        assert plan == Plan(
            cells=(CellPlan(0, None, None, ((1, 0), (2, 1)), frozenset({2})),)
        )

    def test_a_guest_of_two_cells_on_two_free_cells_far_apart(self):
        far_apart = host(
            host_cell(0, pools=(small(4096), giant(4))),
            host_cell(1, pools=(small(4096), giant(4))),
            distances=((10, 32), (32, 10)),
        )

        plan = fit(
            request(
                pinned_cell(1, 1024, PageRequest.LARGE),
                pinned_cell(1, 2048, PageRequest.LARGE, first=1),
                emulator_isolated=True,
            ),
            far_apart,
        )

        assert plan == Plan(
            cells=(
                CellPlan(0, GIB_1, 1, ((0, 0),), frozenset({1})),
                CellPlan(1, GIB_1, 2, ((1, 100),)),
            ),
            distance=32,
            farthest=32,
        )

    def test_three_cells_tell_the_sum_and_the_farthest_pair(self):
        plan = fit(
            request(*[pinned_cell(1)] * 3),
            host(*four_free_cells(), distances=TWO_SOCKETS),
        )

        assert (cells_of(plan), plan.distance, plan.farthest) == (
            [0, 1, 2],
            31 + 20 + 31,
            31,
        )

    def test_the_same_request_and_host_get_the_same_plan(self):
        topology = host(*four_free_cells(), distances=TWO_SOCKETS)
        guest = request(pinned_cell(2), pinned_cell(2, first=2))

        assert fit(guest, topology) == fit(
            copy.deepcopy(guest), copy.deepcopy(topology)
        )

    def test_no_argument_is_changed(self):
        topology = host(
            *four_free_cells(),
            distances=TWO_SOCKETS,
            allocatable=({MIB_2: 1}, {}, {}, {}),
        )
        guest = request(
            pinned_cell(2, 1024, PageRequest.ANY, threads=ISOLATE),
            pinned_cell(2, 1024, PageRequest.ANY, first=2, threads=ISOLATE),
            emulator_isolated=True,
            asks_devices=True,
        )
        arguments = (guest, topology, Limits(), Cards({3: 1}, needed=1))
        before = copy.deepcopy(arguments)

        cells_of(
            fit(guest, topology, limits=arguments[2], devices=arguments[3])
        )

        assert arguments == before

    def test_one_fitter_serves_many_hosts(self):
        fitter = Fitter(request(pinned_cell(2, 1024, MIB_2)), Strategy())
        full = host(host_cell(pools=(small(4096), huge(2048, used=2048))))
        free = host(host_cell(pools=(small(4096), huge(2048))))

        outcomes = [fitter.choose(one) for one in (full, free, full, free)]

        assert (
            outcomes[0]
            == outcomes[2]
            == Rejection(
                Reason.PAGES, 512, 0, guest_cell=0, page_size_kib=MIB_2
            )
        )
        assert outcomes[1] == outcomes[3]
        assert fitter.plan(outcomes[1]) == Plan(
            cells=(CellPlan(0, MIB_2, 512, ((0, 0), (1, 1))),)
        )


class TestDistance:
    """Near cells before preferred ones."""

    # Of free dedicated CPUs cell 0 has most, then 1, 2 and 3.
    CELLS = tuple(host_cell(number, cores=8 - number) for number in range(4))
    GUEST = request(pinned_cell(1), pinned_cell(1, first=1))

    def test_the_nearest_cells_are_taken_though_others_are_preferred(self):
        distances = (
            (10, 32, 32, 32),
            (32, 10, 32, 32),
            (32, 32, 10, 12),
            (32, 32, 12, 10),
        )

        plan = fit(self.GUEST, host(*self.CELLS, distances=distances))

        assert (cells_of(plan), plan.distance) == ([2, 3], 12)

    def test_among_equally_near_cells_the_preferred_ones_are_taken(self):
        plan = fit(self.GUEST, host(*self.CELLS, distances=TWO_SOCKETS))

        assert cells_of(plan) == [0, 2]

    def test_to_pack_the_last_of_the_equally_near_ones_are_taken(self):
        plan = fit(
            self.GUEST,
            host(*self.CELLS, distances=TWO_SOCKETS),
            strategy=PACK,
        )

        assert cells_of(plan) == [3, 1]

    def test_unknown_distances_count_as_equal(self):
        plan = fit(self.GUEST, host(*self.CELLS))

        assert (cells_of(plan), plan.distance, plan.farthest) == (
            [0, 1],
            0,
            0,
        )

    def test_one_guest_cell_has_no_distance(self):
        plan = fit(
            request(pinned_cell(1)),
            host(*self.CELLS, distances=TWO_SOCKETS),
        )

        assert (cells_of(plan), plan.distance, plan.farthest) == ([0], 0, 0)

    def test_a_full_near_cell_is_passed_over(self):
        full = self.CELLS[2]._replace(pinned_cpus=frozenset(range(200, 206)))
        cells = (*self.CELLS[:2], full, self.CELLS[3])

        plan = fit(self.GUEST, host(*cells, distances=TWO_SOCKETS))

        assert (cells_of(plan), plan.distance) == ([1, 3], 20)

    def test_distances_are_the_same_in_both_directions(self):
        with pytest.raises(ValueError, match='have to be symmetric'):
            fit(
                self.GUEST,
                host(*self.CELLS[:2], distances=((10, 20), (30, 10))),
            )

    def test_distances_follow_the_cells_in_whatever_order_they_come(self):
        turned = tuple(self.CELLS[number] for number in (3, 1, 0, 2))
        distances = tuple(
            tuple(TWO_SOCKETS[one][other] for other in (3, 1, 0, 2))
            for one in (3, 1, 0, 2)
        )

        plan = fit(self.GUEST, host(*turned, distances=distances))

        assert cells_of(plan) == [0, 2]

    def test_devices_come_before_distance(self):
        # The nearest pairs are 0 with 2 and 1 with 3, one card each.
        plan = fit(
            dataclasses.replace(self.GUEST, asks_devices=True),
            host(*self.CELLS, distances=TWO_SOCKETS),
            devices=Cards({0: 1, 3: 1}, needed=2),
        )

        assert (cells_of(plan), plan.distance) == ([0, 3], 31)


class TestPreference:
    """Nova's order where distance doesn't decide."""

    def test_to_spread_the_emptiest_cell_is_taken_and_to_pack_the_fullest(
        self,
    ):
        topology = host(
            host_cell(0, cores=4, pinned={0}),
            host_cell(1, cores=4, pinned={100, 101, 102}),
            host_cell(2, cores=4),
        )
        guest = request(pinned_cell(1))

        assert cells_of(fit(guest, topology)) == [2]
        assert cells_of(fit(guest, topology, strategy=PACK)) == [1]

    def test_to_pack_a_cell_that_is_too_full_is_passed_over(self):
        topology = host(
            host_cell(0, cores=4, pinned={0}),
            host_cell(1, cores=4, pinned={100, 101, 102}),
            host_cell(2, cores=4),
        )

        plan = fit(request(pinned_cell(2)), topology, strategy=PACK)

        assert cells_of(plan) == [0]

    def test_cells_with_cards_are_first_if_asked_for_and_else_last(self):
        topology = host(*four_free_cells())
        cards = Cards({0: 1, 2: 4}, needed=1)
        guest = request(pinned_cell(1))
        asking = dataclasses.replace(guest, asks_devices=True)

        assert cells_of(fit(asking, topology, devices=cards)) == [2]
        assert cells_of(fit(guest, topology, devices=cards)) == [1]

    def test_the_first_guest_cell_gets_the_first_host_cell(self):
        topology = host(host_cell(0), host_cell(1, cores=8), host_cell(2))

        plan = fit(request(pinned_cell(1), pinned_cell(1, first=1)), topology)

        assert cells_of(plan) == [1, 0]

    def test_the_set_is_preferred_before_who_gets_what(self):
        # The first guest cell fits on 1 and 2 only, and would get 1; then
        # the second, that fits everywhere, gets 0 and not 2.
        topology = host(
            host_cell(0, cores=8, pools=(small(1024), huge(64))),
            host_cell(1, cores=7, pools=(small(1024), huge(2048))),
            host_cell(2, cores=6, pools=(small(1024), huge(2048))),
        )
        guest = request(
            pinned_cell(1, 1024, MIB_2), pinned_cell(1, 64, MIB_2, first=1)
        )

        assert cells_of(fit(guest, topology)) == [1, 0]

    def test_a_guest_that_takes_all_cells_takes_them_in_their_order(self):
        topology = host(host_cell(0, cores=1), host_cell(1, cores=8))
        guest = request(pinned_cell(1), pinned_cell(1, first=1))

        assert cells_of(fit(guest, topology)) == [0, 1]


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

    def test_the_size_that_comes_nearest_is_told(self):
        topology = host(host_cell(pools=(small(8192), huge(1024), giant(1))))

        outcome = fit(
            request(pinned_cell(8, 2049, PageRequest.LARGE)), topology
        )

        # On giant pages and on huge ones it is no whole number of pages.
        assert outcome == Rejection(
            Reason.WHOLE_PAGES, 2049, 0, guest_cell=0, page_size_kib=GIB_1
        )


class TestRejection:
    """The constraint that fails, and the nearest miss."""

    def test_a_host_with_fewer_cells_than_the_guest(self):
        outcome = fit(
            request(*[pinned_cell(1)] * 3), host(host_cell(0), host_cell(1))
        )

        assert outcome == Rejection(Reason.TOO_FEW_CELLS, 3, 2)

    def test_too_few_pages_on_each_cell(self):
        topology = host(
            host_cell(0, pools=(small(64), huge(1536))),
            host_cell(1, pools=(small(64), huge(2048, used=1024))),
        )

        outcome = fit(request(pinned_cell(1, 4096, MIB_2)), topology)

        assert str(outcome) == (
            'guest NUMA node 0: needs 2048 free 2 MiB pages; most on a NUMA '
            'node: 1536'
        )

    def test_the_guest_cell_that_finds_no_place_is_named(self):
        topology = host(
            host_cell(0, pools=(small(64), huge(1536))),
            host_cell(1, pools=(small(64), huge(1024))),
        )
        guest = request(
            pinned_cell(1, 1024, MIB_2), pinned_cell(1, 4096, MIB_2, first=1)
        )

        assert fit(guest, topology) == Rejection(
            Reason.PAGES, 2048, 1536, guest_cell=1, page_size_kib=MIB_2
        )

    @pytest.mark.parametrize(
        ('guest', 'reason', 'needed', 'best'),
        [
            pytest.param(
                pinned_cell(1, 20000), Reason.MEMORY, 20000, 16384, id='memory'
            ),
            pytest.param(
                pinned_cell(9), Reason.DEDICATED_CPUS, 9, 6, id='dedicated'
            ),
            pytest.param(
                floating_cell(5), Reason.SHARED_CPUS, 5, 4, id='shared'
            ),
            pytest.param(
                mixed_cell(5, 1), Reason.SHARED_CPUS, 5, 4, id='mixed, shared'
            ),
            pytest.param(
                mixed_cell(1, 7),
                Reason.DEDICATED_CPUS,
                7,
                6,
                id='mixed, dedicated',
            ),
            pytest.param(
                pinned_cell(5, threads=REQUIRE),
                Reason.THREADS,
                5,
                4,
                id='siblings',
            ),
        ],
    )
    def test_what_a_cell_lacks(self, guest, reason, needed, best):
        # Cores 0 1, 2 3, 4 5 and 6 7 for pinned vCPUs, two in use by half;
        # 8 9 and 10 11 for floating ones.
        topology = host(
            host_cell(cores=4, shared_cores=2, threads=2, pinned={0, 2})
        )

        assert fit(request(guest), topology) == Rejection(
            reason, needed, best, guest_cell=0
        )

    def test_whole_cores_are_lacking(self):
        topology = host(host_cell(cores=4, threads=2, pinned={0, 2}))

        assert cells_of(
            fit(request(pinned_cell(2, threads=ISOLATE)), topology)
        ) == [0]
        assert fit(
            request(pinned_cell(3, threads=ISOLATE)), topology
        ) == Rejection(Reason.CORES, 3, 2, guest_cell=0)

    def test_isolated_threads_beside_cpus_for_floating_guests(self):
        # Placement has counted shared CPUs for the guest.
        beside = host_cell(cores=4, shared_cores=1, threads=2)
        isolated = pinned_cell(2, threads=ISOLATE)

        assert fit(request(isolated), host(beside)) == Rejection(
            Reason.HYPERTHREADS, guest_cell=0
        )
        # The same CPUs, cores of one thread, and a mixed guest are right.
        same = beside._replace(shared_cpus=beside.dedicated_cpus)
        for cell, guest in (
            (same, isolated),
            (host_cell(cores=4, shared_cores=1), isolated),
            (beside, mixed_cell(1, 2, threads=ISOLATE)),
        ):
            assert cells_of(fit(request(guest), host(cell))) == [0]

    def test_the_emulator_is_one_cpu_more(self):
        topology = host(host_cell(cores=4))
        guest = pinned_cell(4)

        assert cells_of(fit(request(guest), topology)) == [0]
        assert fit(
            request(guest, emulator_isolated=True), topology
        ) == Rejection(Reason.DEDICATED_CPUS, 5, 4, guest_cell=0)

    def test_the_emulator_is_one_core_more_under_isolate(self):
        topology = host(host_cell(cores=2, threads=2))
        guest = pinned_cell(2, threads=ISOLATE)

        assert cells_of(fit(request(guest), topology)) == [0]
        assert fit(
            request(guest, emulator_isolated=True), topology
        ) == Rejection(Reason.CORES, 3, 2, guest_cell=0)

    def test_the_emulator_is_with_guest_cell_0_alone(self):
        # Cell 0 has CPUs for a vCPU, cell 1 for a vCPU and the emulator.
        topology = host(host_cell(0, cores=1), host_cell(1, cores=2))
        guest = request(
            pinned_cell(1), pinned_cell(1, first=1), emulator_isolated=True
        )

        assert fit(guest, topology) == Plan(
            cells=(
                CellPlan(1, None, None, ((0, 100),), frozenset({101})),
                CellPlan(0, None, None, ((1, 0),)),
            )
        )

    def test_an_emulator_without_dedicated_vcpus_beside_it_gets_a_cpu(self):
        # b16: the emulator's CPU is in the cell of guest cell 0, which has
        # no dedicated vCPU of its own.
        topology = host(
            host_cell(0, cores=1, shared_cores=1),
            host_cell(1, cores=1, shared_cores=1),
        )
        guest = request(
            mixed_cell(1, 0), mixed_cell(1, 1), emulator_isolated=True
        )

        plan = fit(guest, topology)

        assert [cell.emulator_cpus for cell in plan.cells] == [
            frozenset({0}),
            frozenset(),
        ]

    def test_a_mixed_cell_without_dedicated_vcpus_needs_none(self):
        topology = host(host_cell(cores=0, shared_cores=2))

        assert cells_of(fit(request(mixed_cell(2, 0)), topology)) == [0]

    def test_the_latest_rule_of_several_is_the_nearest_miss(self):
        topology = host(
            # No pages of the size, no free page, and too few CPUs.
            host_cell(0, pools=(small(1024),)),
            host_cell(1, pools=(small(1024), huge(512, used=512))),
            host_cell(2, cores=1, pools=(small(1024), huge(512))),
        )

        outcome = fit(request(pinned_cell(2, 1024, MIB_2)), topology)

        assert outcome == Rejection(Reason.DEDICATED_CPUS, 2, 1, guest_cell=0)

    def test_of_one_rule_the_smallest_miss_is_the_nearest(self):
        topology = host(
            host_cell(0, cores=2), host_cell(1, cores=6), host_cell(2, cores=4)
        )

        assert fit(request(pinned_cell(8)), topology) == Rejection(
            Reason.DEDICATED_CPUS, 8, 6, guest_cell=0
        )

    def test_only_guest_cells_that_compete_are_told_of(self):
        # Guest cells 0 and 1 fit on host cell 0 alone; guest cell 2, which
        # misses fewer CPUs on host cell 1, has host cell 2.
        topology = host(
            host_cell(0, cores=8), host_cell(1, cores=1), host_cell(2, cores=2)
        )
        guest = request(pinned_cell(4), pinned_cell(4), pinned_cell(2))

        outcome = fit(guest, topology)

        assert outcome == dataclasses.replace(
            outcome, reason=Reason.DEDICATED_CPUS, needed=4, best=2
        )
        assert outcome.guest_cell in (0, 1)

    def test_cells_that_are_too_full_are_found_out_at_once(self):
        # With 16 host cells, permutations would go on for hours.
        cells = [
            host_cell(number, cores=1 if number < 9 else 2)
            for number in range(16)
        ]

        outcome = fit(
            request(*[pinned_cell(2)] * 8),
            host(
                *cells,
                distances=tuple(
                    tuple(10 + abs(one - other) for other in range(16))
                    for one in range(16)
                ),
            ),
        )

        assert outcome == Rejection(
            Reason.DEDICATED_CPUS, 2, 1, guest_cell=outcome.guest_cell
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


class TestNetworks:
    """The host cells that networks are near to."""

    NEAR_2 = (
        host_cell(0),
        host_cell(1),
        host_cell(2, physnets={'red'}, tunneled=True),
        host_cell(3, physnets={'blue'}),
    )

    def placed(self, *cells, networks=NEAR_2, **others):
        return fit(request(*cells, **others), host(*networks))

    def test_a_guest_without_networks_goes_anywhere(self):
        assert cells_of(self.placed(pinned_cell(1))) == [0]

    def test_a_physical_network_is_near_a_chosen_cell(self):
        one, two = pinned_cell(1), pinned_cell(1, first=1)

        assert cells_of(self.placed(one, physnets={'red'})) == [2]
        assert cells_of(self.placed(one, two, physnets={'red'})) == [0, 2]
        assert cells_of(self.placed(one, two, physnets={'red', 'blue'})) == [
            2,
            3,
        ]

    def test_the_tunnel_is_near_a_chosen_cell(self):
        assert cells_of(self.placed(pinned_cell(1), tunneled=True)) == [2]

    def test_networks_near_no_cell_are_used_from_anywhere(self):
        nowhere = tuple(host_cell(number) for number in range(2))

        assert cells_of(
            self.placed(
                pinned_cell(1),
                networks=nowhere,
                physnets={'red'},
                tunneled=True,
            )
        ) == [0]

    def test_one_cell_can_t_be_near_two_networks(self):
        outcome = self.placed(
            pinned_cell(1), physnets={'red', 'blue'}, tunneled=True
        )

        assert outcome == Rejection(
            Reason.NETWORK,
            detail='physical network blue, physical network red, the tunnel '
            'endpoint',
        )

    def test_a_cell_near_the_network_has_to_fit_as_well(self):
        outcome = self.placed(
            pinned_cell(5),
            networks=(host_cell(0, cores=8), *self.NEAR_2[1:]),
            physnets={'red'},
        )

        assert outcome == Rejection(
            Reason.NETWORK, detail='physical network red'
        )


class TestDevices:
    """PCI devices, which concern the set of host cells."""

    ONE = request(pinned_cell(1), asks_devices=True)
    TWO = request(pinned_cell(1), pinned_cell(1, first=1), asks_devices=True)

    def test_the_set_has_the_devices(self):
        topology = host(*four_free_cells())
        # Cell 3 has most, but 1 and 2 have enough together with it alone.
        cards = Cards({1: 2, 2: 1, 3: 3}, needed=5)

        plan = fit(self.TWO, topology, devices=cards)

        assert cells_of(plan) == [3, 1]

    def test_no_set_has_them(self):
        outcome = fit(
            self.TWO,
            host(*four_free_cells()),
            devices=Cards({1: 1, 2: 1, 3: 1}, needed=3),
        )

        assert outcome == Rejection(Reason.DEVICES)

    def test_devices_of_a_full_cell_are_out_of_reach(self):
        full = host_cell(2, cores=1, pinned={200})
        topology = host(host_cell(0), host_cell(1), full)

        outcome = fit(self.ONE, topology, devices=Cards({2: 1}, needed=1))

        assert outcome == Rejection(Reason.DEVICES)

    def test_a_host_that_reports_no_devices_is_not_asked(self):
        assert cells_of(fit(self.ONE, host(host_cell()))) == [0]

    def test_a_guest_that_asks_for_none_is_not_refused(self):
        plan = fit(
            request(pinned_cell(1)),
            host(host_cell(0), host_cell(1)),
            devices=Cards({}, needed=1),
        )

        assert cells_of(plan) == [0]

    def test_devices_and_networks_are_asked_for_together(self):
        topology = host(
            host_cell(0),
            host_cell(1, physnets={'red'}),
            host_cell(2, physnets={'red'}),
        )
        guest = request(
            pinned_cell(1),
            pinned_cell(1, first=1),
            physnets={'red'},
            asks_devices=True,
        )

        plan = fit(guest, topology, devices=Cards({0: 1}, needed=1))

        assert cells_of(plan) == [0, 1]


class TestOddHosts:
    """Nodes that lack something, and hosts that lack nodes."""

    def test_a_node_of_memory_only_is_passed_over(self):
        topology = host(host_cell(0, cores=0, memory_mib=99999), host_cell(1))

        assert cells_of(fit(request(pinned_cell(1)), topology)) == [1]
        assert cells_of(
            fit(request(mixed_cell(0, 1)), topology, strategy=PACK)
        ) == [1]

    def test_a_node_of_cpus_only_is_passed_over(self):
        topology = host(
            host_cell(0, cores=64, memory_mib=0, pools=(small(0), huge(0))),
            host_cell(1, pools=(small(4096), huge(2048))),
        )

        assert cells_of(
            fit(request(pinned_cell(1, 1024, MIB_2)), topology)
        ) == [1]

    def test_a_host_of_memory_only_has_no_cpus(self):
        assert fit(
            request(pinned_cell(1)), host(host_cell(cores=0))
        ) == Rejection(Reason.DEDICATED_CPUS, 1, 0, guest_cell=0)

    def test_a_host_without_cells_has_too_few(self):
        assert fit(request(pinned_cell(1)), host()) == Rejection(
            Reason.TOO_FEW_CELLS, 1, 0
        )

    def test_the_numbers_of_cells_need_not_be_in_order(self):
        topology = host(host_cell(7), host_cell(0), host_cell(3))
        guest = request(pinned_cell(1), pinned_cell(1, first=1))

        assert fit(guest, topology) == Plan(
            cells=(
                CellPlan(7, None, None, ((0, 700),)),
                CellPlan(0, None, None, ((1, 0),)),
            )
        )

    def test_nobody_is_pinned_to_a_cpu_in_use(self):
        topology = host(host_cell(cores=4, pinned={0, 2}))

        plan = fit(request(pinned_cell(2)), topology)

        assert plan.cells[0].pinning == ((0, 1), (1, 3))
