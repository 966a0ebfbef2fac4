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

from collections.abc import Iterator
import contextlib
import os
import pathlib
import re
from typing import NamedTuple

from nova_numa_hugepages import exception
from nova_numa_hugepages.core.printable import printable
from nova_numa_hugepages.hugepages.kernel import hostfs

# How many files are looked at; a host with more has other trouble.
_MOST_FILES = 10_000
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


def unowned(fs: hostfs.HostFS) -> list[HugeFile]:
    """List the files that have pages, and that no process has.

    :raises exception.KernelError: if a folder can't be read
    """
    files = dict(_files(fs))
    if not files:
        return []
    for id in _in_use(fs):
        files.pop(id, None)
        if not files:
            break
    return sorted(files.values())


def _files(fs: hostfs.HostFS) -> Iterator[tuple[_Id, HugeFile]]:
    own = fs.proc == hostfs.PROC
    path = fs.proc / ('self' if own else '1') / 'mountinfo'
    root = '' if own else os.fspath(fs.proc.parent)
    if not path.exists():
        return
    count = 0
    for line in fs.text(path).splitlines():
        before, _, after = line.partition(' - ')
        if after.split(' ')[:1] != ['hugetlbfs']:
            continue
        mount = _ESCAPED.sub(
            lambda found: chr(int(found[1], 8)), before.split(' ')[4]
        )
        for file in _walk(root + mount):
            count += 1
            if count > _MOST_FILES:
                return
            # It may be gone by now.
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(file)
                pages = status.st_blocks * _BLOCK_BYTES // status.st_blksize
                if pages:
                    id = (
                        os.major(status.st_dev),
                        os.minor(status.st_dev),
                        status.st_ino,
                    )
                    shown = file.removeprefix(root)
                    yield (
                        id,
                        HugeFile(
                            printable(shown, _LONGEST),
                            status.st_blksize // 1024,
                            pages,
                        ),
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


def _in_use(fs: hostfs.HostFS) -> Iterator[_Id]:
    """List the files that processes have mapped or open."""
    for name in os.listdir(fs.proc):
        if not name.isdigit():
            continue
        folder = fs.proc / name
        try:
            # It may end meanwhile.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for line in _MAPPED.finditer((folder / 'maps').read_bytes()):
                    yield int(line[1], 16), int(line[2], 16), int(line[3])
                yield from _open(os.fspath(folder / 'fd'))
        except PermissionError as error:
            # Some may not be looked into, whoever asks. They have no such
            # file if they have no huge pages.
            if not _NO_PAGES.search(fs.text(folder / 'status')):
                raise exception.KernelError(
                    folder, hostfs.reason(error), _READABLE
                ) from error


def _open(folder: str) -> Iterator[_Id]:
    for descriptor in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(f'{folder}/{descriptor}')
            yield (
                os.major(status.st_dev),
                os.minor(status.st_dev),
                status.st_ino,
            )


_ESCAPED = re.compile(r'\\([0-7]{3})')
_NO_PAGES = re.compile(r'^HugetlbPages:\s+0 kB$', re.MULTILINE)
# The device and the inode.
_MAPPED = re.compile(
    rb'^[0-9a-f]+-[0-9a-f]+ \S{4} [0-9a-f]+ '
    rb'([0-9a-f]+):([0-9a-f]+) ([1-9]\d*) ',
    re.MULTILINE,
)
