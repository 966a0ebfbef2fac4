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

Sources: ``/proc/PID/maps`` and ``numa_maps`` in
``Documentation/filesystems/proc.rst`` and ``show_numa_map`` in
``fs/proc/task_mmu.c`` of the kernel; libvirt's ``src/qemu/qemu_command.c`` for
the arguments that it gives QEMU, and ``src/util/vircgroup.c`` and
``virsystemd.c`` for the names of its groups.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import errno
import os
import re
from typing import NamedTuple
from typing import TypeVar

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hostfs

# Reads what `huge_maps` does. Raises ProcessLookupError if there is no such
# process any more, exception.KernelError if a file can't be read.
MapsReader = Callable[[int], str]

_T = TypeVar('_T')

# As libvirt and Nova write it.
_UUID = re.compile(r'[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}')
_MAPPING = re.compile(
    rb'^([0-9a-f]+)-([0-9a-f]+) [r-][w-][x-]([ps]) ', re.MULTILINE
)
# Its control group, by systemd or by libvirt alone.
_GROUP = re.compile(r'machine-qemu\\x2d.+\.scope|.+\.libvirt-qemu')
# The real user.
_USER = re.compile(rb'^Uid:\t(\d+)\t', re.MULTILINE)
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

    Anybody can start a program with the arguments of a guest. So its user has
    to be root, or libvirt has to have given it a control group or noted its
    id.

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
    name = _name(_argument(words, '-name'))
    if not _is_of_libvirt(fs, pid, name):
        return None
    return GuestProcess(pid, uuid, name, int(stat[19]))


def _is_of_libvirt(fs: hostfs.HostFS, pid: int, name: str) -> bool:
    """Check whether libvirt can have started a process.

    :param name: of the domain that it says it runs
    :raises exception.KernelError: if it can't be read
    """
    user = _USER.search(_bytes(f'{fs.proc}/{pid:d}/status'))
    if user is not None and int(user[1]) == 0:
        return True
    groups = _bytes(f'{fs.proc}/{pid:d}/cgroup').decode('utf-8', 'replace')
    for line in groups.splitlines():
        path = line.split(':', 2)[-1].split('/')
        # There, users make groups of whatever name.
        if 'user.slice' not in path and any(map(_GROUP.fullmatch, path)):
            return True
    # Without control groups, or with none for guests.
    if not name or '/' in name:
        return False
    try:
        note = _bytes(f'{fs.run}/libvirt/qemu/{name}.pid')
    except exception.KernelError:
        # Anybody can give a name that no file can have, and must not stop all
        # guests of the host with it.
        return False
    return note.strip() == b'%d' % pid


class ProcessMemory(NamedTuple):
    """Where the memory of a process is.

    :ivar huge_maps: the lines of its ``numa_maps`` on huge pages, each with
        the size of the mapping at its end, as ``mapped_kB=4096``, or as
        ``private_kB=4096`` if it is private; 0 if it isn't known
    :ivar small_kib: its memory in other pages, in KiB by node
    """

    huge_maps: str
    small_kib: Mapping[int, int]


def memory(fs: hostfs.HostFS, pid: int) -> ProcessMemory:
    """Read where the memory of a process is.

    The kernel walks all of its pages for that, which takes a second for some
    64 GiB of small ones.

    :raises OSError: if a file can't be read
    """
    huge, rest = _lines(fs, pid)
    small_kib: dict[int, int] = collections.Counter()
    for mapping in _mappings('\n'.join(rest)):
        for node, count in mapping.pages.items():
            small_kib[node] += count * mapping.size_kib
    return ProcessMemory(huge, dict(small_kib))


def huge_maps(fs: hostfs.HostFS, pid: int) -> str:
    """Read where the huge pages of a process are.

    :returns: as in `ProcessMemory`
    :raises OSError: if a file can't be read
    """
    return _lines(fs, pid)[0]


def _lines(fs: hostfs.HostFS, pid: int) -> tuple[str, list[str]]:
    """Read the mappings of a process.

    :returns: `ProcessMemory.huge_maps`, and the other lines of ``numa_maps``
    :raises OSError: if a file can't be read
    """
    folder = fs.proc / f'{pid:d}'
    maps = b''
    # It comes first: what is mapped in between is not counted.
    with contextlib.suppress(FileNotFoundError):
        maps = (folder / 'maps').read_bytes()
    text = (folder / 'numa_maps').read_text('ascii', 'replace')
    huge: list[str] = []
    rest: list[str] = []
    for line in text.splitlines():
        (huge if ' huge' in line else rest).append(line)
    sizes = _sizes(maps) if huge else {}
    found = [
        f'{line} {sizes.get(int(line.split()[0], 16), "mapped_kB=0")}\n'
        for line in huge
        if 'huge' in line.split()
    ]
    return ''.join(found), rest


