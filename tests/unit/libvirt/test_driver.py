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

"""The driver's own decisions: what it does on which host, and what it tells.

Its hooks on the roads of a guest are tested with a whole Nova, in
``tests/nova_own``.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import types

from nova import conf as nova_conf
from nova import exception as nova_exception
from nova import objects
from nova.virt import event as virtevent
from nova.virt.libvirt import config as vconfig
from nova.virt.libvirt import driver as libvirt_driver
import pytest

from nova_numa_hugepages import conf
from nova_numa_hugepages import exception
from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.state import ledger
from nova_numa_hugepages.libvirt import driver
from nova_numa_hugepages.libvirt import queries
from nova_numa_hugepages.libvirt import resources
from nova_numa_hugepages.libvirt import setup
from nova_numa_hugepages.nova_fit import numa_fit
from tests.fixtures import kernel as fake_kernel
from tests.unit.hugepages import page_host

CONF = nova_conf.CONF
STOCK = libvirt_driver.LibvirtDriver
ONE = page_host.guest(1)

objects.register_all()


@pytest.fixture
def options(tmp_path):
    """Set options for one test."""
    conf.register_opts(CONF)
    done = []

    def set_option(name, value, group=None):
        CONF.set_override(name, value, group)
        done.append((name, group))

    set_option('state_path', str(tmp_path))
    set_option('virt_type', 'kvm', 'libvirt')
    set_option('node_free_memory_mib', 64, 'numa_hugepages')
    yield set_option
    for name, group in done:
        CONF.clear_override(name, group)


class Host:
    """What the driver asks of libvirt."""

    def __init__(self):
        self.defined = []
        self.version = (9, 0, 0)

    def list_guests(self, only_running):
        assert only_running is False
        return [types.SimpleNamespace(uuid=uuid) for uuid in self.defined]

    def get_hostname(self):
        return 'one'

    def has_min_version(self, version):
        return self.version >= version


def topology(*pools):
    """What Nova reads of libvirt once: nodes of 4 GiB with pools."""
    return objects.NUMATopology(
        cells=[
            objects.NUMACell(
                id=node,
                cpuset=set(),
                pcpuset={node},
                memory=4096,
                cpu_usage=0,
                memory_usage=0,
                pinned_cpus=set(),
                siblings=[],
                socket=node,
                network_metadata=objects.NetworkMetadata(
                    physnets=set(), tunneled=False
                ),
                mempages=[
                    objects.NUMAPagesTopology(
                        size_kb=size, total=total, used=0, reserved=0
                    )
                    for size, total in ((4, 1048576), *sizes.items())
                ],
            )
            for node, sizes in enumerate(pools)
        ]
    )


def kernel_of(tmp_path, *pools):
    """Pretend a kernel whose nodes have 4 GiB and some pools."""
    return fake_kernel.FakeKernel(
        tmp_path / 'kernel',
        {
            node: fake_kernel.FakeNode(total=4096, used=64, pools=sizes)
            for node, sizes in enumerate(pools)
        },
    )


@pytest.fixture
def make(options, monkeypatch, tmp_path):
    """Make a driver on a kernel, without the rest of Nova's driver."""
    monkeypatch.setattr(STOCK, '__init__', lambda *args: None)
    monkeypatch.setattr(STOCK, 'init_host', lambda self, host: None)
    monkeypatch.setattr(STOCK, 'emit_event', lambda self, event: None)

    def get_resources(self, nodename):
        found = self._get_host_numa_topology()
        return {
            'numa_topology': found and found._to_json(),
            'stats': {'uptime': 'long'},
        }

    monkeypatch.setattr(STOCK, 'get_available_resource', get_resources)

    def make_driver(*pools, kernel=None, check=None):
        kernel = kernel or kernel_of(tmp_path, *pools)
        monkeypatch.setattr(
            STOCK, '_get_host_numa_topology', lambda self: topology(*pools)
        )
        monkeypatch.setattr(
            setup,
            'host',
            lambda: setup.Access(
                kernel.fs, kernel, kernel.read_maps, lambda: check and check()
            ),
        )
        made = driver.NUMAHugepagesDriver(None)
        made._host = Host()
        made.kernel = kernel
        return made

    yield make_driver
    numa_fit.uninstall()


