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


"""Tests of the scheduler filter, with the scheduler's own objects."""

import logging
import re
from unittest import mock

from nova import objects
from nova.scheduler import filters as nova_filters
from nova.scheduler import host_manager
from nova.scheduler.filters import numa_topology_filter
from nova.virt import hardware as nova_hardware
import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.core.model import ThreadPolicy
from nova_numa_hugepages.nova_fit import numa_fit
from nova_numa_hugepages.scheduler import filters
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
from tests.unit.nova_builders import GIB_1
from tests.unit.nova_builders import guest
from tests.unit.nova_builders import host_state
from tests.unit.nova_builders import LARGE
from tests.unit.nova_builders import MIB_2
from tests.unit.nova_builders import network
from tests.unit.nova_builders import placed
from tests.unit.nova_builders import primitive
from tests.unit.nova_builders import spec
from tests.unit.nova_builders import stats
from tests.unit.nova_builders import topology
from tests.unit.nova_builders import UUID

FILTERS = 'nova_numa_hugepages.scheduler.filters'
POOLS = (small(4096), huge(1024), giant(4))
REQUIRE = ThreadPolicy.REQUIRE
ISOLATE = ThreadPolicy.ISOLATE
# What computes with the stock driver report.
STOCK = {'num_instances': '0'}

# Four cells on two sockets: 0 and 2, 1 and 3.
FAR_APART = {
    0: [10, 31, 20, 31],
    1: [31, 10, 31, 20],
    2: [20, 31, 10, 31],
    3: [31, 20, 31, 10],
}
PREFERS = {'hw:cpu_policy': 'dedicated'}
REQUIRES = {'hw:cpu_policy': 'dedicated', 'hw:cpu_thread_policy': 'require'}


@pytest.fixture
def numa_filter():
    yield filters.NUMAHugepagesFilter()
    numa_fit.uninstall()


def four_cells(**others):
    return [host_cell(number, pools=POOLS, **others) for number in range(4)]


def names(hosts):
    return [host.host for host in hosts]


