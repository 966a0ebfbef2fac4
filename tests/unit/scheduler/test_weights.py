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


"""Which hosts the weigher prefers, and why."""

import dataclasses
import math

import hypothesis
from hypothesis import strategies as st
import pytest

from nova_numa_hugepages.core.model import CPUPolicy
from nova_numa_hugepages.core.model import ThreadPolicy
from nova_numa_hugepages.nova_fit import numa_fit
from nova_numa_hugepages.scheduler import demand
from nova_numa_hugepages.scheduler import filters
from nova_numa_hugepages.scheduler import request_cache
from nova_numa_hugepages.scheduler import weights
from tests.unit import nova_builders
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import giant
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import small
from tests.unit.core.capacity.slot_strategies import Count
from tests.unit.core.capacity.slot_strategies import counts
from tests.unit.core.dice import examples
from tests.unit.scheduler.weighing import guest_spec
from tests.unit.scheduler.weighing import kind
from tests.unit.scheduler.weighing import pinned
from tests.unit.scheduler.weighing import raw
from tests.unit.scheduler.weighing import STOCK
from tests.unit.scheduler.weighing import weigh
from tests.unit.scheduler.weighing import weigher

# A guest that takes half of a host cell of 8 CPUs, and one that takes all.
HALF = pinned_cell(4, 8, nova_builders.MIB_2)
WHOLE = pinned_cell(8, 16, nova_builders.MIB_2)
LITTLE = pinned_cell(1, 2, nova_builders.MIB_2)
# What fits nowhere here, so that nothing is scarce.
NOWHERE = {kind(pinned_cell(64)): 1.0}


@pytest.fixture(autouse=True)
def alone():
    """Leave nothing behind for other tests."""
    demand.stop()
    yield
    demand.stop()
    numa_fit.uninstall()


def cell(number=0, **others):
    known = {'cores': 8, 'pools': (small(64), huge(16))}
    return host_cell(number, **{**known, **others})


def host(name, *cells, **others):
    return nova_builders.host_state(
        name, nova_builders.topology(*cells), **others
    )


def free(name, **others):
    return host(name, cell(), **others)


def half_used(name, **others):
    """Make a host on which there is room for half of what another has."""
    return host(name, cell(pinned=range(4)), **others)


def decide(hosts, wanted, shares):
    """Filter and weigh hosts; the weights by name, the best one first."""
    passing = filters.NUMAHugepagesFilter(pinned(shares)).filter_all(
        hosts, wanted
    )
    return weigh(list(passing), wanted, weigher(shares))


