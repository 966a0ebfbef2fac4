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


"""Tests of the fit: why a guest finds no place."""

import dataclasses

import pytest

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.fit.fitter import fit
from nova_numa_hugepages.core.rejection import Reason
from nova_numa_hugepages.core.rejection import Rejection
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import host
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import MIB_2
from tests.unit.core.builders import mixed_cell
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import request
from tests.unit.core.builders import small
from tests.unit.core.fit.fitting import cells_of

PACK = model.Strategy(pack=True)
ISOLATE = model.ThreadPolicy.ISOLATE
REQUIRE = model.ThreadPolicy.REQUIRE


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
            'guest NUMA node 0: no NUMA node with 2048 free 2 MiB pages '
            '(most: 1536)'
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
    def test_what_a_cell_is_short_of(self, guest, reason, needed, best):
        # Cores 0 1, 2 3, 4 5 and 6 7 for pinned vCPUs, two in use by half;
        # 8 9 and 10 11 for floating ones.
        topology = host(
            host_cell(cores=4, shared_cores=2, threads=2, pinned={0, 2})
        )

        assert fit(request(guest), topology) == Rejection(
            reason, needed, best, guest_cell=0
        )

    def test_whole_cores_are_missing(self):
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

        assert fit(guest, topology) == model.Plan(
            cells=(
                model.CellPlan(1, None, None, ((0, 100),), frozenset({101})),
                model.CellPlan(0, None, None, ((1, 0),)),
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

    def test_only_guest_cells_that_compete_are_reported(self):
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


class TestOddHosts:
    """Nodes without CPUs or memory, and hosts with too few nodes."""

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

        assert fit(guest, topology) == model.Plan(
            cells=(
                model.CellPlan(7, None, None, ((0, 700),)),
                model.CellPlan(0, None, None, ((1, 0),)),
            )
        )

    def test_no_guest_is_pinned_to_a_cpu_in_use(self):
        topology = host(host_cell(cores=4, pinned={0, 2}))

        plan = fit(request(pinned_cell(2)), topology)

        assert plan.cells[0].pinning == ((0, 1), (1, 3))