def ordinary_hosts(reported):
    """Make a fleet, all of it of one kind of compute."""

    def two_cells(**others):
        return topology(
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
        host_state(name, found, reported=reported, **others)
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
                topology(host_cell(cores=8, shared_cores=4, pools=POOLS)),
                {},
            ),
            (
                'one cell of small pages',
                topology(
                    host_cell(cores=8, shared_cores=4, pools=(small(8192),))
                ),
                {},
            ),
            (
                'two cells with no huge pages left',
                topology(
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
                topology(
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
    '2 MiB pages': {'cells': [pinned_cell(2, 2048, MIB_2)]},
    '1 GiB pages': {'cells': [floating_cell(1, 2048, GIB_1)]},
    'pages of any size': {'cells': [pinned_cell(2, 64, ANY)]},
    'two cells': {'cells': [pinned_cell(2), pinned_cell(2, first=2)]},
    'two floating cells on 2 MiB pages': {
        'cells': [
            floating_cell(1, 512, MIB_2),
            floating_cell(1, 512, MIB_2, first=1),
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
        'networks': network({'red'}),
    },
    'a card': {
        'cells': [pinned_cell(2)],
        'cards': [card(policy='required')],
    },
    'no topology': {'cells': None, 'memory_mib': 1024},
}


def request(cells, **others):
    return spec(guest(*cells) if cells else None, **others)


class TestDropIn:
    """The decisions of NUMATopologyFilter, where they are right."""

    @pytest.mark.parametrize('name', list(ORDINARY))
    @pytest.mark.parametrize(
        'reported', [stats(), STOCK], ids=['our driver', 'stock driver']
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
        host = host_state('four free cells', topology(*four_cells()))

        assert numa_filter.host_passes(host, request([pinned_cell(4)])) is True
        assert (
            numa_filter.host_passes(host, request([pinned_cell(5)])) is False
        )

    def test_any_iterable_of_hosts_is_judged(self, numa_filter):
        hosts = ordinary_hosts(stats())

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

    def test_a_rebuild_is_not_judged(self, numa_filter, caplog):
        caplog.set_level('DEBUG', FILTERS)
        full = host_state('full', topology(host_cell(cores=0)))
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
        host = host_state('empty', topology())

        assert numa_filter.host_passes(host, request(None, memory_mib=64))
        assert not numa_filter.host_passes(host, request([pinned_cell(1)]))

    @pytest.mark.parametrize('account', [True, False])
    def test_the_thread_policy_is_checked_without_a_topology(
        self, numa_filter, account
    ):
        # As stock Nova does; guests with pinned CPUs have a topology.
        without = host_state(
            'without threads', topology(host_cell(pools=(small(4096),)))
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
            numa_topology=guest(pinned_cell(1)),
            pci_requests=None,
        )
        host = host_state('four free cells', topology(*four_cells()))

        assert numa_filter.host_passes(host, bare)


class TestLimits:
    """What the claim is told."""

    def test_limits_are_set_on_hosts_that_pass(self, numa_filter):
        good = host_state(
            'two free cells',
            topology(*four_cells()[:2]),
            cpu_ratio=4.0,
            ram_ratio=1.5,
        )
        full = host_state('no CPUs', topology(host_cell(cores=0)))
        networks = network({'red'}, tunneled=True)

        numa_filter.filter_all(
            [good, full], request([pinned_cell(1)], networks=networks)
        )

        assert primitive(good.limits['numa_topology']) == primitive(
            objects.NUMATopologyLimits(
                cpu_allocation_ratio=4.0,
                ram_allocation_ratio=1.5,
                network_metadata=networks,
            )
        )
        assert full.limits == {}

    def test_ratios_that_are_not_reported_count_as_1(self, numa_filter):
        host = host_state(
            'no ratios',
            topology(*four_cells()),
            cpu_ratio=None,
            ram_ratio=None,
        )

        assert numa_filter.host_passes(host, request([pinned_cell(1)]))
        assert primitive(host.limits['numa_topology']) == primitive(
            nova_builders.limits()
        )

    def test_each_host_has_its_own_ratios(self, numa_filter):
        hosts = [
            host_state(
                f'ratio {ratio}',
                topology(
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
        host = host_state('four free cells', topology(*four_cells()))

        assert numa_filter.host_passes(host, request(None, memory_mib=64))
        assert host.limits == {}


class TestCandidates:
    """Allocation candidates of Placement."""

    def host(self, *mappings, free=(0, 1)):
        """Make a host with a card of a provider on each of two cells."""
        host = host_state(
            'a card on each cell',
            topology(
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

    ASKED = request([pinned_cell(1)], cards=[card(policy='required')])
    FIRST = {f'{UUID}-0': ['provider-0']}
    SECOND = {f'{UUID}-0': ['provider-1']}
    GONE = {f'{UUID}-0': ['provider-9']}

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
            'candidate left'
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
        assert primitive(ours.limits['numa_topology']) == primitive(
            theirs.limits['numa_topology']
        )


class TestSmallPages:
    """Guests on small pages against small-page memory (b08)."""

    # Of 16 GiB 12 are in a pool, of which guests use 2.
    HOST = [host_cell(shared_cores=4, pools=(small(4096), huge(6144, 1024)))]

    def host(self, name, **others):
        return host_state(name, topology(*self.HOST), **others)

    def test_b08_a_guest_without_a_topology_is_counted(self, numa_filter):
        # Beside 2 GiB on huge pages, which are in cells.
        host = self.host('3 GiB of small pages in use', used_mib=2048 + 3072)

        assert numa_filter.host_passes(host, request(None, memory_mib=1024))
        assert not numa_filter.host_passes(
            host, request(None, memory_mib=1025)
        )

    def test_b08_the_ratio_of_the_host_counts(self, numa_filter):
        host = self.host('ratio 1.5', used_mib=2048 + 3072, ram_ratio=1.5)

        assert numa_filter.host_passes(host, request(None, memory_mib=3072))
        assert not numa_filter.host_passes(
            host, request(None, memory_mib=3073)
        )

    def test_b08_a_guest_in_cells_shares_with_those_without(self, numa_filter):
        # Nobody uses small pages in a cell.
        def passes(cell):
            host = self.host('3 GiB in use by others', used_mib=2048 + 3072)
            return numa_filter.host_passes(host, request([cell]))

        assert passes(floating_cell(1, 1024))
        assert not passes(floating_cell(1, 1028))
        assert passes(pinned_cell(1, 1024, nova_builders.SMALL))
        assert not passes(pinned_cell(1, 1028, nova_builders.SMALL))
        assert passes(pinned_cell(1, 8192, MIB_2))

    def test_b08_the_option_can_be_off(self, numa_filter):
        host = self.host('nearly full', used_mib=15000)

        with nova_builders.option(
            'account_small_pages', False, 'numa_hugepages'
        ):
            assert numa_filter.host_passes(
                host, request(None, memory_mib=9999)
            )
            assert numa_filter.host_passes(
                host, request([floating_cell(1, 4096)])
            )

    def test_b08_the_reason_is_told(self, numa_filter, caplog):
        caplog.set_level('INFO', FILTERS)
        hosts = [
            self.host('full', used_mib=2048 + 4096),
            self.host('nearly full', used_mib=2048 + 3072),
        ]

        numa_filter.filter_all(hosts, request(None, memory_mib=2048))

        assert caplog.messages == [
            'NUMAHugepagesFilter rejected 2 of 2 hosts: 2 hosts: not 2048 MiB '
            'left outside of the huge page pools of all NUMA nodes (most: '
            '1024 MiB)'
        ]

    def test_a_host_without_pools_is_not_judged(self, numa_filter):
        host = host_state(
            'small pages only',
            topology(host_cell(pools=(small(4096),))),
            used_mib=4096,
        )

        assert numa_filter.host_passes(host, request(None, memory_mib=9999))

    def test_a_host_that_has_not_reported_is_not_judged(self, numa_filter):
        for host in (
            self.host('no memory', memory_mib=0),
            self.host('no free memory', memory_mib=65536),
        ):
            if host.total_usable_ram_mb:
                host.free_ram_mb = None
            assert numa_filter.host_passes(
                host, request(None, memory_mib=99999)
            )


class TestLog:
    """What an operator reads."""

    def fleet(self):
        return [
            host_state(
                f'{free} free pages',
                topology(host_cell(pools=(small(64), huge(free)))),
            )
            for free in (100, 448, 300)
        ] + [
            host_state(
                f'{free} free CPUs',
                topology(host_cell(cores=free, pools=(small(64), huge(512)))),
            )
            for free in (6, 2)
        ]

    WANTED = [pinned_cell(8, 1024, MIB_2)]

    def test_one_line_tells_why_hosts_are_lost(self, numa_filter, caplog):
        caplog.set_level('INFO', FILTERS)
        good = host_state('good', topology(host_cell(cores=8, pools=POOLS)))

        passing = numa_filter.filter_all(
            [*self.fleet(), good], request(self.WANTED)
        )

        assert names(passing) == ['good']
        assert [
            (record.levelname, record.getMessage())
            for record in caplog.records
        ] == [
            (
                'INFO',
                'NUMAHugepagesFilter rejected 5 of 6 hosts: 3 hosts: no NUMA '
                'node with 512 free 2 MiB pages (most: 448); 2 hosts: no NUMA '
                'node with 8 free dedicated CPUs (most: 6)',
            )
        ]

    def test_the_server_is_named_to_the_log(self, numa_filter, caplog):
        caplog.set_level('DEBUG', FILTERS)

        numa_filter.filter_all(self.fleet()[:1], request(self.WANTED))

        assert {record.instance_uuid for record in caplog.records} == {UUID}

    def test_each_host_is_told_at_debug(self, numa_filter, caplog):
        caplog.set_level('DEBUG', FILTERS)

        numa_filter.filter_all(self.fleet()[2:4], request(self.WANTED))

        assert [
            record.getMessage()
            for record in caplog.records
            if record.levelno == logging.DEBUG
        ] == [
            'NUMAHugepagesFilter rejected 300 free pages, 300 free pages: '
            'guest NUMA node 0: needs 512 free 2 MiB pages; most on a NUMA '
            'node: 300',
            'NUMAHugepagesFilter rejected 6 free CPUs, 6 free CPUs: guest '
            'NUMA node 0: needs 8 free dedicated CPUs; most on a NUMA node: '
            '6',
        ]
        assert len(caplog.records) == 3

    def test_nothing_is_told_when_no_host_is_lost(self, numa_filter, caplog):
        caplog.set_level('DEBUG', FILTERS)
        host = host_state('four free cells', topology(*four_cells()))

        numa_filter.filter_all([host], request([pinned_cell(1)]))
        numa_filter.filter_all([], request([pinned_cell(1)]))

        assert caplog.messages == []

    def test_the_option_limits_the_reasons(self, numa_filter, caplog):
        caplog.set_level('INFO', FILTERS)

        with nova_builders.option('rejection_reasons', 1, 'numa_hugepages'):
            numa_filter.filter_all(self.fleet(), request(self.WANTED))

        assert caplog.messages == [
            'NUMAHugepagesFilter rejected 5 of 5 hosts: 3 hosts: no NUMA node '
            'with 512 free 2 MiB pages (most: 448); 2 hosts: other reasons'
        ]


class TestStats:
    """What computes report beside Nova's accounts."""

    BROKEN = {'numa_hugepages': '{'}
    NEWER = {'numa_hugepages': '{"version": 2}'}
    NEAR_AND_FAR = [pinned_cell(1), pinned_cell(1, first=1)]

    def warnings(self, caplog):
        return [
            record.getMessage()
            for record in caplog.records
            if record.levelno >= logging.WARNING
        ]

    @pytest.mark.parametrize(
        ('reported', 'reason'),
        [
            (
                BROKEN,
                'not JSON: Expecting property name enclosed in double quotes: '
                'line 1 column 2 (char 1)',
            ),
            (
                NEWER,
                'version 2 is not known here (up to 1 is); upgrade this '
                'service to the version of the compute',
            ),
        ],
    )
    def test_a_value_that_can_t_be_read_is_warned_of_once(
        self, numa_filter, caplog, reported, reason
    ):
        caplog.set_level('INFO')
        host = host_state('odd', topology(*four_cells()), reported=reported)

        for _ in range(3):
            assert numa_filter.host_passes(host, request(self.NEAR_AND_FAR))

        assert self.warnings(caplog) == [
            "Ignoring the huge page stats of odd, odd: the host's "
            "'numa_hugepages' stats cannot be read: "
            f'{reason}. Until it reports another value, its NUMA distances '
            'count as equal.'
        ]

    def test_each_host_is_warned_of(self, numa_filter, caplog):
        hosts = [
            host_state(name, topology(*four_cells()), reported=self.BROKEN)
            for name in ('one', 'two')
        ]

        numa_filter.filter_all(hosts, request(self.NEAR_AND_FAR))
        numa_filter.filter_all(hosts, request(self.NEAR_AND_FAR))

        assert [
            re.search('stats of (.*?),', text)[1]
            for text in self.warnings(caplog)
        ] == ['one', 'two']

    def test_only_after_a_good_value_it_is_warned_of_again(
        self, numa_filter, caplog
    ):
        for reported in (self.BROKEN, self.NEWER, stats(), self.NEWER):
            numa_filter.host_passes(
                host_state('odd', topology(*four_cells()), reported=reported),
                request(self.NEAR_AND_FAR),
            )

        assert len(self.warnings(caplog)) == 2

    @pytest.mark.parametrize('reported', [BROKEN, NEWER])
    def test_the_host_is_still_judged(self, numa_filter, reported):
        host = host_state('odd', topology(*four_cells()), reported=reported)

        asked = request(self.NEAR_AND_FAR)

        assert numa_filter.host_passes(host, asked)
        assert not numa_filter.host_passes(host, request([pinned_cell(5)]))
        # Its distances count as equal.
        host.consume_from_request(asked)
        assert [cell[0] for cell in placed(asked.numa_topology)] == [0, 1]

    @pytest.mark.parametrize('reported', [BROKEN, NEWER])
    def test_such_a_host_runs_our_driver(self, numa_filter, reported):
        # Stock Nova would refuse this guest (b02).
        host = host_state(
            'odd',
            topology(
                *[
                    host_cell(number, cores=cores, pools=POOLS)
                    for number, cores in enumerate((1, 2, 1))
                ]
            ),
            reported=reported,
        )

        assert numa_filter.host_passes(
            host, request([pinned_cell(1), pinned_cell(2, first=1)])
        )

    def test_a_host_state_without_stats_runs_the_stock_driver(
        self, numa_filter
    ):
        host = host_state('new', topology(*four_cells()))
        del host.stats

        assert numa_filter.host_passes(host, request([pinned_cell(1)]))


class TestDistance:
    """Near host cells, as the stats tell."""

    TWO = [pinned_cell(1), pinned_cell(1, first=1)]

    def host(self, name='two sockets', **others):
        return host_state(
            name,
            topology(*four_cells()),
            reported=stats(FAR_APART),
            **others,
        )

    def test_the_plan_is_the_one_that_is_consumed(self, numa_filter):
        host, asked = self.host(), request(self.TWO)

        assert numa_filter.host_passes(host, asked)
        host.consume_from_request(asked)

        assert placed(asked.numa_topology) == [
            (0, None, {0: 0}),
            (2, None, {1: 200}),
        ]
        assert [
            sorted(cell.pinned_cpus) for cell in host.numa_topology.cells
        ] == [[0], [], [200], []]

    def test_the_next_server_of_the_request_gets_near_cells_as_well(
        self, numa_filter
    ):
        host, asked = self.host(), request(self.TWO)
        chosen = []

        for _ in range(4):
            assert numa_filter.host_passes(host, asked)
            host.consume_from_request(asked)
            chosen.append([cell.id for cell in asked.numa_topology.cells])

        assert chosen == [[0, 2], [1, 3], [0, 2], [1, 3]]

    @pytest.mark.parametrize(
        ('distance', 'cells', 'passes'),
        [
            ('20', 2, True),
            ('19', 2, False),
            ('31', 3, True),
            ('30', 3, False),
            ('10', 1, True),
            ('255', 4, True),
        ],
    )
    def test_max_distance(self, numa_filter, distance, cells, passes):
        asked = request(
            [pinned_cell(1, first=index) for index in range(cells)],
            extra_specs={'numa_hugepages:max_distance': distance},
        )

        assert numa_filter.host_passes(self.host(), asked) is passes

    def test_unknown_distances_are_not_too_far(self, numa_filter):
        asked = request(
            self.TWO, extra_specs={'numa_hugepages:max_distance': '10'}
        )
        host = host_state('unknown', topology(*four_cells()))

        assert numa_filter.host_passes(host, asked)

    def test_the_reason_is_told(self, numa_filter, caplog):
        caplog.set_level('DEBUG', FILTERS)
        asked = request(
            self.TWO, extra_specs={'numa_hugepages:max_distance': '12'}
        )

        numa_filter.filter_all([self.host()], asked)

        assert caplog.messages == [
            'NUMAHugepagesFilter rejected two sockets, two sockets: its NUMA '
            'nodes may be 12 apart, the nearest fitting ones are 20 apart',
            'NUMAHugepagesFilter rejected 1 of 1 hosts: 1 host: fitting NUMA '
            'nodes are farther apart than 12 (nearest: 20)',
        ]

    @pytest.mark.parametrize('value', ['9', '256', 'near', '', '1e2'])
    def test_a_malformed_value_rejects_all_hosts(
        self, numa_filter, caplog, value
    ):
        caplog.set_level('INFO', FILTERS)
        asked = request(
            self.TWO, extra_specs={'numa_hugepages:max_distance': value}
        )

        assert not numa_filter.filter_all([self.host(), self.host()], asked)
        assert caplog.messages == [
            'NUMAHugepagesFilter rejected 2 of 2 hosts: 2 hosts: extra spec '
            f'numa_hugepages:max_distance is {value!r}; expected an integer '
            'from 10 to 255. Set it to such a value or unset it on the '
            'flavor, and create the server again.'
        ]

    def test_pages_that_don_t_exist_yet_leave_room_for_small_ones(
        self, numa_filter
    ):
        cells = [host_cell(pools=(small(8192), huge(3072)), memory_mib=8192)]
        asked = request([pinned_cell(1, 4096)])

        assert not numa_filter.host_passes(
            host_state('pools', topology(*cells)), asked
        )
        assert numa_filter.host_passes(
            host_state(
                'growing pools',
                topology(*cells),
                reported=stats(allocatable={0: {MIB_2: 1024}}),
            ),
            asked,
        )


class TestConsume:
    """What the filter accepts is what the scheduler consumes."""

    @pytest.mark.parametrize(
        'cells',
        [
            [pinned_cell(2, 1024, LARGE)],
            [pinned_cell(1), pinned_cell(3, first=1)],
            [floating_cell(1, 512, ANY), floating_cell(1, 512, ANY, first=1)],
            [mixed_cell(1, 1, 1024, MIB_2)],
            [pinned_cell(2, threads=ISOLATE)],
        ],
    )
    @pytest.mark.parametrize('pack', [False, True])
    @pytest.mark.parametrize('cards', [{}, {0: 1, 3: 2}])
    def test_plans_are_equal(self, numa_filter, cells, pack, cards):
        host = host_state(
            'two sockets',
            topology(*four_cells(shared_cores=1)),
            reported=stats(FAR_APART),
            cards=cards,
        )
        asked = request(
            cells,
            cards=[card(policy='required')] if cards else (),
            networks=network({'red'}),
        )
        expected = None

        with nova_builders.option(
            'packing_host_numa_cells_allocation_strategy', pack, 'compute'
        ):
            assert numa_filter.host_passes(host, asked)
            expected = numa_fit.numa_fit_instance_to_host(
                host.numa_topology,
                asked.numa_topology,
                None,
                host.limits['numa_topology'],
                asked.pci_requests.requests,
                host.pci_stats,
            )
            before = host.numa_topology
            host.consume_from_request(asked)

        assert placed(asked.numa_topology) == placed(expected)
        assert nova_builders.works(
            before,
            asked.numa_topology,
            nova_hardware.numa_usage_from_instance_numa,
        )

    def test_servers_are_consumed_until_the_host_is_full(self, numa_filter):
        host = host_state(
            'four cores', topology(host_cell(cores=4, pools=POOLS))
        )
        asked = request([pinned_cell(1)])
        taken = []

        while numa_filter.host_passes(host, asked):
            host.consume_from_request(asked)
            taken.append(placed(asked.numa_topology)[0][2][0])

        assert taken == [0, 1, 2, 3]


class TestStockClaim:
    """Computes that run the stock driver, whose claim has the last word."""

    def host(self, *cells):
        return host_state('stock', topology(*cells), reported=STOCK)

    def ours(self, *cells):
        return host_state('ours', topology(*cells))

    def judged(self, numa_filter, cells, wanted, **others):
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

        assert self.judged(numa_filter, cells, wanted) == [True, False]

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
            assert self.judged(
                numa_filter, cells, [pinned_cell(2, 1024, LARGE)]
            ) == [True, False]

    def test_a_guest_that_the_claim_accepts_is_sent(self, numa_filter):
        wanted = [pinned_cell(1, 512, LARGE), pinned_cell(2, 512, LARGE)]

        assert self.judged(numa_filter, four_cells(), wanted) == [True, True]

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

        assert self.judged(numa_filter, cells, wanted) == [False, False]

    @pytest.mark.parametrize('cell', [pinned_cell(1), floating_cell(1)])
    def test_a_host_without_page_sizes_is_kept_away(self, numa_filter, cell):
        # b11: its claim accepts, and fails when it accounts the guest.
        cells = [host_cell(shared_cores=2)]

        assert self.judged(numa_filter, cells, [cell]) == [True, False]

    def test_a_host_without_siblings_is_kept_away(self, numa_filter):
        # Its claim fails.
        cells = [host_cell(pools=POOLS)._replace(siblings=())]

        assert self.judged(numa_filter, cells, [pinned_cell(1)]) == [
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
                host, request(wanted, networks=network({'red'}))
            )
        host = self.host(*cells)
        assert numa_filter.host_passes(
            host, request(wanted, networks=network({'red'}))
        )

        assert caplog.messages == [
            'NUMAHugepagesFilter rejected 1 of 1 hosts: 1 host: the claim of '
            'the stock driver finds no place among the first 2 arrangements'
        ]

    def test_the_reason_is_told(self, numa_filter, caplog):
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


class TestRequest:
    """The request is read, once, and nothing else."""

    def asked(self):
        return request(
            [
                pinned_cell(1, 1024, LARGE),
                pinned_cell(1, 1024, LARGE, first=1),
            ],
            extra_specs={'numa_hugepages:max_distance': '31'},
            networks=network({'red'}, tunneled=True),
            cards=[card(policy='socket')],
        )

    def hosts(self):
        return [
            host_state(
                'ours',
                topology(*four_cells()),
                reported=stats(FAR_APART),
                cards={0: 1},
                mappings=[{}, {'group': ['provider']}],
            ),
            host_state(
                'stock', topology(*four_cells()), reported=STOCK, cards={1: 1}
            ),
            host_state('no cells', None),
        ]

    def test_it_is_not_changed(self, numa_filter):
        asked = self.asked()
        before = primitive(asked)

        passing = numa_filter.filter_all(self.hosts(), asked)

        assert names(passing) == ['ours', 'stock']
        assert primitive(asked) == before

    def test_it_is_not_cloned(self, numa_filter, monkeypatch):
        def refuse(self):
            raise AssertionError('cloned')

        monkeypatch.setattr(objects.RequestSpec, 'obj_clone', refuse)
        monkeypatch.setattr(objects.InstanceNUMATopology, 'obj_clone', refuse)

        assert numa_filter.filter_all(self.hosts(), self.asked())

    def test_the_host_s_topology_is_not_changed(self, numa_filter):
        hosts = self.hosts()[:2]
        before = [primitive(host.numa_topology) for host in hosts]

        numa_filter.filter_all(hosts, self.asked())

        assert [primitive(host.numa_topology) for host in hosts] == before

    def test_each_host_is_read_once(self, numa_filter):
        reads = []

        class Counted(host_manager.HostState):
            @property
            def numa_topology(self):
                reads.append(self.host)
                return self.found

            @numa_topology.setter
            def numa_topology(self, found):
                self.found = found

        hosts = []
        for host in self.hosts():
            counted = Counted(host.host, host.nodename, None)
            vars(counted).update(
                {
                    name: value
                    for name, value in vars(host).items()
                    if name != 'numa_topology'
                },
                found=host.numa_topology,
            )
            hosts.append(counted)

        numa_filter.filter_all(hosts, self.asked())

        assert reads == ['ours', 'stock', 'no cells']


class TestStart:
    """What is refused when the scheduler starts."""

    @pytest.mark.parametrize(
        ('name', 'value'),
        [
            ('stock_claim_search_limit', '0'),
            ('stock_claim_search_limit', '1000001'),
            ('stock_claim_search_limit', 'many'),
            ('rejection_reasons', '0'),
            ('rejection_reasons', '51'),
            ('account_small_pages', 'perhaps'),
        ],
    )
    def test_an_option_out_of_range_is_named(self, tmp_path, name, value):
        path = tmp_path / 'nova.conf'
        path.write_text(f'[numa_hugepages]\n{name} = {value}\n')
        nova_builders.CONF(
            [], project='nova', default_config_files=[str(path)]
        )

        try:
            with pytest.raises(exception.InvalidOption) as caught:
                filters.NUMAHugepagesFilter()
        finally:
            nova_builders.CONF.reset()
            numa_fit.uninstall()

        assert (caught.value.group, caught.value.name) == (
            'numa_hugepages',
            name,
        )
        assert str(caught.value).startswith(
            f'option [numa_hugepages] {name}: '
        )

    def test_another_signature_of_nova_s_fit_is_refused(self, monkeypatch):
        monkeypatch.setattr(
            nova_hardware, 'numa_fit_instance_to_host', lambda host: None
        )

        with pytest.raises(exception.SignatureMismatch):
            filters.NUMAHugepagesFilter()


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
        pinned_cell(3, 1024, MIB_2),
        pinned_cell(1, 4096, MIB_2, first=3),
    ]
    host = host_state('stock', topology(*cells), reported=STOCK)
    truth = topology(*cells)
    asked = request(wanted)
    asked.requested_resources = []

    for _ in range(2):
        passes = numa_filter.host_passes(host, asked)
        claimed = numa_fit.stock_fit()(
            truth, guest(*wanted), None, host.limits['numa_topology']
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


def test_devices_that_are_not_for_this_request_cost_little(numa_filter):
    # Physical functions on 16 nodes, of which 8 go with a guest that wants
    # none of them: 12,870 sets of host cells.
    found = topology(
        *[host_cell(number, cores=2, pools=POOLS) for number in range(16)]
    )
    host = host_state('cards', found)
    host.pci_stats = nova_builders.devices(
        found, dict.fromkeys(range(16), 2), dev_type='type-PF'
    )
    asked = request(
        [pinned_cell(1, first=number) for number in range(8)],
        cards=[card(1, 'required')],
    )

    with mock.patch.object(
        type(host.pci_stats),
        'support_requests',
        autospec=True,
        side_effect=type(host.pci_stats).support_requests,
    ) as asked_of_nova:
        assert not numa_filter.host_passes(host, asked)

    assert asked_of_nova.call_count < 5
