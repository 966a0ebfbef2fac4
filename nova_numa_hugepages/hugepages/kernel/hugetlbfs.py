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

"""Files of hugetlbfs, and those of them that no process has open or mapped.

QEMU removes the names of its files at once, so that they end with it. Others,
such as DPDK, leave them, and their pages with them.

Source: ``Documentation/admin-guide/mm/hugetlbpage.rst`` and
``Documentation/filesystems/proc.rst`` of the kernel, on ``mountinfo`` and
``maps``.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import os
import pathlib
import re
import time
from typing import NamedTuple

from nova_numa_hugepages import exception
from nova_numa_hugepages.core.printable import printable
from nova_numa_hugepages.hugepages.kernel import hostfs

# DPDK makes a file for each page.
_MOST_FILES = 500_000
# After this time, in seconds, it is looked again who has them.
_AGAIN_S = 300.0
_DEEPEST = 8

_READABLE = (
    'something that can be read, to find files that were left in hugetlbfs '
    '(the monitor needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH)'
)

_BLOCK_BYTES = 512
_LONGEST = 4096

# Its device as the kernel writes it, and its inode.
_Id = tuple[int, int, int]


class HugeFile(NamedTuple):
    """A file of huge pages.

    :ivar path: as the host has it
    :ivar pages: how many it has
    """

    path: str
    size_kib: int
    pages: int


class FileOwners:
    """Finds the files that no process has.

    That takes long on a host with many processes, so it is done again only
    when files come or go, or after some minutes.

    :param ticks: seconds of a clock that only goes forward
    """

    def __init__(
        self, fs: hostfs.HostFS, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        self._fs = fs
        self._ticks = ticks
        self._known: dict[_Id, HugeFile] = {}
        self._unowned: list[HugeFile] = []
        self._looked: float | None = None

    def unowned(self) -> list[HugeFile]:
        """List the files that have pages, and that no process has.

        :raises exception.KernelError: if a folder or a process can't be read
        """
        files = dict(_files(self._fs))
        now = self._ticks()
        if (
            self._looked is None
            or now - self._looked >= _AGAIN_S
            or files != self._known
        ):
            self._looked = None
            self._unowned = _without_owner(self._fs, files)
            self._known, self._looked = files, now
        return self._unowned


def _without_owner(
    fs: hostfs.HostFS, files: Mapping[_Id, HugeFile]
) -> list[HugeFile]:
    left = dict(files)
    if not left:
        return []
    inodes = {inode for _, _, inode in left}
    folders = tuple(
        path for root, mount in _mounts(fs) for path in (mount, root + mount)
    )
    # Hardly any process has huge pages; those that do come first.
    for id in _in_use(fs, inodes, folders):
        left.pop(id, None)
        if not left:
            break
    return sorted(left.values())


def _mounts(fs: hostfs.HostFS) -> list[tuple[str, str]]:
    """List where hugetlbfs is mounted, with what is before that here."""
    own = fs.proc == hostfs.PROC
    path = fs.proc / ('self' if own else '1') / 'mountinfo'
    root = '' if own else os.fspath(fs.proc.parent)
    found = []
    for line in fs.text(path).splitlines() if path.exists() else ():
        before, _, after = line.partition(' - ')
        if after.split(' ')[:1] == ['hugetlbfs']:
            mount = _ESCAPED.sub(
                lambda match: chr(int(match[1], 8)), before.split(' ')[4]
            )
            found.append((root, mount))
    return found


def _files(fs: hostfs.HostFS) -> Iterator[tuple[_Id, HugeFile]]:
    count = 0
    for root, mount in _mounts(fs):
        for file in _walk(root + mount):
            count += 1
            if count > _MOST_FILES:
                raise exception.KernelError(
                    pathlib.Path(root + mount),
                    f'more than {_MOST_FILES} files',
                    'fewer files in mounts of hugetlbfs',
                )
            try:
                status = os.lstat(file)
            except FileNotFoundError:
                # It is gone by now.
                continue
            except OSError as error:
                raise exception.KernelError(
                    pathlib.Path(file), hostfs.reason(error), _READABLE
                ) from error
            pages = status.st_blocks * _BLOCK_BYTES // status.st_blksize
            if pages:
                yield (
                    _id(status),
                    HugeFile(
                        printable(file.removeprefix(root), _LONGEST),
                        status.st_blksize // 1024,
                        pages,
                    ),
                )


def _id(status: os.stat_result) -> _Id:
    return (
        os.major(status.st_dev),
        os.minor(status.st_dev),
        status.st_ino,
    )


def _walk(folder: str, depth: int = 0) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    except OSError as error:
        raise exception.KernelError(
            pathlib.Path(folder),
            hostfs.reason(error),
            _READABLE,
        ) from error
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            if depth < _DEEPEST:
                yield from _walk(entry.path, depth + 1)
        elif entry.is_file(follow_symlinks=False):
            yield entry.path


def _in_use(
    fs: hostfs.HostFS, inodes: Collection[int], folders: tuple[str, ...]
) -> Iterator[_Id]:
    """List the files that processes have mapped or open.

    :param inodes: of the files that matter
    :param folders: where hugetlbfs is mounted
    """
    others = []
    for name in os.listdir(fs.proc):
        if name.isdigit():
            if _has_none(fs, name):
                others.append(name)
            else:
                yield from _of_process(fs, name, inodes, folders)
    for name in others:
        yield from _of_process(fs, name, inodes, folders)


def _has_none(fs: hostfs.HostFS, name: str) -> bool:
    """Check whether a process has no huge pages, or is gone."""
    try:
        status = (fs.proc / name / 'status').read_text(errors='replace')
    except OSError:
        return True
    return _NO_PAGES.search(status) is not None


def _of_process(
    fs: hostfs.HostFS,
    name: str,
    inodes: Collection[int],
    folders: tuple[str, ...],
) -> Iterator[_Id]:
    folder = fs.proc / name
    try:
        for line in _MAPPED.finditer((folder / 'maps').read_bytes()):
            yield int(line[1], 16), int(line[2], 16), int(line[3])
        for descriptor in os.listdir(folder / 'fd'):
            yield from _open(folder, descriptor, inodes, folders)
    except (FileNotFoundError, ProcessLookupError):
        # It has ended.
        return
    except OSError as error:
        # Some may not be looked into, whoever asks. They have no such file if
        # they have no huge pages.
        if not _has_none(fs, name):
            raise exception.KernelError(
                folder, hostfs.reason(error), _READABLE
            ) from error


def _open(
    folder: pathlib.Path,
    descriptor: str,
    inodes: Collection[int],
    folders: tuple[str, ...],
) -> Iterator[_Id]:
    """Look at what a process has open, but at no other file system.

    One that hangs would hang whoever asks it.
    """
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        try:
            info = (folder / 'fdinfo' / descriptor).read_text()
        except FileNotFoundError:
            info = ''
        inode = _INODE.search(info)
        link = folder / 'fd' / descriptor
        # Kernels before 5.14 don't tell the inode.
        if (
            int(inode[1]) in inodes
            if inode
            else os.readlink(link).startswith(folders)
        ):
            yield _id(os.stat(link))


_INODE = re.compile(r'^ino:\s+(\d+)$', re.MULTILINE | re.ASCII)
_ESCAPED = re.compile(r'\\([0-7]{3})')
_NO_PAGES = re.compile(r'^HugetlbPages:\s+0 kB$', re.MULTILINE)
# The device and the inode.
_MAPPED = re.compile(
    rb'^[0-9a-f]+-[0-9a-f]+ \S{4} [0-9a-f]+ '
    rb'([0-9a-f]+):([0-9a-f]+) ([1-9]\d*) ',
    re.MULTILINE,
)
