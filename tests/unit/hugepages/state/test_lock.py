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

"""Tests of the lock of the host."""

import logging
import os
import pathlib
import threading
import time

import pytest

from nova_numa_hugepages.hugepages.kernel import file_locks
from nova_numa_hugepages.hugepages.state import lock as lock_module
from nova_numa_hugepages.hugepages.state.lock import HostLock
from tests.unit.hugepages.state.ledgers import next_line
from tests.unit.hugepages.state.ledgers import process
from tests.unit.hugepages.state.ledgers import run

NOBODY = 65534

as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason='only root can act for others'
)

HOLD = """
with lock.HostLock(folder):
    report('has it')
    sys.stdin.readline()
report('had it')
"""

# What two would do to each other without a lock.
ADD = """
file = folder / 'count'
for _ in range(50):
    with lock.HostLock(folder):
        count = int(file.read_text())
        time.sleep(0.0005)
        file.write_text(str(count + 1))
"""


def others(folder, *, timeout_s=0.0):
    """Check whether another thread of this process can have the lock."""
    found = []

    def take():
        try:
            with HostLock(folder, timeout_s=timeout_s):
                found.append(True)
        except lock_module.LockTimeout:
            found.append(False)

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return found == [True]


def other_process(folder):
    """Check whether another process can have the lock."""
    script = """
try:
    with lock.HostLock(folder, timeout_s=0):
        report('yes')
except lock.LockTimeout:
    report('no')
"""
    return run(folder, script) == (0, 'yes\n')


class TestThreads:
    def test_wait_for_each_other(self, tmp_path):
        with HostLock(tmp_path):
            assert not others(tmp_path)
        assert others(tmp_path)

    def test_may_come_again(self, tmp_path):
        one, other = HostLock(tmp_path), HostLock(tmp_path)

        with one, one, other:
            pass

        assert others(tmp_path)

    def test_have_it_until_they_leave_for_the_last_time(self, tmp_path):
        lock = HostLock(tmp_path)

        with lock:
            with lock:
                pass
            assert not others(tmp_path)
            assert not other_process(tmp_path)

    def test_leave_it_when_they_fail(self, tmp_path):
        with pytest.raises(KeyError), HostLock(tmp_path):
            raise KeyError

        assert others(tmp_path)

    def test_have_it_one_at_a_time(self, tmp_path):
        lock = HostLock(tmp_path)
        inside = []
        most = []

        def work():
            for _ in range(20):
                with lock:
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.0002)
                    inside.pop()

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert most == [1] * 120

    def test_of_one_folder_do_not_wait_for_another(self, tmp_path):
        (tmp_path / 'other').mkdir()

        with HostLock(tmp_path):
            assert others(tmp_path / 'other')

    def test_know_a_folder_by_any_of_its_names(self, tmp_path):
        (tmp_path / 'link').symlink_to('.')

        with HostLock(tmp_path):
            assert not others(tmp_path / 'link')

    def test_learn_who_has_it_if_they_wait_too_long(self, tmp_path):
        errors = []
        inside, done = threading.Event(), threading.Event()

        def keep():
            with HostLock(tmp_path):
                inside.set()
                done.wait()

        keeper = threading.Thread(target=keep, name='keeper')
        keeper.start()
        inside.wait()
        with (
            pytest.raises(lock_module.LockTimeout) as raised,
            HostLock(tmp_path, timeout_s=0.05),
        ):
            errors.append('it was had')
        done.set()
        keeper.join()

        assert errors == []
        assert str(raised.value) == (
            f'the lock of huge pages {tmp_path}/huge-pages.lock could not be '
            'acquired in 0.05 s: thread keeper of this process holds it. See '
            'what that is doing, end it if it hangs, and try again.'
        )


