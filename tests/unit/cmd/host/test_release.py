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

"""``host release``: what is held is given back, and only if that is wanted."""

import errno
import io
import os
import sqlite3
import subprocess
import sys

import pytest

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.state import lock
from tests.fixtures import kernel
from tests.unit.cmd.host import command_host
from tests.unit.cmd.host.command_host import ONE
from tests.unit.cmd.host.command_host import SMALL
from tests.unit.cmd.host.command_host import THREE
from tests.unit.cmd.host.command_host import TWO


@pytest.fixture
def host(tmp_path, monkeypatch):
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
    monkeypatch.setattr(hugetlb, 'DirectWriter', lambda fs: host.kernel)
    host.mount(monkeypatch)
    return host


@pytest.fixture
def typed(monkeypatch):
    """Have somebody type at a terminal, or have no terminal."""

    def typed(text):
        answers = (
            command_host.Answers(text) if text is not None else io.StringIO()
        )
        monkeypatch.setattr('sys.stdin', answers)

    return typed


def test_pages_of_a_guest_that_is_off_go_back(host, capsys, typed):
    typed('y\n')

    assert host.run('release', TWO) == 0

    out = capsys.readouterr().out
    assert f'For {TWO}, which does not run:' in out
    assert '- 20 pages of 2 MiB on node 0, held since 19' in out
    assert 'for cell 1 of the guest; 100 of them were made for it' in out
    assert 'Release all of this? [y/N]' in out
    assert (
        'Back to the kernel went 20 pages of 2 MiB on node 0, 100 pages of 2 '
        'MiB on node 1.' in out
    )
    assert host.holders() == {ONE: 64}
    assert (host.total(0), host.total(1)) == (64, 0)


@pytest.mark.parametrize('answer', ['n\n', '\n', '', 'perhaps\n'])
def test_any_other_answer_is_no(host, capsys, typed, answer):
    typed(answer)

    assert host.run('release', TWO) == 1

    assert 'Nothing was released.' in capsys.readouterr().err
    assert host.holders() == {ONE: 64, TWO: 120}


def test_nobody_to_ask(host, capsys, typed):
    typed(None)

    assert host.run('release', TWO) == 1

    assert 'Add --yes.' in capsys.readouterr().err
    assert host.holders() == {ONE: 64, TWO: 120}


def test_yes_asks_nobody(host, typed):
    typed(None)

    assert host.run('release', '--yes', TWO) == 0

    assert host.holders() == {ONE: 64}


def test_a_guest_that_runs_is_refused(host, capsys):
    assert host.run('release', '--yes', ONE) == 1

    result = capsys.readouterr()
    assert f'which runs as process {host.kernel.pid(ONE)}' in result.out
    assert 'the guest runs on these pages' in result.err
    assert '--force' in result.err
    assert host.holders() == {ONE: 64, TWO: 120}


def test_a_guest_that_runs_keeps_what_it_has_when_forced(host):
    assert host.run('release', '--yes', '--force', ONE) == 0

    assert host.holders() == {TWO: 120}
    assert host.kernel.guests() == {ONE: {model.PoolKey(0, SMALL): 64}}
    host.kernel.check()


def starts(host):
    """Start the guest that is off."""
    host.start(TWO, {0: 20, 1: 100})


def is_held_anew(host):
    """Have the service hold other pages."""
    host.hold(TWO, (0, 10))


def begins(host):
    """Have the service run."""
    host.open_ledger(4711, '/usr/bin/nova-compute')


@pytest.mark.parametrize('change', [starts, is_held_anew, begins])
@pytest.mark.parametrize('forced', [(), ('--force',)])
def test_what_changes_while_somebody_is_asked_is_looked_at_again(
    host, capsys, monkeypatch, change, forced
):
    # given: a prompt that is open for a while
    class Slow(command_host.Answers):
        def readline(self, *args):
            change(host)
            return super().readline(*args)

    monkeypatch.setattr('sys.stdin', Slow('y\n'))

    # when, then
    assert host.run('release', TWO, *forced) == 1
    assert 'changed meanwhile. Look at it again.' in capsys.readouterr().err
    assert TWO in host.holders()


def test_pools_that_turn_out_to_be_read_only(host, capsys):
    # given
    host.kernel.hook = command_host.refuse_writes

    # when
    assert host.run('release', '--yes', TWO) == 1

    # then: it is said what was done, and what wasn't
    result = capsys.readouterr()
    assert 'Released.\nNo page went back to the kernel.\n' in result.out
    assert (
        'Huge page pools cannot be changed: nr_hugepages: Permission denied. '
        'Run it as root, where /sys can be written. What was made for the '
        'guest stays in the pools, and is offered to the kernel again by: '
        f'nova-numa-hugepages host reconcile --config-file {host.conf} '
        in result.err
    )
    assert host.holders() == {ONE: 64}


def test_files_of_processes_that_may_not_be_seen_are_told_of(
    host, capsys, monkeypatch
):
    host.process(4711, '/usr/bin/nova-compute')
    names = os.listdir

    def listdir(path):
        if str(path).endswith('/4711/fd'):
            raise PermissionError(errno.EACCES, 'Permission denied')
        return names(path)

    monkeypatch.setattr(os, 'listdir', listdir)

    assert host.run('release', '--yes', TWO) == 0

    assert (
        'This user may not see which files process 4711 (nova-compute) has '
        'open.' in capsys.readouterr().err
    )


