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

"""POSIX record locks, as other processes hold them: ``fcntl(2)``."""

from __future__ import annotations

import fcntl
import os
import pathlib
import struct

# The kernel's struct flock: type, whence, start, length, process.
_FLOCK = 'hhqqi0q'


def holder(descriptor: int, kind: int = fcntl.F_WRLCK) -> str | None:
    """Get the process that holds a lock on a file.

    :param descriptor: of the file, which this process has not locked
    :param kind: the lock that it would keep others from: ``F_WRLCK`` for any
        lock, ``F_RDLCK`` for one to write
    :returns: like ``process 4711 (nova-compute)``, None if there is none
    :raises OSError: if the kernel doesn't say
    """
    request = struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)
    answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, request)
    found, _, _, _, pid = struct.unpack(_FLOCK, answer)
    return None if found == fcntl.F_UNLCK else name_process(pid)


def holder_of(path: pathlib.Path, kind: int = fcntl.F_WRLCK) -> str | None:
    """Get the process that holds a lock on a file that this one hasn't open.

    :param kind: as for `holder`
    :returns: as `holder`; None without a file
    :raises OSError: if it can't be opened, or the kernel doesn't say
    """
    try:
        # What is no regular file is not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return holder(descriptor, kind)
    finally:
        os.close(descriptor)


def name_process(pid: int) -> str:
    """Name a process and its program, for messages.

    :param pid: 0 if it has none here, as a process outside this container
    """
    if not pid:
        return 'a process outside this container'
    try:
        program = pathlib.Path(f'/proc/{pid}/comm').read_text().strip()
    except OSError:
        program = 'ended since'
    return f'process {pid} ({program})'
