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


"""The weigher among Nova's filters and weighers."""

import logging

from nova import objects
from nova.scheduler import weights as nova_weights
import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.scheduler import demand
from nova_numa_hugepages.scheduler import filters
from nova_numa_hugepages.scheduler import weights
from tests.unit import nova_builders
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import small
from tests.unit.nova_builders import host_state
from tests.unit.nova_builders import MIB_2
from tests.unit.nova_builders import stats
from tests.unit.nova_builders import topology
from tests.unit.scheduler.weighing import free_and_half_used
from tests.unit.scheduler.weighing import guest_spec
from tests.unit.scheduler.weighing import HALF
from tests.unit.scheduler.weighing import host
from tests.unit.scheduler.weighing import kind
from tests.unit.scheduler.weighing import LITTLE
from tests.unit.scheduler.weighing import pinned
from tests.unit.scheduler.weighing import SHARES
from tests.unit.scheduler.weighing import STOCK
from tests.unit.scheduler.weighing import weigh
from tests.unit.scheduler.weighing import weigher

pytestmark = pytest.mark.usefixtures('alone')

PATH = f'{weights.__name__}.NUMAHugepagesWeigher'
KEY = 'numa_hugepages_weight_multiplier'


@pytest.fixture
def logged(caplog):
    """The lines that the weigher has logged."""
    caplog.set_level(logging.DEBUG, weights.__name__)

    def messages():
        return [
            record.getMessage()
            for record in caplog.records
            if record.name == weights.__name__
        ]

    return messages


def in_aggregate(state, value):
    state.aggregates = [objects.Aggregate(metadata={KEY: value})]
    return state


class TestMultiplier:
    def test_the_default(self):
        assert weigh(
            free_and_half_used(), guest_spec(LITTLE), weigher(SHARES)
        ) == {'half used': 10000.0, 'free': 0.0}

    @pytest.mark.parametrize(
        ('value', 'found'),
        [
            (1.5, {'half used': 1.5, 'free': 0.0}),
            (0.0, {'free': 0.0, 'half used': 0.0}),
            (-2.0, {'free': 0.0, 'half used': -2.0}),
        ],
    )
    def test_another_one(self, value, found):
        with nova_builders.option(
            'weight_multiplier', value, 'numa_hugepages'
        ):
            weighed = weigh(
                free_and_half_used(), guest_spec(LITTLE), weigher(SHARES)
            )

        assert list(weighed.items()) == list(found.items())

    @pytest.mark.parametrize(
        ('value', 'found'),
        [
            ('7', {'half used': 7.0, 'free': 0.0}),
            ('0', {'free': 0.0, 'half used': 0.0}),
            ('-7', {'free': 0.0, 'half used': -7.0}),
            # Nova warns of it, and takes the configured one.
            ('much', {'half used': 10000.0, 'free': 0.0}),
        ],
    )
    def test_that_of_an_aggregate(self, value, found):
        hosts = [in_aggregate(each, value) for each in free_and_half_used()]

        weighed = weigh(hosts, guest_spec(LITTLE), weigher(SHARES))

        assert list(weighed.items()) == list(found.items())

    def test_that_of_an_aggregate_of_some_hosts(self):
        free, half_used = free_and_half_used()
        in_aggregate(half_used, '3')

        assert weigh(
            [free, half_used], guest_spec(LITTLE), weigher(SHARES)
        ) == {
            'half used': 3.0,
            'free': 0.0,
        }


class TestBesideNova:
    """Nova's weighers prefer the host that has most of everything."""

    def weigh(self, *more):
        free, half_used = free_and_half_used()
        free.free_ram_mb = 1 << 30
        free.free_disk_mb = 1 << 30
        free.vcpus_total = 1 << 20
        free.hypervisor_version = 10
        half_used.free_ram_mb = 64
        half_used.vcpus_total = half_used.vcpus_used = 8
        half_used.num_io_ops = 7
        half_used.num_instances = 1000
        half_used.hypervisor_version = 1
        for state, failed in zip((free, half_used), more, strict=False):
            state.failed_builds = failed
        wanted = guest_spec(LITTLE)
        wanted.instance_group = None
        theirs = [cls() for cls in nova_weights.all_weighers()]
        assert len(theirs) > 8
        return [
            list(weigh([free, half_used], wanted, *theirs, *ours))
            for ours in ([], [weigher(SHARES)])
        ]

    def test_it_decides(self):
        assert self.weigh() == [['free', 'half used'], ['half used', 'free']]

    def test_hosts_on_which_builds_failed_are_shunned_all_the_same(self):
        assert self.weigh(0, 1) == [['free', 'half used']] * 2

    def test_it_is_loaded_by_its_path(self):
        handler = nova_weights.HostWeightHandler()

        classes = handler.get_matching_classes(
            ['nova.scheduler.weights.all_weighers', PATH]
        )

        assert classes[-1] is weights.NUMAHugepagesWeigher
        assert classes.count(weights.NUMAHugepagesWeigher) == 1
        assert demand.current() is None
        classes[-1]()
        assert demand.current() is not None

    def test_one_host_alone_is_not_weighed(self):
        hosts = [host('only')]

        assert weigh(hosts, guest_spec(LITTLE), weigher(SHARES)) == {
            'only': 0.0
        }
        assert weigher(SHARES)._weigh_object(hosts[0], None) == 0.0


