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

"""``host reconcile`` beside ``nova-compute``."""

import subprocess
import sys

import pytest

from nova_numa_hugepages.hugepages.state import lock
from nova_numa_hugepages.hugepages.state import service_lock
from tests.unit.cmd.host import command_host
from tests.unit.cmd.host.command_host import ONE
from tests.unit.cmd.host.command_host import TWO

GONE = '--gone-without-domain'

# Works on the pools, and then runs as the service.
STARTING = """
import fcntl, pathlib, sys, time
from nova_numa_hugepages.hugepages.state import service_lock

folder = pathlib.Path(sys.argv[1])
with open(folder / sys.argv[2], 'a') as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print('works', flush=True)
    time.sleep(1)
    service_lock.hold(folder)
sys.stdin.readline()
"""


@pytest.fixture
def host(tmp_path):
    host = command_host.one_runs_one_is_off(tmp_path)
    host.long_ago()
    host.define(ONE)
    return host


def test_a_service_that_runs_is_not_interfered_with(host, capsys):
    with host.service() as process:
        assert host.run('reconcile', '--dry-run') == 3
        assert host.run('reconcile', GONE) == 1
        assert (
            f'Nothing was fixed: nova-compute runs, as {process}. It does '
            'this by itself once a minute; to do it by hand, stop it first. '
            'Use --force to override.\n' in capsys.readouterr().err
        )
        assert host.holders() == {ONE: 64, TWO: 64}

        assert host.run('reconcile', '--force', GONE) == 0
        assert host.holders() == {ONE: 64}


def test_a_service_that_has_ended_is_not_waited_for(host):
    with host.service():
        pass

    assert host.run('reconcile', GONE) == 0


def test_a_service_of_a_version_without_the_lock_file_may_run(host, capsys):
    path = host.state / service_lock.NAME
    path.unlink()

    assert host.run('reconcile', GONE) == 1
    assert (
        'Nothing was fixed: it is not known whether nova-compute runs, as it '
        f'has not made its lock file {path}.' in capsys.readouterr().err
    )
    assert host.holders() == {ONE: 64, TWO: 64}

    assert host.run('reconcile', '--force', GONE) == 0


def test_a_service_is_found_by_the_ledger_of_the_configuration(
    host, tmp_path, capsys
):
    # given: the folder of the ledger under another name
    (tmp_path / 'mounted').symlink_to(host.state)
    host.conf.write_text(f'[DEFAULT]\nstate_path = {tmp_path}/mounted\n')

    with host.service() as process:
        assert host.run('reconcile') == 1

    assert process in capsys.readouterr().err


def test_a_service_that_is_started_while_the_lock_is_waited_for(host, capsys):
    # given: a service that works on the pools, and isn't known to run yet
    with subprocess.Popen(
        [sys.executable, '-c', STARTING, host.state, lock.NAME],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as service:
        assert service.stdout.readline() == 'works\n'

        # when
        assert host.run('reconcile', GONE) == 1

        service.communicate('end\n')

    # then
    assert f'nova-compute runs, as process {service.pid} (' in (
        capsys.readouterr().err
    )
    assert host.holders() == {ONE: 64, TWO: 64}
