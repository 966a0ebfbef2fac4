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

"""QEMU's processes of the running guests, and their huge pages.

Sources: ``/proc/PID/numa_maps`` in ``Documentation/filesystems/proc.rst`` and
``show_numa_map`` in ``fs/proc/task_mmu.c`` of the kernel; libvirt's
``src/qemu/qemu_command.c`` for the arguments that it gives QEMU.
"""

from __future__ import annotations

from collections.abc import Callable
import errno
import os
import re
from typing import NamedTuple

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hostfs

# Reads /proc/PID/numa_maps. Raises ProcessLookupError if there is no such
# process any more, exception.KernelError if the file can't be read.
MapsReader = Callable[[int], str]

# As libvirt and Nova write it.
_UUID = re.compile(r'[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}')
_GONE = frozenset({errno.ENOENT, errno.ESRCH})


class GuestProcess(NamedTuple):
    """The QEMU of a guest.

    :ivar uuid: of the domain, which is also that of the instance
    :ivar name: of the domain; empty if QEMU's arguments have none
    :ivar started: clock ticks after the boot of the host. Together with the
        id of the process it names the process once and for all.
    """

    pid: int
    uuid: str
    name: str
    started: int


def check_visible(fs: hostfs.HostFS) -> None:
    """Check that all processes of the host can be seen.

    :raises exception.KernelError: if they can't: in a container with process
        ids of its own, or with ``hidepid``
    """
    path = fs.proc / '2/comm'
    try:
        found = fs.text(path).strip()
    except exception.KernelError:
        found = 'nothing'
    # The kernel thread that starts all others. It has this id, and is seen
    # in the first namespace of processes only.
    if found != 'kthreadd':
        raise exception.KernelError(path, found, 'kthreadd')


def running(fs: hostfs.HostFS) -> dict[str, GuestProcess]:
    """Find the running guests.

    A process that is a zombie or is about to end has no arguments any more,
    and isn't found. Of several with one uuid the one that started last is.

    :returns: by uuid
    :raises exception.KernelError: if the processes can't be listed, or one of
        them can't be read
    """
    found: dict[str, GuestProcess] = {}
    try:
        names = os.listdir(fs.proc)
    except OSError as error:
        raise exception.KernelError(
            fs.proc, hostfs.reason(error), 'a folder for each process'
        ) from error
    for name in names:
        process = guest(fs, int(name)) if name.isdigit() else None
        if process is None:
            continue
        other = found.get(process.uuid)
        if other is None or other.started < process.started:
            found[process.uuid] = process
    return found


def guest(fs: hostfs.HostFS, pid: int) -> GuestProcess | None:
    """Get the guest that a process runs.

    :returns: None if it runs none, or has ended
    :raises exception.KernelError: if it can't be read
    """
    line = _bytes(f'{fs.proc}/{pid:d}/cmdline')
    # There are thousands of processes, and few that are guests.
    if b'\0-uuid\0' not in line:
        return None
    words = line.decode('utf-8', 'replace').split('\0')
    uuid = _argument(words, '-uuid').lower()
    if not _UUID.fullmatch(uuid):
        return None
    # The name of the program, which comes before, may hold anything.
    stat = _bytes(f'{fs.proc}/{pid:d}/stat').rpartition(b')')[2].split()
    if len(stat) < 20 or not stat[19].isdigit():
        return None
    return GuestProcess(
        pid, uuid, _name(_argument(words, '-name')), int(stat[19])
    )


class MapsFile:
    """Reads where the memory of a process is, in this process."""

    def __init__(self, fs: hostfs.HostFS) -> None:
        self._fs = fs

    def __call__(self, pid: int) -> str:
        """Read ``numa_maps`` of a process.

        :raises ProcessLookupError: if there is no such process any more
        :raises exception.KernelError: if it can't be read
        """
        path = self._fs.proc / f'{pid:d}' / 'numa_maps'
        try:
            with open(path, 'rb') as file:
                return file.read().decode('ascii', 'replace')
        except OSError as error:
            if error.errno in _GONE:
                raise ProcessLookupError(
                    errno.ESRCH, os.strerror(errno.ESRCH)
                ) from error
            raise exception.KernelError(
                path, hostfs.reason(error), 'a file that can be read'
            ) from error


def pages_of(numa_maps: str) -> dict[model.PoolKey, int]:
    """Count the huge pages of a process.

    Only those that it has touched: others have no place yet.

    :param numa_maps: what is in its file of that name
    :returns: pages by pool; pools without are left out
    """
    found: dict[model.PoolKey, int] = {}
    for line in numa_maps.splitlines():
        words = line.split()
        if 'huge' not in words:
            continue
        counts: list[tuple[int, int]] = []
        size_kib = 0
        for word in words[2:]:
            name, _, value = word.partition('=')
            if not value.isdigit():
                continue
            if name == 'kernelpagesize_kB':
                size_kib = int(value)
            elif name[:1] == 'N' and name[1:].isdigit():
                counts.append((int(name[1:]), int(value)))
        if not size_kib:
            continue
        for node, count in counts:
            key = model.PoolKey(node, size_kib)
            found[key] = found.get(key, 0) + count
    return found


def _argument(words: list[str], option: str) -> str:
    """Return the argument of an option of QEMU; the last one counts."""
    for at in range(len(words) - 2, 0, -1):
        if words[at] == option:
            return words[at + 1]
    return ''


def _name(text: str) -> str:
    """Read ``guest=NAME,debug-threads=on``, with commas in NAME doubled."""
    first = text.replace(',,', '\0').partition(',')[0]
    return first.removeprefix('guest=').replace('\0', ',')


def _bytes(path: str) -> bytes:
    """Read a file of a process.

    :returns: nothing if it has ended
    :raises exception.KernelError: if it can't be read: that isn't "ended"
    """
    try:
        with open(path, 'rb', buffering=0) as file:
            return file.read()
    except OSError as error:
        if error.errno in _GONE:
            return b''
        raise exception.KernelError(
            path, hostfs.reason(error), 'a file that can be read'
        ) from error
