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


"""Tests of the fit in place of Nova's."""

import copy

from nova import objects
import pytest

from nova_numa_hugepages.core.model import ThreadPolicy
from nova_numa_hugepages.nova_fit import numa_fit
from tests.unit import nova_builders
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import giant
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import mixed_cell
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import small
from tests.unit.nova_fit.fitting import cells_of
from tests.unit.nova_fit.fitting import fit
from tests.unit.nova_fit.fitting import four_cells
from tests.unit.nova_fit.fitting import POOLS
from tests.unit.nova_fit.fitting import two_by_two


class TestFit:
    """Nova's objects in, Nova's objects out."""

    @pytest.mark.parametrize(
        ('cells', 'found'),
        [
            (None, nova_builders.guest(pinned_cell(1))),
            (nova_builders.topology(), nova_builders.guest(pinned_cell(1))),
            (nova_builders.topology(host_cell()), None),
            (nova_builders.topology(host_cell()), nova_builders.guest()),
        ],
    )
    def test_without_a_host_or_a_guest_there_is_no_plan(self, cells, found):
        assert fit(cells, found, None) is None

    def test_a_guest_that_does_not_fit_has_no_plan_and_a_reason(self, caplog):
        caplog.set_level('INFO')

        assert (
            fit(
                nova_builders.topology(*four_cells()),
                nova_builders.guest(pinned_cell(1, 4096, nova_builders.MIB_2)),
                None,
            )
            is None
        )
        assert (
            'Instance does not fit on this host: guest NUMA node 0: no NUMA '
            'node with 2048 free 2 MiB pages (most: 1024)'
        ) in caplog.messages

    @pytest.mark.parametrize('vcpus', [2, 99])
    def test_log_lines_name_the_instance(self, caplog, vcpus):
        caplog.set_level('INFO')
        asked = nova_builders.guest(pinned_cell(vcpus))
        asked.instance_uuid = nova_builders.UUID

        fit(nova_builders.topology(host_cell(0)), asked, None)

        (record,) = caplog.records
        assert record.instance_uuid == nova_builders.UUID

    @pytest.mark.parametrize('pack', [False, True])
    @pytest.mark.parametrize(
        'cells',
        [
            pytest.param([pinned_cell(2)], id='pinned'),
            pytest.param(
                [pinned_cell(3, 1024, nova_builders.MIB_2)], id='huge pages'
            ),
            pytest.param([floating_cell(2)], id='floating'),
            pytest.param(
                [floating_cell(2, 2048, nova_builders.KIB_4)], id='small pages'
            ),
            pytest.param([mixed_cell(1, 2)], id='mixed'),
            pytest.param(
                [pinned_cell(2, threads=ThreadPolicy.REQUIRE)], id='siblings'
            ),
            pytest.param(
                [pinned_cell(1), pinned_cell(1, first=1)], id='two cells'
            ),
            pytest.param(
                [
                    floating_cell(1, 64, nova_builders.ANY),
                    floating_cell(1, 64, nova_builders.ANY),
                ],
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
                function(
                    nova_builders.topology(*host),
                    nova_builders.guest(*cells),
                    None,
                    nova_builders.limits(),
                )
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
                nova_builders.topology(*host),
                nova_builders.guest(pinned_cell(2), emulator_isolated=True),
                None,
            )
            for function in (fit, numa_fit.stock_fit())
        )

        assert data(ours) == data(stock)
        assert ours.cells[0].cpuset_reserved == {2}

    def test_the_result_can_be_saved_and_read(self):
        found = fit(
            nova_builders.topology(*four_cells()),
            nova_builders.guest(pinned_cell(2, 1024, nova_builders.LARGE)),
            None,
        )

        read = objects.InstanceNUMATopology.obj_from_primitive(
            found.obj_to_primitive()
        )

        assert nova_builders.placed(read) == nova_builders.placed(found)

    def test_no_argument_is_changed(self):
        arguments = {
            'host_topology': nova_builders.topology(*two_by_two()),
            'instance_topology': nova_builders.guest(
                pinned_cell(1, 1024, nova_builders.LARGE),
                pinned_cell(1, 1024, nova_builders.LARGE, first=1),
                emulator_isolated=True,
            ),
            'limits': nova_builders.limits(
                networks=nova_builders.network({'red'})
            ),
        }
        requests = [nova_builders.card(policy='socket')]
        stats = nova_builders.devices(arguments['host_topology'], {1: 1, 2: 1})
        before = {
            name: nova_builders.primitive(argument)
            for name, argument in arguments.items()
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
            name: nova_builders.primitive(argument)
            for name, argument in arguments.items()
        } == before
        assert nova_builders.primitive(requests[0]) == nova_builders.primitive(
            nova_builders.card(policy='socket')
        )
        assert stats.pools == pools
        assert stats.numa_topology is arguments['host_topology']

    def test_the_result_shares_nothing_with_the_request(self):
        asked = nova_builders.guest(pinned_cell(2))

        found = fit(nova_builders.topology(*four_cells()), asked, None)
        found.cells[0].pcpuset.add(99)
        found.cells[0].id = 7

        assert nova_builders.primitive(asked) == nova_builders.primitive(
            nova_builders.guest(pinned_cell(2))
        )

    def test_a_plan_that_is_tried_again_is_read_as_it_was_asked_for(self):
        first = fit(
            nova_builders.topology(host_cell(pools=(small(64), giant(2)))),
            nova_builders.guest(pinned_cell(1, 1024, nova_builders.LARGE)),
            None,
        )

        second = fit(
            nova_builders.topology(host_cell(pools=(small(64), huge(512)))),
            first,
            None,
        )
        third = fit(
            nova_builders.topology(host_cell(pools=(small(64), giant(2)))),
            second,
            None,
        )

        assert [
            nova_builders.placed(found) for found in (first, second, third)
        ] == [
            [(0, nova_builders.GIB_1, {0: 0})],
            [(0, nova_builders.MIB_2, {0: 0})],
            [(0, nova_builders.GIB_1, {0: 0})],
        ]

    def test_ratios_that_are_not_set_count_as_1(self):
        host = [host_cell(shared_cores=2, shared_used=1, pools=POOLS)]

        assert (
            fit(
                nova_builders.topology(*host),
                nova_builders.guest(floating_cell(2)),
                None,
                objects.NUMATopologyLimits(),
            )
            is None
        )
        assert fit(
            nova_builders.topology(*host),
            nova_builders.guest(floating_cell(2)),
            None,
            nova_builders.limits(cpu=1.5),
        )


def data(found):
    """Return all fields of a plan."""
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
