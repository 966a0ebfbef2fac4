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


"""Tests of the fit with PCI devices."""

from nova import objects
import pytest

from nova_numa_hugepages.nova_fit import pci_devices
from tests.unit import nova_builders
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import pinned_cell
from tests.unit.nova_fit.fitting import cells_of
from tests.unit.nova_fit.fitting import fit
from tests.unit.nova_fit.fitting import four_cells
from tests.unit.nova_fit.fitting import POOLS
from tests.unit.nova_fit.fitting import two_by_two


class TestDevices:
    """PCI devices through Nova's own statistics."""

    def placed(self, cards, *requests, cells=None, count=1, **others):
        host_topology = nova_builders.topology(*(cells or two_by_two()))
        return cells_of(
            fit(
                host_topology,
                nova_builders.guest(
                    *[pinned_cell(1, first=index) for index in range(count)]
                ),
                others.get('mapping'),
                nova_builders.limits(),
                list(requests),
                nova_builders.devices(host_topology, cards),
            )
        )

    @pytest.mark.parametrize(
        ('policy', 'by_cell', 'chosen'),
        [
            # A card of the cell.
            ('required', {2: 1}, [2]),
            ('legacy', {2: 1}, [2]),
            (None, {2: 1}, [2]),
            ('preferred', {2: 1}, [2]),
            ('socket', {2: 1}, [2]),
            # A card near no cell.
            ('required', {None: 1}, None),
            ('legacy', {None: 1}, [0]),
            (None, {None: 1}, [0]),
            ('preferred', {None: 1}, [0]),
            ('socket', {None: 1}, None),
            # None at all.
            ('required', {}, None),
            ('legacy', {}, None),
            ('preferred', {}, None),
            ('socket', {}, None),
        ],
    )
    def test_each_policy_where_all_cells_fit(self, policy, by_cell, chosen):
        assert (
            self.placed(by_cell, nova_builders.card(policy=policy)) == chosen
        )

    @pytest.mark.parametrize(
        ('policy', 'chosen'),
        [
            ('required', None),
            ('legacy', None),
            (None, None),
            ('preferred', [0]),
            # Cell 3 is on the socket of cell 2.
            ('socket', [3]),
        ],
    )
    def test_each_policy_where_the_cell_of_the_card_is_full(
        self, policy, chosen
    ):
        cells = two_by_two()
        cells[2] = cells[2]._replace(pinned_cpus=frozenset(range(200, 204)))

        assert (
            self.placed({2: 1}, nova_builders.card(policy=policy), cells=cells)
            == chosen
        )

    def test_socket_needs_the_sockets_of_all_cells(self):
        cells = four_cells()
        cells[2] = cells[2]._replace(pinned_cpus=frozenset(range(200, 204)))

        assert (
            self.placed(
                {2: 1}, nova_builders.card(policy='socket'), cells=cells
            )
            is None
        )

    def test_cards_are_added_up_over_the_chosen_cells(self):
        by_cell = {1: 1, 3: 2}
        wanted = nova_builders.card(3, policy='required')

        assert self.placed(by_cell, wanted) is None
        assert self.placed(by_cell, wanted, count=2) == [3, 1]

    def test_requests_share_the_cards(self):
        one, two = (
            nova_builders.card(policy='required'),
            nova_builders.card(policy='required'),
        )

        assert self.placed({1: 1}, one, two) is None
        assert self.placed({1: 1, 2: 1}, one, two) is None
        assert self.placed({1: 1, 2: 1}, one, two, count=2) == [1, 2]
        assert self.placed({1: 2}, one, two) == [1]

    def test_other_cards_are_no_use(self):
        assert (
            self.placed({1: 1}, nova_builders.card(vendor_id='beef')) is None
        )

    def test_a_host_without_statistics_is_not_asked(self):
        found = fit(
            nova_builders.topology(*four_cells()),
            nova_builders.guest(pinned_cell(1)),
            None,
            pci_requests=[nova_builders.card(policy='required')],
        )

        assert cells_of(found) == [0]

    def test_no_request_leaves_cells_with_cards_alone(self):
        assert self.placed({0: 1, 1: 1, 2: 1}) == [3]

    def test_eight_cells_are_checked_at_once_where_no_card_fits(self):
        # 8 * 7 * 6 * 5 arrangements of stock Nova.
        cells = [host_cell(number, pools=POOLS) for number in range(8)]

        assert (
            self.placed(
                dict.fromkeys(range(8), 1),
                nova_builders.card(5, policy='required'),
                cells=cells,
                count=4,
            )
            is None
        )

    @pytest.mark.parametrize(
        ('policy', 'by_cell', 'count'),
        [
            (policy, by_cell, count)
            for policy in ('required', 'legacy', 'preferred', 'socket', None)
            for by_cell in ({0: 1, 2: 2}, {None: 2, 1: 1}, {3: 3}, {})
            for count in (1, 2, 3)
        ],
    )
    def test_needs_are_met_by_all_that_nova_supports(
        self, policy, by_cell, count
    ):
        host_topology = nova_builders.topology(*two_by_two())
        found = pci_devices.PciDevices(
            nova_builders.devices(host_topology, by_cell),
            [nova_builders.card(count, policy)],
            None,
        )
        for bits in range(1, 16):
            chosen = frozenset(
                number for number in range(4) if bits >> number & 1
            )
            if found.supports(chosen):
                assert all(
                    sum(near.get(number, 0) for number in chosen) >= least
                    for near, least in found.needs()
                )
            # As Nova answers on its own statistics.
            assert found.supports(chosen) == nova_builders.devices(
                host_topology, by_cell
            ).support_requests(
                [nova_builders.card(count, policy)],
                None,
                [objects.InstanceNUMACell(id=number) for number in chosen],
            )

    def test_cards_are_counted_by_cell(self):
        found = pci_devices.PciDevices(
            nova_builders.devices(
                nova_builders.topology(*two_by_two()), {1: 2, None: 1}
            ),
            None,
            None,
        )

        assert [found.count(number) for number in range(3)] == [0, 2, 0]

    def test_statistics_without_a_topology_know_no_socket(self):
        found = pci_devices.PciDevices(
            nova_builders.devices(None, {1: 1}),
            [nova_builders.card(policy='socket')],
            None,
        )

        assert found.supports(frozenset({1})) is True
        assert found.supports(frozenset({0})) is False


