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

"""``host release`` beside ``nova-compute`` and others at work on the pools."""

import contextlib
import subprocess
import sys

import pytest

from nova_numa_hugepages.hugepages.state import lock
from nova_numa_hugepages.hugepages.state import service_lock
from tests.unit.cmd.host import command_host
from tests.unit.cmd.host.command_host import ONE
from tests.unit.cmd.host.command_host import TWO


@pytest.fixture
def host(tmp_path):
    return command_host.one_runs_on_the_floor(tmp_path)


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


@pytest.mark.parametrize('seconds', [0.1, 0])
def test_waiting_ends(host, capsys, seconds):
    host.change(lock_timeout_s=seconds)

    with busy(host, 60) as other:
        assert host.run('release', '--yes', TWO) == 1

    err = capsys.readouterr().err
    assert (
        f'could not be acquired in {seconds} s: process {other.pid} (' in err
    )
    assert host.holders() == {ONE: 64, TWO: 120}


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
