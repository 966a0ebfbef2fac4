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

"""Tests of how far the memory and the CPUs of instances lie apart."""

from __future__ import annotations

import dataclasses

from nova import objects
import pytest

from nova_numa_hugepages.simulate import engine
from nova_numa_hugepages.simulate import fleet
from nova_numa_hugepages.simulate import locality
from nova_numa_hugepages.simulate import results
from nova_numa_hugepages.simulate import scenario
from tests.unit.simulate import running
from tests.unit.simulate.scenes import flavor
from tests.unit.simulate.scenes import host
from tests.unit.simulate.scenes import node
from tests.unit.simulate.scenes import pinned
from tests.unit.simulate.scenes import play
from tests.unit.simulate.simulated import OURS

NEAR_AND_FAR = ((10, 12, 21), (12, 10, 21), (21, 21, 10))


@pytest.fixture(autouse=True)
def nova():
    with running.nova():
        yield


def machine(**fields):
    return host(
        *(node(4, 8192) for _ in range(3)), distances=NEAR_AND_FAR, **fields
    )


def topology(*cells):
    """Cells on nodes, each with a vCPU and some MiB."""
    return objects.InstanceNUMATopology(
        cells=[
            objects.InstanceNUMACell(
                id=on, cpuset=set(), pcpuset={number}, memory=mib
            )
            for number, (on, mib) in enumerate(cells)
        ]
    )


def placed(*guests, latency_ns=None, kind=None):
    """Place guests of 1024 MiB; None floats."""
    found = locality.Placements(latency_ns or {})
    for cells in guests:
        found.add(
            kind or machine(),
            fleet.nova_flavor(flavor('any', 1)),
            cells and topology(*cells),
        )
    return found.result()


def test_nothing_was_placed():
    assert placed() is None


def test_one_cell_is_near():
    assert placed([(1, 1024)]) == (None, None, 0.0, 0.0, None)


def test_the_distance_is_that_of_the_pairs():
    found = placed([(0, 512), (1, 512)], [(0, 300), (1, 300), (2, 424)])
    assert found.distance == (12 + 18) / 2
    assert found.distance_p95 == 18
    assert found.over_sockets_share == 1.0


def test_most_are_not_farther_than_the_percentile():
    near, far = [(0, 512), (1, 512)], [(0, 512), (2, 512)]
    assert placed(*[near] * 19, far).distance_p95 == 12
    assert placed(*[near] * 18, far, far).distance_p95 == 21


def test_nodes_of_one_socket_are_no_several():
    nodes = [
        dataclasses.replace(node(4, 8192), socket=number // 2)
        for number in range(4)
    ]
    kind = host(*nodes)
    guests = [(0, 512), (1, 512)], [(1, 512), (2, 512)], [(3, 1024)]
    assert placed(*guests, kind=kind).over_sockets_share == pytest.approx(
        1 / 3
    )


def test_what_floats_is_remote_by_expectation():
    found = placed(None, [(0, 1024)])
    # Two thirds of what floats, which is half of the memory.
    assert found.remote_share == pytest.approx(1 / 3)
    uneven = host(node(3, 8192), node(1, 24576))
    assert placed(None, kind=uneven).remote_share == pytest.approx(
        1 - (3 / 4 * 1 / 4 + 1 / 4 * 3 / 4)
    )


def test_an_access_takes_as_long_as_its_distance():
    latency = {10: 100.0, 20: 200.0}
    assert placed([(0, 1024)], latency_ns=latency).latency_ns == 100
    # Half of all accesses go to the other cell; 12 is between the two.
    near = placed([(0, 512), (1, 512)], latency_ns=latency)
    assert near.latency_ns == pytest.approx((100 + 120) / 2)
    # Beyond what is known it takes as long.
    far = placed([(0, 512), (2, 512)], latency_ns=latency)
    assert far.latency_ns == pytest.approx((100 + 200) / 2)
    assert placed(
        [(0, 1024)], latency_ns={15: 7.0, 20: 9.0}
    ).latency_ns == pytest.approx(7)


def test_a_run_has_it_of_the_guests_that_count():
    scene = play(
        [machine()],
        [pinned('twin', 2, numa_nodes=2)],
    )
    task = scenario.Task(scene, OURS, results.Phase.FILL, 1)
    run = engine.Engine(task).run()
    assert run.locality.distance is not None
    assert 12 <= run.locality.distance <= 21