class TestProviders:
    """Cards that Placement has allocated."""

    def fit(self, mapping, **spec):
        host_topology = nova_builders.topology(*two_by_two())
        stats = nova_builders.devices(host_topology, {1: 1, 2: 1})
        for pool in stats.pools:
            pool['rp_uuid'] = f'provider-{pool["numa_node"]}'
        return cells_of(
            fit(
                host_topology,
                nova_builders.guest(pinned_cell(1)),
                mapping,
                nova_builders.limits(),
                [nova_builders.card(policy='required', **spec)],
                stats,
            )
        )

    def test_the_cell_is_that_of_the_provider_in_the_mapping(self):
        assert self.fit({f'{nova_builders.UUID}-0': ['provider-1']}) == [1]
        assert self.fit({f'{nova_builders.UUID}-0': ['provider-2']}) == [2]
        assert self.fit({f'{nova_builders.UUID}-0': ['provider-9']}) is None

    def test_without_a_mapping_it_is_that_of_the_request(self):
        assert self.fit(None, rp_uuids='provider-2') == [2]
        assert self.fit(None, rp_uuids='provider-9') is None

    def test_without_either_it_is_any_cell_with_a_card(self):
        assert self.fit(None) == [1]

    def test_groups_of_other_requests_are_not_taken_for_ours(self):
        other = '00000000-1111-2222-3333-444444444444'

        assert self.fit({f'{other}-0': ['provider-9']}) == [1]
