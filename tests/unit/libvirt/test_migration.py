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

"""The driver's hooks for migrations.

More of them are tested with a whole Nova, in ``tests/nova_own``.
"""

from __future__ import annotations

import contextlib

from nova import exception as nova_exception
from nova import objects
from nova.virt.libvirt import driver as libvirt_driver
import pytest

from tests.unit.hugepages import page_host

STOCK = libvirt_driver.LibvirtDriver
ONE = page_host.guest(1)


@pytest.mark.parametrize(
    ('fails', 'since', 'expected'),
    [
        pytest.param(False, None, [[1], [0]], id='as Nova leaves it'),
        pytest.param(True, None, [[1], [0]], id='Nova fails'),
        pytest.param(False, [2], [[1]], id='resized meanwhile'),
    ],
)
def test_an_aborted_live_migration_leaves_the_plan_of_the_source(
    make, monkeypatch, fails, since, expected
):
    stored = []

    def save(instance):
        stored.append([cell.id for cell in instance.numa_topology.cells])

    def rollback(self, context, instance):
        # As Nova does when it has deleted the disks.
        instance.save()
        if fails:
            raise nova_exception.InternalError('broken')

    def plans(*nodes):
        return objects.InstanceNUMATopology(
            cells=[objects.InstanceNUMACell(id=node) for node in nodes]
        )

    monkeypatch.setattr(objects.Instance, 'save', save)
    monkeypatch.setattr(
        objects.InstanceNUMATopology,
        'get_by_instance_uuid',
        lambda context, uuid: plans(*(since or stored[-1])),
    )
    monkeypatch.setattr(
        STOCK, 'rollback_live_migration_at_destination', rollback
    )
    made = make({2048: 100}, {2048: 100})
    made.init_host('one')
    instance = objects.Instance(
        uuid=ONE,
        numa_topology=plans(0),
        pci_requests=None,
        pci_devices=None,
        resources=None,
        migration_context=objects.MigrationContext(
            old_numa_topology=plans(0), new_numa_topology=plans(1)
        ),
    )

    with (
        pytest.raises(nova_exception.InternalError)
        if fails
        else contextlib.nullcontext(),
        instance.mutated_migration_context(),
    ):
        made.rollback_live_migration_at_destination(None, instance)

    assert stored == expected