def test_what_is_held_for_coming_back_is_released_as_well(host, capsys):
    host.hold(THREE, (1, 8), purpose=model.Purpose.RESIZE)
    host.long_ago()

    assert host.run('release', '--yes', THREE) == 0

    assert 'for its coming back from a resize' in capsys.readouterr().out
    assert THREE not in host.holders()


@pytest.mark.parametrize(
    ('meant', 'said'),
    [
        (ONE[:6], f'{ONE[:6]} is no uuid.'),
        ('instance-00000001', 'instance-00000001 is no uuid.'),
        (ONE[:-1] + '9', f'Nothing is held for {ONE[:-1]}9.'),
    ],
)
def test_an_unknown_holder_that_is_near_a_known_one(host, capsys, meant, said):
    assert host.run('release', '--yes', meant) == 2

    assert f'{said} Did you mean {ONE}?' in capsys.readouterr().err
    assert host.holders() == {ONE: 64, TWO: 120}


def test_an_unknown_holder_that_is_like_none(host, capsys):
    assert host.run('release', '--yes', 'no-one') == 2

    assert (
        'no-one is no uuid. Who holds pages is told by: nova-numa-hugepages '
        f'host show --config-file {host.conf} --ledger {host.ledger} --root '
        f'{host.root}' in capsys.readouterr().err
    )


def test_nobody_holds_anything(host, capsys):
    for uuid in (ONE, TWO):
        host.run('release', '--yes', '--force', uuid)
    capsys.readouterr()

    assert host.run('release', '--yes', ONE) == 2

    assert 'Nothing is held for anybody.' in capsys.readouterr().err


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


def test_pages_that_are_gone_already_do_not_go_back(host, capsys):
    # given: somebody takes all pages away by hand
    for node in (0, 1):
        host.kernel.operator_writes(model.PoolKey(node, SMALL), 0)

    # when
    assert host.run('release', '--yes', TWO) == 0

    # then
    assert 'No page went back to the kernel.' in capsys.readouterr().out


def test_after_a_reboot_no_page_goes_back(host, capsys):
    host.kernel.reboot()

    assert host.run('release', '--yes', TWO) == 0

    assert 'No page went back to the kernel.' in capsys.readouterr().out


def test_a_service_that_runs_is_told_of(host, capsys):
    host.open_ledger(4711, '/usr/bin/python3', '/usr/bin/nova-compute')

    assert host.run('release', '--yes', TWO) == 0

    assert (
        'The ledger is open in process 4711 (nova-compute).'
        in capsys.readouterr().err
    )


def test_no_ledger(host, capsys):
    host.ledger.unlink()

    assert host.run('release', '--yes', ONE) == 1

    assert str(host.ledger) in capsys.readouterr().err
    assert not host.ledger.exists()


def test_who_may_not_write_the_pools_changes_nothing(
    host, capsys, monkeypatch
):
    monkeypatch.setattr(os, 'access', lambda *_, **__: False)

    assert host.run('release', '--yes', TWO) == 1

    err = capsys.readouterr().err
    assert 'This user may not write' in err
    assert 'Run it as root.' in err
    assert (host.total(0), host.total(1)) == (84, 100)


def test_pools_that_nobody_may_write_stay(host, capsys, monkeypatch):
    monkeypatch.setattr(
        hugetlb, 'writable', lambda fs: '/sys is mounted read-only'
    )

    assert host.run('release', '--yes', TWO) == 0

    result = capsys.readouterr()
    assert 'No page went back to the kernel.' in result.out
    assert '/sys is mounted read-only' in result.err
    assert host.holders() == {ONE: 64}
    assert (host.total(0), host.total(1)) == (84, 100)


def test_who_is_waited_for_is_said(host, capsys, monkeypatch):
    # given: another process that has the lock for a while
    monkeypatch.setattr(lock, 'PATIENCE_S', 0.1)
    path = host.state / lock.NAME
    program = (
        'import fcntl, sys, time\n'
        f'with open({str(path)!r}, "a") as file:\n'
        '    fcntl.lockf(file, fcntl.LOCK_EX)\n'
        '    print("locked", flush=True)\n'
        '    time.sleep(1)\n'
    )
    with subprocess.Popen(
        [sys.executable, '-c', program], stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()

        # when
        assert host.run('release', '--yes', TWO) == 0

    # then
    err = capsys.readouterr().err
    assert f'Waiting up to 60 s for process {other.pid} (' in err
    assert host.holders() == {ONE: 64}


@pytest.mark.parametrize('command', ['show', 'release'])
def test_a_time_that_cannot_be_is_told_alike(host, capsys, command):
    with sqlite3.connect(host.ledger) as connection:
        connection.execute('UPDATE holds SET since = 1e300')

    host.run(command, *([TWO] if command == 'release' else []))

    assert (
        f'The ledger of huge pages {host.ledger} has a row in holds that '
        f"cannot be: holder '{ONE}', since 1e+300" in capsys.readouterr().err
    )
    assert (host.total(0), host.total(1)) == (84, 100)


def test_somebody_else_is_at_work(host, capsys, monkeypatch):
    monkeypatch.setattr(
        'nova_numa_hugepages.cmd.host.opening.LOCK_TIMEOUT_S', 0.1
    )

    def busy(self):
        raise self._timeout('process 7 (nova-compute)')

    monkeypatch.setattr(lock.HostLock, '__enter__', busy)

    assert host.run('release', '--yes', TWO) == 1

    assert 'process 7 (nova-compute) has it' in capsys.readouterr().err
    assert host.holders() == {ONE: 64, TWO: 120}
