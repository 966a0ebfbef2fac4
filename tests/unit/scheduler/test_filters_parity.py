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


"""The decisions of the filter beside those of Nova's NUMATopologyFilter."""

from nova import objects
from nova.scheduler import filters as nova_filters
from nova.scheduler import host_manager
from nova.scheduler.filters import numa_topology_filter
from nova.virt import hardware as nova_hardware
import pytest

from nova_numa_hugepages.core.model import ThreadPolicy
from nova_numa_hugepages.nova_fit import numa_fit
from nova_numa_hugepages.scheduler import filters
from tests.unit import nova_builders
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import mixed_cell
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import small
from tests.unit.scheduler.filtering import FILTERS
from tests.unit.scheduler.filtering import four_cells
from tests.unit.scheduler.filtering import names
from tests.unit.scheduler.filtering import POOLS
from tests.unit.scheduler.filtering import request
from tests.unit.scheduler.filtering import STOCK

REQUIRE = ThreadPolicy.REQUIRE
ISOLATE = ThreadPolicy.ISOLATE
PREFERS = {'hw:cpu_policy': 'dedicated'}
REQUIRES = {'hw:cpu_policy': 'dedicated', 'hw:cpu_thread_policy': 'require'}


def ordinary_hosts(reported):
    """Make a fleet, all of it of one kind of compute."""

    def two_cells(**others):
        return nova_builders.topology(
            *[
                host_cell(
                    number,
                    cores=4,
                    shared_cores=2,
                    threads=2,
                    pools=POOLS,
                    **others,
                )
                for number in (0, 1)
            ]
        )

    return [
        nova_builders.host_state(name, found, reported=reported, **others)
        for name, found, others in (
            ('two free cells', two_cells(), {}),
            (
                'two cells with two pinned CPUs left each',
                two_cells(pinned={*range(6), *range(100, 106)}),
                {},
            ),
            (
                'two cells with shared CPUs in use',
                two_cells(shared_used=3),
                {},
            ),
            (
                'two cells with shared CPUs in use, overcommitted',
                two_cells(shared_used=3),
                {'cpu_ratio': 4.0},
            ),
            (
                'one cell without threads',
                nova_builders.topology(
                    host_cell(cores=8, shared_cores=4, pools=POOLS)
                ),
                {},
            ),
            (
                'one cell of small pages',
                nova_builders.topology(
                    host_cell(cores=8, shared_cores=4, pools=(small(8192),))
                ),
                {},
            ),
            (
                'two cells with no huge pages left',
                nova_builders.topology(
                    *[
                        host_cell(
                            number,
                            cores=8,
                            shared_cores=4,
                            pools=(small(4096), huge(1024, used=1024)),
                        )
                        for number in (0, 1)
                    ]
                ),
                {},
            ),
            (
                'two cells, one near the network',
                nova_builders.topology(
                    host_cell(0, cores=8, shared_cores=4, pools=POOLS),
                    host_cell(
                        1,
                        cores=8,
                        shared_cores=4,
                        pools=POOLS,
                        physnets={'red'},
                    ),
                ),
                {},
            ),
            (
                'two cells, a card on the second',
                two_cells(),
                {'cards': {1: 1}},
            ),
            ('no NUMA topology', None, {'memory_mib': 65536}),
        )
    ]


ORDINARY = {
    'pinned': {'cells': [pinned_cell(2)]},
    'pinned, too many': {'cells': [pinned_cell(9)]},
    'floating': {'cells': [floating_cell(2)]},
    'mixed': {'cells': [mixed_cell(1, 2)]},
    '2 MiB pages': {'cells': [pinned_cell(2, 2048, nova_builders.MIB_2)]},
    '1 GiB pages': {'cells': [floating_cell(1, 2048, nova_builders.GIB_1)]},
    'pages of any size': {'cells': [pinned_cell(2, 64, nova_builders.ANY)]},
    'two cells': {'cells': [pinned_cell(2), pinned_cell(2, first=2)]},
    'two floating cells on 2 MiB pages': {
        'cells': [
            floating_cell(1, 512, nova_builders.MIB_2),
            floating_cell(1, 512, nova_builders.MIB_2, first=1),
        ]
    },
    'siblings': {
        'cells': [pinned_cell(4, threads=REQUIRE)],
        'extra_specs': REQUIRES,
    },
    'siblings, of the image': {
        'cells': [pinned_cell(4, threads=REQUIRE)],
        'properties': {
            'hw_cpu_policy': 'dedicated',
            'hw_cpu_thread_policy': 'require',
        },
    },
    'a network': {
        'cells': [pinned_cell(2)],
        'networks': nova_builders.network({'red'}),
    },
    'a card': {
        'cells': [pinned_cell(2)],
        'cards': [nova_builders.card(policy='required')],
    },
    'no topology': {'cells': None, 'memory_mib': 1024},
}


