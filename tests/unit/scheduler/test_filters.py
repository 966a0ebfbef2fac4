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


"""Tests of the filter's start, and of what it does to requests and hosts."""

from unittest import mock

from nova import objects
from nova.scheduler import host_manager
from nova.virt import hardware as nova_hardware
import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.core.model import ThreadPolicy
from nova_numa_hugepages.nova_fit import numa_fit
from nova_numa_hugepages.scheduler import filters
from tests.unit import nova_builders
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import mixed_cell
from tests.unit.core.builders import pinned_cell
from tests.unit.scheduler.filtering import FAR_APART
from tests.unit.scheduler.filtering import four_cells
from tests.unit.scheduler.filtering import names
from tests.unit.scheduler.filtering import POOLS
from tests.unit.scheduler.filtering import request
from tests.unit.scheduler.filtering import STOCK

ISOLATE = ThreadPolicy.ISOLATE


class TestConsume:
    """What the filter accepts is what the scheduler consumes."""

    @pytest.mark.parametrize(
        'cells',
        [
            [pinned_cell(2, 1024, nova_builders.LARGE)],
            [pinned_cell(1), pinned_cell(3, first=1)],
            [
                floating_cell(1, 512, nova_builders.ANY),
                floating_cell(1, 512, nova_builders.ANY, first=1),
            ],
            [mixed_cell(1, 1, 1024, nova_builders.MIB_2)],
            [pinned_cell(2, threads=ISOLATE)],
        ],
    )
    @pytest.mark.parametrize('pack', [False, True])
    @pytest.mark.parametrize('cards', [{}, {0: 1, 3: 2}])
    def test_plans_are_equal(self, numa_filter, cells, pack, cards):
        host = nova_builders.host_state(
            'two sockets',
            nova_builders.topology(*four_cells(shared_cores=1)),
            reported=nova_builders.stats(FAR_APART),
            cards=cards,
        )
        asked = request(
            cells,
            cards=[nova_builders.card(policy='required')] if cards else (),
            networks=nova_builders.network({'red'}),
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

        assert nova_builders.placed(
            asked.numa_topology
        ) == nova_builders.placed(expected)
        assert nova_builders.works(
            before,
            asked.numa_topology,
            nova_hardware.numa_usage_from_instance_numa,
        )

    def test_servers_are_consumed_until_the_host_is_full(self, numa_filter):
        host = nova_builders.host_state(
            'four cores',
            nova_builders.topology(host_cell(cores=4, pools=POOLS)),
        )
        asked = request([pinned_cell(1)])
        taken = []

        while numa_filter.host_passes(host, asked):
            host.consume_from_request(asked)
            taken.append(nova_builders.placed(asked.numa_topology)[0][2][0])

        assert taken == [0, 1, 2, 3]


class TestRequest:
    """The request is read, once, and nothing else."""

    def asked(self):
        return request(
            [
                pinned_cell(1, 1024, nova_builders.LARGE),
                pinned_cell(1, 1024, nova_builders.LARGE, first=1),
            ],
            extra_specs={'numa_hugepages:max_distance': '31'},
            networks=nova_builders.network({'red'}, tunneled=True),
            cards=[nova_builders.card(policy='socket')],
        )

    def hosts(self):
        return [
            nova_builders.host_state(
                'ours',
                nova_builders.topology(*four_cells()),
                reported=nova_builders.stats(FAR_APART),
                cards={0: 1},
                mappings=[{}, {'group': ['provider']}],
            ),
            nova_builders.host_state(
                'stock',
                nova_builders.topology(*four_cells()),
                reported=STOCK,
                cards={1: 1},
            ),
            nova_builders.host_state('no cells', None),
        ]

    def test_it_is_not_changed(self, numa_filter):
        asked = self.asked()
        before = nova_builders.primitive(asked)

        passing = numa_filter.filter_all(self.hosts(), asked)

        assert names(passing) == ['ours', 'stock']
        assert nova_builders.primitive(asked) == before

    def test_it_is_not_cloned(self, numa_filter, monkeypatch):
        def refuse(self):
            raise AssertionError('cloned')

        monkeypatch.setattr(objects.RequestSpec, 'obj_clone', refuse)
        monkeypatch.setattr(objects.InstanceNUMATopology, 'obj_clone', refuse)

        assert numa_filter.filter_all(self.hosts(), self.asked())

    def test_the_host_s_topology_is_not_changed(self, numa_filter):
        hosts = self.hosts()[:2]
        before = [
            nova_builders.primitive(host.numa_topology) for host in hosts
        ]

        numa_filter.filter_all(hosts, self.asked())

        assert [
            nova_builders.primitive(host.numa_topology) for host in hosts
        ] == before

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


def test_devices_that_are_not_for_this_request_cost_little(numa_filter):
    # Physical functions on 16 nodes, of which 8 go with a guest that wants
    # none of them: 12,870 sets of host cells.
    found = nova_builders.topology(
        *[host_cell(number, cores=2, pools=POOLS) for number in range(16)]
    )
    host = nova_builders.host_state('cards', found)
    host.pci_stats = nova_builders.devices(
        found, dict.fromkeys(range(16), 2), dev_type='type-PF'
    )
    asked = request(
        [pinned_cell(1, first=number) for number in range(8)],
        cards=[nova_builders.card(1, 'required')],
    )

    with mock.patch.object(
        type(host.pci_stats),
        'support_requests',
        autospec=True,
        side_effect=type(host.pci_stats).support_requests,
    ) as asked_of_nova:
        assert not numa_filter.host_passes(host, asked)

    assert asked_of_nova.call_count < 5
