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


"""Tests of the filter with the stats that computes report."""

import logging
import re

import pytest

from tests.unit.core.builders import giant
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import small
from tests.unit.nova_builders import host_state
from tests.unit.nova_builders import LARGE
from tests.unit.nova_builders import MIB_2
from tests.unit.nova_builders import placed
from tests.unit.nova_builders import stats
from tests.unit.nova_builders import topology
from tests.unit.scheduler.filtering import FAR_APART
from tests.unit.scheduler.filtering import FILTERS
from tests.unit.scheduler.filtering import four_cells
from tests.unit.scheduler.filtering import POOLS
from tests.unit.scheduler.filtering import request


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
    def test_the_host_is_still_checked(self, numa_filter, reported):
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
    """Near host cells, by the distances in the stats."""

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

    def test_the_reason_is_logged(self, numa_filter, caplog):
        caplog.set_level('DEBUG', FILTERS)
        asked = request(
            self.TWO, extra_specs={'numa_hugepages:max_distance': '12'}
        )

        numa_filter.filter_all([self.host()], asked)

        assert caplog.messages == [
            'NUMAHugepagesFilter rejected two sockets, two sockets: fitting '
            'NUMA nodes are farther apart than 12 (nearest: 20)',
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

    @pytest.mark.parametrize(
        ('cells', 'specs', 'said'),
        [
            ([pinned_cell(1)], {}, 'not huge pages of 2 MiB or more'),
            (
                [pinned_cell(1, 1024, MIB_2)],
                {},
                'it would boot with 512 MiB',
            ),
            (
                [pinned_cell(1, 4096, LARGE)],
                {'hw:cpu_realtime': 'yes'},
                "hw:cpu_realtime is 'yes', which locks",
            ),
            (
                [pinned_cell(1, 4096, LARGE)],
                {'numa_hugepages:elastic_base_mib': '1024'},
                "elastic_base_mib is '1024'; expected none",
            ),
        ],
    )
    def test_elastic_memory_that_is_not_possible_is_refused(
        self, numa_filter, caplog, cells, specs, said
    ):
        caplog.set_level('INFO', FILTERS)
        base = {'numa_hugepages:elastic_base_percent': '50'}
        asked = request(cells, extra_specs={**base, **specs})

        assert not numa_filter.filter_all([self.host()], asked)
        assert said in caplog.messages[0]

    def test_large_pages_have_to_leave_room_for_elastic_memory(
        self, numa_filter, caplog
    ):
        caplog.set_level('INFO', FILTERS)
        asked = request(
            [pinned_cell(1, 2048, LARGE)],
            extra_specs={'numa_hugepages:elastic_base_mib': '1536'},
        )

        def host(*pools):
            cells = [host_cell(pools=(small(8192), *pools), memory_mib=8192)]
            return host_state('ours', topology(*cells))

        assert numa_filter.host_passes(host(huge(1024)), asked)
        assert not numa_filter.host_passes(host(giant(2)), asked)
        assert 'has 1024 MiB beyond its base' in caplog.messages[-1]
        # By whole GiB it boots with enough.
        asked = request(
            [pinned_cell(1, 3072, LARGE)],
            extra_specs={'numa_hugepages:elastic_base_percent': '25'},
        )
        assert numa_filter.host_passes(host(giant(3)), asked)
        assert not numa_filter.host_passes(host(huge(2048)), asked)

    def test_elastic_memory_is_placed_by_its_ceiling(self, numa_filter):
        def passes(mib):
            asked = request(
                [pinned_cell(1, mib, 2048)],
                extra_specs={'numa_hugepages:elastic_base_percent': '50'},
            )
            pools = (small(8192), huge(1024))
            cells = [host_cell(pools=pools, memory_mib=8192)]
            host = host_state('ours', topology(*cells))
            return numa_filter.host_passes(host, asked)

        assert passes(2048)
        assert not passes(2050)

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