class TestDropIn:
    """The decisions of NUMATopologyFilter, where they are right."""

    @pytest.mark.parametrize('name', list(ORDINARY))
    @pytest.mark.parametrize(
        'reported',
        [nova_builders.stats(), STOCK],
        ids=['our driver', 'stock driver'],
    )
    def test_the_same_hosts_pass(self, numa_filter, name, reported):
        numa_fit.uninstall()
        theirs = names(
            numa_topology_filter.NUMATopologyFilter().filter_all(
                ordinary_hosts(reported), request(**ORDINARY[name])
            )
        )

        numa_fit.install()
        ours = names(
            numa_filter.filter_all(
                ordinary_hosts(reported), request(**ORDINARY[name])
            )
        )

        assert ours == theirs

    def test_it_is_a_filter_of_nova(self, numa_filter):
        assert isinstance(numa_filter, nova_filters.BaseHostFilter)
        assert filters.NUMAHugepagesFilter in (
            nova_filters.HostFilterHandler().get_matching_classes(
                [f'{FILTERS}.NUMAHugepagesFilter']
            )
        )

    def test_it_installs_the_fit(self, numa_filter):
        assert nova_hardware.numa_fit_instance_to_host is (
            numa_fit.numa_fit_instance_to_host
        )

    def test_one_host_can_be_judged(self, numa_filter):
        host = nova_builders.host_state(
            'four free cells', nova_builders.topology(*four_cells())
        )

        assert numa_filter.host_passes(host, request([pinned_cell(4)])) is True
        assert (
            numa_filter.host_passes(host, request([pinned_cell(5)])) is False
        )

    def test_any_iterable_of_hosts_is_judged(self, numa_filter):
        hosts = ordinary_hosts(nova_builders.stats())

        passing = numa_filter.filter_all(
            iter(hosts), request([pinned_cell(8)])
        )

        assert list(passing) == [
            host
            for host in hosts
            if host.host
            not in (
                'two cells with two pinned CPUs left each',
                'no NUMA topology',
            )
        ]

    def test_a_rebuild_is_not_checked(self, numa_filter, caplog):
        caplog.set_level('DEBUG', FILTERS)
        full = nova_builders.host_state(
            'full', nova_builders.topology(host_cell(cores=0))
        )
        rebuild = request(
            [pinned_cell(2)], hints={'_nova_check_type': ['rebuild']}
        )

        assert list(numa_filter.filter_all([full], rebuild)) == [full]
        assert (full.limits, caplog.messages) == ({}, [])

    def test_a_host_of_which_nothing_is_reported_is_judged(self, numa_filter):
        host = host_manager.HostState('new', 'new', None)
        host.allocation_candidates = [{'mappings': {}}]

        assert numa_filter.host_passes(host, request(None, memory_mib=64))
        assert not numa_filter.host_passes(host, request([pinned_cell(1)]))

    def test_an_empty_topology_is_none(self, numa_filter):
        host = nova_builders.host_state('empty', nova_builders.topology())

        assert numa_filter.host_passes(host, request(None, memory_mib=64))
        assert not numa_filter.host_passes(host, request([pinned_cell(1)]))

    @pytest.mark.parametrize('account', [True, False])
    def test_the_thread_policy_is_checked_without_a_topology(
        self, numa_filter, account
    ):
        # As stock Nova does; guests with pinned CPUs have a topology.
        without = nova_builders.host_state(
            'without threads',
            nova_builders.topology(host_cell(pools=(small(4096),))),
        )
        wanted = request(None, memory_mib=64, extra_specs=REQUIRES)

        with nova_builders.option(
            'account_small_pages', account, 'numa_hugepages'
        ):
            assert not numa_filter.host_passes(without, wanted)
            assert numa_filter.host_passes(
                without, request(None, memory_mib=64, extra_specs=PREFERS)
            )

    def test_what_is_not_set_on_a_request_is_not_asked_for(self, numa_filter):
        bare = objects.RequestSpec(
            flavor=objects.Flavor(memory_mb=1024),
            image=None,
            numa_topology=nova_builders.guest(pinned_cell(1)),
            pci_requests=None,
        )
        host = nova_builders.host_state(
            'four free cells', nova_builders.topology(*four_cells())
        )

        assert numa_filter.host_passes(host, bare)


