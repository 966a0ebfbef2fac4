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

"""``host release``: what it releases, and what it refuses."""

import contextlib
import io
import os
import sqlite3
import subprocess
import sys
import types

import pytest

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.state import lock
from nova_numa_hugepages.hugepages.state import service_lock
from tests.fixtures import kernel
from tests.unit.cmd.host import command_host
from tests.unit.cmd.host.command_host import ONE
from tests.unit.cmd.host.command_host import SMALL
from tests.unit.cmd.host.command_host import THREE
from tests.unit.cmd.host.command_host import TWO


@pytest.fixture
def host(tmp_path):
    """One guest runs on 16 pages of the floor and 48 grown, another is off."""
    host = command_host.Host(
        tmp_path,
        {
            0: kernel.FakeNode(pools={SMALL: 16}),
            1: kernel.FakeNode(),
        },
    )
    host.hold(ONE, (0, 64))
    host.hold(TWO, (0, 20), (1, 100))
    host.long_ago()
    host.start(ONE, {0: 64})
    return host


@pytest.fixture
def typed(monkeypatch):
    """Have text typed at a terminal, or have no terminal."""

    def typed(text):
        answers = (
            command_host.Answers(text) if text is not None else io.StringIO()
        )
        monkeypatch.setattr('sys.stdin', answers)

    return typed


def test_pages_of_an_instance_that_is_not_running_are_freed(
    host, capsys, typed
):
    typed('y\n')

    assert host.run('release', TWO) == 0

    out = capsys.readouterr().out
    assert f'Instance {TWO}, which is not running:' in out
    assert '- 20 pages of 2 MiB on NUMA node 0, held since 19' in out
    assert 'for guest cell 1; 100 of them were allocated for it' in out
    assert 'Release all of this? [y/N]' in out
    assert (
        'Freed 20 pages of 2 MiB on NUMA node 0, 100 pages of 2 MiB on NUMA '
        'node 1.' in out
    )
    assert host.holders() == {ONE: 64}
    assert (host.total(0), host.total(1)) == (64, 0)


@pytest.mark.parametrize('answer', ['n\n', '\n', '', 'perhaps\n'])
def test_any_other_answer_is_no(host, capsys, typed, answer):
    typed(answer)

    assert host.run('release', TWO) == 1

    assert 'Nothing was released.' in capsys.readouterr().err
    assert host.holders() == {ONE: 64, TWO: 120}


def test_without_a_terminal_there_is_no_confirmation(host, capsys, typed):
    typed(None)

    assert host.run('release', TWO) == 1

    assert 'Add --yes.' in capsys.readouterr().err
    assert host.holders() == {ONE: 64, TWO: 120}


def test_yes_needs_no_confirmation(host, typed):
    typed(None)

    assert host.run('release', '--yes', TWO) == 0

    assert host.holders() == {ONE: 64}


def test_an_instance_that_runs_is_refused(host, capsys):
    assert host.run('release', '--yes', ONE) == 1

    result = capsys.readouterr()
    assert f'is running as process {host.kernel.pid(ONE)}:' in result.out
    assert 'the instance runs on these pages' in result.err
    assert '--force' in result.err
    assert host.holders() == {ONE: 64, TWO: 120}


def test_an_instance_that_runs_keeps_its_pages_when_forced(host):
    assert host.run('release', '--yes', '--force', ONE) == 0

    assert host.holders() == {TWO: 120}
    assert host.kernel.guests() == {ONE: {model.PoolKey(0, SMALL): 64}}
    host.kernel.check()


def starts(host):
    """Start the instance that is not running."""
    host.start(TWO, {0: 20, 1: 100})


def holds_others(host):
    """Have the service hold other pages."""
    host.hold(TWO, (0, 10))


