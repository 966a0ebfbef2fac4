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

"""The driver at the start of the service, and when guests start and end.

Its hooks in the life of an instance are tested with a whole Nova, in
``tests/nova_own``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import types

from nova import exception as nova_exception
from nova import objects
from nova.virt import event as virtevent
from nova.virt.libvirt import driver as libvirt_driver
import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.state import ledger
from nova_numa_hugepages.hugepages.state import lock
from nova_numa_hugepages.hugepages.state import service_lock
from nova_numa_hugepages.nova_fit import numa_fit
from tests.unit.hugepages import page_host
from tests.unit.libvirt.fake_nova import kernel_of
from tests.unit.libvirt.fake_nova import reported
from tests.unit.libvirt.fake_nova import warnings

STOCK = libvirt_driver.LibvirtDriver
ONE = page_host.guest(1)
POOL = model.PoolKey(0, 2048)

# A guest of 128 MiB on 2 MiB pages of node 0.
XML = """
<domain>
  <memory unit="MiB">128</memory>
  <memoryBacking>
    <hugepages><page size="2" unit="MiB"/></hugepages>
  </memoryBacking>
  <numatune><memory mode="strict" nodeset="0"/></numatune>
</domain>
"""


def test_no_attribute_hides_one_of_novas_driver(make):
    made = make({2048: 0})

    assert [name for name in vars(made) if hasattr(STOCK, name)] == []


def can_be_allocated(stats):
    """Return whether the scheduler is offered pages to be allocated."""
    return any(
        count
        for sizes in stats.allocatable.values()
        for count in sizes.values()
    )


def test_another_virt_type_is_logged_once_and_left_to_nova(
    make, options, caplog, tmp_path
):
    options('virt_type', 'lxc', 'libvirt')
    made = make({2048: 100})
    made.init_host('one')

    totals, stats = reported(made)

    assert totals == {0: {4: 1048576, 2048: 100}}
    assert stats is None
    (warning,) = warnings(caplog)
    assert 'lxc' in warning
    assert not (tmp_path / ledger.FILE_NAME).exists()
    assert numa_fit._SEAM.stock is None


def test_memory_in_files_leaves_no_huge_pages(make, options, caplog):
    options('file_backed_memory', 4096, 'libvirt')
    made = make({2048: 100})
    made.init_host('one')

    totals, stats = reported(made)

    # The pages are there, and are no memory for small ones.
    assert totals == {0: {4: 1048576 - 100 * 512, 2048: 0}}
    assert (stats.free, stats.allocatable) == ({}, {})
    (warning,) = warnings(caplog)
    assert '[libvirt] file_backed_memory' in warning


def test_a_kernel_without_huge_pages_is_logged_once(make, caplog, tmp_path):
    kernel = kernel_of(tmp_path, {})
    for folder in kernel.fs.sys.glob('devices/system/node/node*/hugepages'):
        shutil.rmtree(folder)
    made = make({}, kernel=kernel)
    made.init_host('one')

    totals, stats = reported(made)

    assert totals == {0: {4: 1048576}}
    # The fit is ours nevertheless, and the scheduler knows.
    assert stats == host_stats.HostStats(distances={0: (10,)})
    (warning,) = warnings(caplog)
    assert warning.startswith('No huge page support found;')
    assert not (tmp_path / ledger.FILE_NAME).exists()


def test_pools_that_cannot_be_changed_are_logged_once(
    make, caplog, monkeypatch
):
    monkeypatch.setattr(
        os,
        'statvfs',
        lambda path: types.SimpleNamespace(f_flag=os.ST_RDONLY),
    )
    made = make({2048: 100})
    made.init_host('one')

    totals, stats = reported(made)
    reported(made)

    assert totals[0][2048] == 100
    assert not can_be_allocated(stats)
    (warning,) = warnings(caplog)
    assert 'is mounted read-only' in warning


def test_a_helper_that_cannot_be_started_is_logged_at_the_start(make, caplog):
    def check():
        raise exception.PoolsReadOnly('the helper cannot be started')

    made = make({2048: 100}, check=check)
    made.init_host('one')

    totals, stats = reported(made)

    assert totals[0][2048] == 100
    assert not can_be_allocated(stats)
    (warning,) = warnings(caplog)
    assert '(the helper cannot be started)' in warning


def test_pools_that_cannot_be_changed_refuse_the_guest(make, caplog):
    # given: a helper that could be started, and then no longer
    made = make({2048: 0}, writer=hugetlb.refusing('no helper'))
    made.init_host('one')
    instance = objects.Instance(uuid=ONE, task_state=None)

    with pytest.raises(
        nova_exception.ComputeResourcesUnavailable, match='no helper'
    ):
        made._create_guest(None, XML, instance)

    assert 'Could not reserve huge pages: ' in caplog.text
    # Nor is the scheduler offered pages to be allocated from now on.
    _, stats = reported(made)
    assert not can_be_allocated(stats)


def test_a_damaged_ledger_stops_the_service(make, tmp_path):
    (tmp_path / ledger.FILE_NAME).write_bytes(b'not a database' * 1000)
    (tmp_path / ledger.FILE_NAME).chmod(0o600)
    made = make({2048: 100})

    with pytest.raises(exception.LedgerDamaged, match=r'[Mm]ove'):
        made.init_host('one')


def test_a_second_service_with_the_same_ledger_does_not_start(make, tmp_path):
    # given: another process that holds the lock of the service
    code = (
        'import pathlib, sys\n'
        'from nova_numa_hugepages.hugepages.state import service_lock\n'
        'service_lock.hold(pathlib.Path(sys.argv[1]))\n'
        'print("held", flush=True)\n'
        'sys.stdin.read()\n'
    )
    made = make({2048: 100})
    with subprocess.Popen(
        [sys.executable, '-c', code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout.readline() == b'held\n'

        # when, then
        with pytest.raises(lock.LockError, match='state_path') as caught:
            made.init_host('one')
        assert f'is held by process {other.pid} ' in str(caught.value)

        # and when: it has ended
        other.stdin.close()
        other.wait()
    made.init_host('one')


def test_a_service_that_stops_releases_its_lock(make, tmp_path):
    made = make({2048: 100})
    made.init_host('one')
    assert service_lock.holder(tmp_path) is not None

    made.cleanup_host('one')

    assert service_lock.holder(tmp_path) is None
    # A service that is restarted in its process starts again.
    made.init_host('one')


def test_a_missing_folder_stops_the_service(make, options, tmp_path):
    folder = tmp_path / 'none'
    options('state_path', str(folder))

    with pytest.raises(exception.LedgerError) as caught:
        make({2048: 100}).init_host('one')

    assert str(caught.value).endswith(
        f'cannot be created: {folder} is no folder. Create it, owned by the '
        'user of nova-compute.'
    )


def test_a_bad_option_stops_the_service(make, options):
    options('demand_mix', {'small': 'many'}, 'numa_hugepages')
    made = make({2048: 100})

    with pytest.raises(exception.InvalidOption, match='demand_mix'):
        made.init_host('one')


@pytest.fixture
def started(make, options, monkeypatch):
    """Start a driver with a guest whose pages were allocated for it."""
    options('powered_off_pages', 'release', 'numa_hugepages')
    made = make({2048: 0})

    def create(self, *args):
        made.kernel.start_guest(ONE, {POOL: 64})
        made._host.defined.append(ONE)

    monkeypatch.setattr(STOCK, '_create_guest', create)
    made.init_host('one')
    made._create_guest(None, XML, objects.Instance(uuid=ONE, task_state=None))
    assert made.kernel.pool(POOL).total == 64
    return made


@pytest.mark.parametrize(
    ('transition', 'pages'),
    [
        (virtevent.EVENT_LIFECYCLE_STARTED, 64),
        (virtevent.EVENT_LIFECYCLE_PAUSED, 64),
        (virtevent.EVENT_LIFECYCLE_STOPPED, 0),
    ],
)
def test_a_guest_that_powers_itself_off_releases_its_pages(
    started, transition, pages
):
    started.kernel.stop_guest(ONE)

    started.emit_event(virtevent.LifecycleEvent(ONE, transition))

    assert started.kernel.pool(POOL).total == pages