class TestLimits:
    """The limits that the claim gets."""

    def test_limits_are_set_on_hosts_that_pass(self, numa_filter):
        good = nova_builders.host_state(
            'two free cells',
            nova_builders.topology(*four_cells()[:2]),
            cpu_ratio=4.0,
            ram_ratio=1.5,
        )
        full = nova_builders.host_state(
            'no CPUs', nova_builders.topology(host_cell(cores=0))
        )
        networks = nova_builders.network({'red'}, tunneled=True)

        numa_filter.filter_all(
            [good, full], request([pinned_cell(1)], networks=networks)
        )

        assert nova_builders.primitive(
            good.limits['numa_topology']
        ) == nova_builders.primitive(
            objects.NUMATopologyLimits(
                cpu_allocation_ratio=4.0,
                ram_allocation_ratio=1.5,
                network_metadata=networks,
            )
        )
        assert full.limits == {}

    def test_ratios_that_are_not_reported_count_as_1(self, numa_filter):
        host = nova_builders.host_state(
            'no ratios',
            nova_builders.topology(*four_cells()),
            cpu_ratio=None,
            ram_ratio=None,
        )

        assert numa_filter.host_passes(host, request([pinned_cell(1)]))
        assert nova_builders.primitive(
            host.limits['numa_topology']
        ) == nova_builders.primitive(nova_builders.limits())

    def test_each_host_has_its_own_ratios(self, numa_filter):
        hosts = [
            nova_builders.host_state(
                f'ratio {ratio}',
                nova_builders.topology(
                    host_cell(shared_cores=2, shared_used=3, pools=POOLS)
                ),
                cpu_ratio=ratio,
            )
            for ratio in (1.0, 2.0, 16.0)
        ]

        passing = numa_filter.filter_all(hosts, request([floating_cell(1)]))

        assert names(passing) == ['ratio 2.0', 'ratio 16.0']
        assert [
            host.limits['numa_topology'].cpu_allocation_ratio
            for host in passing
        ] == [2.0, 16.0]

    def test_a_guest_without_a_topology_has_no_limits(self, numa_filter):
        host = nova_builders.host_state(
            'four free cells', nova_builders.topology(*four_cells())
        )

        assert numa_filter.host_passes(host, request(None, memory_mib=64))
        assert host.limits == {}


class TestCandidates:
    """Allocation candidates of Placement."""

    def host(self, *mappings, free=(0, 1)):
        """Make a host with a card of a provider on each of two cells."""
        host = nova_builders.host_state(
            'a card on each cell',
            nova_builders.topology(
                *[
                    host_cell(
                        number, cores=4 if number in free else 0, pools=POOLS
                    )
                    for number in (0, 1)
                ]
            ),
            cards={0: 1, 1: 1},
            mappings=mappings,
        )
        for pool in host.pci_stats.pools:
            pool['rp_uuid'] = f'provider-{pool["numa_node"]}'
        return host

    ASKED = request(
        [pinned_cell(1)], cards=[nova_builders.card(policy='required')]
    )
    FIRST = {f'{nova_builders.UUID}-0': ['provider-0']}
    SECOND = {f'{nova_builders.UUID}-0': ['provider-1']}
    GONE = {f'{nova_builders.UUID}-0': ['provider-9']}

    def left(self, host):
        return [each['mappings'] for each in host.allocation_candidates]

    def test_candidates_that_don_t_fit_are_taken_away(self, numa_filter):
        host = self.host(self.FIRST, self.GONE, self.SECOND)

        assert numa_filter.host_passes(host, self.ASKED)
        assert self.left(host) == [self.FIRST, self.SECOND]

    def test_a_candidate_on_a_full_cell_is_taken_away(self, numa_filter):
        host = self.host(self.FIRST, self.SECOND, free=[1])

        assert numa_filter.host_passes(host, self.ASKED)
        assert self.left(host) == [self.SECOND]

    def test_the_last_candidate_may_be_the_one_that_doesn_t_fit(
        self, numa_filter
    ):
        host = self.host(self.FIRST, self.GONE)

        assert numa_filter.host_passes(host, self.ASKED)
        assert self.left(host) == [self.FIRST]

    def test_without_a_candidate_left_the_host_is_rejected(self, numa_filter):
        host = self.host(self.GONE, self.GONE)

        assert not numa_filter.host_passes(host, self.ASKED)
        assert self.left(host) == []

    def test_without_devices_one_verdict_holds_for_all(self, numa_filter):
        host = self.host(self.FIRST, self.GONE)

        assert numa_filter.host_passes(host, request([pinned_cell(1)]))
        assert self.left(host) == [self.FIRST, self.GONE]
        assert not numa_filter.host_passes(host, request([pinned_cell(5)]))
        assert self.left(host) == []

    def test_without_a_candidate_a_host_is_rejected(self, numa_filter, caplog):
        caplog.set_level('INFO', FILTERS)
        host = self.host()

        assert not numa_filter.host_passes(host, request([pinned_cell(1)]))
        assert caplog.messages == [
            'NUMAHugepagesFilter rejected 1 of 1 hosts: 1 host: no allocation '
            'candidate of Placement left'
        ]

    def test_the_candidates_are_those_that_stock_nova_keeps(self, numa_filter):
        ours, theirs = (
            self.host(self.FIRST, self.GONE, self.SECOND) for _ in range(2)
        )
        stock = numa_topology_filter.NUMATopologyFilter()

        assert numa_filter.host_passes(ours, self.ASKED)
        numa_fit.uninstall()
        assert stock.host_passes(theirs, self.ASKED)

        assert ours.allocation_candidates == theirs.allocation_candidates
        assert nova_builders.primitive(
            ours.limits['numa_topology']
        ) == nova_builders.primitive(theirs.limits['numa_topology'])
