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

"""Tests of the replay of pages made ready ahead."""

from __future__ import annotations

import json

import pytest

from nova_numa_hugepages.hugepages import forecast
from nova_numa_hugepages.simulate import engine
from nova_numa_hugepages.simulate import output
from nova_numa_hugepages.simulate import readiness
from nova_numa_hugepages.simulate import results
from nova_numa_hugepages.simulate import scenario
from tests.fixtures import arrivals
from tests.unit.simulate import running
from tests.unit.simulate.scenes import host
from tests.unit.simulate.scenes import node
from tests.unit.simulate.scenes import pinned
from tests.unit.simulate.scenes import play
from tests.unit.simulate.simulated import OURS

GIB_PAGES = 512


def stay(start_s, pages=512, hours=1.0):
    return readiness.Stay(start_s, start_s + hours * 3600, pages)


def test_a_replay_counts_what_was_ready_and_idle():
    stays = [
        stay(90.0, 100, 9.0),
        stay(100.0, 100, 9.0),
        stay(3700.0, 250, 9.0),
    ]

    found = readiness.replay(
        stays, [200] * forecast.HOURS, pause_s=60.0, until_s=7200.0
    )

    assert found.ready == pytest.approx(2 / 3)
    assert found.idle_page_hours == pytest.approx(400, rel=0.05)


def compare(pools, end_s, learned_s):
    return readiness.compare(
        pools, lambda key: 2048, end_s, risk=0.01, learned_s=learned_s
    )


@pytest.mark.parametrize('seed', range(3))
def test_it_keeps_less_than_a_fixed_margin_that_does_as_well(seed):
    stays = arrivals.classes(seed, 8)
    found = compare(
        {'pool': stays}, 8.0 * forecast.WEEK_S, 6.0 * forecast.WEEK_S
    )

    assert found.hours == 2 * forecast.HOURS
    assert found.ready_share >= 0.985
    assert found.idle_gib_hours < 0.6 * found.fixed_gib_hours


def test_the_fixed_margin_is_the_least_that_does():
    # Each hour two GiB start, and one is in each pool.
    pools = {
        name: [stay(hour * 3600.0, GIB_PAGES, 0.5) for hour in range(500)]
        for name in ('one', 'two')
    }
    found = compare(pools, 500 * 3600.0, 336 * 3600.0)

    assert found.starts == 2 * 164
    assert found.ready_share == 1.0
    assert found.fixed_mib == 1024


def test_no_more_is_kept_than_the_limit():
    pools = {
        'pool': [stay(hour * 3600.0, GIB_PAGES, 0.5) for hour in range(500)]
    }
    free, limited = (
        readiness.compare(
            pools,
            lambda key: 2048,
            500 * 3600.0,
            risk=0.01,
            limit_kib=limit,
            learned_s=336 * 3600.0,
        )
        for limit in (None, lambda key: 2048 * (GIB_PAGES - 1))
    )

    assert free.ready_share == 1.0
    assert limited.ready_share < 0.1


def test_where_nothing_starts_nothing_is_kept():
    found = compare({}, 500 * 3600.0, 336 * 3600.0)
    assert (found.starts, found.idle_gib_hours) == (0, 0.0)


def test_a_run_notes_who_came_and_went():
    flavor = pinned('db', 1, 2048, mem_page_size=2048)
    scene = play([host(node(8, 65536, {2048: 16384}))], [flavor])
    entries = tuple(
        scenario.TraceEntry(hour * 3600.0, 'db', 1800.0) for hour in range(60)
    )
    task = scenario.Task(
        scenario.Scenario(
            'fleet.yaml', scene.hosts, scene.flavors, scene.arrivals, entries
        ),
        OURS,
        results.Phase.TRACE,
        0,
        with_ready=True,
    )
    with running.nova():
        run = engine.Engine(task).run()

    # Of 59 hours 44 are learned from.
    assert (run.ready.hours, run.ready.starts) == (15, 15)
    found = results.Results('fleet.yaml', (run,))
    (row,) = json.loads(output.dump(found))['runs']
    assert row['ready']['starts'] == 15
