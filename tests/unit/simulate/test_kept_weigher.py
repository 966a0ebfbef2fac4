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


"""Tests that what is kept of hosts changes no placement.

Each choice is compared with that of a scheduler that asks the filter and all
weighers for all hosts again, through Nova's own handler.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import zlib

from nova import conf as nova_conf
from nova.scheduler import weights as nova_weights
from nova.scheduler.filters import numa_topology_filter
import pytest

from nova_numa_hugepages.scheduler import filters
from nova_numa_hugepages.scheduler import weights
from nova_numa_hugepages.simulate import engine
from nova_numa_hugepages.simulate import fleet
from nova_numa_hugepages.simulate import scenario
from tests.unit.simulate import running
from tests.unit.simulate.running import drawn
from tests.unit.simulate.running import MIXED
from tests.unit.simulate.scenes import flavor
from tests.unit.simulate.scenes import host
from tests.unit.simulate.scenes import node
from tests.unit.simulate.scenes import pinned
from tests.unit.simulate.scenes import play
from tests.unit.simulate.simulated import CHURN
from tests.unit.simulate.simulated import FILL
from tests.unit.simulate.simulated import OURS
from tests.unit.simulate.simulated import STOCK

POLICIES = pytest.mark.parametrize('policy', [STOCK, OURS])


@pytest.fixture(autouse=True)
def stock_afterwards() -> Iterator[None]:
    with running.nova():
        yield


class LastHostWeigher(nova_weights.BaseHostWeigher):
    """A weigher of an operator, which is asked for all hosts each time."""

    def weight_multiplier(self, host_state):
        return 0.25 if host_state.num_instances else 0.5

    def _weigh_object(self, obj, weight_properties):
        return zlib.crc32(
            (weight_properties.instance_uuid + obj.host).encode()
        )


class Plain:
    """A scheduler that keeps nothing."""

    def __init__(self, simulated: engine.Engine) -> None:
        kept = simulated._scheduler
        self.hosts = simulated._hosts
        self.handler = nova_weights.HostWeightHandler()
        self.weighers = list(kept._weighers)
        if kept._ours is None:
            self.filter = numa_topology_filter.NUMATopologyFilter()
            return
        self.filter = filters.NUMAHugepagesFilter(kept._ours._demand)
        self.weighers.append(weights.NUMAHugepagesWeigher(kept._ours._demand))

    def select(self, candidates, spec):
        hosts = [self.hosts[place] for place in candidates]
        for one in hosts:
            one.allocation_candidates = [{'mappings': {}}]
        passing = list(self.filter.filter_all(hosts, spec))
        weighed = self.handler.get_weighed_objects(
            self.weighers, passing, spec
        )
        return [one.obj for one in weighed]


def check(
    scene: scenario.Scenario,
    policy,
    phase,
    *,
    learning: scenario.Learning = scenario.Learning.FLAVORS,
) -> engine.Engine:
    """Run a task, and compare each choice of a host.

    :returns: the engine, after the run
    """
    simulated = running.engine(scene, policy, phase, 1, learning=learning)
    plain = Plain(simulated)
    kept = simulated._scheduler
    select = kept.select

    def both(candidates, spec):
        found = select(candidates, spec)
        # The same request: the demand counts it only once.
        again = fleet.request(spec.flavor)
        again.instance_uuid = spec.instance_uuid
        learned = kept._ours and kept._ours._demand
        counts = learned and dict(learned._counts)
        expected = plain.select(candidates, again)
        if learned:
            learned._counts = counts
        assert [one.host for one in found] == [one.host for one in expected]
        return found

    kept.select = both
    simulated.run()
    return simulated


SMALL_PAGES = play(
    [
        host(node(8, 8192, shared_cores=8), count=3, cpu_ratio=2.0),
        scenario.HostType(
            'stock',
            3,
            (running.NODE, running.NODE),
            ((10, 21), (21, 10)),
            runs_us=False,
        ),
        scenario.HostType(
            'threads', 2, (node(8, 8192, {2048: 1024}, threads=2),) * 2
        ),
    ],
    [
        flavor('floats', 2, 1024),
        flavor('small', 2, 1024, numa_nodes=1, mem_page_size='small'),
        flavor('any', 2, 1024, numa_nodes=2, mem_page_size='any'),
        pinned('twin', 4, 2048, mem_page_size='2MB', numa_nodes=2),
        pinned('alone', 2, 512, cpu_thread_policy='isolate'),
        pinned('siblings', 2, 512, cpu_thread_policy='require'),
        pinned('twice', 2, 1024, share=2, mem_page_size='large'),
    ],
)


@pytest.mark.parametrize('scene', [MIXED, SMALL_PAGES])
@POLICIES
def test_a_fleet_that_fills_up(policy, scene):
    simulated = check(scene, policy, FILL)

    assert simulated._there > 10


@pytest.mark.parametrize('scene', [MIXED, SMALL_PAGES])
@POLICIES
def test_guests_that_come_and_go_and_take_time_to_start(policy, scene):
    check(
        drawn(scene, 90, mean_lifetime=30.0, build_s=200.0, warm_up=1),
        policy,
        CHURN,
    )


@pytest.mark.parametrize('learning', list(scenario.Learning))
def test_any_knowledge_of_the_demand(learning):
    check(drawn(MIXED, 50, mean_lifetime=30.0), OURS, CHURN, learning=learning)


def test_a_demand_that_changes_its_kinds():
    """More flavors than kinds that count at a time."""
    nova_conf.CONF.set_override('demand_kinds', 2, 'numa_hugepages')
    try:
        check(
            drawn(MIXED, 50, mean_lifetime=30.0),
            OURS,
            CHURN,
            learning=scenario.Learning.LEARNED,
        )
    finally:
        nova_conf.CONF.clear_override('demand_kinds', 'numa_hugepages')


def test_small_pages_that_the_whole_host_has_left():
    nova_conf.CONF.set_override('account_small_pages', True, 'numa_hugepages')
    try:
        check(drawn(SMALL_PAGES, 70, mean_lifetime=40.0), OURS, CHURN)
    finally:
        nova_conf.CONF.clear_override('account_small_pages', 'numa_hugepages')


@POLICIES
def test_weighers_of_an_operator_are_asked_each_time(policy):
    name = f'{__name__}.{LastHostWeigher.__name__}'
    nova_conf.CONF.set_override(
        'weight_classes',
        ['nova.scheduler.weights.all_weighers', name],
        'filter_scheduler',
    )
    try:
        simulated = check(drawn(MIXED, 40, mean_lifetime=30.0), policy, CHURN)
    finally:
        nova_conf.CONF.clear_override('weight_classes', 'filter_scheduler')
    kept = next(iter(simulated._scheduler._found.values())).raw
    assert [
        type(one) for one in simulated._scheduler._weighers if one not in kept
    ] == [LastHostWeigher]


def test_next_to_nothing_is_looked_at_again():
    """Hosts that are alike count as one, others once for each change."""
    # given
    hosts, arrivals = 30, 40
    scene = dataclasses.replace(
        MIXED, hosts=(dataclasses.replace(MIXED.hosts[0], count=hosts),)
    )
    simulated = running.engine(drawn(scene, arrivals), OURS, CHURN)
    looked: list[int] = []
    judge = simulated._scheduler._filter.filter_all

    def count(hosts, spec):
        looked.append(len(hosts))
        return judge(hosts, spec)

    simulated._scheduler._filter.filter_all = count

    # when
    simulated.run()

    # then
    flavors = len(MIXED.flavors)
    assert sum(looked) <= flavors * (1 + arrivals) + 3 * arrivals
