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


"""Tests of the schedulers, of Placement's part, and of claims."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence

from nova import conf as nova_conf
from nova.scheduler.filters import numa_topology_filter
from nova.virt import hardware as nova_hardware
import numpy as np
import pytest

from nova_numa_hugepages.nova_fit import numa_fit
from nova_numa_hugepages.simulate import fleet
from nova_numa_hugepages.simulate import scenario
from nova_numa_hugepages.simulate import schedulers
from nova_numa_hugepages.simulate.engine import Engine
from tests.unit.simulate import running
from tests.unit.simulate.running import drawn
from tests.unit.simulate.running import engine
from tests.unit.simulate.running import MIXED
from tests.unit.simulate.running import run
from tests.unit.simulate.running import state
from tests.unit.simulate.scenes import flavor
from tests.unit.simulate.scenes import host
from tests.unit.simulate.scenes import node
from tests.unit.simulate.scenes import pinned
from tests.unit.simulate.scenes import play
from tests.unit.simulate.simulated import CHURN
from tests.unit.simulate.simulated import OURS
from tests.unit.simulate.simulated import STOCK

POLICIES = pytest.mark.parametrize('policy', [STOCK, OURS])


@pytest.fixture(autouse=True)
def stock_afterwards() -> Iterator[None]:
    with running.nova():
        yield


@POLICIES
def test_guests_without_wishes_take_shared_cpus_and_memory(policy):
    # given: 4 CPUs for 8 vCPUs, and memory for 5 guests
    scene = play(
        [host(node(4, 5 * 1024, shared_cores=4), cpu_ratio=2.0)],
        [flavor('floats', 1, 1024), flavor('busy', 4, 512)],
    )

    # then
    assert run(play(scene.hosts, scene.flavors[:1]), policy).placed == 5
    assert run(play(scene.hosts, scene.flavors[1:]), policy).placed == 2


def placed_of(machine: scenario.HostType, asked: scenario.Flavor) -> int:
    return run(play([machine], [asked]), STOCK).placed


@pytest.mark.parametrize(
    ('machine', 'asked', 'placed'),
    [
        # An emulator of its own takes a dedicated CPU.
        (
            host(node(8)),
            pinned('emulated', 3, emulator_threads_policy='isolate'),
            2,
        ),
        # All memory counts, and its ratio.
        (host(node(8, 4096), ram_ratio=1.5), flavor('none', 1, 512), 0),
        (
            host(node(8, 4096, shared_cores=8), ram_ratio=1.5),
            flavor('much', 1, 2048),
            3,
        ),
        # A host without thread siblings is required, and one with them.
        (
            host(node(8)),
            pinned('alone', 2, cpu_thread_policy='isolate'),
            4,
        ),
        (
            host(node(8, threads=2)),
            pinned('alone', 2, cpu_thread_policy='isolate'),
            0,
        ),
        (
            host(node(8)),
            pinned('siblings', 2, cpu_thread_policy='require'),
            0,
        ),
        (
            host(node(4, threads=2)),
            pinned('siblings', 2, cpu_thread_policy='require'),
            4,
        ),
        # One node with siblings makes it a host with siblings.
        (
            host(node(8), node(8, threads=2)),
            pinned('alone', 2, cpu_thread_policy='isolate'),
            0,
        ),
    ],
)
def test_what_placement_proposes(machine, asked, placed):
    assert placed_of(machine, asked) == placed


@pytest.mark.parametrize(
    ('asked', 'wanted'),
    [
        (
            flavor('floats', 3, 512),
            schedulers.PlacementRequest({'VCPU': 3, 'MEMORY_MB': 512}, None),
        ),
        (
            pinned('own', 3, 512, cpu_thread_policy='prefer'),
            schedulers.PlacementRequest({'PCPU': 3, 'MEMORY_MB': 512}, None),
        ),
        (
            pinned('alone', 3, 512, cpu_thread_policy='isolate'),
            schedulers.PlacementRequest({'PCPU': 3, 'MEMORY_MB': 512}, False),
        ),
        (
            pinned('siblings', 2, 512, cpu_thread_policy='require'),
            schedulers.PlacementRequest({'PCPU': 2, 'MEMORY_MB': 512}, True),
        ),
        (
            MIXED.flavors[-1],
            schedulers.PlacementRequest(
                {'VCPU': 1, 'PCPU': 2, 'MEMORY_MB': 1024}, None
            ),
        ),
    ],
)
def test_what_placement_is_asked_for(asked, wanted):
    spec = fleet.request(fleet.nova_flavor(asked))

    assert schedulers.placement_request(spec) == wanted


def test_a_verdict_that_is_remembered_is_that_of_a_fresh_filter():
    # given: stock Nova's scheduler over guests that come and go
    scene = drawn(MIXED, 70, mean_lifetime=40.0)
    simulated = engine(scene, STOCK, CHURN)
    verdicts = set()

    for guest in scenario.arrivals(scene, CHURN, 1):
        simulated._now = guest.at
        simulated._leave()
        spec = fleet.request(simulated._flavors[guest.flavor])

        # when
        passing = simulated._scheduler.select(np.arange(4), spec)

        # then
        for one in simulated._hosts:
            one.allocation_candidates = [{'mappings': {}}]
        fresh = numa_topology_filter.NUMATopologyFilter()
        judged = fresh.filter_all(simulated._hosts, spec)
        assert {one.host for one in passing} == {one.host for one in judged}
        verdicts.add(len(passing))
        simulated._arrive(guest)
    assert len(verdicts) > 2


def occupy(hosts: Sequence[object]) -> None:
    """Take all CPUs of hosts, without the scheduler knowing of it."""
    for one in hosts:
        for cell in one.numa_topology.cells:
            cell.pinned_cpus = set(cell.pcpuset)


def knowing(count: int) -> Engine:
    """Make a stock scheduler that knows that a guest fits on each host."""
    scene = play([host(node(8), count=count)], [pinned('four', 4)])
    simulated = engine(scene, STOCK)
    spec = fleet.request(simulated._flavors['four'])
    assert len(simulated._scheduler.select(np.arange(count), spec)) == count
    return simulated


def test_a_claim_that_fails_goes_to_the_next_host():
    # given: on the better hosts something has come between
    simulated = knowing(3)
    occupy(simulated._hosts[:2])
    before = state(simulated)

    # when
    fits = simulated._arrive(scenario.Arrival(0.0, 'four', None))

    # then
    assert fits
    after = state(simulated)
    assert after[:2] == before[:2]
    assert after[2][:3] == ('host-3', 65536 - 1024, 4)


def test_a_guest_whose_claims_all_fail_leaves_nothing_behind():
    simulated = knowing(2)
    occupy(simulated._hosts)
    before = state(simulated)

    assert not simulated._arrive(scenario.Arrival(0.0, 'four', 60.0))
    assert state(simulated) == before


def test_claims_are_tried_as_often_as_nova_does():
    # given: one host more than Nova tries has lost its room
    simulated = knowing(nova_conf.CONF.scheduler.max_attempts + 1)
    occupy(simulated._hosts[:-1])

    assert not simulated._arrive(scenario.Arrival(0.0, 'four', None))


def test_each_policy_puts_its_own_fit_in_place():
    stock = numa_fit.stock_fit()

    engine(MIXED, OURS)
    ours = nova_hardware.numa_fit_instance_to_host
    engine(MIXED, STOCK)

    assert ours is numa_fit.numa_fit_instance_to_host
    assert nova_hardware.numa_fit_instance_to_host is stock
