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


"""The weigher from one request to the next, and with other filters."""

from nova.scheduler.filters import numa_topology_filter
import pytest

from nova_numa_hugepages.scheduler import demand
from nova_numa_hugepages.scheduler import filters
from nova_numa_hugepages.scheduler import weights
from tests.unit import nova_builders
from tests.unit.core.builders import giant
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import small
from tests.unit.nova_builders import GIB_1
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
from tests.unit.scheduler.weighing import raw
from tests.unit.scheduler.weighing import SHARES
from tests.unit.scheduler.weighing import STOCK
from tests.unit.scheduler.weighing import weigh
from tests.unit.scheduler.weighing import weigher
from tests.unit.scheduler.weighing import WHOLE

pytestmark = pytest.mark.usefixtures('alone')


class TestWithoutOurFilter:
    """The weigher reads the hosts that pass, and knows of no others."""

    @pytest.mark.parametrize(
        'reported', [stats(), STOCK], ids=['our driver', 'stock driver']
    )
    def test_it_weighs_with_that_of_nova(self, reported):
        hosts = free_and_half_used(reported=reported)
        wanted = guest_spec(LITTLE)
        passing = numa_topology_filter.NUMATopologyFilter().filter_all(
            hosts, wanted
        )

        assert weigh(list(passing), wanted, weigher(SHARES)) == {
            'half used': 10000.0,
            'free': 0.0,
        }

    def test_a_host_on_which_the_guest_does_not_fit_is_the_worst(self):
        # As when no filter looks at NUMA topologies at all.
        hosts = [
            host('full', pinned=range(8)),
            *free_and_half_used(),
            host_state('no topology', None, memory_mib=64),
        ]

        assert raw(weigher(SHARES), hosts, guest_spec(HALF)) == {
            'full': 0.0,
            'free': 1.0,
            'half used': 2.0,
            'no topology': 3.0,
        }

    def test_it_learns_all_the_same(self):
        learned = demand.Demand(half_life_s=60, at_most=5)
        wanted = guest_spec(LITTLE)
        ours = weights.NUMAHugepagesWeigher(learned)

        for _ in range(2):
            raw(ours, free_and_half_used(), wanted)
        wanted.instance_uuid = 'another-guest'
        raw(ours, free_and_half_used(), wanted)
        learned.count(kind(WHOLE))

        assert learned.mix() == (
            (kind(LITTLE), kind(WHOLE)),
            pytest.approx([2 / 3, 1 / 3], rel=0.01),
        )

    def test_a_bad_limit_of_distances_is_none(self):
        wanted = nova_builders.spec(
            nova_builders.guest(LITTLE),
            extra_specs={'numa_hugepages:max_distance': 'near'},
        )

        assert raw(weigher(SHARES), free_and_half_used(), wanted) == {
            'free': 0.0,
            'half used': 1.0,
        }


class TestLearning:
    def test_a_guest_for_which_there_is_no_host_is_demand(self):
        learned = demand.Demand(half_life_s=60, at_most=5)
        ours = filters.NUMAHugepagesFilter(learned)

        ours.filter_all([host('full', pinned=range(8))], guest_spec(WHOLE))

        assert learned.mix() == ((kind(WHOLE),), [1.0])

    def test_a_guest_that_the_filter_refuses_everywhere_is_no_demand(self):
        learned = demand.Demand(half_life_s=60, at_most=5)
        ours = filters.NUMAHugepagesFilter(learned)
        wanted = nova_builders.spec(
            nova_builders.guest(LITTLE),
            extra_specs={'numa_hugepages:max_distance': 'near'},
        )

        ours.filter_all(free_and_half_used(), wanted)

        assert learned.mix() == ((), [])

    def test_filter_and_weigher_count_a_guest_once(self):
        ours = weights.NUMAHugepagesWeigher()
        wanted = guest_spec(LITTLE)
        for _ in range(2):
            passing = filters.NUMAHugepagesFilter().filter_all(
                free_and_half_used(), wanted
            )
            raw(ours, passing, wanted)
        demand.current().count(kind(WHOLE))

        kinds, shares = demand.current().mix()

        assert kinds == (kind(LITTLE), kind(WHOLE))
        assert shares == pytest.approx([0.5, 0.5], rel=0.01)

    def test_what_it_learns_changes_what_it_prefers(self):
        # Given a demand for guests on pages of 2 MiB, and then one for guests
        # on pages of 1 GiB
        learned = demand.Demand(half_life_s=60, at_most=5)
        ours = weights.NUMAHugepagesWeigher(learned)
        hosts = [
            host('huge', pinned=range(3), pools=(small(64), huge(8))),
            host(
                'giant',
                pinned=range(3),
                pools=(small(64), huge(1), giant(1)),
            ),
        ]

        def best(vcpus, memory_mib, size_kib):
            asked = pinned_cell(vcpus, memory_mib, size_kib)
            for _ in range(50):
                learned.count(kind(asked))
            found = raw(ours, hosts, guest_spec(LITTLE))
            return max(found, key=found.get)

        # Then a guest that fits anywhere goes to the other kind of host
        assert best(5, 16, MIB_2) == 'giant'
        for _ in range(200):
            learned.count(kind(pinned_cell(5, 1024, GIB_1)))
        assert best(5, 1024, GIB_1) == 'huge'


