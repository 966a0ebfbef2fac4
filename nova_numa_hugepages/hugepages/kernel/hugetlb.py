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

"""The kernel's pools of huge pages, one verb for each of its files.

Source: the kernel's ``Documentation/admin-guide/mm/hugetlbpage.rst`` and, for
what it leaves out, ``mm/hugetlb.c``. What a caller has to know:

- The number of a node that is read counts surplus pages, and the one that is
  written doesn't: it sets the persistent pages.
- The kernel gives and takes what it can and reports success, so the pool is
  read again after each write.
- Before Linux 6.7 what is written for a node is off by the surplus pages of
  the other nodes, which it gets on top. What is written for the host is right
  on every kernel, and only changes the nodes of the writer's memory policy.
- When a pool grows, its surplus pages become persistent before new ones are
  made. When it shrinks below what is in use, pages become surplus, and vanish
  when they are freed.
- A free page that the kernel fails to take apart stays in the pool as a
  surplus page. So do free pages of one node while another has surplus pages
  in use, or while as many pages of the host are reserved. They go away when
  they are made persistent again and then taken away.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import errno
import fcntl
import os
import pathlib
import re
import time
from typing import NoReturn
from typing import Protocol

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import file_locks
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import mempolicy

_FOLDER = re.compile(r'hugepages-([1-9][0-9]*)kB', re.ASCII)

_RELEASE = re.compile(r'([0-9]+)\.([0-9]+)', re.ASCII)

# With these the kernel says that it did less than it was asked for.
_DID_LESS = frozenset({errno.EBUSY, errno.ENOMEM, errno.EAGAIN, errno.EINTR})
_FORBIDDEN = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})

# How often a pool is written, as others may change pools at the same time.
_ATTEMPTS = 4

# Seconds. A write returns when the kernel has tried to get all of the pages.
WRITE_LIMIT_S = 600.0
_POLL_S = 0.25

# What pages are split into, in KiB.
DEMOTED_KIB = 2048


class Writer(Protocol):
    """Writes a number to a file of the kernel.

    It returns when the kernel has done what it can.
    """

    def __call__(
        self, path: pathlib.Path, number: int, node: int | None = None
    ) -> None:
        """Write it.

        :param node: the node that the kernel takes memory from and returns it
            to, if the file doesn't say; None if it does
        :raises OSError: if the kernel refuses
        """


def nr_file(fs: hostfs.HostFS, node: int, size_kib: int) -> pathlib.Path:
    """Return the file that sets the persistent pages of a pool."""
    return fs.pool_folder(model.PoolKey(node, size_kib)) / 'nr_hugepages'


def host_file(fs: hostfs.HostFS, size_kib: int) -> pathlib.Path:
    """Return the file that sets the persistent pages of a size on the host.

    The kernel changes the nodes of the writer's memory policy only.
    """
    return fs.size_folder(size_kib) / 'nr_hugepages_mempolicy'


def demote_file(fs: hostfs.HostFS, node: int, size_kib: int) -> pathlib.Path:
    """Return the file that splits pages of a pool."""
    return fs.pool_folder(model.PoolKey(node, size_kib)) / 'demote'


def compact_file(fs: hostfs.HostFS, node: int) -> pathlib.Path:
    """Return the file that compacts the memory of a node."""
    return fs.node_folder(node) / 'compact'


def write_number(
    path: pathlib.Path, number: int, node: int | None = None
) -> None:
    """Write a number to a file of the kernel, in one go.

    A `Writer`. This process has to have the right to. That the kernel did less
    than it was asked for is no error, and no file is created.

    The file is locked meanwhile: a service that was killed leaves its helper
    at work, and the next one waits for it (`Hugetlb.wait_for_writers`).
    """
    if node is not None:
        with mempolicy.preferring(node):
            write_number(path, number)
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        # Anybody may hold a lock to read it, and that stops no write.
        with contextlib.suppress(BlockingIOError, PermissionError):
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(descriptor, b'%d' % number)
    except OSError as error:
        if error.errno not in _DID_LESS:
            raise
    finally:
        os.close(descriptor)


def _writer_of(path: pathlib.Path) -> str | None:
    """Get the process that is writing to a file of the kernel, if any."""
    try:
        return file_locks.holder_of(path, fcntl.F_RDLCK)
    except OSError as error:
        raise exception.KernelError(
            path, hostfs.reason(error), 'a file that can be read'
        ) from error


def refusing(reason: str) -> Writer:
    """Return a writer that refuses to write."""

    def refuse(
        path: pathlib.Path, number: int, node: int | None = None
    ) -> NoReturn:
        raise exception.PoolsReadOnly(reason)

    return refuse


class Hugetlb:
    """The pools of a host.

    Reading needs no privileges. Nothing is kept between calls, and a caller
    that writes holds the lock of the host. Each method raises
    `exception.KernelError` if a file can't be used, and those that change
    something raise `exception.PoolsReadOnly` if that isn't possible here.
    """

    def __init__(
        self,
        fs: hostfs.HostFS,
        writer: Writer,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.fs = fs
        self._writer = writer
        self._sleep = sleep

    def nodes(self) -> list[int]:
        """List the nodes that can have huge pages, ascending.

        :returns: online nodes with memory; none if the kernel has no huge
            pages
        """
        path = self.fs.nodes_folder / 'has_memory'
        return [node for node in self.fs.ids(path) if self.sizes(node)]

    def sizes(self, node: int) -> list[int]:
        """List the sizes of huge pages of a node, in KiB, ascending."""
        folder = self.fs.node_folder(node) / 'hugepages'
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise exception.KernelError(
                folder, hostfs.reason(error), 'a folder for each page size'
            ) from error
        return sorted(
            int(match[1]) for match in map(_FOLDER.fullmatch, names) if match
        )

    def pool(self, key: model.PoolKey) -> model.Pool:
        """Read the counters of a pool.

        The kernel doesn't give them at one time. They are read until nothing
        has changed in between, but a few times only.
        """
        folder = self.fs.pool_folder(key)
        total = self.fs.number(folder / 'nr_hugepages')
        for _ in range(4):
            surplus = self.fs.number(folder / 'surplus_hugepages')
            free = self.fs.number(folder / 'free_hugepages')
            before, total = total, self.fs.number(folder / 'nr_hugepages')
            if total == before:
                break
        # What is still torn must not be taken for pages to give away.
        free, surplus = min(free, total), min(surplus, total)
        return model.Pool(key.node, key.size_kib, total, free, surplus)

    def pools(self) -> dict[model.PoolKey, model.Pool]:
        """Read the counters of all pools, by node and size."""
        path = self.fs.nodes_folder / 'has_memory'
        keys = (
            model.PoolKey(node, size_kib)
            for node in self.fs.ids(path)
            for size_kib in self.sizes(node)
        )
        return {key: self.pool(key) for key in keys}

    def reserved(self) -> dict[int, int]:
        """Read how many free pages the kernel has promised to processes.

        It knows that for the host only, not on which node they will be.

        :returns: pages by size in KiB
        """
        return {
            size_kib: self.fs.number(
                self.fs.size_folder(size_kib) / 'resv_hugepages'
            )
            for size_kib in {s for n in self.nodes() for s in self.sizes(n)}
        }

    def set_persistent(self, key: model.PoolKey, pages: int) -> int:
        """Ask for so many persistent pages; `pool` reads the result.

        :returns: how many the kernel took it for, at most; more than asked
            for only if others changed pools at the same time
        :raises ValueError: if that is less than none
        """
        if pages < 0:
            raise ValueError(f'a pool cannot have {pages} pages')
        if self._is_exact():
            self._write(nr_file(self.fs, *key), pages)
            return pages
        for _ in range(_ATTEMPTS):
            persistent, surplus = self._on_others(key)
            if surplus:
                path = host_file(self.fs, key.size_kib)
                self._write(path, persistent + pages, key.node)
                meant = pages + persistent - self._on_others(key)[0]
            else:
                self._write(nr_file(self.fs, *key), pages)
                meant = pages + self._on_others(key)[1]
            if meant >= pages:
                return meant
        return pages

    def wait_for_writers(self, key: model.PoolKey) -> None:
        """Wait until no process is setting a pool.

        :raises exception.KernelError: if one takes longer than any write does
        """
        for path in (
            nr_file(self.fs, *key),
            host_file(self.fs, key.size_kib),
        ):
            waited_s = 0.0
            while (process := _writer_of(path)) is not None:
                if waited_s >= WRITE_LIMIT_S:
                    raise exception.KernelError(
                        path,
                        f'{process} writing to it for {waited_s:g} s',
                        'a file that is not written to; see what that '
                        'process is doing, and end it if it hangs',
                    )
                self._sleep(_POLL_S)
                waited_s += _POLL_S

    def keeps_returned(self) -> bool:
        """Check whether pages are kept for a process that returns some.

        If it does so with ``MADV_DONTNEED``, in a private mapping, and there
        are no surplus pages of this size on the host. A kernel that was
        patched to do so is not recognized.

        :raises exception.KernelError: if its release can't be read
        """
        return self._release() >= (6, 9)

    def _is_exact(self) -> bool:
        """Check whether what is written for a node is right in any case."""
        return self._release() >= (6, 7)

    def _release(self) -> tuple[int, int]:
        """Read the release of the kernel; an old one if it isn't known."""
        path = self.fs.proc / 'sys/kernel/osrelease'
        release = _RELEASE.match(self.fs.text(path))
        return (int(release[1]), int(release[2])) if release else (0, 0)

    def _on_others(self, key: model.PoolKey) -> tuple[int, int]:
        """Read the persistent and the surplus pages of a size elsewhere."""
        pools = [
            self.pool(key._replace(node=node))
            for node in self.nodes()
            if node != key.node and key.size_kib in self.sizes(node)
        ]
        return (
            sum(pool.persistent for pool in pools),
            sum(pool.surplus for pool in pools),
        )

    def compact(self, node: int) -> None:
        """Compact the memory of a node, so that larger blocks are free.

        It takes the kernel up to seconds. Does nothing on a kernel that
        can't.
        """
        path = compact_file(self.fs, node)
        if path.exists():
            self._write(path, 1)

    def can_demote(self, key: model.PoolKey) -> bool:
        """Return whether pages of a pool can be split into 2 MiB pages."""
        path = self.fs.pool_folder(key) / 'demote_size'
        if not path.exists():
            return False
        return self.fs.text(path).strip() == f'{DEMOTED_KIB}kB'

    def demote(self, key: model.PoolKey, pages: int) -> None:
        """Split free pages into 2 MiB pages; `pool` reads the result.

        :param pages: how many; the kernel takes as many as are free
        :raises ValueError: if the kernel doesn't split them into 2 MiB pages
        """
        if not self.can_demote(key):
            raise ValueError(f'pages of {key} cannot be split')
        self._write(demote_file(self.fs, *key), pages)

    def _write(
        self, path: pathlib.Path, number: int, node: int | None = None
    ) -> None:
        try:
            self._writer(path, number, node)
        except OSError as error:
            reason = hostfs.reason(error)
            if error.errno in _FORBIDDEN:
                raise exception.PoolsReadOnly(f'{path}: {reason}') from error
            raise exception.KernelError(
                path, reason, 'a file that can be written'
            ) from error


def read_only_reason(fs: hostfs.HostFS) -> str | None:
    """Return why pools can't be changed on this host by any process.

    Needs no privileges, and says nothing about those of this process.

    :returns: None if they can be changed
    :raises exception.KernelError: if the nodes can't be read
    """
    folder = fs.nodes_folder
    if not folder.is_dir():
        return f'the kernel shows no NUMA nodes in {folder}'
    if not Hugetlb(fs, refusing('')).nodes():
        return 'the kernel has no huge pages'
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return f'{fs.sys} is mounted read-only, as in a container'
    return None
