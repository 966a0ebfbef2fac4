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

"""``host reconcile``: what has come apart is told, and healed."""

import os
import sqlite3

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.cmd.host import domains
from nova_numa_hugepages.virt import guests
from nova_numa_hugepages.virt import hugetlb
from nova_numa_hugepages.virt import ledger as ledger_module
from nova_numa_hugepages.virt import pages
from tests.fixtures import kernel
from tests.unit import hosted
from tests.unit.hosted import ONE
from tests.unit.hosted import SMALL
from tests.unit.hosted import THREE
from tests.unit.hosted import TWO


@pytest.fixture
def host(tmp_path, monkeypatch):
    """One guest runs, another is off, each on 64 pages made for it."""
    host = hosted.Host(tmp_path, {0: kernel.FakeNode(), 1: kernel.FakeNode()})
    host.hold(ONE, (0, 64))
    host.hold(TWO, (1, 64))
    host.start(ONE, {0: 64})
    monkeypatch.setattr(hugetlb, 'DirectWriter', lambda fs: host.kernel)
    host.mount(monkeypatch)
    return host


@pytest.fixture
def defined(monkeypatch):
    """Have libvirt know some guests."""

    def defined(*uuids):
        monkeypatch.setattr(
            domains,
            'defined',
            lambda uri, running: (frozenset(uuids), 'libvirt knows them'),
        )

    return defined


def long_ago(host):
    """Make all holds so old that no guest is starting any more."""
    with ledger_module.Ledger.open(host.ledger) as ledger:
        for hold in ledger.holds():
            ledger.replace_holds(
                hold.holder,
                hold.purpose,
                [
                    pages.Hold(
                        hold.holder, hold.purpose, hold.cell, hold.node,
                        hold.size_kib, hold.pages, hold.grown, hold.state,
                        since=1.0,
                    )
                ],
            )  # fmt: skip


def test_nothing_to_heal(host, defined, capsys):
    defined(ONE, TWO)

    assert host.run('reconcile', '--dry-run') == 0
    assert host.run('reconcile') == 0

    assert capsys.readouterr().out == 'Nothing to heal.\n' * 2


def test_a_guest_that_is_gone(host, defined, capsys):
    # given
    long_ago(host)
    defined(ONE)

    # when, then: a look changes nothing
    assert host.run('reconcile', '--dry-run') == 3
    assert f'- guest {TWO} is gone, so its pages were released' in (
        capsys.readouterr().out
    )
    assert host.holders() == {ONE: 64, TWO: 64}
    assert host.total(1) == 64

    # when, then: healed, it is healed
    assert host.run('reconcile') == 0
    result = capsys.readouterr()
    assert result.out.startswith('Healed:\n')
    assert f'- guest {TWO} is gone, so its pages were released' in result.out
    assert '64' in result.out
    assert result.err == ''
    assert host.holders() == {ONE: 64}
    assert (host.total(0), host.total(1)) == (64, 0)
    assert host.run('reconcile') == 0
    assert capsys.readouterr().out == 'Nothing to heal.\n'


def test_a_guest_that_may_be_starting_is_left_alone(host, defined, capsys):
    defined(ONE)

    assert host.run('reconcile') == 0

    assert capsys.readouterr().out == 'Nothing to heal.\n'
    assert host.holders() == {ONE: 64, TWO: 64}


def test_a_migration_is_left_to_nova(host, defined):
    host.hold(THREE, (1, 8), purpose=pages.Purpose.INCOMING)
    long_ago(host)
    defined(ONE, TWO)

    host.run('reconcile')

    assert host.holders()[THREE] == 8


def test_without_libvirt_nobody_is_taken_for_gone(host, capsys):
    long_ago(host)

    code = host.run('reconcile', '--dry-run')

    result = capsys.readouterr()
    assert 'Which guests are defined is not known' in result.err
    assert 'libvirt is not asked with --root' in result.err
    assert 'gone' not in result.out
    assert code == 3
    assert f'guest {ONE} runs on the pages that were held' in result.out


def test_what_the_operator_changed(host, defined, capsys):
    defined(ONE, TWO)
    host.kernel.operator_writes(pages.PoolKey(0, SMALL), 100)

    assert host.run('reconcile') == 0

    assert (
        f'36 pages of {pages.PoolKey(0, SMALL)} were added by someone else'
        in capsys.readouterr().out
    )


