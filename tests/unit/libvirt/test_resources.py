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

"""The page totals and stats that a host reports to the scheduler."""

from __future__ import annotations

import types

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.libvirt import resources
from tests.unit.libvirt.fake_nova import reported
from tests.unit.libvirt.fake_nova import warnings


def test_totals_are_pages_that_exist_and_that_can_be_allocated(make):
    made = make({2048: 0}, {2048: 512})
    made.init_host('one')

    totals, stats = reported(made)

    for node in (0, 1):
        total = totals[node][2048]
        existing = made.kernel.pool(model.PoolKey(node, 2048)).total
        assert stats.allocatable[node][2048] == total - existing
        assert stats.allocatable[node][2048] > 0
        assert stats.free[node][2048] == existing
        assert totals[node][4] == 1048576 - existing * 512
        assert total * 2048 <= 4096 * 1024
    assert stats.distances == {0: (10, 21), 1: (21, 10)}
    # The claim on this host uses the same stats.
    assert made._stats == stats


def test_totals_are_live(make):
    made = make({2048: 100}, {2048: 100})
    made.init_host('one')
    before, _ = reported(made)

    # Pages that others take are offered to no guest.
    made.kernel.take({model.PoolKey(0, 2048): 40})
    after, stats = reported(made)

    assert after[0][2048] == before[0][2048] - 40
    assert after[1] == before[1]
    assert stats.free[0][2048] == 60


def test_static_pools_offer_pages_that_exist(make, options):
    options('page_pools', 'static', 'numa_hugepages')
    made = make({2048: 100}, {2048: 0})
    made.init_host('one')

    totals, stats = reported(made)

    assert (totals[0][2048], totals[1][2048]) == (100, 0)
    none = {2048: 0, 1048576: 0}
    assert stats.allocatable == {0: none, 1: none}


def test_a_host_with_one_node(make, caplog):
    made = make({2048: 100})
    made.init_host('one')

    totals, stats = reported(made)

    assert totals.keys() == {0}
    assert stats.distances == {0: (10,)}
    assert warnings(caplog) == []


def test_the_last_known_state_is_reported_if_the_kernel_cannot_be_read(
    make, caplog
):
    made = make({2048: 100})
    made.init_host('one')
    before = reported(made)

    def broken(event):
        raise exception.KernelError('/sys/x', 'nothing', 'a number')

    made.kernel.hook = broken

    assert reported(made) == before
    assert '/sys/x' in caplog.text


def test_nodes_whose_distances_are_not_all_known_have_none():
    node = types.SimpleNamespace(distances={0: 10})

    assert resources.distances({0: node}, [0, 1]) == {}
    assert resources.distances({0: node}, [0]) == {0: (10,)}