def told(made):
    """Ask what the scheduler is told: totals by cell and size, and facts."""
    found = made.get_available_resource('one')
    cells = objects.NUMATopology.obj_from_db_obj(found['numa_topology']).cells
    totals = {
        cell.id: {page.size_kb: page.total for page in cell.mempages}
        for cell in cells
    }
    stats = found['stats']
    assert stats['uptime'] == 'long'
    known = stats.get(host_stats.STATS_KEY)
    return totals, None if known is None else host_stats.parse(known)


def can_be_made(known):
    """Tell whether the scheduler is told of pages that could be made."""
    return any(
        count
        for sizes in known.allocatable.values()
        for count in sizes.values()
    )


def warnings(caplog):
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING
    ]


def test_totals_are_what_is_there_and_what_can_be_made(make):
    made = make({2048: 0}, {2048: 512})
    made.init_host('one')

    totals, known = told(made)

    for node in (0, 1):
        total = totals[node][2048]
        there = made.kernel.pool(model.PoolKey(node, 2048)).total
        assert known.allocatable[node][2048] == total - there
        assert known.allocatable[node][2048] > 0
        assert known.free[node][2048] == there
        assert totals[node][4] == 1048576 - there * 512
        assert total * 2048 <= 4096 * 1024
    assert known.distances == {0: (10, 21), 1: (21, 10)}
    # The claim on this host goes by the same facts.
    assert made._facts == known


def test_totals_are_live(make):
    made = make({2048: 100}, {2048: 100})
    made.init_host('one')
    before, _ = told(made)

    # Pages that others take are offered to no guest.
    made.kernel.take({model.PoolKey(0, 2048): 40})
    after, known = told(made)

    assert after[0][2048] == before[0][2048] - 40
    assert after[1] == before[1]
    assert known.free[0][2048] == 60


def test_static_pools_offer_what_is_there(make, options):
    options('page_pools', 'static', 'numa_hugepages')
    made = make({2048: 100}, {2048: 0})
    made.init_host('one')

    totals, known = told(made)

    assert (totals[0][2048], totals[1][2048]) == (100, 0)
    assert not can_be_made(known)


def test_a_host_with_one_node(make, caplog):
    made = make({2048: 100})
    made.init_host('one')

    totals, known = told(made)

    assert totals.keys() == {0}
    assert known.distances == {0: (10,)}
    assert warnings(caplog) == []


def test_another_kind_of_guest_is_told_once_and_left_to_nova(
    make, options, caplog, tmp_path
):
    options('virt_type', 'lxc', 'libvirt')
    made = make({2048: 100})
    made.init_host('one')

    totals, known = told(made)

    assert totals == {0: {4: 1048576, 2048: 100}}
    assert known is None
    (warning,) = warnings(caplog)
    assert 'lxc' in warning
    assert not (tmp_path / ledger.FILE_NAME).exists()
    assert numa_fit._SEAM.stock is None


def test_a_kernel_without_huge_pages_is_told_once(make, caplog, tmp_path):
    kernel = kernel_of(tmp_path, {})
    for folder in kernel.fs.sys.glob('devices/system/node/node*/hugepages'):
        shutil.rmtree(folder)
    made = make({}, kernel=kernel)
    made.init_host('one')

    totals, known = told(made)

    assert totals == {0: {4: 1048576}}
    # The fit is ours all the same, and the scheduler knows it.
    assert known == host_stats.HostStats(distances={0: (10,)})
    (warning,) = warnings(caplog)
    assert 'has no huge pages' in warning
    assert not (tmp_path / ledger.FILE_NAME).exists()


def test_pools_that_cannot_be_changed_are_told_once(make, caplog, monkeypatch):
    monkeypatch.setattr(
        hugetlb, 'writable', lambda fs: '/sys is mounted read-only'
    )
    made = make({2048: 100})
    made.init_host('one')

    totals, known = told(made)
    told(made)

    assert totals[0][2048] == 100
    assert not can_be_made(known)
    (warning,) = warnings(caplog)
    assert '/sys is mounted read-only' in warning