class TestProcesses:
    def test_wait_for_each_other(self, tmp_path):
        with process(tmp_path, HOLD) as other:
            assert next_line(other) == 'has it'
            assert not others(tmp_path)

            other.communicate('go\n', timeout=60)

            assert others(tmp_path)

    def test_have_it_one_at_a_time(self, tmp_path):
        count = tmp_path / 'count'
        count.write_text('0')

        with process(tmp_path, ADD) as one, process(tmp_path, ADD) as other:
            assert [one.wait(60), other.wait(60)] == [0, 0]

        assert count.read_text() == '100'

    def test_that_are_killed_leave_it(self, tmp_path):
        with process(tmp_path, HOLD) as other:
            assert next_line(other) == 'has it'
            assert not others(tmp_path)

            other.kill()
            other.wait()

            assert others(tmp_path)

    def test_learn_who_has_it_if_they_wait_too_long(self, tmp_path):
        lock = HostLock(tmp_path, timeout_s=0.05)
        with process(tmp_path, HOLD) as other:
            assert next_line(other) == 'has it'
            name = pathlib.Path(f'/proc/{other.pid}/comm').read_text().strip()

            with pytest.raises(lock_module.LockTimeout) as raised:
                lock.__enter__()

        assert str(raised.value) == (
            f'the lock of huge pages {tmp_path}/huge-pages.lock could not be '
            f'acquired in 0.05 s: process {other.pid} ({name}) holds it. See '
            'what that is doing, end it if it hangs, and try again.'
        )
        with lock:
            assert not other_process(tmp_path)

    def test_are_named_while_they_are_waited_for(
        self, tmp_path, monkeypatch, caplog
    ):
        monkeypatch.setattr(lock_module, 'PATIENCE_S', 0.05)
        caplog.set_level(logging.DEBUG, lock_module.__name__)
        with process(tmp_path, HOLD) as other:
            assert next_line(other) == 'has it'
            end = threading.Timer(0.2, other.kill)
            end.start()

            with HostLock(tmp_path):
                end.join()

        assert len(caplog.messages) == 1
        assert caplog.messages[0].startswith(
            f'Waiting for the lock {tmp_path}/huge-pages.lock, held by '
            f'process {other.pid} ('
        )

    def test_are_not_named_at_once(self, tmp_path, caplog):
        caplog.set_level(logging.DEBUG, lock_module.__name__)

        with HostLock(tmp_path):
            pass

        assert caplog.messages == []

    def test_that_gave_up_do_not_take_it_from_others(self, tmp_path):
        # given a thread that has given up waiting for another process
        lock = HostLock(tmp_path, timeout_s=0.01)
        with process(tmp_path, HOLD) as other:
            assert next_line(other) == 'has it'
            assert not others(tmp_path)
            other.communicate('go\n', timeout=60)

        # when another thread has it, then no process can get it
        with lock:
            assert not other_process(tmp_path)


class TestFile:
    def test_is_for_the_user_of_the_service_only(self, tmp_path):
        with HostLock(tmp_path) as lock:
            assert lock.path == tmp_path / 'huge-pages.lock'
            assert lock.path.stat().st_mode & 0o777 == 0o600

    @as_root
    def test_is_the_service_users_if_root_makes_it(self, tmp_path):
        os.chown(tmp_path, NOBODY, NOBODY)

        with HostLock(tmp_path) as lock:
            status = lock.path.stat()

        assert (status.st_uid, status.st_gid) == (NOBODY, NOBODY)

    def test_may_be_gone_in_between(self, tmp_path):
        lock = HostLock(tmp_path)
        with lock:
            pass
        lock.path.unlink()

        with lock:
            assert not other_process(tmp_path)

    @pytest.mark.parametrize('kind', ['folder', 'nothing', 'pipe'])
    def test_that_cannot_be_used_is_an_error(self, tmp_path, kind):
        folder = tmp_path / 'nova'
        if kind == 'folder':
            (folder / lock_module.NAME).mkdir(parents=True)
        elif kind == 'pipe':
            folder.mkdir()
            os.mkfifo(folder / lock_module.NAME)
        lock = HostLock(folder)

        for _ in range(2):
            with pytest.raises(lock_module.LockError) as raised:
                lock.__enter__()

            assert str(raised.value).startswith(
                f'the lock of huge pages {folder}/huge-pages.lock cannot be '
                'used: '
            )
        assert not isinstance(raised.value, lock_module.LockTimeout)


class TestHolder:
    def holder(self, path):
        with open(path, 'rb') as file:
            return file_locks.holder(file.fileno())

    def test_is_the_process_that_has_the_lock(self, tmp_path):
        with process(tmp_path, HOLD) as other:
            assert next_line(other) == 'has it'
            name = pathlib.Path(f'/proc/{other.pid}/comm').read_text().strip()

            found = self.holder(tmp_path / lock_module.NAME)

        assert found == f'process {other.pid} ({name})'

    def test_is_none_of_a_file_without_a_lock(self, tmp_path):
        path = tmp_path / 'file'
        path.touch()

        assert self.holder(path) is None

    @pytest.mark.parametrize(
        ('pid', 'name'),
        [
            (0, 'a process outside this container'),
            # There is no larger number of a process.
            (2**22 + 1, 'process 4194305 (ended since)'),
        ],
    )
    def test_has_a_name_in_any_case(self, pid, name):
        assert file_locks.name_process(pid) == name
