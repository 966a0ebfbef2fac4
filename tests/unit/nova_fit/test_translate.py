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


"""Tests of the translation of Nova's objects."""

from nova import objects
import pytest

from nova_numa_hugepages.core.model import HostCell
from nova_numa_hugepages.core.model import HostTopology
from nova_numa_hugepages.core.model import PagePool
from nova_numa_hugepages.nova_fit import translate
from tests.unit import nova_builders
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import giant
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import small
from tests.unit.nova_fit.fitting import fit
from tests.unit.nova_fit.fitting import four_cells
from tests.unit.nova_fit.fitting import two_by_two


class TestReaders:
    """The fast and the slow way to read Nova's objects."""

    TOPOLOGIES = [
        nova_builders.topology(),
        nova_builders.topology(host_cell()),
        nova_builders.topology(
            *two_by_two(pinned={0, 1}, physnets={'red'}, tunneled=True)
        ),
        nova_builders.topology(
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
            nova_builders.topology(*four_cells()).obj_to_primitive()
        ),
    ]

    @pytest.mark.parametrize('found', TOPOLOGIES)
    def test_both_read_the_same(self, monkeypatch, found):
        fast = translate.host_topology(found)

        monkeypatch.setattr(
            translate, 'values_of', translate.read_through_properties
        )

        assert translate.host_topology(found) == fast

    def test_the_fast_one_is_taken_where_it_works(self):
        assert translate.choose_reader() is vars

    def test_the_slow_one_is_taken_where_values_are_kept_elsewhere(
        self, monkeypatch
    ):
        class Elsewhere:
            def __init__(self, **values):
                self._values = values

        monkeypatch.setattr(translate.numa, 'NUMAPagesTopology', Elsewhere)

        assert translate.choose_reader() is translate.read_through_properties

    def test_what_is_read_is_what_was_written(self):
        cells = two_by_two(
            pinned={1}, physnets={'red'}, shared_cores=1, memory_used_mib=3
        )

        read = translate.host_topology(nova_builders.topology(*cells))

        assert read == HostTopology(
            tuple(
                cell._replace(siblings=list(cell.siblings)) for cell in cells
            )
        )

    def test_pools_are_read_smallest_first(self):
        found = nova_builders.topology(
            host_cell(pools=(giant(1), huge(2), small(3)))
        )

        assert translate.host_topology(found).cells[0].pools == (
            small(3),
            huge(2),
            giant(1),
        )


class TestOlderNova:
    """Topologies of an older Nova are read, never a traceback."""

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
                    size_kb=nova_builders.KIB_4,
                    total=1048576,
                    used=0,
                    reserved=0,
                )
            ],
            'network_metadata': nova_builders.network(),
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
        stats = nova_builders.devices(host_topology, {0: 1})

        found = fit(
            host_topology,
            nova_builders.guest(cell),
            None,
            nova_builders.limits(
                networks=nova_builders.network({'red'}, tunneled=True)
            ),
            [nova_builders.card()],
            stats,
        )

        pins = {0: 0, 1: 1} if cell.dedicated_vcpus else {}
        size = nova_builders.KIB_4 if 'mempages' in unset else None
        assert nova_builders.placed(found) == [(0, size, pins)]

    def test_no_memory_at_all_is_too_little(self):
        host_topology = objects.NUMATopology(cells=[self.cell('memory')])

        assert (
            fit(host_topology, nova_builders.guest(pinned_cell(1)), None)
            is None
        )

    def test_before_pcpuset_guests_were_pinned_to_cpuset(self):
        host_topology = objects.NUMATopology(
            cells=[self.cell('pcpuset', cpuset={2, 3})]
        )

        found = fit(host_topology, nova_builders.guest(pinned_cell(2)), None)

        assert nova_builders.placed(found) == [(0, None, {0: 2, 1: 3})]

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
                nova_builders.guest(pinned_cell(1)),
                None,
                nova_builders.limits(),
                [nova_builders.card(policy='socket')],
                nova_builders.devices(host_topology, {0: 1}),
            )
            is None
        )

    def test_counts_of_pages_that_are_not_set_are_none(self):
        host_topology = objects.NUMATopology(
            cells=[
                self.cell(
                    mempages=[
                        objects.NUMAPagesTopology(
                            size_kb=nova_builders.KIB_4, total=262144
                        ),
                        objects.NUMAPagesTopology(size_kb=nova_builders.MIB_2),
                    ]
                )
            ]
        )

        assert translate.host_topology(host_topology).cells[0].pools == (
            PagePool(nova_builders.KIB_4, 262144),
            PagePool(nova_builders.MIB_2, 0),
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

        for wish in (
            None,
            nova_builders.SMALL,
            nova_builders.ANY,
            nova_builders.LARGE,
        ):
            fit(
                host_topology,
                nova_builders.guest(pinned_cell(1, 1024, wish)),
                None,
            )

    @pytest.mark.parametrize('pcpuset', [{}, {'pcpuset': set()}])
    def test_a_guest_of_before_pcpuset_is_pinned(self, pcpuset):
        asked = objects.InstanceNUMATopology(
            cells=[
                objects.InstanceNUMACell(
                    id=0,
                    cpuset={0, 1},
                    memory=512,
                    cpu_policy='dedicated',
                    **pcpuset,
                )
            ]
        )
        host = nova_builders.topology(host_cell(cores=4))

        assert translate.request(asked).cells[0] == pinned_cell(2, 512)

        found = fit(host, asked, None).cells[0]

        assert found.cpu_pinning.keys() == {0, 1}
        # Nova counts CPUs of `cpuset` as shared ones in use.
        assert (found.cpuset, found.pcpuset) == (set(), {0, 1})
        assert asked.cells[0].cpuset == {0, 1}

    def test_a_guest_of_before_pcpuset_needs_free_cpus(self):
        asked = objects.InstanceNUMATopology(
            cells=[
                objects.InstanceNUMACell(
                    id=0,
                    cpuset={0, 1, 2, 3},
                    pcpuset=set(),
                    memory=512,
                    cpu_policy='dedicated',
                )
            ]
        )

        host = nova_builders.topology(host_cell(cores=3))

        assert fit(host, asked, None) is None

    def test_a_guest_without_policies_and_page_size_is_read(self):
        asked = objects.InstanceNUMATopology(
            cells=[objects.InstanceNUMACell(id=0, cpuset={0}, memory=512)]
        )

        assert translate.request(asked).cells == (floating_cell(1, 512),)

    def test_an_empty_cell_of_a_host_is_read(self):
        assert translate.host_topology(
            objects.NUMATopology(cells=[objects.NUMACell(id=5)])
        ) == HostTopology((HostCell(5),))
