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


"""Tests of the fit in place of Nova's, with Nova's objects."""

import copy

from nova import objects
from nova.virt import hardware as nova_hardware
import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.core.model import HostCell
from nova_numa_hugepages.core.model import HostTopology
from nova_numa_hugepages.core.model import PagePool
from nova_numa_hugepages.core.model import ThreadPolicy
from nova_numa_hugepages.nova_fit import numa_fit
from nova_numa_hugepages.nova_fit import pci_devices
from nova_numa_hugepages.nova_fit import translate
from tests.unit import nova_builders
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import giant
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import mixed_cell
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import small
from tests.unit.nova_builders import ANY
from tests.unit.nova_builders import card
from tests.unit.nova_builders import devices
from tests.unit.nova_builders import guest
from tests.unit.nova_builders import KIB_4
from tests.unit.nova_builders import LARGE
from tests.unit.nova_builders import limits
from tests.unit.nova_builders import MIB_2
from tests.unit.nova_builders import network
from tests.unit.nova_builders import placed
from tests.unit.nova_builders import primitive
from tests.unit.nova_builders import topology
from tests.unit.nova_builders import UUID

NAME = 'numa_fit_instance_to_host'
SIGNATURE = (
    '(host_topology, instance_topology, provider_mapping, limits=None, '
    'pci_requests=None, pci_stats=None)'
)
POOLS = (small(4096), huge(1024), giant(4))

SIGNATURE_OF_OTHER_ORDER = (
    '(host_topology, instance_topology, provider_mapping, limits=None, '
    'pci_stats=None, pci_requests=None)'
)
SIGNATURE_OF_OTHER_DEFAULT = (
    '(host_topology, instance_topology, provider_mapping=None, limits=None, '
    'pci_requests=None, pci_stats=None)'
)

fit = numa_fit.numa_fit_instance_to_host


def other_order(
    host_topology,
    instance_topology,
    provider_mapping,
    limits=None,
    pci_stats=None,
    pci_requests=None,
):
    """Take the last two the other way round."""


def other_default(
    host_topology,
    instance_topology,
    provider_mapping=None,
    limits=None,
    pci_requests=None,
    pci_stats=None,
):
    """Let the mapping be left out."""


@pytest.fixture(autouse=True)
def stock_nova():
    """Leave Nova as it was."""
    yield
    numa_fit.uninstall()


def four_cells(**others):
    return [host_cell(number, pools=POOLS, **others) for number in range(4)]