@pytest.fixture
def services():
    """The services that a test starts."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.mark.parametrize('change', [starts, holds_others, None])
@pytest.mark.parametrize('forced', [(), ('--force',)])
def test_a_change_while_the_prompt_is_open_is_refused(
    host, capsys, monkeypatch, services, change, forced
):
    # given: a prompt that is open for a while; without another change,
    # nova-compute starts
    class Slow(command_host.Answers):
        def readline(self, *args):
            if change:
                change(host)
            else:
                services.enter_context(host.service())
            return super().readline(*args)

    monkeypatch.setattr('sys.stdin', Slow('y\n'))

    # when, then
    assert host.run('release', TWO, *forced) == 1
    assert 'changed meanwhile. Run the command again.' in (
        capsys.readouterr().err
    )
    assert TWO in host.holders()


def test_pools_that_turn_out_to_be_read_only(host, capsys):
    # given
    host.kernel.hook = command_host.refuse_writes

    # when
    assert host.run('release', '--yes', TWO) == 1

    # then: what was done, and what was not, is printed
    result = capsys.readouterr()
    assert 'Released.\nFreed no pages.\n' in result.out
    assert (
        'Huge page pools cannot be changed: nr_hugepages: Permission denied. '
        'Run it as root, where /sys can be written. Pages that were allocated '
        'for the instance stay in the pools. To free them: '
        f'nova-numa-hugepages host reconcile --config-file {host.conf} '
        in result.err
    )
    assert host.holders() == {ONE: 64}


def test_pages_kept_for_the_revert_of_a_resize_are_released_too(host, capsys):
    host.hold(THREE, (1, 8), purpose=model.Purpose.RESIZE)
    host.long_ago()

    assert host.run('release', '--yes', THREE) == 0

    assert 'for the revert of its resize' in capsys.readouterr().out
    assert THREE not in host.holders()


def test_what_is_no_uuid_is_refused(host, capsys):
    assert host.run('release', '--yes', 'instance-00000001') == 2

    assert capsys.readouterr().err == (
        "HOLDER: found 'instance-00000001', expected the uuid of an instance, "
        f'as in nova-numa-hugepages host show --config-file {host.conf} '
        f'--ledger {host.ledger} --root {host.root}\n'
    )


def test_an_instance_without_reservations(host, capsys):
    assert host.run('release', '--yes', THREE) == 2

    assert capsys.readouterr().err == (
        f'No pages are held for {THREE}. The instances that hold pages are '
        f'in: nova-numa-hugepages host show --config-file {host.conf} '
        f'--ledger {host.ledger} --root {host.root}\n'
    )
    assert host.holders() == {ONE: 64, TWO: 120}


def test_a_host_without_reservations(host, capsys):
    for uuid in (ONE, TWO):
        host.run('release', '--yes', '--force', uuid)
    capsys.readouterr()

    assert host.run('release', '--yes', ONE) == 2

    assert 'No reservations on this host.' in capsys.readouterr().err


def test_a_uuid_in_capitals_is_the_same(host):
    host.hold('abcdef00-0000-4000-8000-00000000000f', (1, 4))
    host.long_ago()

    assert (
        host.run('release', '--yes', 'ABCDEF00-0000-4000-8000-00000000000F')
        == 0
    )


def test_a_uuid_without_dashes_is_the_same(host):
    assert host.run('release', '--yes', TWO.replace('-', '')) == 0

    assert host.holders() == {ONE: 64}


def test_pages_that_are_gone_already_are_not_freed(host, capsys):
    # given: all pages are removed by hand
    for node in (0, 1):
        host.kernel.operator_writes(model.PoolKey(node, SMALL), 0)

    # when
    assert host.run('release', '--yes', TWO) == 0

    # then
    assert 'Freed no pages.' in capsys.readouterr().out


def test_after_a_reboot_no_page_is_freed(host, capsys):
    host.kernel.reboot()

    assert host.run('release', '--yes', TWO) == 0

    assert 'Freed no pages.' in capsys.readouterr().out


def test_a_service_that_runs_is_warned_of(host, capsys):
    with host.service() as process:
        assert host.run('release', '--yes', TWO) == 0

    assert (
        f'Warning: nova-compute runs, as {process}, and it may be about to '
        'start the instance.' in capsys.readouterr().err
    )


def test_a_service_that_cannot_be_seen_is_warned_of(host, capsys):
    # given: a service that never was of a version with the lock file
    path = host.state / service_lock.NAME
    path.unlink()

    assert host.run('release', '--yes', TWO) == 0

    assert (
        'Warning: it is not known whether nova-compute runs, as it has not '
        f'made its lock file {path}, and it may be about'
        in capsys.readouterr().err
    )


def test_no_ledger(host, capsys):
    host.ledger.unlink()

    assert host.run('release', '--yes', ONE) == 1

    assert str(host.ledger) in capsys.readouterr().err
    assert not host.ledger.exists()


def test_without_the_right_to_write_the_pools_nothing_is_changed(
    host, capsys, monkeypatch
):
    monkeypatch.setattr(os, 'access', lambda *_, **__: False)

    assert host.run('release', '--yes', TWO) == 1

    err = capsys.readouterr().err
    assert 'This user may not write' in err
    assert 'Run it as root.' in err
    assert (host.total(0), host.total(1)) == (84, 100)


def test_pools_that_are_mounted_read_only_stay(host, capsys, monkeypatch):
    monkeypatch.setattr(
        os, 'statvfs', lambda _: types.SimpleNamespace(f_flag=os.ST_RDONLY)
    )

    assert host.run('release', '--yes', TWO) == 0

    result = capsys.readouterr()
    assert 'Freed no pages.' in result.out
    assert 'sys is mounted read-only' in result.err
    assert host.holders() == {ONE: 64}
    assert (host.total(0), host.total(1)) == (84, 100)


@contextlib.contextmanager
def busy(host, seconds):
    """Have another process be at work on the pools for a while.

    :returns: the process
    """
    program = (
        'import fcntl, sys, time\n'
        'with open(sys.argv[1], "a") as file:\n'
        '    fcntl.lockf(file, fcntl.LOCK_EX)\n'
        '    print("locked", flush=True)\n'
        '    time.sleep(float(sys.argv[2]))\n'
    )
    with subprocess.Popen(
        [sys.executable, '-c', program, host.state / lock.NAME, str(seconds)],
        stdout=subprocess.PIPE,
    ) as process:
        process.stdout.readline()
        yield process
        process.kill()


def test_the_process_that_is_waited_for_is_named(host, capsys, monkeypatch):
    monkeypatch.setattr(lock, 'PATIENCE_S', 0.1)

    with busy(host, 1) as other:
        assert host.run('release', '--yes', TWO) == 0

    assert f'Waiting up to 60 s for process {other.pid} (' in (
        capsys.readouterr().err
    )
    assert host.holders() == {ONE: 64}


def test_waiting_ends(host, capsys):
    host.change(lock_timeout_s=0.1)

    with busy(host, 60) as other:
        assert host.run('release', '--yes', TWO) == 1

    err = capsys.readouterr().err
    assert f'could not be had in 0.1 s: process {other.pid} (' in err
    assert host.holders() == {ONE: 64, TWO: 120}


@pytest.mark.parametrize('command', ['show', 'release'])
def test_a_time_that_cannot_be_is_an_error_of_the_ledger(
    host, capsys, command
):
    with sqlite3.connect(host.ledger) as connection:
        connection.execute('UPDATE holds SET since = 1e300')

    host.run(command, *([TWO] if command == 'release' else []))

    assert (
        f'The ledger of huge pages {host.ledger} has an invalid row in '
        f"holds: holder '{ONE}', since 1e+300" in capsys.readouterr().err
    )
    assert (host.total(0), host.total(1)) == (84, 100)
