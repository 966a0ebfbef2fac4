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

from nova import objects
from nova.compute import resource_tracker

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import fragmentation
from nova_numa_hugepages.libvirt import resources
from tests.unit import nova_builders
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import small
from tests.unit.libvirt.fake_nova import reported
from tests.unit.libvirt.fake_nova import warnings
from tests.unit.nova_builders import UUID


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


def test_pages_that_others_have_a_right_to_are_not_offered(make, options):
    options('page_pools', 'static', 'numa_hugepages')
    made = make({2048: 500})
    made.init_host('one')

    # A program has mapped some and touched none.
    made.kernel.take({model.PoolKey(0, 2048): 300}, touch=False)
    totals, stats = reported(made)

    assert totals[0][2048] == 200
    assert stats.free[0][2048] == 200


def test_guests_that_nova_does_not_account_for(make, options):
    options('page_pools', 'static', 'numa_hugepages')
    known, moving, stranger = (
        f'{number}' * 8 + UUID[8:] for number in (1, 2, 3)
    )
    made = make({2048: 1000})
    tracker = resource_tracker.ResourceTracker('one', None, object())
    made.virtapi = types.SimpleNamespace(
        _compute=types.SimpleNamespace(rt=tracker)
    )
    made.init_host('one')
    for uuid, pages in ((known, 100), (moving, 200), (stranger, 300)):
        made.kernel.start_guest(uuid, {model.PoolKey(0, 2048): pages})
    made._host.defined = [known, moving, stranger]

    # The service has just started, and Nova accounts for nothing yet.
    assert reported(made)[0][0][2048] == 1000

    tracker.compute_nodes['one'] = None
    tracker.tracked_instances.add(known)
    tracker.tracked_migrations[moving] = None
    # Then Nova takes off 300 by itself; 400 are left.
    assert reported(made)[0][0][2048] == 700


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


def partial_host():
    """Describe a host with CPUs on nodes 0 and 1, and memory on 1 and 2."""
    return nova_builders.topology(
        host_cell(0, socket=0, memory_mib=0),
        host_cell(1, socket=0, pools=(small(1024), huge(8))),
        host_cell(2, cores=0, pools=(small(1024), huge(8))),
    )


def test_devices_by_socket_beside_a_node_without_cpus():
    found = partial_host()
    asked = nova_builders.card(policy='socket')
    cells = [objects.InstanceNUMACell(id=1, cpuset={0}, memory=64)]
    near = nova_builders.devices(found, {0: 1})
    far = nova_builders.devices(found, {2: 1})
    assert not near.support_requests([asked], None, cells)

    resources.describe_partial_nodes(found)

    assert near.support_requests([asked], None, cells)
    assert not far.support_requests([asked], None, cells)


def test_a_first_node_without_memory_has_all_page_sizes():
    found = partial_host()
    found.cells[0].mempages = []

    resources.describe_partial_nodes(found)

    # With the smallest alone, Nova takes no other for huge.
    assert [
        (pages.size_kb, pages.total) for pages in found.cells[0].mempages
    ] == [(fragmentation.BASE_KIB, 0), (2048, 0)]
    assert [len(cell.mempages) for cell in found.cells[1:]] == [2, 2]


def test_nodes_whose_distances_are_not_all_known_have_none():
    node = types.SimpleNamespace(distances={0: 10})

    assert resources.distances({0: node}, [0, 1]) == {}
    assert resources.distances({0: node}, [0]) == {0: (10,)}