class TestScarcity:
    def test_a_small_guest_leaves_the_room_for_a_large_one(self):
        shares = {kind(WHOLE): 0.5, kind(LITTLE): 0.5}

        assert decide(
            [free('free'), half_used('half used')], guest_spec(LITTLE), shares
        ) == {'half used': 10000.0, 'free': 0.0}

    def test_where_no_guest_asks_for_large_ones_it_does_not(self):
        # Both lose one slot for guests like this one; the free host is left
        # in the better balance.
        hosts = [
            host('free', cell(0), cell(1)),
            host('half used', cell(0), cell(1, pinned=range(100, 104))),
        ]

        found = decide(hosts, guest_spec(LITTLE), {kind(LITTLE): 1.0})

        assert found == {'free': 10000.0, 'half used': 0.0}

    def test_what_is_scarce_is_what_runs_out_first(self):
        # Given a host that loses a slot for guests on pages of 1 GiB, and one
        # that loses a slot for guests on pages of 2 MiB
        hosts = [
            host('giant', cell(cores=4, pools=(small(64), giant(1), huge(1)))),
            host('huge', cell(cores=4, pools=(small(64), huge(5)))),
        ]
        on_giant = kind(pinned_cell(4, 1024, nova_builders.GIB_1))
        on_huge = kind(pinned_cell(4, 8, nova_builders.MIB_2))

        def best(giants, huges):
            found = decide(
                hosts, guest_spec(LITTLE), {on_giant: giants, on_huge: huges}
            )
            return next(iter(found))

        # Then the one that is asked for more is kept
        assert best(0.9, 0.1) == 'huge'
        assert best(0.1, 0.9) == 'giant'

    def test_hosts_on_which_the_guest_does_not_fit_count_too(self):
        # Given guests X of 4 CPUs and pages of 2 MiB, Y of 5 CPUs and pages
        # of 1 GiB, and one that fits where pages of 1 GiB are
        shares = {
            kind(HALF): 0.5,
            kind(pinned_cell(5, 1024, nova_builders.GIB_1)): 0.5,
        }
        wanted = pinned_cell(1, 1024, nova_builders.GIB_1)
        one_x = host('X', cell(cores=4, pools=(small(64), huge(4), giant(1))))
        two_y = host('Y', cell(cores=10, pools=(small(64), giant(2))))
        many_x = [
            host(f'more X {number}', cell(cores=4)) for number in range(4)
        ]

        # Then it takes the only X, or one of two Y, or one of many X
        assert list(decide([one_x, two_y], guest_spec(wanted), shares)) == [
            'Y',
            'X',
        ]
        assert list(
            decide([one_x, two_y, *many_x], guest_spec(wanted), shares)
        ) == ['X', 'Y']

    def test_thread_siblings_are_kept_for_those_who_require_them(self):
        # Given a host with half of its cores in use, and one with a thread of
        # each core in use
        shares = {kind(pinned_cell(4, 8, threads=ThreadPolicy.REQUIRE)): 1.0}
        hosts = [
            host('cores', cell(cores=8, threads=2, pinned=range(8))),
            host('threads', cell(cores=8, threads=2, pinned=range(0, 16, 2))),
        ]

        # Then a guest that may have any thread leaves the siblings alone
        found = decide(hosts, guest_spec(pinned_cell(1, 8)), shares)

        assert list(found) == ['threads', 'cores']

    def test_isolated_guests_are_not_sent_to_thread_siblings(self):
        # Given hosts with thread siblings and without, and a guest that
        # floats; Nova asks Placement for the latter when threads are isolated
        shares = {kind(pinned_cell(4, 8, threads=ThreadPolicy.ISOLATE)): 1.0}
        hosts = [
            host('no siblings', cell(cores=8)),
            host('siblings', cell(cores=8, threads=2)),
        ]

        assert decide(hosts, guest_spec(memory_mib=8), shares) == {
            'siblings': 10000.0,
            'no siblings': 0.0,
        }

    def test_the_cells_of_a_guest_are_those_that_the_fit_takes(self):
        # Given hosts with a free cell and a half used one, of which the fit
        # takes the free one, and a host with two half used ones
        shares = {kind(WHOLE): 1.0}
        hosts = [
            host('a free cell', cell(0), cell(1, pinned=range(100, 104))),
            host(
                'none',
                cell(0, pinned=range(4)),
                cell(1, pinned=range(100, 104)),
            ),
        ]

        assert list(decide(hosts, guest_spec(HALF), shares)) == [
            'none',
            'a free cell',
        ]


class TestFloatingGuests:
    """Guests that ask for no cells, pages or dedicated CPUs."""

    SHARES = {kind(WHOLE): 1.0}

    @pytest.mark.parametrize('account', [True, False])
    def test_they_are_kept_off_hosts_that_are_scarce(self, account):
        hosts = [
            free('one slot'),
            half_used('none'),
            host('two slots', cell(0), cell(1)),
        ]

        with nova_builders.option(
            'account_small_pages', account, 'numa_hugepages'
        ):
            found = decide(hosts, guest_spec(memory_mib=8), self.SHARES)

        assert found == {'none': 10000.0, 'one slot': 5000.0, 'two slots': 0.0}

    def test_a_host_without_a_topology_is_not_scarce(self):
        hosts = [
            free('one slot'),
            nova_builders.host_state('no topology', None, memory_mib=64),
            nova_builders.host_state(
                'no cells', nova_builders.topology(), memory_mib=64
            ),
            half_used('none'),
        ]

        found = decide(hosts, guest_spec(memory_mib=8), self.SHARES)

        assert found == {
            'no topology': 10000.0,
            'no cells': 10000.0,
            'none': 10000.0,
            'one slot': 0.0,
        }

    def test_no_host_may_have_a_topology(self):
        hosts = [
            nova_builders.host_state(n, None, memory_mib=64)
            for n in ('one', 'two')
        ]

        assert decide(hosts, guest_spec(memory_mib=8), self.SHARES) == {
            'one': 0.0,
            'two': 0.0,
        }

    def test_small_pages_of_the_host_are_scarce_for_them_too(self):
        # Given hosts whose small pages other guests have, but for some
        shares = {kind(floating_cell(1, 8)): 1.0}
        hosts = [
            host(name, cell(shared_cores=8), used_mib=used_mib)
            for name, used_mib in (('8', 56), ('16', 48), ('64', 0))
        ]

        found = decide(hosts, guest_spec(memory_mib=8), shares)

        assert list(found) == ['8', '16', '64']


