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


"""Tests of a policy over a sequence of arrivals, with Nova's own classes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nova_numa_hugepages.simulate import bound
from nova_numa_hugepages.simulate import fleet
from nova_numa_hugepages.simulate import scenario
from nova_numa_hugepages.simulate.engine import Engine
from tests.unit.simulate import running
from tests.unit.simulate.running import arrivals
from tests.unit.simulate.running import drawn
from tests.unit.simulate.running import engine
from tests.unit.simulate.running import MIXED
from tests.unit.simulate.running import run
from tests.unit.simulate.running import state
from tests.unit.simulate.running import traced
from tests.unit.simulate.scenes import host
from tests.unit.simulate.scenes import node
from tests.unit.simulate.scenes import pinned
from tests.unit.simulate.scenes import play
from tests.unit.simulate.simulated import CHURN
from tests.unit.simulate.simulated import FILL
from tests.unit.simulate.simulated import OURS
from tests.unit.simulate.simulated import STOCK
from tests.unit.simulate.simulated import TRACE

POLICIES = pytest.mark.parametrize('policy', [STOCK, OURS])


@pytest.fixture(autouse=True)
def stock_afterwards() -> Iterator[None]:
    with running.nova():
        yield


@pytest.mark.parametrize('seed', [1, 2])
@POLICIES
def test_a_fill_ends_at_the_first_refusal(policy, seed):
    # when
    found = run(MIXED, policy, FILL, seed)

    # then
    asked = arrivals(MIXED, seed, found.arrivals)
    assert found.placed == found.arrivals - 1 > 10
    assert found.first_refused == asked[-1]
    assert found.refused == {asked[-1]: 1}
    assert sum(found.counted.values()) == found.arrivals
    assert {name: asked.count(name) for name in found.counted} == found.counted
    assert found.samples[0].arrivals == found.samples[0].guests == 0
    assert found.samples[-1].arrivals == found.arrivals
    assert found.samples[-1].guests == found.placed


def test_both_policies_see_the_same_arrivals():
    # given
    scene = drawn(MIXED, 60, mean_lifetime=25.0)

    # when
    stock, ours = (run(scene, policy, CHURN) for policy in (STOCK, OURS))

    # then
    assert stock.counted == ours.counted
    assert stock.arrivals == ours.arrivals == 60


@POLICIES
def test_the_same_seed_gives_the_same_run(policy):
    scene = drawn(MIXED, 40, mean_lifetime=30.0)

    one, same, other = (run(scene, policy, CHURN, seed) for seed in (1, 1, 2))

    assert one == same
    assert one.counted != other.counted


@pytest.mark.parametrize('seed', [1, 2, 3])
@POLICIES
def test_no_policy_places_more_than_the_bound(policy, seed):
    found = run(MIXED, policy, FILL, seed)

    asked = arrivals(MIXED, seed, found.arrivals + 40)
    assert found.placed <= bound.Bound(MIXED).sequence(asked)


@POLICIES
def test_no_host_holds_more_than_it_has(policy):
    # given
    simulated = engine(MIXED, policy)

    # when
    simulated.run()

    # then
    for _, free_ram, _, _, _, free, cells in state(simulated):
        assert free_ram >= 0
        assert min(free.values()) >= 0
        for pins, shared, _, pools in cells:
            used = dict(pools)
            assert len(pins) <= 6
            assert shared <= 4
            assert used[running.GIB_1] <= 7
            assert used[2048] <= 2048


@pytest.mark.parametrize('seed', [1, 2])
def test_what_our_filter_lets_pass_can_be_claimed(seed):
    # given
    simulated = engine(MIXED, OURS)
    found = scenario.arrivals(MIXED, FILL, seed)

    # when
    placed = 0
    while True:
        guest = next(found)
        hosts = simulated._scheduler.select(
            simulated._placement.candidates(simulated._asked[guest.flavor]),
            fleet.request(simulated._flavors[guest.flavor]),
        )
        if not hosts:
            break
        # then
        assert (
            simulated._claim(hosts[0], simulated._flavors[guest.flavor])
            is not None
        )
        placed += 1
    assert placed > 10


@pytest.mark.parametrize('learning', list(scenario.Learning))
def test_ours_runs_with_any_knowledge_of_the_demand(learning):
    found = run(MIXED, OURS, FILL, learning=learning)

    assert found.placed > 20


@POLICIES
def test_what_guests_had_is_given_back(policy):
    # given: guests who leave, and one who arrives when all have left and is
    # too large
    names = arrivals(MIXED, 1, 60)
    scene = traced(
        play(MIXED.hosts, [*MIXED.flavors, pinned('giant', 99)]),
        *((float(at), name, 10.0) for at, name in enumerate(names)),
        (999.0, 'giant', None),
    )
    simulated = engine(scene, policy, TRACE, 0)
    empty = state(simulated)

    # when
    found = simulated.run()

    # then
    assert state(simulated) == empty
    assert max(one.guests for one in found.samples) >= 9
    assert found.samples[-1] == found.samples[0]._replace(arrivals=61)
    assert found.refused['giant'] == 1


def test_a_guest_that_leaves_makes_room_for_the_next_one():
    # given: room for one guest; the second one comes too early, the third
    # one at the moment at which the first one leaves
    scene = traced(
        play([host(node(4))], [pinned('all', 4)]),
        (0.0, 'all', 60.0),
        (59.0, 'all', 60.0),
        (60.0, 'all', None),
        (9999.0, 'all', None),
    )

    # when
    found = run(scene, OURS, TRACE, 0)

    # then
    assert (found.placed, found.first_refused) == (1, 'all')
    assert found.counted == {'all': 4}
    assert found.refused == {'all': 2}
    assert [one.guests for one in found.samples] == [0, 1, 1, 1, 1]


def test_guests_of_a_trace_stay_while_it_fills_a_fleet():
    scene = traced(
        play([host(node(4))], [pinned('half', 2)]),
        *((float(at), 'half', 0.5) for at in range(5)),
    )

    assert run(scene, OURS, FILL, 0).placed == 2


def test_refusals_in_the_warm_up_do_not_count():
    # given: room for two guests, who stay
    scene = play([host(node(4))], [pinned('half', 2)])

    # when
    found = run(drawn(scene, 10, warm_up=6), STOCK, CHURN)

    # then
    assert (found.arrivals, found.placed) == (10, 2)
    assert found.first_refused == 'half'
    assert found.counted == {'half': 4}
    assert found.refused == {'half': 4}
    assert found.refusal_share == 1


def test_a_long_run_keeps_a_limited_number_of_samples():
    # given
    scene = drawn(
        play([host(node(4))], [pinned('one', 1)]), 700, mean_lifetime=2.0
    )

    # when
    samples = run(scene, OURS, CHURN).samples

    # then
    moments = [one.arrivals for one in samples]
    assert moments == [*range(0, 700, 4), 700]


def test_hosts_that_build_are_reported_to_the_weighers():
    # given: guests of whom each takes an hour to start
    scene = drawn(MIXED, 5, per_hour=60.0, build_s=3600.0)
    simulated = engine(scene, STOCK, CHURN)

    # when
    simulated.run()

    # then
    assert sum(one.num_io_ops for one in simulated._hosts) == 5


@POLICIES
def test_how_far_a_run_is(policy):
    # given
    scene = drawn(play([host(node(8))], [pinned('four', 4)]), 4)
    told: list[float] = []

    # when
    for phase in (CHURN, FILL):
        Engine(scenario.Task(scene, policy, phase, 1), told.append).run()

    # then: a fill is as far as the fleet is full
    assert told == [0.25, 0.5, 0.75, 1.0, 0.5, 1.0, 1.0]
