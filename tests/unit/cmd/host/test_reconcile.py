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

import dataclasses
import functools
import os
import sqlite3

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.cmd.host import settings
from nova_numa_hugepages.cmd.host.inspect import libvirt_domains
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from tests.unit.cmd.host import command_host
from tests.unit.cmd.host.command_host import ONE
from tests.unit.cmd.host.command_host import SMALL
from tests.unit.cmd.host.command_host import THREE
from tests.unit.cmd.host.command_host import TWO

GONE = '--gone-without-domain'


@pytest.fixture
def host(tmp_path, monkeypatch):
    return command_host.to_be_healed(tmp_path, monkeypatch)


@pytest.fixture
def defined(monkeypatch):
    """Have libvirt know some guests."""
    return functools.partial(command_host.define, monkeypatch)


def test_nothing_to_heal(host, defined, capsys):
    defined(ONE, TWO)

    assert host.run('reconcile', '--dry-run') == 0
    assert host.run('reconcile') == 0

    assert capsys.readouterr().out == 'Nothing to heal.\n' * 2


def test_a_guest_that_is_gone(host, defined, capsys):
    # given
    host.long_ago()
    defined(ONE)

    # when, then: a look changes nothing
    assert host.run('reconcile', '--dry-run', GONE) == 3
    out = capsys.readouterr().out
    assert f'- instance {TWO} is gone; its pages would be released' in out
    assert f'- 64 idle pages of {model.PoolKey(1, SMALL)} would be' in out
    assert host.holders() == {ONE: 64, TWO: 64}
    assert host.total(1) == 64

    # when, then: healed, it is healed
    assert host.run('reconcile', GONE) == 0
    result = capsys.readouterr()
    assert result.out.startswith('Healed:\n')
    assert f'- instance {TWO} is gone; its pages were released' in result.out
    assert '64' in result.out
    assert result.err == ''
    assert host.holders() == {ONE: 64}
    assert (host.total(0), host.total(1)) == (64, 0)
    assert host.run('reconcile') == 0
    assert capsys.readouterr().out == 'Nothing to heal.\n'


def test_a_guest_without_a_domain_may_be_one_of_novas(host, defined, capsys):
    # given: a guest that nova-compute was about to define anew
    host.long_ago()
    defined(ONE)

    # when, then: a look doesn't take it for gone
    host.run('reconcile', '--dry-run')
    assert 'gone' not in capsys.readouterr().out

    # when, then: nor is it healed; what can be done is said
    assert host.run('reconcile') == 4
    out = capsys.readouterr().out
    assert (
        f'Not judged:\n- guest {TWO} has no domain; if Nova does not have it '
        'on this host either: nova-numa-hugepages host release '
        f'{TWO} --config-file {host.conf} --ledger {host.ledger} '
        f'--root {host.root}\n' in out
    )
    assert host.holders() == {ONE: 64, TWO: 64}
    assert host.run('reconcile') == 4
    assert capsys.readouterr().out.startswith('Nothing else to heal.\n')


def test_a_guest_that_may_be_starting_is_left_alone(host, defined, capsys):
    defined(ONE)

    assert host.run('reconcile', GONE) == 0

    assert capsys.readouterr().out == (
        'Nothing else to heal.\n'
        f'Too young to be judged: {TWO}, as start_time_limit is not over '
        'yet.\n'
    )
    assert host.holders() == {ONE: 64, TWO: 64}


def test_a_migration_is_left_to_nova(host, defined):
    host.hold(THREE, (1, 8), purpose=model.Purpose.INCOMING)
    host.long_ago()
    defined(ONE, TWO)

    host.run('reconcile')

    assert host.holders()[THREE] == 8


def test_without_libvirt_nobody_is_taken_for_gone(host, capsys):
    host.long_ago()

    code = host.run('reconcile', '--dry-run')

    result = capsys.readouterr()
    assert 'Which guests are defined is not known' in result.err
    assert 'libvirt is not asked with --root' in result.err
    assert 'gone' not in result.out
    assert code == 3
    assert f'instance {ONE} runs on the pages that were' in result.out


def test_what_the_operator_changed(host, defined, capsys):
    defined(ONE, TWO)
    host.kernel.operator_writes(model.PoolKey(0, SMALL), 100)

    assert host.run('reconcile') == 0

    assert (
        f'36 pages of {model.PoolKey(0, SMALL)} were added from outside'
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ('mendable_kib', 'code', 'said'),
    [
        # Nothing was healed of what is missing.
        (0, 3, 'Still to heal:\n- 64 of 64 pages of {} that are reserved'),
        # Only compaction makes the pages: there is time for it.
        (
            None,
            0,
            '- 64 of 64 pages of {} that are reserved for instances were',
        ),
    ],
)
def test_pages_that_are_missing_in_small_blocks(
    host, defined, capsys, mendable_kib, code, said
):
    # given: pages of a guest that is off were taken away
    key = model.PoolKey(1, SMALL)
    defined(ONE, TWO)
    host.kernel.operator_writes(key, 0)
    host.kernel.fragment(1, 4 * 1024**2, mendable_kib=mendable_kib)

    # when
    path = configured(host, 'grow_time_limit = 1')
    assert host.run('reconcile', '--config-file', path) == code

    # then: what is missing is not among what was healed
    out = capsys.readouterr().out
    assert said.format(key) in out
    assert out.startswith('Healed:\n')
    assert 'are missing' not in out.partition('Still to heal:')[0]


