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

"""The lock of the host: one process at a time changes pools and ledger.

It is on a file, as oslo.concurrency has it, so it is gone with the process
that held it, however that ended.
"""

from __future__ import annotations

from collections.abc import Callable
import errno
import os
import pathlib
import stat
import threading
import time

from oslo_concurrency import lockutils
from oslo_log import log as logging

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.kernel import file_locks
from nova_numa_hugepages.hugepages.state import sqlite

LOG = logging.getLogger(__name__)

NAME = 'huge-pages.lock'

# Seconds. Several guests may wait for each other's pages, one by one.
TIMEOUT_S = 600.0

# Seconds after which waiting is reported.
PATIENCE_S = 1.0


class LockError(exception.NUMAHugepagesError):
    """A lock file can't be used."""

    def __init__(self, path: object, reason: str, remedy: str) -> None:
        super().__init__(f'the lock of huge pages {path} {reason}. {remedy}')


class LockTimeout(LockError):
    """The lock of the host was held by another thread for too long."""


class _Shared:
    """What all locks of this process on one file have in common.

    POSIX gives a lock to the process, and takes it away when any descriptor
    of the file is closed; so one file object has to do, for one thread at a
    time.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.threads = threading.RLock()
        # How often the thread that has it entered.
        self.depth = 0
        self.owner = 'another thread of this process'
        self.processes = lockutils.external_lock(
            path.name, lock_path=str(path.parent)
        )


_shared: dict[pathlib.Path, _Shared] = {}
_shared_lock = threading.Lock()


class HostLock:
    """A lock over all threads of all processes of the host.

    A context manager; a thread that has it may enter it again, also through
    another object for the same folder.

    :param folder: the folder of the ledger
    :param timeout_s: how long to wait for it, in seconds
    :param waiting: called with who has it, after `PATIENCE_S` of waiting
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        timeout_s: float = TIMEOUT_S,
        waiting: Callable[[str], None] | None = None,
    ) -> None:
        self.path = folder.resolve() / NAME
        self._timeout_s = timeout_s
        self._waiting = waiting
        with _shared_lock:
            if self.path not in _shared:
                _shared[self.path] = _Shared(self.path)
            self._shared = _shared[self.path]

    def __enter__(self) -> HostLock:
        """Wait for the lock, and take it.

        :raises LockTimeout: if others had it all the time
        :raises LockError: if its file can't be used
        """
        deadline = time.monotonic() + self._timeout_s
        shared = self._shared
        self._wait(shared.threads.acquire, lambda: shared.owner, deadline)
        try:
            if not shared.depth:
                self._lock_file(deadline)
                name = threading.current_thread().name
                shared.owner = f'thread {name} of this process'
        except BaseException:
            shared.threads.release()
            raise
        shared.depth += 1
        return self

    def __exit__(self, *failure: object) -> None:
        """Give the lock back, when the thread leaves it for the last time."""
        try:
            self._shared.depth -= 1
            if not self._shared.depth:
                self._shared.processes.release()
        finally:
            self._shared.threads.release()

    def _lock_file(self, deadline: float) -> None:
        """Take the lock on the file. Needs the lock on the threads."""
        file = self._shared.processes
        try:
            make_file(self.path)
            self._wait(file.acquire, self._file_holder, deadline)
        # The second is what fasteners makes of an error of the first kind.
        except (OSError, threading.ThreadError) as error:
            raise unusable(self.path, error) from error
        finally:
            # Another file may be put in its place until the next attempt.
            if not file.acquired and file.lockfile is not None:
                file.lockfile.close()

    def _file_holder(self) -> str:
        # An attempt to take the lock leaves the file open.
        found = file_locks.holder(self._shared.processes.lockfile.fileno())
        return found or 'a process that has just released it'

    def _wait(
        self,
        acquire: Callable[..., bool],
        owner: Callable[[], str],
        deadline: float,
    ) -> None:
        """Take a lock, and report that it takes a while."""
        patience_s = min(PATIENCE_S, _left(deadline))
        if acquire(timeout=patience_s):
            return
        LOG.debug(
            'Waiting for the lock %(path)s, held by %(holder)s.',
            {'path': self.path, 'holder': owner()},
        )
        if self._waiting is not None:
            self._waiting(owner())
        if not acquire(timeout=_left(deadline)):
            raise LockTimeout(
                self.path,
                f'could not be acquired in {self._timeout_s:g} s: {owner()} '
                'holds it',
                'See what that is doing, end it if it hangs, and try again.',
            )


def make_file(path: pathlib.Path) -> None:
    """Make an empty lock file, if there is none.

    :raises OSError: if it can't be made, or what is there is no file
    """
    sqlite.make_private(path)
    # Opening a pipe, for example, would wait until a process writes to it.
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, 'Not a regular file', os.fspath(path))


def unusable(path: pathlib.Path, error: Exception) -> LockError:
    """Make the error for a lock file that can't be used."""
    return LockError(path, f'cannot be used: {error}', sqlite.ACCESS)


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