class TestStockComputes:
    """What is left of them is what the claim of stock Nova leaves."""

    def test_a_guest_costs_what_that_claim_takes(self, logged):
        # Given host cells of which stock Nova takes the first that do, and
        # ours the preferred ones
        cells = [
            host_cell(number, cores=cores, pools=(small(4096), huge(pages)))
            for number, (cores, pages) in enumerate(
                ((8, 2048), (7, 1024), (2, 2048))
            )
        ]
        wanted = guest_spec(
            pinned_cell(3, 1024, MIB_2), pinned_cell(1, 4096, MIB_2, first=3)
        )
        hosts = [
            host_state('stock', topology(*cells), reported=STOCK),
            host_state('ours', topology(*cells)),
        ]
        shares = {kind(pinned_cell(2, 4096, MIB_2)): 1.0}
        passing = filters.NUMAHugepagesFilter(pinned(shares)).filter_all(
            hosts, wanted
        )

        found = weigh(list(passing), wanted, weigher(shares))

        assert found == {'ours': 10000.0, 'stock': 0.0}
        slots = 'slots for 2 CPUs and 4 GiB in 2 MiB pages'
        assert logged() == [
            'NUMAHugepagesWeigher: best of 2 hosts: '
            f'ours (cost 25.0000%, takes 1 of 4 {slots}); '
            f'stock (cost 50.0000%, takes 2 of 4 {slots})'
        ]


class TestLog:
    """One line for each request."""

    def test_the_three_best_hosts(self, logged):
        hosts = [
            host(
                f'{free} free',
                pinned=range(8 - free),
                reported=stats(allocatable={0: {MIB_2: made}}),
            )
            for free, made in ((8, 0), (4, 16), (7, 0), (5, 0))
        ]
        ours = filters.NUMAHugepagesFilter(pinned(SHARES))
        wanted = guest_spec(HALF)

        weigh(list(ours.filter_all(hosts, wanted)), wanted, weigher(SHARES))

        slot = '1 of 5 slots for 4 CPUs and 8 MiB in 2 MiB pages'
        cost = f'cost 2.0000%, takes {slot}'
        assert logged() == [
            f'NUMAHugepagesWeigher: best of 4 hosts: 7 free ({cost}); '
            f'5 free ({cost}); '
            f'4 free ({cost}, allocates 8 MiB)'
        ]

    def test_what_the_last_one_costs(self, logged):
        wanted = guest_spec(HALF)

        weigh(
            [host('free'), host('full', pinned=range(8))],
            wanted,
            weigher(SHARES),
        )

        assert logged() == [
            'NUMAHugepagesWeigher: best of 1 hosts: '
            'free (cost 62.5000%, '
            'takes 1 of 1 slots for 8 CPUs and 16 MiB in 2 MiB pages '
            'and 1 of 2 slots for 4 CPUs and 8 MiB in 2 MiB pages)'
        ]

    def test_for_a_guest_that_floats(self, logged):
        weigh(free_and_half_used(), guest_spec(memory_mib=8), weigher(SHARES))

        assert logged() == [
            'NUMAHugepagesWeigher: best of 2 hosts: '
            'half used (holds 5.5556% of the scarce slots: '
            '1 of 3 slots for 4 CPUs and 8 MiB in 2 MiB pages); '
            'free (holds 61.1111% of the scarce slots: '
            '1 of 1 slots for 8 CPUs and 16 MiB in 2 MiB pages '
            'and 2 of 3 slots for 4 CPUs and 8 MiB in 2 MiB pages)'
        ]

    def test_hosts_without_a_topology_cost_nothing(self, logged):
        hosts = [host_state(n, None, memory_mib=64) for n in ('one', 'two')]

        weigh(hosts, guest_spec(memory_mib=8), weigher(SHARES))

        assert logged() == [
            'NUMAHugepagesWeigher: best of 2 hosts: '
            'one (cost 0, no NUMA topology); two (cost 0, no NUMA topology)'
        ]

    def test_nothing_is_logged_at_info(self, caplog):
        weigh(free_and_half_used(), guest_spec(LITTLE), weigher(SHARES))

        assert [
            record.name
            for record in caplog.records
            if record.name == weights.__name__
        ] == []


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('weight_multiplier', 'much'),
        ('demand_half_life', '59'),
        ('demand_kinds', '0'),
        ('demand_flavors_interval', '-1'),
        ('demand_mix', 'small:many'),
        ('demand_file', 'no/such/folder.json'),
    ],
)
def test_a_bad_option_is_refused_at_start(tmp_path, name, value):
    path = tmp_path / 'nova.conf'
    path.write_text(f'[numa_hugepages]\n{name} = {value}\n')
    nova_builders.CONF([], project='nova', default_config_files=[str(path)])

    try:
        with pytest.raises(exception.InvalidOption) as caught:
            weights.NUMAHugepagesWeigher()
    finally:
        nova_builders.CONF.reset()

    assert str(caught.value).startswith(f'option [numa_hugepages] {name}: ')
    assert demand.current() is None