def test_a_helper_that_cannot_be_started_is_told_at_the_start(make, caplog):
    def check():
        raise exception.PoolsReadOnly('the helper cannot be started')

    made = make({2048: 100}, check=check)
    made.init_host('one')

    totals, known = told(made)

    assert totals[0][2048] == 100
    assert not can_be_made(known)
    (warning,) = warnings(caplog)
    assert 'read-only (the helper cannot be started)' in warning


def test_pools_that_cannot_be_changed_refuse_the_guest(
    make, monkeypatch, caplog
):
    def refuse(self, *args, **kwargs):
        raise exception.PoolsReadOnly('no helper')

    made = make({2048: 100})
    made.init_host('one')
    monkeypatch.setattr(made._keeper, 'starting', refuse.__get__(made._keeper))
    instance = objects.Instance(uuid=ONE, task_state=None)

    with pytest.raises(
        nova_exception.ComputeResourcesUnavailable, match='no helper'
    ):
        made._create_guest(None, '<domain/>', instance)


def test_a_damaged_ledger_stops_the_service(make, tmp_path):
    (tmp_path / ledger.FILE_NAME).write_bytes(b'not a database' * 1000)
    (tmp_path / ledger.FILE_NAME).chmod(0o600)
    made = make({2048: 100})

    with pytest.raises(exception.LedgerDamaged, match=r'[Mm]ove'):
        made.init_host('one')


def test_a_bad_option_stops_the_service(make, options):
    options('demand_mix', {'small': 'many'}, 'numa_hugepages')
    made = make({2048: 100})

    with pytest.raises(exception.InvalidOption, match='demand_mix'):
        made.init_host('one')


def test_what_was_known_is_told_if_the_kernel_cannot_be_read(
    make, monkeypatch, caplog
):
    made = make({2048: 100})
    made.init_host('one')
    before = told(made)

    def broken(*args, **kwargs):
        raise exception.KernelError('/sys/x', 'nothing', 'a number')

    monkeypatch.setattr(made._keeper, 'snapshot', broken)

    assert told(made) == before
    assert '/sys/x' in caplog.text


def test_a_guest_that_ends_by_itself_is_seen(make, options, monkeypatch):
    made = make({2048: 100})
    made.init_host('one')
    seen = []
    monkeypatch.setattr(made._keeper, 'stopped', seen.append)

    for transition in (
        virtevent.EVENT_LIFECYCLE_STARTED,
        virtevent.EVENT_LIFECYCLE_STOPPED,
        virtevent.EVENT_LIFECYCLE_PAUSED,
    ):
        made.emit_event(virtevent.LifecycleEvent(ONE, transition))

    assert seen == [ONE]


def test_libvirt_that_does_not_answer_makes_no_guest_gone(caplog):
    class Broken:
        def list_guests(self, only_running):
            raise nova_exception.HypervisorUnavailable()

        def get_guest(self, instance):
            raise nova_exception.InternalError('broken')

    assert queries.defined(Broken()) is None
    assert queries.is_defined(Broken(), None) is True
    assert 'no guest counts as gone' in caplog.text


def backing_of(monkeypatch, made, *, huge):
    def stock(self, *args):
        backing = vconfig.LibvirtConfigGuestMemoryBacking()
        if huge:
            page = vconfig.LibvirtConfigGuestMemoryBackingPage()
            page.size_kb, page.nodeset = 2048, [0]
            backing.hugepages = [page]
        return backing

    monkeypatch.setattr(STOCK, '_get_guest_memory_backing_config', stock)
    found = made._get_guest_memory_backing_config(None, None, None, None)
    allocation = found.format_dom().find('allocation')
    return None if allocation is None else dict(allocation.attrib)