class TestTies:
    def test_the_fewest_pages_to_make(self):
        hosts = [
            free(
                f'{made} to be made',
                reported=nova_builders.stats(allocatable={0: made_of}),
            )
            for made, made_of in (
                (16, {nova_builders.MIB_2: 16}),
                (0, {}),
                (13, {nova_builders.MIB_2: 13}),
                (15, {nova_builders.MIB_2: 15}),
            )
        ]

        # 8 MiB are 4 pages, of which 3 exist where 13 of 16 are to be made.
        assert decide(hosts, guest_spec(HALF), NOWHERE) == {
            '0 to be made': 10000.0,
            '13 to be made': pytest.approx(20000 / 3),
            '15 to be made': pytest.approx(10000 / 3),
            '16 to be made': 0.0,
        }

    def test_then_the_balance_of_the_cells(self):
        hosts = [
            host('one cell used', cell(0), cell(1, pinned=range(100, 104))),
            host('both free', cell(0), cell(1)),
            host(
                'both used',
                cell(0, pinned=range(2)),
                cell(1, pinned=range(100, 104)),
            ),
        ]

        # The guest takes the cell with more free CPUs.
        assert list(decide(hosts, guest_spec(HALF), NOWHERE)) == [
            'one cell used',
            'both used',
            'both free',
        ]

    def test_pages_to_make_count_more_than_balance(self):
        hosts = [
            host(
                'in balance',
                cell(0, pinned=range(4)),
                cell(1),
                reported=nova_builders.stats(
                    allocatable={
                        number: {nova_builders.MIB_2: 16} for number in (0, 1)
                    }
                ),
            ),
            host('not in balance', cell(0), cell(1)),
        ]

        assert list(decide(hosts, guest_spec(HALF), NOWHERE)) == [
            'not in balance',
            'in balance',
        ]

    @pytest.mark.parametrize(
        'wanted', [guest_spec(HALF), guest_spec(memory_mib=8)]
    )
    def test_what_is_equal_has_equal_weights(self, wanted):
        hosts = [free(name) for name in ('one', 'two', 'three')]

        found = decide(hosts, wanted, {kind(WHOLE): 1.0})

        assert found == {'one': 0.0, 'two': 0.0, 'three': 0.0}

    @pytest.mark.parametrize(
        'wanted', [[HALF], []], ids=['pinned', 'floating']
    )
    def test_without_any_demand_costs_are_equal(self, wanted):
        nothing = demand.Demand(half_life_s=60, at_most=1)
        asked = guest_spec(*wanted, memory_mib=8)
        hosts = [free('free'), half_used('half used')]

        # A guest that asks for something is demand itself.
        found = raw(weights.NUMAHugepagesWeigher(nothing), hosts, asked)

        assert found == {'free': 0.0, 'half used': 0.0}

    def test_no_hosts_have_no_weights(self):
        assert raw(weigher(NOWHERE), [], guest_spec(HALF)) == {}