class TestSeveralServers:
    """Nova filters what passed before, and consumes in between."""

    # Of X there are two on one host, and many on hosts without pages of
    # 1 GiB, which the guest needs. Of Y there are two on the other one.
    X = kind(HALF)
    Y = kind(pinned_cell(5, 1024, GIB_1))
    WANTED = pinned_cell(4, 1024, GIB_1)

    def test_the_whole_fleet_counts_each_time(self):
        shares = {self.X: 0.5, self.Y: 0.5}
        ours = filters.NUMAHugepagesFilter(pinned(shares))
        weighs = weigher(shares)
        two_x = host_state(
            'X',
            topology(
                *[
                    host_cell(
                        number, cores=4, pools=(small(64), huge(4), giant(1))
                    )
                    for number in (0, 1)
                ]
            ),
        )
        two_y = host_state(
            'Y', topology(host_cell(cores=10, pools=(small(64), giant(2))))
        )
        more_x = [host(f'more X {number}') for number in range(6)]
        wanted = guest_spec(self.WANTED)

        chosen = []
        hosts = [two_x, two_y, *more_x]
        for number in range(2):
            wanted.instance_uuid = f'guest-{number}'
            hosts = list(ours.filter_all(hosts, wanted))
            (name, *_) = weigh(hosts, wanted, weighs)
            chosen.append(name)
            (best,) = (each for each in hosts if each.host == name)
            best.consume_from_request(wanted)

        # X is on many hosts, so that Y is kept each time.
        assert chosen == ['X', 'X']

    def test_a_host_that_is_not_asked_again_counts_as_it_is_now(self):
        # Given two hosts with one X each, and one with a Y, of which X is
        # asked for more; a guest takes one X away
        shares = {self.X: 0.6, self.Y: 0.4}
        ours = filters.NUMAHugepagesFilter(pinned(shares))
        pools = (small(64), huge(4), giant(1))
        taken, one_x = (
            host(name, pinned=range(4), pools=pools) for name in ('X', 'X too')
        )
        one_y = host(
            'Y', pinned=range(3), pools=(small(64), giant(1)), used_mib=0
        )
        wanted = guest_spec(self.WANTED)
        ours.filter_all([taken, one_x, one_y], wanted)
        before = weigh([one_x, one_y], wanted, weigher(shares))

        taken.consume_from_request(wanted)
        # and another filter takes its host out, as for a group of servers
        ours.filter_all([one_x, one_y], wanted)
        after = weigh([one_x, one_y], wanted, weigher(shares))

        # Then the X that is left is worth more than before
        assert (list(before), list(after)) == (['X too', 'Y'], ['Y', 'X too'])

    def test_a_host_that_changes_without_a_filter_is_read_again(self):
        shares = {kind(WHOLE): 1.0}
        ours = weigher(shares)
        wanted = guest_spec(LITTLE)
        hosts = [host('one'), host('two')]
        before = raw(ours, hosts, wanted)

        hosts[0].consume_from_request(wanted)
        after = raw(ours, hosts, wanted)

        assert (before, after) == (
            {'one': 0.0, 'two': 0.0},
            {'one': 1.0, 'two': 0.0},
        )
