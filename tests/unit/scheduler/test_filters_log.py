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


"""Tests of the lines that the filter logs."""

import logging

from tests.unit import nova_builders
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import small
from tests.unit.nova_builders import host_state
from tests.unit.nova_builders import MIB_2
from tests.unit.nova_builders import topology
from tests.unit.nova_builders import UUID
from tests.unit.scheduler.filtering import FILTERS
from tests.unit.scheduler.filtering import four_cells
from tests.unit.scheduler.filtering import names
from tests.unit.scheduler.filtering import POOLS
from tests.unit.scheduler.filtering import request


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

    def test_one_line_says_why_hosts_are_rejected(self, numa_filter, caplog):
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

    def test_each_host_is_logged_at_debug(self, numa_filter, caplog):
        caplog.set_level('DEBUG', FILTERS)

        numa_filter.filter_all(self.fleet()[2:4], request(self.WANTED))

        assert [
            record.getMessage()
            for record in caplog.records
            if record.levelno == logging.DEBUG
        ] == [
            'NUMAHugepagesFilter rejected 300 free pages, 300 free pages: '
            'guest NUMA node 0: no NUMA node with 512 free 2 MiB pages '
            '(most: 300)',
            'NUMAHugepagesFilter rejected 6 free CPUs, 6 free CPUs: guest '
            'NUMA node 0: no NUMA node with 8 free dedicated CPUs (most: 6)',
        ]
        assert len(caplog.records) == 3

    def test_nothing_is_logged_when_no_host_is_rejected(
        self, numa_filter, caplog
    ):
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
