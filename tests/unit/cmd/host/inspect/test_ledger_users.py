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

"""The commands beside ``nova-compute``, and where it can't be seen."""

import errno
import functools
import json
import os

import pytest

from nova_numa_hugepages.hugepages.state import lock
from tests.unit.cmd.host import command_host
from tests.unit.cmd.host.command_host import ONE
from tests.unit.cmd.host.command_host import SMALL
from tests.unit.cmd.host.command_host import TWO

GONE = '--gone-without-domain'


@pytest.fixture
def host(tmp_path, monkeypatch):
    return command_host.to_be_healed(tmp_path, monkeypatch)


@pytest.fixture
def defined(monkeypatch):
    """Have libvirt know some guests."""
    return functools.partial(command_host.define, monkeypatch)


def test_a_service_that_runs_is_not_interfered_with(host, defined, capsys):
    host.long_ago()
    defined(ONE)
    host.open_ledger(4711, '/usr/bin/python3', '/usr/bin/nova-compute')

    assert host.run('reconcile', '--dry-run') == 3
    assert host.run('reconcile', GONE) == 1
    assert (
        f'Nothing was healed: process 4711 (nova-compute) has the ledger '
        f'{host.ledger} open, or another one.' in capsys.readouterr().err
    )
    assert host.holders() == {ONE: 64, TWO: 64}

    assert host.run('reconcile', '--force', GONE) == 0
    assert host.holders() == {ONE: 64}


def test_a_service_with_another_ledger_has_the_same_pools(
    host, defined, capsys
):
    defined(ONE, TWO)
    other = host.root / 'other' / host.ledger.name
    host.open_ledger(4711, '/usr/bin/nova-compute', path=other)

    assert host.run('reconcile') == 1

    assert 'process 4711 (nova-compute)' in capsys.readouterr().err


def test_a_ledger_that_has_another_name_in_a_container(host, defined, capsys):
    # given: the file of the ledger, under the name of a mount
    defined(ONE, TWO)
    alias = host.root / 'mounted'
    alias.hardlink_to(host.ledger)
    host.open_ledger(4711, '/usr/bin/nova-compute', path=alias)
    folder = host.root / 'proc/4711/fdinfo'
    folder.mkdir()
    (folder / '7').write_text(
        f'pos:\t0\nflags:\t02\nmnt_id:\t29\nino:\t{alias.stat().st_ino}\n'
    )

    # when, then
    assert host.run('reconcile') == 1
    assert 'process 4711 (nova-compute)' in capsys.readouterr().err


def test_a_ledger_elsewhere_is_known_by_its_name(host, defined):
    # given: a link to the ledger, and no number of the inode, which came with
    # Linux 5.14
    defined(ONE, TWO)
    real = host.ledger.rename(host.root / 'real')
    host.ledger.symlink_to(real)
    host.open_ledger(4711, '/usr/bin/nova-compute', path=real)

    # when, then
    assert host.run('reconcile') == 1


def test_disks_on_a_network_that_is_gone_are_not_waited_for(
    host, defined, monkeypatch
):
    # given: a guest's disk, for which stat() doesn't come back
    host.long_ago()
    defined(ONE, TWO)
    disk = host.root / 'mnt/disk'
    host.open_ledger(4711, '/usr/bin/qemu-system-x86_64', path=disk)
    folder = host.root / 'proc/4711/fdinfo'
    folder.mkdir()
    (folder / '7').write_text('pos:\t0\nflags:\t02\nmnt_id:\t31\nino:\t0\n')
    stat = os.stat

    def hangs(path, *args, **kwargs):
        assert not str(path).endswith('/4711/fd/7')
        return stat(path, *args, **kwargs)

    monkeypatch.setattr(os, 'stat', hangs)

    # when, then
    assert host.run('reconcile') == 0
    assert host.run('release', '--yes', TWO) == 0


def test_a_service_that_is_started_meanwhile(
    host, defined, capsys, monkeypatch
):
    # given: a service that is started while the lock is waited for
    host.long_ago()
    defined(ONE)
    enter = lock.HostLock.__enter__

    def started(self):
        if not (host.root / 'proc/4711').exists():
            host.open_ledger(4711, '/usr/bin/nova-compute')
        return enter(self)

    monkeypatch.setattr(lock.HostLock, '__enter__', started)

    # when, then
    assert host.run('reconcile', GONE) == 1
    assert 'process 4711 (nova-compute)' in capsys.readouterr().err
    assert host.holders() == {ONE: 64, TWO: 64}


