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


"""Tests of the filter for computes that run the stock driver."""

from nova.virt import hardware as nova_hardware
import pytest

from nova_numa_hugepages.nova_fit import numa_fit
from tests.unit import nova_builders
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import giant
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import small
from tests.unit.scheduler.filtering import FILTERS
from tests.unit.scheduler.filtering import four_cells
from tests.unit.scheduler.filtering import POOLS
from tests.unit.scheduler.filtering import request
from tests.unit.scheduler.filtering import STOCK


class TestStockClaim:
    """Computes that run the stock driver, whose claim has the last word."""

    def host(self, *cells):
        return nova_builders.host_state(
            'stock', nova_builders.topology(*cells), reported=STOCK
        )

    def ours(self, *cells):
        return nova_builders.host_state('ours', nova_builders.topology(*cells))

    def checked(self, numa_filter, cells, wanted, **others):
        return [
            numa_filter.host_passes(host, request(wanted, **others))
            for host in (self.ours(*cells), self.host(*cells))
        ]

    def test_a_guest_that_the_claim_refuses_is_kept_away(self, numa_filter):
        # b02
        cells = [
            host_cell(number, cores=cores, pools=POOLS)
            for number, cores in enumerate((1, 2, 1))
        ]
        wanted = [pinned_cell(1), pinned_cell(2, first=1)]

        assert self.checked(numa_filter, cells, wanted) == [True, False]

    def test_a_page_size_that_sticks_in_the_claim_is_kept_away(
        self, numa_filter
    ):
        # b04
        cells = [
            host_cell(
                0,
                cores=8,
                pinned=range(7),
                pools=(small(64), huge(1024)),
                memory_mib=9999,
            ),
            host_cell(1, cores=2, pools=(small(64), giant(2))),
        ]
        with nova_builders.option(
            'packing_host_numa_cells_allocation_strategy', True, 'compute'
        ):
            assert self.checked(
                numa_filter, cells, [pinned_cell(2, 1024, nova_builders.LARGE)]
            ) == [True, False]

    def test_a_guest_that_the_claim_accepts_is_sent(self, numa_filter):
        wanted = [
            pinned_cell(1, 512, nova_builders.LARGE),
            pinned_cell(2, 512, nova_builders.LARGE),
        ]

        assert self.checked(numa_filter, four_cells(), wanted) == [True, True]

    def test_a_guest_that_only_the_claim_accepts_is_kept_away(
        self, numa_filter
    ):
        # b01
        cells = [
            host_cell(number, cores=1, pools=POOLS) for number in range(3)
        ]
        wanted = [
            pinned_cell(1),
            pinned_cell(1, first=1),
            pinned_cell(4, first=2),
        ]

        assert self.checked(numa_filter, cells, wanted) == [False, False]

    @pytest.mark.parametrize('cell', [pinned_cell(1), floating_cell(1)])
    def test_a_host_without_page_sizes_is_kept_away(self, numa_filter, cell):
        # b11: its claim accepts, and fails when it accounts the guest.
        cells = [host_cell(shared_cores=2)]

        assert self.checked(numa_filter, cells, [cell]) == [True, False]

    def test_a_host_without_siblings_is_kept_away(self, numa_filter):
        # Its claim fails.
        cells = [host_cell(pools=POOLS)._replace(siblings=())]

        assert self.checked(numa_filter, cells, [pinned_cell(1)]) == [
            True,
            False,
        ]

    def test_the_search_for_its_verdict_is_limited(self, numa_filter, caplog):
        caplog.set_level('INFO', FILTERS)
        cells = four_cells()
        cells[3] = cells[3]._replace(physnets=frozenset({'red'}))
        wanted = [pinned_cell(1), pinned_cell(1, first=1)]
        host = self.host(*cells)

        with nova_builders.option(
            'stock_claim_search_limit', 2, 'numa_hugepages'
        ):
            assert not numa_filter.host_passes(
                host, request(wanted, networks=nova_builders.network({'red'}))
            )
        host = self.host(*cells)
        assert numa_filter.host_passes(
            host, request(wanted, networks=nova_builders.network({'red'}))
        )

        assert caplog.messages == [
            'NUMAHugepagesFilter rejected 1 of 1 hosts: 1 host: the claim of '
            'the stock driver finds no place among the first 2 arrangements'
        ]

    def test_the_reason_is_logged(self, numa_filter, caplog):
        caplog.set_level('INFO', FILTERS)
        cells = [
            host_cell(number, cores=cores, pools=POOLS)
            for number, cores in enumerate((1, 2, 1))
        ]

        numa_filter.filter_all(
            [self.host(*cells)],
            request([pinned_cell(1), pinned_cell(2, first=1)]),
        )

        assert caplog.messages == [
            'NUMAHugepagesFilter rejected 1 of 1 hosts: 1 host: the claim of '
            'the stock driver would refuse'
        ]


def test_the_scheduler_accounts_what_the_claim_takes(numa_filter):
    # Stock Nova takes the first arrangement that it comes to, ours the
    # preferred host cells. Were ours accounted, there would seem to be
    # room for a second server.
    cells = [
        host_cell(number, cores=cores, pools=(small(4096), huge(pages)))
        for number, (cores, pages) in enumerate(
            ((8, 2048), (7, 1024), (2, 2048))
        )
    ]
    wanted = [
        pinned_cell(3, 1024, nova_builders.MIB_2),
        pinned_cell(1, 4096, nova_builders.MIB_2, first=3),
    ]
    host = nova_builders.host_state(
        'stock', nova_builders.topology(*cells), reported=STOCK
    )
    truth = nova_builders.topology(*cells)
    asked = request(wanted)
    asked.requested_resources = []

    for _ in range(2):
        passes = numa_filter.host_passes(host, asked)
        claimed = numa_fit.stock_fit()(
            truth,
            nova_builders.guest(*wanted),
            None,
            host.limits['numa_topology'],
        )
        assert passes == bool(claimed)
        if not claimed:
            break
        host.consume_from_request(asked)
        assert [cell.id for cell in asked.numa_topology.cells] == [
            cell.id for cell in claimed.cells
        ]
        truth = nova_hardware.numa_usage_from_instance_numa(truth, claimed)
    else:
        pytest.fail('there is no room for two')
