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

"""What needs root's privileges, and nothing else.

Runs in a process of its own, which oslo.privsep starts as root. That process
keeps one capability, to see where the memory of another user's QEMU is. The
files of the pools belong to root, who needs none to write them.

Whatever comes here may come from a service that was broken into. So it is
numbers only, each has to name something that there is, and paths are made
here.
"""

from __future__ import annotations

from collections.abc import Callable
import errno
import pathlib

from oslo_privsep import capabilities
from oslo_privsep import daemon
from oslo_privsep import priv_context

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import nodes
from nova_numa_hugepages.hugepages.kernel import processes

CFG_SECTION = 'numa_hugepages_privileged'

context = priv_context.PrivContext(
    'nova_numa_hugepages',
    cfg_section=CFG_SECTION,
    pypath=f'{__name__}.context',
    capabilities=[capabilities.CAP_SYS_PTRACE],
)

# Always the real files.
_FS = hostfs.HostFS()


class PrivsepWriter:
    """Writes to the kernel's files through the privileged process.

    Fits `nova_numa_hugepages.hugepages.kernel.hugetlb.Writer`.
    """

    def write_nr(self, node: int, size_kib: int, pages: int) -> None:
        """Set the persistent pages of a pool."""
        path = hugetlb.nr_file(_FS, node, size_kib)
        _write(path, lambda: _write_nr(node, size_kib, pages))

    def write_compact(self, node: int) -> None:
        """Compact the memory of a node."""
        path = hugetlb.compact_file(_FS, node)
        _write(path, lambda: _write_compact(node))

    def write_demote(self, node: int, size_kib: int, pages: int) -> None:
        """Split free pages of a pool into smaller ones."""
        path = hugetlb.demote_file(_FS, node, size_kib)
        _write(path, lambda: _write_demote(node, size_kib, pages))


def check() -> None:
    """See that the privileged process is there; starts it.

    :raises exception.PoolsReadOnly: if it can't be started
    """
    try:
        _answer()
    except (daemon.FailedToDropPrivileges, OSError) as error:
        raise exception.PoolsReadOnly(_not_started(error)) from error


def numa_maps(pid: int) -> str:
    """Read where the huge pages of a guest are.

    Fits `nova_numa_hugepages.hugepages.kernel.processes.MapsReader`.

    :param pid: the process of its QEMU
    :returns: the lines of its ``numa_maps`` that are on huge pages
    :raises ProcessLookupError: if there is no such guest any more
    :raises exception.KernelError: if that can't be read
    """
    path = _FS.proc / f'{pid:d}' / 'numa_maps'
    try:
        text: str = _huge_maps(pid)
    except ProcessLookupError:
        raise
    except (daemon.FailedToDropPrivileges, FileNotFoundError) as error:
        # What isn't found is the command: see `_huge_maps`.
        raise exception.HelperNotStarted(path, _not_started(error)) from error
    except OSError as error:
        raise exception.KernelError(
            path, hostfs.reason(error), 'a file that can be read'
        ) from error
    return text


# The privileged side. An error has to be of a kind that can be made anew on
# the other side, and so none of ours.


@context.entrypoint
def _answer() -> None:
    pass


@context.entrypoint
def _write_nr(node: int, size_kib: int, pages: int) -> None:
    _check(node, size_kib, pages)
    hugetlb.write_number(hugetlb.nr_file(_FS, node, size_kib), pages)


@context.entrypoint
def _write_compact(node: int) -> None:
    _check_node(node)
    hugetlb.write_number(hugetlb.compact_file(_FS, node), 1)


@context.entrypoint
def _write_demote(node: int, size_kib: int, pages: int) -> None:
    _check(node, size_kib, pages)
    hugetlb.write_number(hugetlb.demote_file(_FS, node, size_kib), pages)


@context.entrypoint
def _huge_maps(pid: int) -> str:
    if type(pid) is not int or pid < 1 or not processes.guest(_FS, pid):
        raise ProcessLookupError(errno.ESRCH, 'No such guest')
    path = _FS.proc / f'{pid:d}' / 'numa_maps'
    try:
        text = path.read_text('ascii', 'replace')
    except FileNotFoundError as error:
        # It ended in between.
        raise ProcessLookupError(errno.ESRCH, 'No such guest') from error
    return ''.join(
        line for line in text.splitlines(keepends=True) if ' huge ' in line
    )


def _check_node(node: int) -> None:
    """Check that a node is one.

    :raises ValueError: if it isn't
    """
    try:
        known = _FS.online()
    except exception.KernelError as error:
        raise ValueError(str(error)) from error
    if type(node) is not int or node not in known:
        raise ValueError(f'{node!r} is no node of this host')


def _check(node: int, size_kib: int, count: int) -> None:
    """Check that there is such a pool, and that the pages would fit.

    :raises ValueError: if that isn't so
    """
    _check_node(node)
    try:
        sizes = hugetlb.Hugetlb(_FS, hugetlb.NoWriter('')).sizes(node)
        total_kib = nodes.memory(_FS)[node].total_kib
    except exception.KernelError as error:
        raise ValueError(str(error)) from error
    if type(size_kib) is not int or size_kib not in sizes:
        raise ValueError(f'{size_kib!r} KiB is no size of huge pages here')
    most = total_kib // size_kib
    if type(count) is not int or not 0 <= count <= most:
        raise ValueError(f'{count!r} is not between 0 and {most} pages')


def _write(path: pathlib.Path, entrypoint: Callable[[], object]) -> None:
    """Have the privileged side write, and say in our words what went wrong.

    :raises exception.PoolsReadOnly: if the privileged side can't be reached,
        or may not write
    :raises exception.KernelError: if it can't
    """
    try:
        entrypoint()
    except daemon.FailedToDropPrivileges as error:
        raise exception.PoolsReadOnly(_not_started(error)) from error
    except OSError as error:
        if isinstance(error, FileNotFoundError) and path.exists():
            # So it is the command that is not there.
            raise exception.PoolsReadOnly(_not_started(error)) from error
        hugetlb.raise_refused(path, error)
    except ValueError as error:
        raise exception.KernelError(
            path, str(error), 'what this host has'
        ) from error


def _not_started(error: Exception) -> str:
    return (
        f'the privileged helper cannot be started: {error}. Its command is '
        f'the option helper_command of [{CFG_SECTION}]'
    )
