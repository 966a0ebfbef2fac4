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

"""``host reconcile``: what it fixes, and what it leaves undecided."""

import os
import sqlite3

import pytest

from nova_numa_hugepages.cmd.host.inspect import libvirt_domains
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from tests.unit.cmd.host import command_host
from tests.unit.cmd.host.command_host import ONE
from tests.unit.cmd.host.command_host import SMALL
from tests.unit.cmd.host.command_host import THREE
from tests.unit.cmd.host.command_host import TWO

GONE = '--gone-without-domain'


@pytest.fixture
def host(tmp_path):
    return command_host.one_runs_one_is_off(tmp_path)


def test_nothing_to_fix(host, capsys):
    host.define(ONE, TWO)

    assert host.run('reconcile', '--dry-run') == 0
    assert host.run('reconcile') == 0

    assert capsys.readouterr().out == 'Nothing to fix.\n' * 2


def test_a_guest_that_is_gone(host, capsys):
    # given
    host.long_ago()
    host.define(ONE)

    # when, then: a dry run changes nothing
    assert host.run('reconcile', '--dry-run', GONE) == 3
    out = capsys.readouterr().out
    assert out.startswith('Would fix:\n')
    assert f'- instance {TWO} is gone; its pages would be released' in out
    assert f'- 64 idle pages of {model.PoolKey(1, SMALL)} would be' in out
    assert host.holders() == {ONE: 64, TWO: 64}
    assert host.total(1) == 64

    # when, then: once fixed, it is fixed
    assert host.run('reconcile', GONE) == 0
    result = capsys.readouterr()
    assert result.out.startswith('Fixed:\n')
    assert f'- instance {TWO} is gone; its pages were released' in result.out
    assert '64' in result.out
    assert result.err == ''
    assert host.holders() == {ONE: 64}
    assert (host.total(0), host.total(1)) == (64, 0)
    assert host.run('reconcile') == 0
    assert capsys.readouterr().out == 'Nothing to fix.\n'


def test_a_guest_without_a_domain_may_be_one_of_novas(host, capsys):
    # given: a guest that nova-compute was about to define again
    host.long_ago()
    host.define(ONE)

    # when, then: a dry run doesn't take it for gone
    host.run('reconcile', '--dry-run')
    assert 'gone' not in capsys.readouterr().out

    # when, then: nor is it released; the remedy is printed
    assert host.run('reconcile') == 4
    out = capsys.readouterr().out
    assert (
        f'Undecided:\n- instance {TWO} has no domain; if Nova does not have '
        'it on this host either: nova-numa-hugepages host release '
        f'{TWO} --config-file {host.conf} --ledger {host.ledger} '
        f'--root {host.root}\n' in out
    )
    assert host.holders() == {ONE: 64, TWO: 64}
    assert host.run('reconcile') == 4
    assert capsys.readouterr().out.startswith('Nothing else to fix.\n')


def test_a_guest_that_may_be_starting_is_left_alone(host, capsys):
    host.define(ONE)

    assert host.run('reconcile', GONE) == 0

    assert capsys.readouterr().out == (
        'Nothing else to fix.\n'
        f'Undecided until start_time_limit is over: {TWO}, which may be '
        'about to start.\n'
    )
    assert host.holders() == {ONE: 64, TWO: 64}


def test_a_migration_is_left_to_nova(host):
    host.hold(THREE, (1, 8), purpose=model.Purpose.INCOMING)
    host.long_ago()
    host.define(ONE, TWO)

    host.run('reconcile')

    assert host.holders()[THREE] == 8


def test_without_libvirt_no_guest_is_taken_for_gone(host, capsys):
    host.long_ago()

    code = host.run('reconcile', '--dry-run')

    result = capsys.readouterr()
    assert 'It is not known which instances have a domain' in result.err
    assert 'libvirt is not asked with --root' in result.err
    assert 'gone' not in result.out
    assert code == 3
    assert f'instance {ONE} runs on the pages that were reserved' in result.out


def test_what_the_operator_changed(host, capsys):
    host.define(ONE, TWO)
    host.kernel.operator_writes(model.PoolKey(0, SMALL), 100)

    assert host.run('reconcile') == 0

    assert (
        f'the pool of {model.PoolKey(0, SMALL)} was set from 64 to 100 pages '
        'from outside' in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ('mendable_kib', 'code', 'expected'),
    [
        # None of the missing pages could be allocated.
        (0, 3, 'Still to fix:\n- 64 of 64 pages of {} that are reserved'),
        # Only compaction makes the pages: there is time for it.
        (
            None,
            0,
            '- 64 of 64 pages of {} that are reserved for instances were',
        ),
    ],
)
def test_pages_that_are_missing_in_small_blocks(
    host, capsys, mendable_kib, code, expected
):
    # given: pages of a guest that is off were taken away
    key = model.PoolKey(1, SMALL)
    host.define(ONE, TWO)
    host.kernel.operator_writes(key, 0)
    host.kernel.fragment(1, 4 * 1024**2, mendable_kib=mendable_kib)

    # when
    path = configured(host, 'grow_time_limit = 1')
    assert host.run('reconcile', '--config-file', path) == code

    # then: what is missing is not among what was fixed
    out = capsys.readouterr().out
    assert expected.format(key) in out
    assert out.startswith('Fixed:\n')
    assert 'are missing' not in out.partition('Still to fix:')[0]


