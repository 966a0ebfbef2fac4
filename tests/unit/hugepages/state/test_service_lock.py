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


"""Tests of the lock that the service holds for its life."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from nova_numa_hugepages.hugepages.state import lock
from nova_numa_hugepages.hugepages.state import service_lock
from tests.unit.hugepages.state.ledgers import next_line
from tests.unit.hugepages.state.ledgers import process
from tests.unit.hugepages.state.ledgers import run

as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason='only root can act for others'
)

UNSHARED = ('unshare', '--pid', '--fork', '--mount-proc', '--')

SERVICE = """
service_lock.hold(folder)
report('runs')
sys.stdin.readline()
"""

# The child lives on, as the helper that oslo.privsep forks may do.
FORKING = """
service_lock.hold(folder)
child = os.fork()
if not child:
    report(os.getpid())
    signal.pause()
signal.pause()
"""

ASKING = """
report(service_lock.holder(folder))
"""


def named(pid):
    """Name a process as messages do."""
    name = pathlib.Path(f'/proc/{pid}/comm').read_text().strip()
    return f'process {pid} ({name})'


@pytest.fixture
def here(tmp_path):
    """Make a folder whose lock this process may hold."""
    yield tmp_path
    service_lock.release(tmp_path)


class TestHolder:
    def test_is_none_where_no_service_ever_ran(self, tmp_path):
        assert service_lock.holder(tmp_path) is None
        assert list(tmp_path.iterdir()) == []

    def test_is_none_without_the_folder(self, tmp_path):
        assert service_lock.holder(tmp_path / 'nova') is None

    def test_is_the_service_while_it_runs(self, tmp_path):
        with process(tmp_path, SERVICE) as service:
            assert next_line(service) == 'runs'

            assert service_lock.holder(tmp_path) == named(service.pid)

            service.communicate('end\n', timeout=60)
        assert (tmp_path / service_lock.NAME).exists()
        assert service_lock.holder(tmp_path) is None

    def test_is_none_once_the_service_was_killed(self, tmp_path):
        with process(tmp_path, SERVICE) as service:
            assert next_line(service) == 'runs'

            service.kill()
            service.wait()

            assert service_lock.holder(tmp_path) is None

    def test_is_found_by_any_name_of_the_folder(self, tmp_path):
        (tmp_path / 'state').mkdir()
        (tmp_path / 'link').symlink_to('state')
        with process(tmp_path / 'state', SERVICE) as service:
            assert next_line(service) == 'runs'

            found = service_lock.holder(tmp_path / 'link')

            assert found == named(service.pid)

    def test_may_be_asked_for_as_often_as_one_likes(self, tmp_path):
        with process(tmp_path, SERVICE) as service:
            assert next_line(service) == 'runs'
            answers = {service_lock.holder(tmp_path) for _ in range(100)}

            assert answers == {named(service.pid)}
            assert run(tmp_path, ASKING) == (0, f'{named(service.pid)}\n')

    def test_is_not_known_if_the_file_cannot_be_used(self, tmp_path):
        (tmp_path / service_lock.NAME).symlink_to(service_lock.NAME)

        with pytest.raises(lock.LockError) as raised:
            service_lock.holder(tmp_path)

        assert str(raised.value) == (
            f'the lock of huge pages {tmp_path}/{service_lock.NAME} cannot '
            'be used: [Errno 40] Too many levels of symbolic links: '
            f"'{tmp_path}/{service_lock.NAME}'. Make sure that the user of "
            'nova-compute owns the file and its folder, and that the file '
            'system is mounted and can be written to.'
        )

    def test_does_not_wait_for_a_pipe(self, tmp_path):
        os.mkfifo(tmp_path / service_lock.NAME)

        assert service_lock.holder(tmp_path) is None

    @as_root
    @pytest.mark.skipif(not shutil.which('unshare'), reason='no unshare')
    def test_is_seen_from_another_container(self, tmp_path):
        # given a service, and a container with its folder, but not its pids
        script = (
            'import pathlib, sys\n'
            'from nova_numa_hugepages.hugepages.state import service_lock\n'
            'print(service_lock.holder(pathlib.Path(sys.argv[1])))\n'
        )
        with process(tmp_path, SERVICE) as service:
            assert next_line(service) == 'runs'

            asked = subprocess.run(
                [*UNSHARED, sys.executable, '-c', script, tmp_path],
                capture_output=True,
                text=True,
                timeout=60,
            )

        if 'unshare failed' in asked.stderr:
            pytest.skip(asked.stderr)
        assert (asked.stdout, asked.stderr) == (
            'a process outside this container\n',
            '',
        )


class TestHold:
    def test_is_seen_by_others(self, here):
        service_lock.hold(here)

        assert run(here, ASKING) == (0, f'{named(os.getpid())}\n')

    def test_is_not_lost_when_the_service_asks(self, here):
        # given that a process loses a lock with any descriptor that it closes
        service_lock.hold(here)

        assert service_lock.holder(here) == named(os.getpid())

        assert run(here, ASKING) == (0, f'{named(os.getpid())}\n')

    def test_is_refused_while_another_service_runs(self, here):
        # given
        with process(here, SERVICE) as other:
            assert next_line(other) == 'runs'

            # when, then
            with pytest.raises(
                lock.LockError,
                match=re.escape(f'is held by {named(other.pid)}. Two compute'),
            ):
                service_lock.hold(here)
            assert service_lock.holder(here) == named(other.pid)

            # and when it is killed
            other.kill()
            other.wait()

        # then
        service_lock.hold(here)
        assert service_lock.holder(here) == named(os.getpid())

    def test_may_come_again(self, here):
        service_lock.hold(here)
        service_lock.hold(here)
        service_lock.release(here)

        assert service_lock.holder(here) is None
        assert run(here, ASKING) == (0, 'None\n')

    def test_may_be_given_back_twice(self, here):
        service_lock.hold(here)

        service_lock.release(here)
        service_lock.release(here)

        assert run(here, ASKING) == (0, 'None\n')

    def test_makes_a_file_for_the_user_of_the_service_only(self, here):
        service_lock.hold(here)

        path = here / service_lock.NAME
        assert path.stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize('kind', ['folder', 'nothing', 'pipe'])
    def test_fails_if_the_file_cannot_be_used(self, tmp_path, kind):
        folder = tmp_path / 'nova'
        if kind == 'folder':
            folder.mkdir()
            (folder / service_lock.NAME).symlink_to('elsewhere/file')
        elif kind == 'pipe':
            folder.mkdir()
            os.mkfifo(folder / service_lock.NAME)

        with pytest.raises(lock.LockError) as raised:
            service_lock.hold(folder)

        assert str(raised.value).startswith(
            f'the lock of huge pages {folder}/{service_lock.NAME} cannot be '
            'used: '
        )


class TestChildren:
    def test_do_not_keep_the_lock_of_a_killed_service(self, tmp_path):
        # given a service that has forked a helper
        with process(tmp_path, FORKING) as service:
            child = int(next_line(service))
            assert service_lock.holder(tmp_path) == named(service.pid)

            # when the service is killed, and the helper is still there
            service.kill()
            service.wait()
            try:
                os.kill(child, 0)

                # then no service runs
                assert service_lock.holder(tmp_path) is None
            finally:
                os.kill(child, signal.SIGKILL)

    def test_do_not_take_the_lock_from_the_service(self, tmp_path):
        with process(tmp_path, FORKING) as service:
            child = int(next_line(service))
            os.kill(child, signal.SIGKILL)
            self.wait_for_the_end_of(child)

            assert service_lock.holder(tmp_path) == named(service.pid)

    def test_run_no_second_service(self, here):
        service_lock.hold(here)
        child = os.fork()
        if not child:
            # A failed test must not go on in the child.
            try:
                service_lock.hold(here)
            except lock.LockError as error:
                os._exit(named(os.getppid()) not in str(error))
            finally:
                os._exit(2)

        assert os.waitpid(child, 0)[1] == 0
        assert run(here, ASKING) == (0, f'{named(os.getpid())}\n')

    def test_that_run_a_program_do_not_have_the_file(self, here):
        service_lock.hold(here)

        held = subprocess.run(
            ['ls', '-l', '/proc/self/fd'],
            close_fds=False,
            capture_output=True,
            text=True,
        )

        assert held.returncode == 0
        assert service_lock.NAME not in held.stdout

    def wait_for_the_end_of(self, pid):
        deadline = time.monotonic() + 60
        stat = pathlib.Path(f'/proc/{pid}/stat')
        while stat.read_text().rpartition(')')[2].split()[0] != 'Z':
            assert time.monotonic() < deadline
            time.sleep(0.01)