def two_by_two(**others):
    """Make four cells on two sockets: 0 and 1, 2 and 3."""
    return [
        host_cell(number, pools=POOLS, socket=number // 2, **others)
        for number in range(4)
    ]


def cells_of(found):
    return found and [cell.id for cell in found.cells]


class TestInstall:
    """Our fit in place of Nova's."""

    def test_it_replaces_the_fit_of_nova_until_it_is_taken_out(self):
        stock = getattr(nova_hardware, NAME)

        numa_fit.install()
        between = getattr(nova_hardware, NAME)
        numa_fit.uninstall()

        assert between is fit
        assert stock is not fit
        assert getattr(nova_hardware, NAME) is stock

    def test_it_may_be_repeated(self):
        stock = getattr(nova_hardware, NAME)

        numa_fit.install()
        numa_fit.install()

        assert numa_fit.stock_fit() is stock
        numa_fit.uninstall()
        numa_fit.uninstall()
        assert getattr(nova_hardware, NAME) is stock

    def test_the_stock_fit_can_be_had_either_way(self):
        stock = getattr(nova_hardware, NAME)

        assert numa_fit.stock_fit() is stock
        numa_fit.install()
        assert numa_fit.stock_fit() is stock

    def test_the_installed_nova_has_the_signature(self):
        numa_fit.check_signature()
        numa_fit.check_signature(numa_fit.stock_fit())

    def test_annotations_make_no_difference(self):
        def annotated(
            host_topology: int,
            instance_topology: str,
            provider_mapping: list[str],
            limits: float | None = None,
            pci_requests: list[int] | None = None,
            pci_stats: bytes | None = None,
        ) -> int:
            return 0

        numa_fit.check_signature(annotated)

    @pytest.mark.parametrize(
        ('other', 'found'),
        [
            (lambda host, guest: None, '(host, guest)'),
            (other_order, SIGNATURE_OF_OTHER_ORDER),
            (other_default, SIGNATURE_OF_OTHER_DEFAULT),
        ],
    )
    def test_another_signature_is_refused_and_both_are_named(
        self, monkeypatch, other, found
    ):
        monkeypatch.setattr(nova_hardware, NAME, other)

        with pytest.raises(exception.SignatureMismatch) as caught:
            numa_fit.install()

        assert SIGNATURE in str(caught.value)
        assert found in str(caught.value)
        assert (caught.value.expected, caught.value.found) == (
            SIGNATURE,
            found,
        )
        assert getattr(nova_hardware, NAME) is other
        assert numa_fit.stock_fit() is other

    def test_nothing_is_changed_when_it_is_refused(self, monkeypatch):
        asked = []
        monkeypatch.setattr(nova_hardware, NAME, lambda host: None)

        with pytest.raises(exception.SignatureMismatch):
            numa_fit.install(host_stats=asked.append)
        fit(topology(*four_cells()), guest(pinned_cell(1)), None)

        assert asked == []

    def test_the_three_callers_of_nova_reach_our_fit(self):
        # They all go through the attribute of the module.
        numa_fit.install()

        found = nova_hardware.numa_fit_instance_to_host(
            topology(*four_cells()), guest(pinned_cell(1)), None
        )

        assert placed(found) == [(0, None, {0: 0})]


class TestFit:
    """Nova's objects in, Nova's objects out."""

    @pytest.mark.parametrize(
        ('cells', 'found'),
        [
            (None, guest(pinned_cell(1))),
            (topology(), guest(pinned_cell(1))),
            (topology(host_cell()), None),
            (topology(host_cell()), guest()),
        ],
    )
    def test_without_a_host_or_a_guest_there_is_no_plan(self, cells, found):
        assert fit(cells, found, None) is None

    def test_a_guest_that_does_not_fit_has_no_plan_and_a_reason(self, caplog):
        caplog.set_level('INFO')

        assert (
            fit(
                topology(*four_cells()),
                guest(pinned_cell(1, 4096, MIB_2)),
                None,
            )
            is None
        )
        assert (
            'Instance does not fit on this host: guest NUMA node 0: needs '
            '2048 free 2 MiB pages; most on a NUMA node: 1024'
        ) in caplog.messages

    @pytest.mark.parametrize('pack', [False, True])
    @pytest.mark.parametrize(
        'cells',
        [
            pytest.param([pinned_cell(2)], id='pinned'),
            pytest.param([pinned_cell(3, 1024, MIB_2)], id='huge pages'),
            pytest.param([floating_cell(2)], id='floating'),
            pytest.param([floating_cell(2, 2048, KIB_4)], id='small pages'),
            pytest.param([mixed_cell(1, 2)], id='mixed'),
            pytest.param(
                [pinned_cell(2, threads=ThreadPolicy.REQUIRE)], id='siblings'
            ),
            pytest.param(
                [pinned_cell(1), pinned_cell(1, first=1)], id='two cells'
            ),
            pytest.param(
                [floating_cell(1, 64, ANY), floating_cell(1, 64, ANY)],
                id='two cells, any size',
            ),
        ],
    )
    def test_the_result_of_a_plain_case_is_that_of_stock_nova(
        self, cells, pack
    ):
        # Of three cells the second has the most room, the third the least.
        host = [
            host_cell(0, cores=2, shared_cores=2, threads=2, pools=POOLS),
            host_cell(1, cores=3, shared_cores=2, threads=2, pools=POOLS),
            host_cell(
                2,
                cores=1,
                shared_cores=2,
                threads=2,
                pools=POOLS,
                shared_used=1,
            ),
        ]
        with nova_builders.option(
            'packing_host_numa_cells_allocation_strategy', pack, 'compute'
        ):
            ours, stock = (
                function(topology(*host), guest(*cells), None, limits())
                for function in (fit, numa_fit.stock_fit())
            )

        assert type(ours) is type(stock)
        assert [cell.fields.keys() for cell in ours.cells] == [
            cell.fields.keys() for cell in stock.cells
        ]
        assert data(ours) == data(stock)

    def test_the_emulator_s_cpus_are_those_of_stock_nova(self):
        host = [host_cell(0, pools=POOLS)]
        ours, stock = (
            function(
                topology(*host),
                guest(pinned_cell(2), emulator_isolated=True),
                None,
            )
            for function in (fit, numa_fit.stock_fit())
        )

        assert data(ours) == data(stock)
        assert ours.cells[0].cpuset_reserved == {2}

    def test_the_result_can_be_saved_and_read(self):
        found = fit(
            topology(*four_cells()), guest(pinned_cell(2, 1024, LARGE)), None
        )

        read = objects.InstanceNUMATopology.obj_from_primitive(
            found.obj_to_primitive()
        )

        assert placed(read) == placed(found)

    def test_no_argument_is_changed(self):
        arguments = {
            'host_topology': topology(*two_by_two()),
            'instance_topology': guest(
                pinned_cell(1, 1024, LARGE),
                pinned_cell(1, 1024, LARGE, first=1),
                emulator_isolated=True,
            ),
            'limits': limits(networks=network({'red'})),
        }
        requests = [card(policy='socket')]
        stats = devices(arguments['host_topology'], {1: 1, 2: 1})
        before = {
            name: primitive(argument) for name, argument in arguments.items()
        }
        pools = copy.deepcopy(stats.pools)

        found = fit(
            provider_mapping={},
            pci_requests=requests,
            pci_stats=stats,
            **arguments,
        )

        assert cells_of(found) == [1, 2]
        assert {
            name: primitive(argument) for name, argument in arguments.items()
        } == before
        assert primitive(requests[0]) == primitive(card(policy='socket'))
        assert stats.pools == pools
        assert stats.numa_topology is arguments['host_topology']

    def test_the_result_shares_nothing_with_the_request(self):
        asked = guest(pinned_cell(2))

        found = fit(topology(*four_cells()), asked, None)
        found.cells[0].pcpuset.add(99)
        found.cells[0].id = 7

        assert primitive(asked) == primitive(guest(pinned_cell(2)))

    def test_a_plan_that_is_tried_again_is_read_as_it_was_asked_for(self):
        first = fit(
            topology(host_cell(pools=(small(64), giant(2)))),
            guest(pinned_cell(1, 1024, LARGE)),
            None,
        )

        second = fit(
            topology(host_cell(pools=(small(64), huge(512)))), first, None
        )
        third = fit(
            topology(host_cell(pools=(small(64), giant(2)))), second, None
        )

        assert [placed(found) for found in (first, second, third)] == [
            [(0, nova_builders.GIB_1, {0: 0})],
            [(0, MIB_2, {0: 0})],
            [(0, nova_builders.GIB_1, {0: 0})],
        ]

    def test_ratios_that_are_not_set_count_as_1(self):
        host = [host_cell(shared_cores=2, shared_used=1, pools=POOLS)]

        assert (
            fit(
                topology(*host),
                guest(floating_cell(2)),
                None,
                objects.NUMATopologyLimits(),
            )
            is None
        )
        assert fit(
            topology(*host), guest(floating_cell(2)), None, limits(cpu=1.5)
        )


def data(found):
    """Tell all fields of a plan."""
    return [
        (
            cell.id,
            cell.cpuset,
            cell.pcpuset,
            cell.memory,
            cell.pagesize,
            cell.cpu_pinning,
            cell.cpuset_reserved,
            cell.cpu_policy,
            cell.cpu_thread_policy,
        )
        for cell in found.cells
    ] + [found.emulator_threads_policy]


class TestFacts:
    """Distances and pages that don't exist yet."""

    FAR = host_stats.HostStats(
        distances={
            0: (10, 31, 20, 31),
            1: (31, 10, 31, 20),
            2: (20, 31, 10, 31),
            3: (31, 20, 31, 10),
        }
    )
    TWO = (pinned_cell(1), pinned_cell(1, first=1))

    def test_distances_that_go_with_the_topology_decide(self):
        host_topology = topology(*four_cells())
        before = primitive(host_topology)

        translate.remember_stats(host_topology, self.FAR)

        assert cells_of(fit(host_topology, guest(*self.TWO), None)) == [0, 2]
        assert primitive(host_topology) == before

    def test_on_a_compute_the_host_is_asked_for_them(self):
        host_topology = topology(*four_cells())
        asked = []

        def stats_of_host(found):
            asked.append(found)
            return self.FAR

        numa_fit.install(stats_of_host)

        assert cells_of(fit(host_topology, guest(*self.TWO), None)) == [0, 2]
        assert asked == [host_topology]

    def test_on_a_compute_the_host_is_asked_for_devices_that_are_missing(
        self,
    ):
        host_topology = topology(*four_cells())
        known = devices(host_topology, {0: 1, 2: 1})

        numa_fit.install(host_devices=lambda: known)
        missing = fit(host_topology, guest(*self.TWO), None)
        told = fit(
            host_topology,
            guest(*self.TWO),
            None,
            pci_stats=devices(host_topology, {1: 1}),
        )

        assert cells_of(missing) == [1, 3]
        assert cells_of(told) == [0, 2]

    def test_a_later_install_leaves_the_source_as_it_is(self):
        numa_fit.install(lambda found: self.FAR)
        numa_fit.install()

        assert cells_of(
            fit(topology(*four_cells()), guest(*self.TWO), None)
        ) == [0, 2]

    def test_stats_of_the_topology_come_first(self):
        host_topology = topology(*four_cells())
        translate.remember_stats(host_topology, host_stats.HostStats())

        numa_fit.install(lambda found: self.FAR)

        assert cells_of(fit(host_topology, guest(*self.TWO), None)) == [0, 1]

    def test_a_host_that_tells_nothing_has_equal_distances(self):
        numa_fit.install(lambda found: None)

        assert cells_of(
            fit(topology(*four_cells()), guest(*self.TWO), None)
        ) == [0, 1]

    def test_after_uninstall_nobody_is_asked(self):
        numa_fit.install(lambda found: self.FAR)
        numa_fit.uninstall()

        assert cells_of(
            fit(topology(*four_cells()), guest(*self.TWO), None)
        ) == [0, 1]

    def test_pages_that_don_t_exist_yet_leave_room_for_small_ones(self):
        host_topology = topology(
            host_cell(pools=(small(4096), huge(2048)), memory_mib=4096)
        )
        asked = guest(pinned_cell(1, 2048))

        assert fit(host_topology, asked, None) is None
        translate.remember_stats(
            host_topology, host_stats.HostStats(allocatable={0: {MIB_2: 1024}})
        )
        assert cells_of(fit(host_topology, asked, None)) == [0]

    def test_stats_are_neither_saved_nor_copied(self):
        host_topology = topology(host_cell())
        translate.remember_stats(host_topology, self.FAR)

        assert translate.stats_of(host_topology) == self.FAR
        assert translate.stats_of(host_topology.obj_clone()) is None


class TestNetworks:
    """The guest's networks, which come with the limits."""

    CELLS = [
        host_cell(0, pools=POOLS),
        host_cell(1, pools=POOLS, physnets={'red'}),
        host_cell(2, pools=POOLS, tunneled=True),
    ]

    def placed(self, cells=CELLS, **wanted):
        return cells_of(
            fit(
                topology(*cells),
                guest(pinned_cell(1)),
                None,
                limits(networks=network(**wanted)),
            )
        )

    def test_networks_are_near_the_guest(self):
        assert self.placed() == [0]
        assert self.placed(physnets={'red'}) == [1]
        assert self.placed(tunneled=True) == [2]
        assert self.placed(physnets={'red'}, tunneled=True) is None

    def test_networks_that_are_near_no_cell_are_used_from_anywhere(self):
        assert self.placed(physnets={'blue'}) == [0]
        assert self.placed(self.CELLS[:2], tunneled=True) == [0]

    def test_fields_that_are_not_set_ask_for_nothing(self):
        found = fit(
            topology(*self.CELLS),
            guest(pinned_cell(1)),
            None,
            limits(networks=objects.NetworkMetadata()),
        )

        assert cells_of(found) == [0]

    def test_without_limits_no_network_is_known(self):
        found = fit(topology(*self.CELLS), guest(pinned_cell(1)), None)

        assert cells_of(found) == [0]


class TestDevices:
    """PCI devices through Nova's own statistics."""

    def placed(self, cards, *requests, cells=None, count=1, **others):
        host_topology = topology(*(cells or two_by_two()))
        return cells_of(
            fit(
                host_topology,
                guest(
                    *[pinned_cell(1, first=index) for index in range(count)]
                ),
                others.get('mapping'),
                limits(),
                list(requests),
                devices(host_topology, cards),
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
        assert self.placed(by_cell, card(policy=policy)) == chosen

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

        assert self.placed({2: 1}, card(policy=policy), cells=cells) == chosen

    def test_socket_needs_the_sockets_of_all_cells(self):
        cells = four_cells()
        cells[2] = cells[2]._replace(pinned_cpus=frozenset(range(200, 204)))

        assert self.placed({2: 1}, card(policy='socket'), cells=cells) is None

    def test_cards_are_added_up_over_the_chosen_cells(self):
        by_cell = {1: 1, 3: 2}
        wanted = card(3, policy='required')

        assert self.placed(by_cell, wanted) is None
        assert self.placed(by_cell, wanted, count=2) == [3, 1]

    def test_requests_share_the_cards(self):
        one, two = card(policy='required'), card(policy='required')

        assert self.placed({1: 1}, one, two) is None
        assert self.placed({1: 1, 2: 1}, one, two) is None
        assert self.placed({1: 1, 2: 1}, one, two, count=2) == [1, 2]
        assert self.placed({1: 2}, one, two) == [1]

    def test_other_cards_are_no_use(self):
        assert self.placed({1: 1}, card(vendor_id='beef')) is None

    def test_a_host_without_statistics_is_not_asked(self):
        found = fit(
            topology(*four_cells()),
            guest(pinned_cell(1)),
            None,
            pci_requests=[card(policy='required')],
        )

        assert cells_of(found) == [0]

    def test_no_request_leaves_cells_with_cards_alone(self):
        assert self.placed({0: 1, 1: 1, 2: 1}) == [3]

    def test_eight_cells_are_judged_at_once_where_no_card_fits(self):
        # 8 * 7 * 6 * 5 arrangements of stock Nova.
        cells = [host_cell(number, pools=POOLS) for number in range(8)]

        assert (
            self.placed(
                dict.fromkeys(range(8), 1),
                card(5, policy='required'),
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
        host_topology = topology(*two_by_two())
        found = pci_devices.PciDevices(
            devices(host_topology, by_cell), [card(count, policy)], None
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
            assert found.supports(chosen) == devices(
                host_topology, by_cell
            ).support_requests(
                [card(count, policy)],
                None,
                [objects.InstanceNUMACell(id=number) for number in chosen],
            )

    def test_cards_are_counted_by_cell(self):
        found = pci_devices.PciDevices(
            devices(topology(*two_by_two()), {1: 2, None: 1}), None, None
        )

        assert [found.count(number) for number in range(3)] == [0, 2, 0]

    def test_statistics_without_a_topology_know_no_socket(self):
        found = pci_devices.PciDevices(
            devices(None, {1: 1}), [card(policy='socket')], None
        )

        assert found.supports(frozenset({1})) is True
        assert found.supports(frozenset({0})) is False


class TestProviders:
    """Cards that Placement has allocated."""

    def fit(self, mapping, **spec):
        host_topology = topology(*two_by_two())
        stats = devices(host_topology, {1: 1, 2: 1})
        for pool in stats.pools:
            pool['rp_uuid'] = f'provider-{pool["numa_node"]}'
        return cells_of(
            fit(
                host_topology,
                guest(pinned_cell(1)),
                mapping,
                limits(),
                [card(policy='required', **spec)],
                stats,
            )
        )

    def test_the_cell_is_that_of_the_provider_in_the_mapping(self):
        assert self.fit({f'{UUID}-0': ['provider-1']}) == [1]
        assert self.fit({f'{UUID}-0': ['provider-2']}) == [2]
        assert self.fit({f'{UUID}-0': ['provider-9']}) is None

    def test_without_a_mapping_it_is_that_of_the_request(self):
        assert self.fit(None, rp_uuids='provider-2') == [2]
        assert self.fit(None, rp_uuids='provider-9') is None

    def test_without_either_it_is_any_cell_with_a_card(self):
        assert self.fit(None) == [1]

    def test_groups_of_other_requests_are_not_taken_for_ours(self):
        other = '00000000-1111-2222-3333-444444444444'

        assert self.fit({f'{other}-0': ['provider-9']}) == [1]


class TestReaders:
    """The fast and the slow way to read Nova's objects."""

    TOPOLOGIES = [
        topology(),
        topology(host_cell()),
        topology(*two_by_two(pinned={0, 1}, physnets={'red'}, tunneled=True)),
        topology(
            host_cell(
                3,
                cores=2,
                shared_cores=2,
                threads=2,
                pools=(small(4096, 1024, 512), huge(9, 1, 1)),
                memory_used_mib=7,
                shared_used=2,
            )
        ),
        objects.NUMATopology(
            cells=[objects.NUMACell(id=0, cpuset={0, 1}, memory=512)]
        ),
        objects.NUMATopology.obj_from_primitive(
            topology(*four_cells()).obj_to_primitive()
        ),
    ]

    @pytest.mark.parametrize('found', TOPOLOGIES)
    def test_both_read_the_same(self, monkeypatch, found):
        fast = translate.host_topology(found)

        monkeypatch.setattr(translate, '_values', translate._read_values)

        assert translate.host_topology(found) == fast

    def test_the_fast_one_is_taken_where_it_works(self):
        assert translate._values_reader() is vars

    def test_the_slow_one_is_taken_where_values_are_kept_elsewhere(
        self, monkeypatch
    ):
        class Elsewhere:
            def __init__(self, **values):
                self._values = values

        monkeypatch.setattr(translate.numa, 'NUMAPagesTopology', Elsewhere)

        assert translate._values_reader() is translate._read_values

    def test_what_is_read_is_what_was_written(self):
        cells = two_by_two(
            pinned={1}, physnets={'red'}, shared_cores=1, memory_used_mib=3
        )

        read = translate.host_topology(topology(*cells))

        assert read == HostTopology(
            tuple(
                cell._replace(siblings=list(cell.siblings)) for cell in cells
            )
        )

    def test_pools_are_read_smallest_first(self):
        found = topology(host_cell(pools=(giant(1), huge(2), small(3))))

        assert translate.host_topology(found).cells[0].pools == (
            small(3),
            huge(2),
            giant(1),
        )


class TestOlderNova:
    """Topologies of an older Nova are judged, never a traceback."""

    def cell(self, *unset, **others):
        """Make a host cell on which some fields were never set."""
        values = {
            'id': 0,
            'cpuset': {0, 1, 2, 3},
            'pcpuset': {0, 1, 2, 3},
            'memory': 4096,
            'cpu_usage': 0,
            'memory_usage': 0,
            'pinned_cpus': set(),
            'siblings': [{0}, {1}, {2}, {3}],
            'mempages': [
                objects.NUMAPagesTopology(
                    size_kb=KIB_4, total=1048576, used=0, reserved=0
                )
            ],
            'network_metadata': network(),
            'socket': 0,
            **others,
        }
        return objects.NUMACell(
            **{
                name: value
                for name, value in values.items()
                if name not in unset
            }
        )

    @pytest.mark.parametrize(
        'unset',
        [
            ('pcpuset',),
            ('socket',),
            ('network_metadata',),
            ('mempages',),
            ('siblings',),
            ('pinned_cpus',),
            ('cpu_usage', 'memory_usage'),
            (
                'pcpuset',
                'socket',
                'network_metadata',
                'mempages',
                'siblings',
                'pinned_cpus',
            ),
        ],
        ids=' '.join,
    )
    @pytest.mark.parametrize('cell', [pinned_cell(2), floating_cell(2)])
    def test_a_guest_is_placed_on_what_is_known(self, unset, cell):
        host_topology = objects.NUMATopology(cells=[self.cell(*unset)])
        stats = devices(host_topology, {0: 1})

        found = fit(
            host_topology,
            guest(cell),
            None,
            limits(networks=network({'red'}, tunneled=True)),
            [card()],
            stats,
        )

        pins = {0: 0, 1: 1} if cell.dedicated_vcpus else {}
        size = KIB_4 if 'mempages' in unset else None
        assert placed(found) == [(0, size, pins)]

    def test_no_memory_at_all_is_too_little(self):
        host_topology = objects.NUMATopology(cells=[self.cell('memory')])

        assert fit(host_topology, guest(pinned_cell(1)), None) is None

    def test_before_pcpuset_guests_were_pinned_to_cpuset(self):
        host_topology = objects.NUMATopology(
            cells=[self.cell('pcpuset', cpuset={2, 3})]
        )

        found = fit(host_topology, guest(pinned_cell(2)), None)

        assert placed(found) == [(0, None, {0: 2, 1: 3})]

    def test_sockets_that_are_not_set_are_unknown(self):
        host_topology = objects.NUMATopology(
            cells=[
                self.cell('socket', pinned_cpus={0, 1, 2, 3}),
                self.cell('socket', id=1),
            ]
        )

        assert (
            fit(
                host_topology,
                guest(pinned_cell(1)),
                None,
                limits(),
                [card(policy='socket')],
                devices(host_topology, {0: 1}),
            )
            is None
        )

    def test_counts_of_pages_that_are_not_set_are_none(self):
        host_topology = objects.NUMATopology(
            cells=[
                self.cell(
                    mempages=[
                        objects.NUMAPagesTopology(size_kb=KIB_4, total=262144),
                        objects.NUMAPagesTopology(size_kb=MIB_2),
                    ]
                )
            ]
        )

        assert translate.host_topology(host_topology).cells[0].pools == (
            PagePool(KIB_4, 262144),
            PagePool(MIB_2, 0),
        )

    def test_a_page_size_of_0_is_none(self):
        host_topology = objects.NUMATopology(
            cells=[
                self.cell(
                    mempages=[
                        objects.NUMAPagesTopology(
                            size_kb=0, total=7, used=0, reserved=0
                        )
                    ]
                )
            ]
        )

        for wish in (None, nova_builders.SMALL, ANY, LARGE):
            fit(host_topology, guest(pinned_cell(1, 1024, wish)), None)

    def test_a_guest_of_before_pcpuset_is_read(self):
        asked = objects.InstanceNUMATopology(
            cells=[
                objects.InstanceNUMACell(
                    id=0, cpuset={0, 1}, memory=512, cpu_policy='dedicated'
                )
            ]
        )
        request = translate.request(asked)

        assert request.cells[0] == pinned_cell(2, 512)

    def test_a_guest_without_policies_and_page_size_is_read(self):
        asked = objects.InstanceNUMATopology(
            cells=[objects.InstanceNUMACell(id=0, cpuset={0}, memory=512)]
        )

        assert translate.request(asked).cells == (floating_cell(1, 512),)

    def test_an_empty_cell_of_a_host_is_read(self):
        assert translate.host_topology(
            objects.NUMATopology(cells=[objects.NUMACell(id=5)])
        ) == HostTopology((HostCell(5),))