@pytest.mark.parametrize(
    ('command', 'code'),
    [
        (('python3', '/bin/nova-numa-hugepages', 'host'), 0),
        (('/opt/bin/nova-numa-hugepages', 'host'), 0),
        (('nova-compute', '--config-dir', '/etc/nova-numa-hugepages'), 1),
        (
            ('python3', 'nova-compute', '--config-dir',
             '/etc/nova/nova-numa-hugepages'),
            1,
        ),
    ],
)  # fmt: skip
def test_which_process_is_one_of_these_commands(host, defined, command, code):
    defined(ONE, TWO)
    host.open_ledger(4711, *command)

    assert host.run('reconcile') == code


def test_the_command_does_not_take_itself_for_the_service(host, defined):
    defined(ONE, TWO)
    host.open_ledger(4711, 'python3', '-I', '/bin/nova-numa-hugepages')
    assert host.run('reconcile') == 1

    (host.root / 'proc/self').symlink_to('4711')
    assert host.run('reconcile') == 0


def test_files_of_processes_that_may_not_be_seen(
    host, defined, capsys, monkeypatch
):
    # given: a thread of the kernel, and a process, both of somebody else
    defined(ONE, TWO)
    names = os.listdir

    def listdir(path):
        if str(path).endswith(('/2/fd', '/4711/fd')):
            raise PermissionError(errno.EACCES, 'Permission denied')
        return names(path)

    monkeypatch.setattr(os, 'listdir', listdir)

    # when, then: nobody misses those of the kernel
    assert host.run('reconcile') == 0

    # when, then: of a process it isn't known whether it is the service
    host.process(4711, '/usr/bin/python3', '/usr/bin/nova-compute')
    assert host.run('reconcile') == 1
    assert (
        'whether nova-compute runs is not known, as this user may not see '
        'which files process 4711 (nova-compute) has open.'
        in capsys.readouterr().err
    )
    assert host.run('reconcile', '--force') == 0


@pytest.mark.parametrize('words', [('reconcile',), ('release', '--yes', TWO)])
@pytest.mark.parametrize('first', [None, 'sh'])
def test_without_the_process_ids_of_the_host_nothing_is_changed(
    host, defined, capsys, words, first
):
    # given: a container that doesn't see the guest that runs
    defined(ONE, TWO)
    path = host.root / 'proc/2/comm'
    path.unlink()
    if first:
        path.write_text(f'{first}\n')
    host.kernel.stop_guest(ONE)
    before = host.dump()

    # when, then
    assert host.run(*words) == 2
    said = f'{path}: expected kthreadd, found {first or "nothing"}. So these'
    err = capsys.readouterr().err
    assert said in err
    assert '(--pid=host)' in err
    assert host.dump() == before
    assert (host.total(0), host.total(1)) == (64, 64)

    # when, then: a look is warned of
    host.run('reconcile', '--dry-run')
    assert said in capsys.readouterr().err


def test_without_the_process_ids_of_the_host_nothing_is_guessed(host, capsys):
    # given: a container that has processes of its own only
    host.kernel.stop_guest(ONE)
    host.process(1, '/bin/sh')
    path = host.root / 'proc/2/comm'
    path.unlink()

    # when, then: rows
    assert host.run('show', '-f', 'json') == 0
    result = capsys.readouterr()
    assert f'{path}: expected kthreadd, found nothing.' in result.err
    assert 'Until then it is not known which guests run' in result.err
    (row,) = (
        row
        for row in json.loads(result.out)
        if (row['node'], row['size_kib']) == (1, SMALL)
    )
    assert [guest['has'] for guest in row['guests']] == [None]
    assert (row['held'], row['promised']) == (64, None)
    assert (row['available'], row['others']) == (None, None)

    # when, then: the picture
    assert host.run('show') == 0
    command_host.guests_unknown(capsys.readouterr().out, ONE, '64 on node 0')