def test_more_than_a_thousand_hosts_have_an_order():
    # Given 1500 hosts, each in a worse balance than the one before
    hosts = [
        host(
            str(number),
            cell(0, memory_mib=65536, memory_used_mib=number + 2048),
            cell(1, memory_mib=65536, memory_used_mib=1024),
        )
        for number in range(1500)
    ]
    wanted = guest_spec(HALF)

    # When they are weighed
    found = raw(weigher(NOWHERE), hosts, wanted)

    # Then the places of the best thousand differ
    order = sorted(hosts, key=lambda each: -found[each.host])
    assert [found[each.host] for each in order] == (
        [float(999 - place) for place in range(999)] + [0.0] * 501
    )


def states_of(count, number):
    """Write a host, full and with its own use, as several host states."""
    return [
        nova_builders.host_state(
            f'host {index}',
            nova_builders.topology(
                *[
                    each._replace(memory_used_mib=each.memory_used_mib + index)
                    for each in count.host.cells
                ]
            ),
            reported=STOCK if index == 1 else nova_builders.stats(),
        )
        for index in range(number)
    ]


@examples(0.015)
@hypothesis.given(
    counts(most_cells=2),
    st.lists(counts(most_cells=2), min_size=1, max_size=2),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_weights_are_of_use(
    count: Count, others: list[Count], floats: bool, random
) -> None:
    # Given hosts of several kinds, a guest and a demand
    shares = {
        kind(*other.request.cells): 1.0 + index
        for index, other in enumerate((count, *others))
    }
    hosts = [
        dataclasses.replace(
            each, host=dataclasses.replace(each.host, distances=None)
        )
        for each in (count, *others)
    ]

    def ask(shuffled):
        states = [
            state
            for index, each in enumerate(hosts)
            for state in states_of(each, 3)
            if not setattr(state, 'host', f'{index} {state.host}')
        ]
        if shuffled:
            random.shuffle(states)
        wanted = (
            nova_builders.spec(None, memory_mib=1)
            if floats
            else nova_builders.spec(
                nova_builders.guest(
                    *count.request.cells,
                    emulator_isolated=count.request.emulator_isolated,
                )
            )
        )
        passing = list(
            filters.NUMAHugepagesFilter(pinned(shares)).filter_all(
                states, wanted
            )
        )
        before = [nova_builders.primitive(wanted), *map(everything, states)]
        found = raw(weigher(shares), passing, wanted)
        # Then weighing changes nothing
        assert [
            nova_builders.primitive(wanted),
            *map(everything, states),
        ] == before
        return found

    # When they are weighed, in any order
    first = ask(False)
    again = ask(True)
    # Then the weights are the same
    assert again == first
    # And numbers that order the hosts without a gap
    assert all(math.isfinite(weight) for weight in first.values())
    assert set(first.values()) == set(
        map(float, range(len(set(first.values()))))
    )


def everything(state):
    """Write down all that is known of a host."""
    known = dict(vars(state))
    found = known.pop('numa_topology')
    limits = {
        name: nova_builders.primitive(each)
        for name, each in known.pop('limits').items()
    }
    return (
        nova_builders.primitive(found),
        limits,
        state.allocation_candidates,
        state.stats,
        [repr(item) for item in sorted(known.items(), key=repr)],
    )


def test_the_cache_is_not_sent_with_the_request():
    wanted = guest_spec(HALF)
    before = nova_builders.primitive(wanted)

    decide([free('one'), free('two')], wanted, NOWHERE)

    assert nova_builders.primitive(wanted) == before
    assert request_cache.of(wanted).filled
    assert not request_cache.of(wanted.obj_clone()).filled


def test_a_mixed_guest_is_weighed_too():
    mixed = dataclasses.replace(
        pinned_cell(3, 8, nova_builders.MIB_2, first=1),
        shared_vcpus=frozenset({0}),
        cpu_policy=CPUPolicy.MIXED,
    )
    hosts = [
        host('free', cell(shared_cores=2)),
        host('half used', cell(shared_cores=2, pinned=range(4))),
    ]

    assert list(decide(hosts, guest_spec(mixed), {kind(WHOLE): 1.0})) == [
        'half used',
        'free',
    ]
