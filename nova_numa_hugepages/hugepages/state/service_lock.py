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

"""The lock file that the service holds for as long as it runs.

The service calls :func:`hold` once, before it opens its ledger. A command
calls :func:`holder` to find out whether a service works with that ledger.

Two services can't share a ledger, so only one holds it. The lock is a POSIX
record lock, because

- the kernel drops it however the process ends;
- a forked child doesn't inherit it, unlike the locks of ``flock`` and of open
  file descriptions: the helper that oslo.privsep forks would keep those;
- `holder` asks the kernel without a lock of its own, so that two who ask, or
  one who asks and a service that starts, never disturb each other;
- the kernel keeps it with the file, so that it is seen in each container that
  has the folder mounted.

A process loses it when it closes any descriptor of the file, so each process
opens the file once, here. The file stays when the service ends: that it is
there means nothing.
"""

from __future__ import annotations

import fcntl
import os
import pathlib

from nova_numa_hugepages.hugepages.kernel import file_locks
from nova_numa_hugepages.hugepages.state import lock

NAME = 'nova-numa-hugepages-service.lock'

# The descriptors that hold locks, by process and file. A forked child has its
# parent's entries, but not the locks.
_held: dict[tuple[int, pathlib.Path], int] = {}


def hold(folder: pathlib.Path) -> None:
    """Hold the lock of the service until this process ends.

    Never waits. Idempotent.

    :param folder: the folder of the ledger
    :raises lock.LockError: if another process holds it, or the file can't be
        used
    """
    path = _path(folder)
    if (os.getpid(), path) in _held:
        return
    try:
        lock.make_file(path)
        # Not inherited by programs that the service starts.
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            _lock(descriptor, path)
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        raise lock.unusable(path, error) from error
    _held[os.getpid(), path] = descriptor


def _lock(descriptor: int, path: pathlib.Path) -> None:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        # Named by POSIX for a lock that another process has.
        process = (
            file_locks.holder(descriptor) or 'a process that has ended since'
        )
        raise lock.LockError(
            path,
            f'is held by {process}',
            'Two compute services cannot share a ledger: stop the other one, '
            'or give one of them another [DEFAULT] state_path.',
        ) from error


def release(folder: pathlib.Path) -> None:
    """Release the lock of the service before this process ends.

    For a process that outlives the service in it. Does nothing if the process
    doesn't hold the lock.
    """
    descriptor = _held.pop((os.getpid(), _path(folder)), None)
    if descriptor is not None:
        os.close(descriptor)


def holder(folder: pathlib.Path) -> str | None:
    """Get the process that holds the lock of the service.

    Needs the right to read the file, which the service's user and root have.

    :param folder: the folder of the ledger
    :returns: like ``process 4711 (nova-compute)``, for messages; a process in
        another container may have no number here. None if no service runs.
    :raises lock.LockError: if the file can't be read
    """
    path = _path(folder)
    if (os.getpid(), path) in _held:
        return file_locks.name_process(os.getpid())
    try:
        return file_locks.holder_of(path)
    except OSError as error:
        raise lock.unusable(path, error) from error


def _path(folder: pathlib.Path) -> pathlib.Path:
    return folder.resolve() / NAME