def configured(host, text):
    """Configure something more, for example a time that a test can wait."""
    path = host.state / 'nova.conf'
    path.write_text(f'[numa_hugepages]\n{text}\n')
    return str(path)


def test_pages_that_the_kernel_keeps_are_still_to_be_freed(host, capsys):
    # given: a kernel that takes no page apart
    host.define(ONE, TWO)
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
        f'Still to fix:\n- 64 idle pages of {key} would be freed\n'
    )


def test_what_was_fixed_is_printed_where_pools_cannot_be_written(host, capsys):
    # given: a pool that can't be written, which shows only when it is
    host.long_ago()
    host.define(ONE)

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
    host, capsys
):
    # given: a host with 200 pages of the kernel command line
    host.define(ONE, TWO)
    host.long_ago()
    host.kernel.reboot()
    host.kernel.operator_writes(model.PoolKey(0, SMALL), 200)

    # when
    assert host.run('reconcile', '--dry-run') == 3

    # then: it is what the real run does
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
    host, capsys, name
):
    # given: much to fix, pages to allocate, and a file of the kernel missing
    host.hold(THREE, (1, 8))
    host.long_ago()
    host.define(ONE, THREE)
    host.kernel.operator_writes(model.PoolKey(0, SMALL), 100)
    host.kernel.operator_writes(model.PoolKey(1, SMALL), 0)
    before = host.dump()
    (host.root / name).unlink()

    # when, then
    assert host.run('reconcile', GONE) == 1
    assert name in capsys.readouterr().err
    assert host.dump() == before


def test_what_else_there_is_to_fix_is_not_known(host, capsys):
    assert host.run('reconcile') == 4

    result = capsys.readouterr()
    assert result.out == 'Nothing else to fix.\n'
    assert 'that are not running keep what is held for them' in result.err


def test_a_dry_run_counts_as_the_real_one_does(host, capsys):
    # given: 24 of the 64 pages of a guest that is off were taken away
    host.define(ONE, TWO)
    host.kernel.operator_writes(model.PoolKey(1, SMALL), 40)
    text = (
        f'- 24 of 64 pages of {model.PoolKey(1, SMALL)} that are reserved '
        'for instances '
    )

    # when, then
    assert host.run('reconcile', '--dry-run') == 3
    assert f'{text}are missing\n' in capsys.readouterr().out
    assert host.run('reconcile') == 0
    assert (
        f'{text}were missing, and were allocated\n' in capsys.readouterr().out
    )


def test_a_libvirt_that_knows_no_holder_is_believed_when_forced(
    host, capsys, monkeypatch, tmp_path
):
    # given: a libvirt without domains
    host.long_ago()
    host.kernel.stop_guest(ONE)
    monkeypatch.setenv('PATH', str(tmp_path))
    command_host.install_virsh(tmp_path, 'true')
    host.change(
        domains=lambda _, *guests: libvirt_domains.defined(
            'qemu:///system', *guests
        )
    )

    # when, then: no guest is taken for gone
    assert host.run('reconcile', GONE) == 4
    assert (
        'knows none of the guests that hold pages; if that is right, add '
        '--force. So' in capsys.readouterr().err
    )
    assert host.holders() == {ONE: 64, TWO: 64}

    # when, then: it is believed
    assert host.run('reconcile', GONE, '--force') == 0
    assert host.holders() == {}


def test_a_ledger_that_this_user_may_not_read(host, capsys, monkeypatch):
    monkeypatch.setattr(os, 'access', lambda *_, **__: False)

    assert host.run('reconcile', '--dry-run') == 1

    assert capsys.readouterr().err == (
        f'This user may not read the ledger {host.ledger}. Run it as root, '
        'or as the user of the service.\n'
    )


def test_memory_of_guests_that_this_user_may_not_see(host, capsys):
    host.forbid_maps()

    assert host.run('reconcile', '--dry-run') == 1

    assert capsys.readouterr().err.endswith('denied. Run it as root.\n')


@pytest.mark.parametrize('words', [('reconcile',), ('release', '--yes', TWO)])
@pytest.mark.parametrize('first', [None, 'sh'])
def test_without_the_process_ids_of_the_host_nothing_is_changed(
    host, capsys, words, first
):
    # given: a container that doesn't see the guest that runs
    host.define(ONE, TWO)
    path = host.root / 'proc/2/comm'
    path.unlink()
    if first:
        path.write_text(f'{first}\n')
    host.kernel.stop_guest(ONE)
    before = host.dump()

    # when, then
    assert host.run(*words) == 2
    expected = f'{path}: expected kthreadd, found {first or "nothing"}. So'
    err = capsys.readouterr().err
    assert expected in err
    assert '(--pid=host)' in err
    assert host.dump() == before
    assert (host.total(0), host.total(1)) == (64, 64)

    # when, then: a dry run warns
    host.run('reconcile', '--dry-run')
    assert expected in capsys.readouterr().err
