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


"""Tests of the guests that arrive."""

import dataclasses
import itertools
import statistics

import pytest

from nova_numa_hugepages.simulate import scenario
from tests.unit.simulate.running import drawn
from tests.unit.simulate.scenes import flavor
from tests.unit.simulate.scenes import host
from tests.unit.simulate.scenes import node
from tests.unit.simulate.scenes import pinned
from tests.unit.simulate.scenes import play
from tests.unit.simulate.simulated import CHURN
from tests.unit.simulate.simulated import FILL
from tests.unit.simulate.simulated import TRACE

SCENE = play(
    [host(node(4))],
    [flavor('often', 1, share=3.0), flavor('rare', 1)],
)
TRACED = dataclasses.replace(
    SCENE,
    trace=(
        scenario.TraceEntry(0.0, 'often', 60.0),
        scenario.TraceEntry(5.0, 'rare', None),
        scenario.TraceEntry(5.0, 'often', 0.0),
    ),
)


def test_a_seed_gives_one_sequence_in_all_phases():
    # given
    scene = drawn(SCENE, 50, mean_lifetime=10.0)

    # when
    fill, churn, same, other = (
        [guest.flavor for guest in itertools.islice(arriving, 50)]
        for arriving in (
            scenario.arrivals(scene, FILL, 1),
            scenario.arrivals(scene, CHURN, 1),
            scenario.arrivals(scene, CHURN, 1),
            scenario.arrivals(scene, CHURN, 2),
        )
    )

    # then
    assert fill == churn == same
    assert other != churn


def test_lifetimes_are_those_of_the_seed():
    scene = drawn(SCENE, 50, mean_lifetime=10.0)

    one, same, other = (
        [*scenario.arrivals(scene, CHURN, seed)] for seed in (1, 1, 2)
    )

    assert one == same
    assert [guest.until for guest in one] != [guest.until for guest in other]


def test_flavors_come_by_their_shares_and_at_equal_intervals():
    # given: 120 an hour
    scene = drawn(SCENE, 4000, per_hour=120.0)

    # when
    found = [*scenario.arrivals(scene, CHURN, 1)]

    # then
    assert [guest.at for guest in found[:3]] == [0, 30, 60]
    often = sum(guest.flavor == 'often' for guest in found)
    assert often / 4000 == pytest.approx(0.75, abs=0.03)


def test_the_mean_lifetime_is_reported_in_arrivals():
    # given: 120 an hour, and 10 of them are 300 seconds
    scene = drawn(SCENE, 4000, per_hour=120.0, mean_lifetime=10.0)

    # when
    lifetimes = [
        guest.until - guest.at for guest in scenario.arrivals(scene, CHURN, 1)
    ]

    # then
    assert min(lifetimes) > 0
    assert statistics.fmean(lifetimes) == pytest.approx(300, rel=0.1)


def test_a_fill_goes_on_and_nobody_leaves():
    # given
    scene = drawn(SCENE, 2, mean_lifetime=10.0)

    # when
    found = [*itertools.islice(scenario.arrivals(scene, FILL, 1), 100)]

    # then
    assert len(found) == 100
    assert {guest.until for guest in found} == {None}


def test_without_a_lifetime_guests_stay():
    found = [*scenario.arrivals(drawn(SCENE, 5), CHURN, 1)]

    assert [guest.until for guest in found] == [None] * 5


def test_a_trace_is_taken_as_it_is():
    assert [*scenario.arrivals(TRACED, TRACE, 7)] == [
        scenario.Arrival(0.0, 'often', 60.0),
        scenario.Arrival(5.0, 'rare', None),
        scenario.Arrival(5.0, 'often', 5.0),
    ]


def test_a_trace_ends_also_while_it_fills_a_fleet():
    assert [*scenario.arrivals(TRACED, FILL, 0)] == [
        scenario.Arrival(0.0, 'often', None),
        scenario.Arrival(5.0, 'rare', None),
        scenario.Arrival(5.0, 'often', None),
    ]


def test_a_part_of_a_fleet_has_a_part_of_the_guests():
    # given
    scene = dataclasses.replace(
        play([host(node(4), count=24), host(node(2), count=2)], SCENE.flavors),
        arrivals=scenario.Arrivals(
            1000, 60.0, build_s=9.0, mean_lifetime=250.0, warm_up=300
        ),
    )

    # when
    part = scenario.scaled(scene, 0.1)

    # then: a guest stays as long, in hours
    assert [one.count for one in part.hosts] == [2, 1]
    assert part.arrivals == scenario.Arrivals(
        100, 6.0, build_s=9.0, mean_lifetime=25.0, warm_up=30
    )
    assert scenario.scaled(scene, 1.0) == scene


def test_the_least_part_counts_an_arrival():
    scene = dataclasses.replace(
        play([host(node(4))], SCENE.flavors),
        arrivals=scenario.Arrivals(20, warm_up=19),
    )

    part = scenario.scaled(scene, 0.01)

    assert (part.arrivals.count, part.arrivals.warm_up) == (1, 0)
    assert part.hosts == scene.hosts


def test_how_many_guests_a_fleet_holds():
    machine = host(node(8, 16384, shared_cores=2), count=3, cpu_ratio=4.0)

    # 14 vCPUs a host, and 16 GiB.
    assert scenario.holds([machine], [pinned('one', 2, 1024)]) == 21
    assert scenario.holds([machine], [pinned('big', 2, 8192)]) == 6
