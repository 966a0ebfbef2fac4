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


"""Tests of the fit with the stats of a host, and with networks."""

from nova import objects
import pytest

from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.nova_fit import numa_fit
from nova_numa_hugepages.nova_fit import translate
from tests.unit import nova_builders
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import small
from tests.unit.nova_fit.fitting import cells_of
from tests.unit.nova_fit.fitting import fit
from tests.unit.nova_fit.fitting import four_cells
from tests.unit.nova_fit.fitting import POOLS


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

    def placed(self, host_topology=None, **devices):
        """Place a guest of two cells on a host of four."""
        two = nova_builders.guest(pinned_cell(1), pinned_cell(1, first=1))
        if host_topology is None:
            host_topology = nova_builders.topology(*four_cells())
        return cells_of(fit(host_topology, two, None, **devices))

    def test_distances_that_go_with_the_topology_decide(self):
        host_topology = nova_builders.topology(*four_cells())
        before = nova_builders.primitive(host_topology)

        translate.remember_stats(host_topology, self.FAR)

        assert self.placed(host_topology) == [0, 2]
        assert nova_builders.primitive(host_topology) == before

    def test_on_a_compute_the_host_is_asked_for_them(self):
        host_topology = nova_builders.topology(*four_cells())
        asked = []

        def stats_of_host(found):
            asked.append(found)
            return self.FAR

        numa_fit.install(stats_of_host)

        assert self.placed(host_topology) == [0, 2]
        assert asked == [host_topology]

    def test_on_a_compute_the_host_is_asked_for_devices_that_are_missing(
        self,
    ):
        host_topology = nova_builders.topology(*four_cells())
        known = nova_builders.devices(host_topology, {0: 1, 2: 1})

        numa_fit.install(host_devices=lambda: known)
        passed = nova_builders.devices(host_topology, {1: 1})

        assert self.placed(host_topology) == [1, 3]
        assert self.placed(host_topology, pci_stats=passed) == [0, 2]

    def test_a_later_install_leaves_the_source_as_it_is(self):
        numa_fit.install(lambda found: self.FAR)
        numa_fit.install()

        assert self.placed() == [0, 2]

    def test_stats_of_the_topology_come_first(self):
        host_topology = nova_builders.topology(*four_cells())
        translate.remember_stats(host_topology, host_stats.HostStats())

        numa_fit.install(lambda found: self.FAR)

        assert self.placed(host_topology) == [0, 1]

    def test_a_host_that_reports_nothing_has_equal_distances(self):
        numa_fit.install(lambda found: None)

        assert self.placed() == [0, 1]

    def test_after_uninstall_no_host_is_asked(self):
        numa_fit.install(lambda found: self.FAR)
        numa_fit.uninstall()

        assert self.placed() == [0, 1]

    def test_pages_that_don_t_exist_yet_leave_room_for_small_ones(self):
        host_topology = nova_builders.topology(
            host_cell(pools=(small(4096), huge(2048)), memory_mib=4096)
        )
        asked = nova_builders.guest(pinned_cell(1, 2048))

        assert fit(host_topology, asked, None) is None
        translate.remember_stats(
            host_topology,
            host_stats.HostStats(allocatable={0: {nova_builders.MIB_2: 1024}}),
        )
        assert cells_of(fit(host_topology, asked, None)) == [0]

    @pytest.mark.parametrize(
        ('memory_mib', 'page_size', 'fits'),
        [
            # Of 2048 pages 2040 are in use, and elastic instances don't have
            # 512 of those.
            (1040, 2048, True),
            (1042, 2048, False),
            # What is lent is no memory for small pages.
            (1024, 4, True),
            (1028, 4, False),
        ],
    )
    def test_pages_that_are_lent_are_free_and_no_memory(
        self, memory_mib, page_size, fits
    ):
        pools = (small(1024), huge(2048 + 512)._replace(used=2040))
        host_topology = nova_builders.topology(
            host_cell(pools=pools, memory_mib=4096 + 1024)
        )
        translate.remember_stats(
            host_topology, host_stats.HostStats(lendable={0: {2048: 512}})
        )
        asked = nova_builders.guest(pinned_cell(1, memory_mib, page_size))

        assert (fit(host_topology, asked, None) is not None) is fits

    def test_stats_are_neither_saved_nor_copied(self):
        host_topology = nova_builders.topology(host_cell())
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
                nova_builders.topology(*cells),
                nova_builders.guest(pinned_cell(1)),
                None,
                nova_builders.limits(networks=nova_builders.network(**wanted)),
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
            nova_builders.topology(*self.CELLS),
            nova_builders.guest(pinned_cell(1)),
            None,
            nova_builders.limits(networks=objects.NetworkMetadata()),
        )

        assert cells_of(found) == [0]

    def test_without_limits_no_network_is_known(self):
        found = fit(
            nova_builders.topology(*self.CELLS),
            nova_builders.guest(pinned_cell(1)),
            None,
        )

        assert cells_of(found) == [0]
