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

"""Tests of what lending elastic memory brings and costs."""

from __future__ import annotations

import json

import pytest

from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.hugepages import elastic
from nova_numa_hugepages.simulate import engine
from nova_numa_hugepages.simulate import lending
from nova_numa_hugepages.simulate import output
from nova_numa_hugepages.simulate import results
from nova_numa_hugepages.simulate import scenario
from tests.unit.simulate import running
from tests.unit.simulate.scenes import host
from tests.unit.simulate.scenes import node
from tests.unit.simulate.scenes import play
from tests.unit.simulate.simulated import OURS

POOL = lending.HostPool('host-1', 0, 2048)
GIB = 512
# 16 GiB, of which half is the base.
CELL = lending.LentCell(POOL, 8 * GIB, 16 * GIB, 64)
USE = scenario.Use()


@pytest.fixture(autouse=True)
def nova():
    with running.nova():
        yield


def db(name='db', percent=50, memory_mib=16384, cells=1):
    return scenario.Flavor(
        name,
        cells,
        memory_mib,
        {
            'hw:mem_page_size': '2048',
            'hw:numa_nodes': str(cells),
            'hw:cpu_policy': 'dedicated',
            'numa_hugepages:elastic_base_percent': str(percent),
        },
    )


def fill(ratio, *flavors, hosts):
    task = scenario.Task(
        play(hosts, flavors),
        OURS,
        results.Phase.LENDING,
        1,
        lend_ratio=ratio,
    )
    made = engine.Engine(task)
    return made, made.run()


class TestTheFleet:
    # 64 GiB in pages.
    HOSTS = (host(node(16, 80 * 1024, {2048: 64 * GIB})),)

    @pytest.mark.parametrize(
        ('ratio', 'placed'), [(1.0, 4), (1.25, 5), (1.5, 6), (2.0, 7)]
    )
    def test_it_takes_as_many_more(self, ratio, placed, monkeypatch):
        monkeypatch.setattr(lending, 'WEEK_S', 3600)
        _, run = fill(ratio, db(), hosts=self.HOSTS)
        assert (run.placed, run.lend_ratio) == (placed, ratio)
        assert run.week.instances == placed

    def test_no_more_than_is_idle_is_lent(self, monkeypatch):
        monkeypatch.setattr(lending, 'WEEK_S', 3600)
        # Of each a quarter.
        made, run = fill(4.0, db(percent=75), hosts=self.HOSTS)
        assert run.placed == 5
        (only,) = made._hosts
        stats = host_stats.parse(only.stats['numa_hugepages'])
        assert stats.lendable == {0: {2048: 5 * 4 * GIB}}
        totals = {
            pages.size_kb: pages.total
            for pages in only.numa_topology.cells[0].mempages
        }
        assert totals[2048] == 84 * GIB

    def test_the_pages_of_others_are_not_lent(self, monkeypatch):
        monkeypatch.setattr(lending, 'WEEK_S', 3600)
        plain = scenario.Flavor(
            'plain',
            1,
            16384,
            {'hw:mem_page_size': '2048', 'hw:cpu_policy': 'dedicated'},
        )
        made, _ = fill(1.5, plain, db(), hosts=self.HOSTS)
        (pages,) = [
            count
            for pool, count in made._lent.pages.items()
            if pool.size_kib == 2048
        ]
        plain = made._there - len(made._lent.guests)
        assert 0 < plain < made._there
        assert pages == (64 - 16 * plain) * GIB

    def test_a_host_with_the_driver_of_nova_lends_nothing(self, monkeypatch):
        monkeypatch.setattr(lending, 'WEEK_S', 3600)
        hosts = (host(node(16, 80 * 1024, {2048: 64 * GIB}), runs_us=False),)
        _, run = fill(2.0, db(), hosts=hosts)
        assert (run.placed, run.week.instances) == (4, 0)

    def test_both_nodes_of_an_instance_lend(self, monkeypatch):
        monkeypatch.setattr(lending, 'WEEK_S', 3600)
        half = node(16, 40 * 1024, {2048: 32 * GIB})
        _, run = fill(1.5, db(cells=2), hosts=(host(half, half),))
        assert run.placed == 6

    def test_the_week_is_in_the_json(self, monkeypatch):
        monkeypatch.setattr(lending, 'WEEK_S', 3600)
        _, run = fill(1.25, db(), hosts=self.HOSTS)
        found = results.Results('fleet.yaml', (run,))
        (row,) = json.loads(output.dump(found))['runs']
        assert row['lend_ratio'] == 1.25
        assert row['week']['instances'] == 5


class TestTheWeek:
    def live(self, instances, pages, use=USE, seed=1):
        return lending.live(
            {POOL: pages}, [(CELL,)] * instances, use, seed, elastic.Marks()
        )

    def test_none_waits_where_nothing_is_lent(self):
        week = self.live(6, 6 * CELL.ceiling)
        assert week == (6, 0, 0, 0, 0.0, 0)

    def test_the_more_is_lent_the_more_wait(self):
        pages = 8 * CELL.ceiling
        weeks = [self.live(count, pages) for count in (9, 12, 16)]
        waits = [week.waiting_share for week in weeks]
        assert waits == sorted(waits)
        assert 0 < waits[-1] < 1
        assert weeks[-1].longest_wait_s >= weeks[-1].median_wait_s > 0
        # All could want all of it.
        assert weeks[-1].most_lent_mib == 8 * 16 * 1024

    def test_it_is_the_same_with_the_same_seed(self):
        assert self.live(12, 8 * CELL.ceiling) == self.live(
            12, 8 * CELL.ceiling
        )
        assert self.live(12, 8 * CELL.ceiling) != self.live(
            12, 8 * CELL.ceiling, seed=2
        )

    def test_those_that_are_never_busy_never_wait(self):
        use = scenario.Use(office_busy_percent=0, other_busy_percent=0)
        assert self.live(16, 8 * CELL.ceiling, use).waits == 0

    def test_those_that_are_all_busy_wait_to_the_end(self):
        use = scenario.Use(idle_percent=90)
        week = self.live(4, 3 * CELL.ceiling, use)
        assert week.waits > 0
        assert week.longest_wait_s > lending.WEEK_S / 2


def test_no_page_is_given_twice():
    free = {POOL: 100}
    idle = {POOL: 8 * GIB}
    guest = lending._Guest((CELL,), [8 * GIB], 0.3)
    assert lending._change(guest, {0: 8 * GIB + 128}, free, idle, 5) == {POOL}
    assert (guest.pages, free, idle) == (
        [8 * GIB + 64],
        {POOL: 36},
        {POOL: 8 * GIB - 64},
    )
    assert lending._change(guest, {0: 8 * GIB + 128}, free, idle, 9) == {POOL}
    assert free == {POOL: 36}
    # What comes free meanwhile it gets when it tries again.
    free[POOL] += 64
    assert lending._change(guest, {0: 8 * GIB + 128}, free, idle, 20) == {POOL}
    assert free == {POOL: 100}
    assert lending._change(guest, {0: 8 * GIB + 128}, free, idle, 24) == set()
    assert free == {POOL: 36}
    free[POOL] -= 64
    assert lending._change(guest, {0: 8 * GIB}, free, idle, 9) == set()
    assert free == {POOL: 100}