@pytest.mark.parametrize(
    ('huge', 'threads', 'version', 'expected'),
    [
        (True, 8, (8, 2, 0), {'mode': 'immediate', 'threads': '8'}),
        (True, 2, (9, 0, 0), {'mode': 'immediate', 'threads': '2'}),
        (True, 8, (8, 1, 9), None),
        (True, 0, (9, 0, 0), None),
        (False, 8, (9, 0, 0), None),
    ],
)
def test_the_threads_that_take_memory(
    make, options, monkeypatch, huge, threads, version, expected
):
    options('prealloc_threads', threads, 'numa_hugepages')
    made = make({2048: 100})
    made._host.version = version

    assert backing_of(monkeypatch, made, huge=huge) == expected


@pytest.mark.parametrize('huge', [True, False])
def test_huge_pages_are_not_returned_through_the_balloon(make, options, huge):
    options('mem_stats_period_seconds', 10, 'libvirt')
    guest = vconfig.LibvirtConfigGuest()
    guest.membacking = vconfig.LibvirtConfigGuestMemoryBacking()
    if huge:
        page = vconfig.LibvirtConfigGuestMemoryBackingPage()
        page.size_kb, page.nodeset = 2048, [0]
        guest.membacking.hugepages = [page]
    guest.add_device(vconfig.LibvirtConfigGuestSerial())

    make({2048: 100})._guest_add_memory_balloon(guest)

    _, balloon = [device.format_dom() for device in guest.devices]
    # Nova before 34 doesn't ask for it at all.
    stock = vconfig.LibvirtConfigMemoryBalloon().format_dom()
    assert balloon.get('freePageReporting') == (
        'off' if huge else stock.get('freePageReporting')
    )
    assert balloon.find('stats').get('period') == '10'


@pytest.mark.parametrize(
    ('extra_specs', 'distances'),
    [
        ({}, None),
        ({'numa_hugepages:guest_distances': 'false'}, None),
        ({'numa_hugepages:guest_distances': 'true'}, [(10, 21), (21, 10)]),
    ],
)
def test_the_guest_is_told_distances_if_its_flavor_says_so(
    make, monkeypatch, extra_specs, distances
):
    made = make({2048: 100}, {2048: 100})
    made.init_host('one')
    told(made)
    cells = [vconfig.LibvirtConfigGuestCPUNUMACell() for _ in range(2)]

    def stock(self, *args):
        numa = vconfig.LibvirtConfigGuestCPUNUMA()
        numa.cells = list(cells)
        return libvirt_driver.GuestNumaConfig(None, None, numa, object())

    monkeypatch.setattr(STOCK, '_get_guest_numa_config', stock)
    config = made._get_guest_numa_config(
        types.SimpleNamespace(
            cells=[types.SimpleNamespace(id=i) for i in (1, 0)]
        ),
        types.SimpleNamespace(extra_specs=extra_specs),
        None,
    )

    found = [
        getattr(cell, 'distances', None) for cell in config.numaconfig.cells
    ]
    assert found == (distances or [None, None])


def test_distances_of_another_host(monkeypatch, caplog):
    nodes = {
        'good': {host_stats.STATS_KEY: host_stats.HostStats(
            distances={0: (10, 21), 1: (21, 10)}
        ).dump()},
        'stock': {},
        'broken': {host_stats.STATS_KEY: '{'},
    }  # fmt: skip

    def find(context, host):
        if host not in nodes:
            raise nova_exception.ComputeHostNotFound(host=host)
        return types.SimpleNamespace(stats=nodes[host])

    monkeypatch.setattr(
        objects.ComputeNode, 'get_first_node_by_host_for_old_compat', find
    )

    assert queries.distances_at(None, 'good', [1, 0]) == [[10, 21], [21, 10]]
    for host in ('stock', 'broken', 'missing'):
        assert queries.distances_at(None, host, [0, 1]) is None
        assert host in caplog.text


def test_nodes_whose_distances_are_not_all_known_have_none():
    node = types.SimpleNamespace(distances={0: 10})

    assert resources.distances({0: node}, [0, 1]) == {}
    assert resources.distances({0: node}, [0]) == {0: (10,)}


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
