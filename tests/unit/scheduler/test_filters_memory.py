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


"""Tests of the filter for guests on small pages."""

from tests.unit import nova_builders
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import small
from tests.unit.nova_builders import host_state
from tests.unit.nova_builders import MIB_2
from tests.unit.nova_builders import topology
from tests.unit.scheduler.filtering import FILTERS
from tests.unit.scheduler.filtering import request


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
        # No guest uses small pages in a cell.
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

    def test_b08_the_reason_is_logged(self, numa_filter, caplog):
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

    def test_a_host_without_pools_is_not_checked(self, numa_filter):
        host = host_state(
            'small pages only',
            topology(host_cell(pools=(small(4096),))),
            used_mib=4096,
        )

        assert numa_filter.host_passes(host, request(None, memory_mib=9999))

    def test_a_host_that_has_not_reported_is_not_checked(self, numa_filter):
        for host in (
            self.host('no memory', memory_mib=0),
            self.host('no free memory', memory_mib=65536),
        ):
            if host.total_usable_ram_mb:
                host.free_ram_mb = None
            assert numa_filter.host_passes(
                host, request(None, memory_mib=99999)
            )
