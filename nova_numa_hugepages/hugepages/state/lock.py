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

"""The lock of the host: one thread of one process changes page pools.

It is on a file, as oslo.concurrency has it, so it is gone with the process
that held it, however that ended.
"""

from __future__ import annotations

from collections.abc import Callable
import os
import pathlib
import threading
import time
import types

from oslo_concurrency import lockutils
from oslo_log import log as logging

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.state import sqlite

LOG = logging.getLogger(__name__)

NAME = 'huge-pages.lock'

# Seconds. Several guests may wait for each other's pages, one by one.
TIMEOUT_S = 600.0

# Seconds after which waiting is told of.
PATIENCE_S = 1.0

_PROC = pathlib.Path('/proc')


class LockError(exception.NUMAHugepagesError):
    """The lock of the host can't be had.

    :param path: its file
    :param reason: why
    :param remedy: what to do
    """

    def __init__(self, path: object, reason: str, remedy: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f'the lock of huge pages {path} {reason}. {remedy}')


class LockTimeout(LockError):
    """The lock of the host was held by somebody else for too long."""


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

    :ivar path: its file
    :param folder: the folder of the ledger
    :param timeout_s: how long to wait for it, in seconds
    :param waiting: called with who has it, once it was waited for in vain for
        `PATIENCE_S`
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

        :raises LockTimeout: if somebody else had it all the time
        :raises LockError: if its file can't be used
        """
        start = time.monotonic()
        if not self._wait_for_threads(start):
            raise self._timeout(self._shared.owner)
        try:
            if not self._shared.depth:
                if not self._wait_for_processes(start):
                    raise self._timeout(holder(self.path))
                self._shared.owner = _here()
        except BaseException:
            self._shared.threads.release()
            raise
        self._shared.depth += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        """Give the lock back, when the thread leaves it for the last time."""
        try:
            self._shared.depth -= 1
            if not self._shared.depth:
                self._shared.processes.release()
        finally:
            self._shared.threads.release()

    def _wait_for_threads(self, start: float) -> bool:
        if self._shared.threads.acquire(
            timeout=min(PATIENCE_S, self._timeout_s)
        ):
            return True
        self._tell(self._shared.owner)
        return self._shared.threads.acquire(timeout=self._left(start))

    def _wait_for_processes(self, start: float) -> bool:
        """Take the lock on the file. Needs the lock on the threads."""
        file = self._shared.processes
        try:
            sqlite.make_private(self.path)
            if file.acquire(timeout=min(PATIENCE_S, self._left(start))):
                return True
            self._tell(holder(self.path))
            if file.acquire(timeout=self._left(start)):
                return True
        # The second is what fasteners makes of an error of the first kind.
        except (OSError, threading.ThreadError) as error:
            raise LockError(
                self.path,
                f'cannot be used: {error}',
                'See to it that the user of the service owns the file and '
                'its folder.',
            ) from error
        # Somebody may put another file in its place until the next attempt.
        file.lockfile.close()
        return False

    def _left(self, start: float) -> float:
        return max(0.0, start + self._timeout_s - time.monotonic())

    def _tell(self, holder: str) -> None:
        LOG.debug(
            'Waiting for the lock %(path)s, which %(holder)s has.',
            {'path': self.path, 'holder': holder},
        )
        if self._waiting is not None:
            self._waiting(holder)

    def _timeout(self, holder: str) -> LockTimeout:
        return LockTimeout(
            self.path,
            f'could not be had in {self._timeout_s:g} s: {holder} has it',
            'See what that is doing, end it if it hangs, and try again.',
        )


def holder(path: pathlib.Path, proc: pathlib.Path = _PROC) -> str:
    """Tell which process has a lock on a file.

    The format: ``/proc/locks`` in ``proc(5)``.

    :param proc: the folder of the kernel's files on processes
    """
    try:
        status = path.stat()
        locks = (proc / 'locks').read_text()
    except OSError as error:
        return f'a process that cannot be told ({error})'
    file = (
        f'{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:'
        f'{status.st_ino}'
    )
    for line in locks.splitlines():
        # One that waits has an arrow in the second column.
        fields = line.split()
        if len(fields) > 5 and fields[1] == 'POSIX' and fields[5] == file:
            return f'process {fields[4]} ({_command(fields[4], proc)})'
    return 'a process that cannot be told'


def _command(pid: str, proc: pathlib.Path) -> str:
    try:
        return (proc / pid / 'comm').read_text().strip()
    except OSError:
        return 'ended since'


def _here() -> str:
    return f'thread {threading.current_thread().name} of this process'
