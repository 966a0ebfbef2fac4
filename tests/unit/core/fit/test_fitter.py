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


"""Tests of the fit: which plan is the best."""

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
from tests.unit.core.builders import MIB_2
from tests.unit.core.builders import mixed_cell
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import request
from tests.unit.core.builders import small
from tests.unit.core.fit.fitting import cells_of
from tests.unit.core.fit.fitting import four_free_cells
from tests.unit.core.fit.fitting import TWO_SOCKETS

PACK = Strategy(pack=True)
ISOLATE = ThreadPolicy.ISOLATE
REQUIRE = ThreadPolicy.REQUIRE


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

    def test_three_cells_have_a_sum_and_a_farthest_pair(self):
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