def test_what_cannot_be_healed_is_told_again(host, defined, capsys):
    # given: pages of a guest that is off were taken away, and none can be made
    defined(ONE, TWO)
    host.kernel.operator_writes(pages.PoolKey(1, SMALL), 0)
    host.kernel.fragment(1, 4 * 1024**2, mendable_kib=0)

    # when
    code = host.run('reconcile', '--config-file', str(quick(host)))

    # then
    out = capsys.readouterr().out
    assert code == 3
    assert 'Still to heal:' in out
    assert (
        f'- 64 of 64 pages of {pages.PoolKey(1, SMALL)} that are promised to '
        'guests are missing' in out
    )


def quick(host):
    """Configure a time limit that a test can wait for."""
    path = host.state / 'nova.conf'
    path.write_text('[numa_hugepages]\ngrow_time_limit = 1\n')
    return path


def test_a_ledger_that_is_too_new(host, capsys):

    with sqlite3.connect(host.ledger) as connection:
        connection.execute('PRAGMA user_version = 999')

    assert host.run('reconcile') == 1

    assert str(host.ledger) in capsys.readouterr().err


def test_no_ledger(host, capsys):
    host.ledger.unlink()

    assert host.run('reconcile', '--dry-run') == 1

    assert str(host.ledger) in capsys.readouterr().err


def test_a_host_that_cannot_be_read_leaves_the_ledger_alone(
    host, defined, capsys
):
    # given: much to heal, and a file of the kernel that is missing
    long_ago(host)
    defined(ONE)
    host.kernel.operator_writes(pages.PoolKey(0, SMALL), 100)
    before = dump(host)
    path = host.root / f'sys/kernel/mm/hugepages/hugepages-{SMALL}kB'
    (path / 'resv_hugepages').unlink()

    # when, then
    assert host.run('reconcile') == 1
    assert 'resv_hugepages' in capsys.readouterr().err
    assert dump(host) == before


def dump(host):
    """Get all that is in the ledger."""
    with sqlite3.connect(host.ledger) as connection:
        return list(connection.iterdump())


def test_what_else_there_is_to_heal_is_not_known(host, capsys):
    assert host.run('reconcile') == 0

    assert capsys.readouterr().out == 'Nothing else to heal.\n'


def test_a_dry_run_counts_as_the_real_one_does(host, defined, capsys):
    # given: 24 of the 64 pages of a guest that is off were taken away
    defined(ONE, TWO)
    host.kernel.operator_writes(pages.PoolKey(1, SMALL), 40)
    text = (
        f'- 24 of 64 pages of {pages.PoolKey(1, SMALL)} that are promised to '
        'guests '
    )

    # when, then
    assert host.run('reconcile', '--dry-run') == 3
    assert f'{text}are missing\n' in capsys.readouterr().out
    assert host.run('reconcile') == 0
    assert f'{text}were missing, and made anew\n' in capsys.readouterr().out


def test_a_service_that_runs_is_not_interfered_with(host, defined, capsys):
    long_ago(host)
    defined(ONE)
    host.open_ledger(4711, '/usr/bin/python3', '/usr/bin/nova-compute')

    assert host.run('reconcile', '--dry-run') == 3
    assert host.run('reconcile') == 1
    assert (
        f'Nothing was healed: process 4711 (nova-compute) has the ledger '
        f'{host.ledger} open.' in capsys.readouterr().err
    )
    assert host.holders() == {ONE: 64, TWO: 64}

    assert host.run('reconcile', '--force') == 0
    assert host.holders() == {ONE: 64}


def test_another_of_these_commands_is_no_service(host, defined):
    defined(ONE, TWO)
    host.open_ledger(4711, 'python3', '/bin/nova-numa-hugepages', 'host')

    assert host.run('reconcile') == 0


def test_who_may_not_read_the_ledger(host, capsys, monkeypatch):
    monkeypatch.setattr(os, 'access', lambda *_, **__: False)

    assert host.run('reconcile', '--dry-run') == 1

    assert capsys.readouterr().err == (
        f'This user may not read the ledger {host.ledger}. Run it as root, '
        'or as the user of the service.\n'
    )


def test_who_may_not_see_the_memory_of_guests(host, capsys, monkeypatch):
    def forbidden(self, pid):
        raise exception.KernelError(
            f'/proc/{pid}/numa_maps', 'Permission denied', 'a readable file'
        ) from PermissionError()

    monkeypatch.setattr(guests.MapsFile, '__call__', forbidden)

    assert host.run('reconcile', '--dry-run') == 1

    assert capsys.readouterr().err.endswith('denied. Run it as root.\n')