def _sizes(maps: bytes) -> dict[int, str]:
    """Read the sizes of mappings, by their first address."""
    sizes = {}
    for first, last, sharing in _MAPPING.findall(maps):
        mapped_kib = (int(last, 16) - int(first, 16)) // 1024
        name = 'private' if sharing == b'p' else 'mapped'
        sizes[int(first, 16)] = f'{name}_kB={mapped_kib}'
    return sizes


class MapsFile:
    """Reads where the memory of a process is, in this process."""

    def __init__(self, fs: hostfs.HostFS) -> None:
        self._read = translated(lambda pid: huge_maps(fs, pid), fs)

    def __call__(self, pid: int) -> str:
        """Read where the huge pages of a process are, as `huge_maps`.

        :raises ProcessLookupError: if there is no such process any more
        :raises exception.KernelError: if it can't be read
        """
        return self._read(pid)


def translated(
    read: Callable[[int], _T], fs: hostfs.HostFS
) -> Callable[[int], _T]:
    """Return a reader of processes whose errors are those of `MapsReader`.

    :param read: raises OSError
    """

    def read_process(pid: int) -> _T:
        try:
            return read(pid)
        except OSError as error:
            if error.errno in _GONE:
                raise ProcessLookupError(
                    errno.ESRCH, os.strerror(errno.ESRCH)
                ) from error
            raise exception.KernelError(
                fs.proc / f'{pid:d}' / 'numa_maps',
                hostfs.reason(error),
                'a file that can be read',
            ) from error

    return read_process


def mapped_kib(fs: hostfs.HostFS, skip: Collection[int]) -> int:
    """Add up the huge pages that processes have, in KiB.

    Those that several have count for each.

    :param skip: the ids of processes that don't count
    :raises exception.KernelError: if they can't be read
    """
    total_kib = 0
    for name in os.listdir(fs.proc):
        if name.isdigit() and int(name) not in skip:
            status = _bytes(f'{fs.proc}/{name}/status')
            found = _HUGETLB.search(status)
            total_kib += int(found[1]) if found else 0
    return total_kib


_HUGETLB = re.compile(rb'^HugetlbPages:\s+(\d+) kB$', re.MULTILINE)


def pages_of(maps: str) -> dict[model.PoolKey, int]:
    """Count the huge pages of a process.

    Only those that it has touched: others have no place yet.

    :param maps: as `huge_maps` reads it
    :returns: pages by pool; pools without are left out
    """
    found: dict[model.PoolKey, int] = collections.Counter()
    for mapping in _mappings(maps):
        for node, count in mapping.pages.items():
            found[model.PoolKey(node, mapping.size_kib)] += count
    return dict(found)


def untouched_kib(maps: str, size_kib: int, *, private: bool = False) -> int:
    """Return the memory that a process has mapped, and has no pages for.

    The kernel keeps free pages for it, unless the process has returned some.

    :param maps: as `huge_maps` reads it
    :param size_kib: the page size; that of a mapping is not known before it is
        touched, so those count as well
    :param private: whether to count only what no other process can map, and
        has pages of this size
    """
    sizes = (size_kib,) if private else (0, size_kib)
    return sum(
        max(0, mapping.mapped_kib - size_kib * sum(mapping.pages.values()))
        for mapping in _mappings(maps)
        if mapping.size_kib in sizes and (mapping.private or not private)
    )


class _Mapping(NamedTuple):
    """Memory on huge pages that a process has mapped.

    :ivar size_kib: of its pages, 0 if it isn't known
    :ivar pages: how many it has, by node
    :ivar mapped_kib: its own size, 0 if it isn't known
    :ivar private: whether no other process can map it
    """

    size_kib: int
    pages: Mapping[int, int]
    mapped_kib: int
    private: bool


# The file of a memory device of QEMU, as libvirt names it. It has memory that
# comes and goes, for which the kernel keeps no pages (``reserve=off``).
_UNRESERVED = 'qemu_back_mem.memvirtiomem'


def _mappings(maps: str) -> Iterator[_Mapping]:
    """Read the mappings on huge pages."""
    for line in maps.splitlines():
        counts: dict[int, int] = collections.Counter()
        size_kib = mapped_kib = 0
        private = False
        reserves = _UNRESERVED not in line
        for word in line.split()[2:]:
            name, _, value = word.partition('=')
            if not value.isdigit():
                continue
            if name == 'kernelpagesize_kB':
                size_kib = int(value)
            elif name in ('mapped_kB', 'private_kB'):
                mapped_kib = int(value) if reserves else 0
                private = name == 'private_kB'
            elif name[:1] == 'N' and name[1:].isdigit():
                counts[int(name[1:])] += int(value)
        pages = counts if size_kib else {}
        yield _Mapping(size_kib, pages, mapped_kib, private)


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