def configured(host, text):
    """Configure something more, for example a time that a test can wait."""
    path = host.state / 'nova.conf'
    path.write_text(f'[numa_hugepages]\n{text}\n')
    return str(path)


def test_pages_that_the_kernel_keeps_are_still_to_be_healed(
    host, defined, capsys
):
    # given: a kernel that takes no page apart
    defined(ONE, TWO)
    host.run('release', '--yes', '--force', TWO)
    host.hold(TWO, (1, 64))
    key = model.PoolKey(1, SMALL)
    with Ledger.open(host.ledger) as ledger:
        ledger.drop(TWO)
    host.kernel.refuse_shrink(key)
    capsys.readouterr()

    # when, then
    assert host.run('reconcile') == 3
    assert capsys.readouterr().out == (
        f'Still to heal:\n- 64 idle pages of {key} would be freed\n'
    )


def test_what_was_healed_is_told_where_pools_cannot_be_written(
    host, defined, capsys
):
    # given: a pool that can't be written, which shows only when it is
    host.long_ago()
    defined(ONE)

    host.kernel.hook = command_host.refuse_writes

    # when
    assert host.run('reconcile', GONE) == 1

    # then
    result = capsys.readouterr()
    assert f'- instance {TWO} is gone; its pages were released' in result.out
    assert result.err == (
        'Huge page pools cannot be changed: nr_hugepages: Permission denied. '
        'Run it as root, where /sys can be written.\n'
    )
    assert host.holders() == {ONE: 64}


def test_a_dry_run_after_a_reboot_threatens_no_pool_of_the_operator(
    host, defined, capsys
):
    # given: a host with 200 pages of the kernel command line
    defined(ONE, TWO)
    host.long_ago()
    host.kernel.reboot()
    host.kernel.operator_writes(model.PoolKey(0, SMALL), 200)

    # when
    assert host.run('reconcile', '--dry-run') == 3

    # then: it is what healing does
    assert 'freed' not in capsys.readouterr().out
    assert host.run('reconcile') == 0
    assert 'freed' not in capsys.readouterr().out
    assert host.total(0) == 200


def test_a_ledger_that_is_too_new(host, capsys):

    with sqlite3.connect(host.ledger) as connection:
        connection.execute('PRAGMA user_version = 999')

    assert host.run('reconcile') == 1

    assert str(host.ledger) in capsys.readouterr().err


def test_no_ledger(host, capsys):
    host.ledger.unlink()

    assert host.run('reconcile', '--dry-run') == 1

    assert str(host.ledger) in capsys.readouterr().err


@pytest.mark.parametrize(
    'name',
    [
        f'sys/kernel/mm/hugepages/hugepages-{SMALL}kB/resv_hugepages',
        'sys/devices/system/node/node0/meminfo',
    ],
)
def test_a_host_that_cannot_be_read_leaves_the_ledger_alone(
    host, defined, capsys, name
):
    # given: much to heal, pages to be made, and a file of the kernel missing
    host.hold(THREE, (1, 8))
    host.long_ago()
    defined(ONE, THREE)
    host.kernel.operator_writes(model.PoolKey(0, SMALL), 100)
    host.kernel.operator_writes(model.PoolKey(1, SMALL), 0)
    before = host.dump()
    (host.root / name).unlink()

    # when, then
    assert host.run('reconcile', GONE) == 1
    assert name in capsys.readouterr().err
    assert host.dump() == before


def test_what_else_there_is_to_heal_is_not_known(host, capsys):
    assert host.run('reconcile') == 4

    result = capsys.readouterr()
    assert result.out == 'Nothing else to heal.\n'
    assert 'it cannot be judged whether they are gone' in result.err


def test_a_dry_run_counts_as_the_real_one_does(host, defined, capsys):
    # given: 24 of the 64 pages of a guest that is off were taken away
    defined(ONE, TWO)
    host.kernel.operator_writes(model.PoolKey(1, SMALL), 40)
    text = (
        f'- 24 of 64 pages of {model.PoolKey(1, SMALL)} that are reserved for '
        'instances '
    )

    # when, then
    assert host.run('reconcile', '--dry-run') == 3
    assert f'{text}are missing\n' in capsys.readouterr().out
    assert host.run('reconcile') == 0
    assert (
        f'{text}were missing, and were allocated\n' in capsys.readouterr().out
    )


def test_a_libvirt_that_knows_no_holder_is_believed_when_forced(
    host, capsys, monkeypatch
):
    host.long_ago()
    monkeypatch.setattr(
        libvirt_domains, '_WAYS', {'virsh': lambda uri: frozenset()}
    )
    found = settings.read

    def read(options):
        return dataclasses.replace(
            found(options), libvirt_uri=settings.LIBVIRT_URI
        )

    monkeypatch.setattr(settings, 'read', read)
    host.kernel.stop_guest(ONE)

    # when, then: nobody is taken for gone
    assert host.run('reconcile', GONE) == 4
    assert 'if that is right, add --force' in capsys.readouterr().err
    assert host.holders() == {ONE: 64, TWO: 64}

    # when, then: somebody knows better
    assert host.run('reconcile', GONE, '--force') == 0
    assert host.holders() == {}


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

    monkeypatch.setattr(processes.MapsFile, '__call__', forbidden)

    assert host.run('reconcile', '--dry-run') == 1

    assert capsys.readouterr().err.endswith('denied. Run it as root.\n')
