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
import dataclasses
import types

from nova import exception as nova_exception
from nova import objects
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.virt.libvirt import driver as libvirt_driver
from nova.virt.libvirt import host as libvirt_host
import pytest

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.libvirt import elastic_sizes
from tests.unit.hugepages import page_host

STOCK = libvirt_driver.LibvirtDriver
ONE = page_host.guest(1)
GUEST = model.Purpose.GUEST


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


NEED = model.PageNeed(0, 0, 2048, 40, 40, 60)
ELASTIC = {'numa_hugepages:elastic_base_percent': '50'}


def moving(monkeypatch, specs=ELASTIC, **values):
    """An instance that migrates, in a database."""
    instance = objects.Instance(
        uuid=ONE,
        host='one',
        flavor=objects.Flavor(extra_specs=specs),
        system_metadata=dict(values),
    )
    stored = {}
    monkeypatch.setattr(
        objects.Instance,
        'save',
        lambda self: stored.update(self.system_metadata),
    )
    monkeypatch.setattr(
        objects.Instance,
        'get_by_uuid',
        lambda context, uuid, expected_attrs: objects.Instance(
            uuid=uuid, host='one', system_metadata={**values, **stored}
        ),
    )
    return instance


def source(make, monkeypatch):
    """The driver of a host on which an elastic guest runs."""
    made = make({2048: 100})
    made.init_host('one')
    made._manager._pools.hold(ONE, [NEED])
    made.kernel.start_guest(ONE, {NEED.key: 40})
    made._manager._pools.mark_taken(ONE)
    made._manager.resize(ONE, {0: 50})
    made._manager._pools.put_size(ONE, 0, model.Size(102400, 1.0, 'a test'))
    return made


def test_the_destination_learns_what_an_elastic_guest_has(make, monkeypatch):
    instance = moving(monkeypatch)
    made = source(make, monkeypatch)
    monkeypatch.setattr(
        STOCK, 'check_can_live_migrate_source', lambda *args: 'data'
    )

    assert made.check_can_live_migrate_source(None, instance, None) == 'data'

    with made._manager.undisturbed(ONE) as is_free:
        assert not is_free
    whole = NEED._replace(pages=60, base=0, ceiling=0)
    assert elastic_sizes.of_incoming(instance, [whole]) == (
        [NEED._replace(pages=50)],
        {0: 102400},
    )
    monkeypatch.setattr(STOCK, 'live_migration', lambda *args: None)
    made.live_migration(None, instance, 'two', None, None)
    with made._manager.undisturbed(ONE) as is_free:
        assert is_free


def test_a_migration_that_is_refused_freezes_nothing(make, monkeypatch):
    instance = moving(monkeypatch)
    made = source(make, monkeypatch)

    def refuse(*args):
        raise nova_exception.MigrationPreCheckError(reason='no')

    monkeypatch.setattr(STOCK, 'check_can_live_migrate_source', refuse)
    with pytest.raises(nova_exception.MigrationPreCheckError):
        made.check_can_live_migrate_source(None, instance, None)

    with made._manager.undisturbed(ONE) as is_free:
        assert is_free


def test_a_database_that_does_not_answer_refuses_the_migration(
    make, monkeypatch
):
    instance = moving(monkeypatch)
    made = source(make, monkeypatch)

    def fail(self):
        raise nova_exception.InstanceNotFound(instance_id=ONE)

    monkeypatch.setattr(objects.Instance, 'save', fail)
    with pytest.raises(nova_exception.MigrationPreCheckError):
        made.check_can_live_migrate_source(None, instance, None)

    with made._manager.undisturbed(ONE) as is_free:
        assert is_free


WHOLE = [model.PageNeed(0, 0, 2048, 60), model.PageNeed(1, 1, 2048, 30)]


@pytest.mark.parametrize(
    'text',
    [
        '',
        'two 50/40 -',
        'one 50/40',
        'one 61/40 -',
        'one 30/40 -',
        'one 0/0 -',
        'one x -',
        'one 50/40/3 -',
        '{"0": [50, 40, 60]}',
    ],
)
def test_what_is_not_known_of_a_guest_is_held_whole(monkeypatch, text):
    instance = moving(monkeypatch, numa_hugepages_elastic_pages=text)

    assert elastic_sizes.of_incoming(instance, WHOLE) == (WHOLE, {})


def test_an_ordinary_guest_is_held_whole(monkeypatch):
    instance = moving(
        monkeypatch, {}, numa_hugepages_elastic_pages='one 50/40 -'
    )

    assert elastic_sizes.of_incoming(instance, WHOLE) == (WHOLE, {})


def test_the_sizes_of_many_cells_have_room(monkeypatch):
    instance = moving(monkeypatch)
    held = [
        model.Hold(
            ONE, GUEST, cell, cell, 2048, 131072, base=65536, ceiling=262144
        )
        for cell in range(16)
    ]

    elastic_sizes.tell(instance, held, {})

    text = instance.system_metadata['numa_hugepages_elastic_pages']
    assert 200 < len(text) <= 255


def test_a_guest_starts_again_with_what_it_holds(monkeypatch):
    monkeypatch.setattr(libvirt_host, 'libvirt', fakelibvirt)
    defined = []
    xml = (
        '<domain><devices><memory model="virtio-mem"><target>'
        '<size unit="KiB">524288</size><node>0</node>'
        '<requested unit="KiB">0</requested></target></memory>'
        '<memory model="nvdimm"><target><node>0</node></target></memory>'
        '</devices></domain>'
    )
    guest = types.SimpleNamespace(
        _domain=types.SimpleNamespace(XMLDesc=lambda flags: xml)
    )
    host = types.SimpleNamespace(write_instance_config=defined.append)
    hold = model.Hold(ONE, GUEST, 0, 0, 2048, 50, base=40, ceiling=60)

    elastic_sizes.keep_for_next_start(host, guest, [hold])
    elastic_sizes.keep_for_next_start(
        host, guest, [dataclasses.replace(hold, base=0, ceiling=0)]
    )

    assert defined == [xml.replace('>0</requested', '>20480</requested')]
