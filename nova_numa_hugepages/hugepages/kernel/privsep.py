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

"""The privileged helper: what needs root's privileges, and nothing else.

It is a process of its own, which oslo.privsep starts as root. It keeps one
capability, to see where the memory of another user's QEMU is. The files of
the pools belong to root, who needs none to write them.

What it is asked for may come from a service that was broken into. So a file
has to be one that the helper itself finds on this host, and a number one that
can be meant.
"""

from __future__ import annotations

import errno
import pathlib

from oslo_privsep import capabilities
from oslo_privsep import daemon
from oslo_privsep import priv_context

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import kubelet
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


def check() -> None:
    """Check that the privileged helper is there; start it.

    :raises exception.PoolsReadOnly: if it can't be started
    """
    try:
        _answer()
    except (daemon.FailedToDropPrivileges, OSError) as error:
        raise exception.PoolsReadOnly(_not_started(error)) from error


def numa_maps(pid: int) -> str:
    """Read where the huge pages of a guest are, through the helper.

    Fits `nova_numa_hugepages.hugepages.kernel.processes.MapsReader`.

    :param pid: the process of its QEMU
    :returns: as `nova_numa_hugepages.hugepages.kernel.processes.huge_maps`
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
        raise exception.KernelError(
            path, _not_started(error), 'a file that can be read'
        ) from error
    except OSError as error:
        raise exception.KernelError(
            path, hostfs.reason(error), 'a file that can be read'
        ) from error
    return text


def pod_promises() -> kubelet.Promises:
    """Read which huge pages a kubelet promised to pods, through the helper.

    :raises exception.KernelError: if that can't be read
    """
    try:
        # Most hosts have none, and the helper need not be asked.
        if not kubelet.STATE.parent.exists():
            return {}
        found: dict[str, list[tuple[list[int], int, int]]] = _pod_promises()
    except (daemon.FailedToDropPrivileges, FileNotFoundError) as error:
        # What isn't found is the command: see `kubelet.read`.
        raise exception.KernelError(
            kubelet.STATE, _not_started(error), 'a file that can be read'
        ) from error
    except OSError as error:
        raise exception.KernelError(
            kubelet.STATE, hostfs.reason(error), 'a file that can be read'
        ) from error
    except ValueError as error:
        raise exception.KernelError(
            kubelet.STATE, str(error), 'a file that can be used'
        ) from error
    return {
        pod: [
            kubelet.Promise(frozenset(nodes), size_kib, pages)
            for nodes, size_kib, pages in promises
        ]
        for pod, promises in found.items()
    }


def write_number(
    path: pathlib.Path, number: int, node: int | None = None
) -> None:
    """Write a number to a file of the kernel, through the helper.

    A `nova_numa_hugepages.hugepages.kernel.hugetlb.Writer`.

    :raises exception.PoolsReadOnly: if the helper can't be reached
    :raises exception.KernelError: if it refuses
    :raises OSError: if the kernel does
    """
    try:
        _write_number(str(path), number, node)
    except daemon.FailedToDropPrivileges as error:
        raise exception.PoolsReadOnly(_not_started(error)) from error
    except FileNotFoundError as error:
        if not path.exists():
            raise
        # So it is the command that is not there.
        raise exception.PoolsReadOnly(_not_started(error)) from error
    except ValueError as error:
        raise exception.KernelError(
            path, str(error), 'what this host has'
        ) from error


def _not_started(error: Exception) -> str:
    return (
        f'the privileged helper cannot be started: {error}. Its command is '
        f'the option helper_command of [{CFG_SECTION}]'
    )


# The privileged side. An error has to be of a kind that oslo.privsep can make
# again on the other side, and so none of ours.


@context.entrypoint
def _answer() -> None:
    pass


@context.entrypoint
def _write_number(path: str, number: int, node: int | None = None) -> None:
    try:
        largest = _largest_numbers()
    except exception.KernelError as error:
        raise ValueError(str(error)) from error
    if (path, node) not in largest:
        where = '' if node is None else f' by node {node!r}'
        raise ValueError(
            f'{path!r} is no file that sets pools of this host{where}'
        )
    most = largest[path, node]
    if type(number) is not int or not 0 <= number <= most:
        raise ValueError(f'{number!r} is not between 0 and {most}')
    hugetlb.write_number(pathlib.Path(path), number, node)


def _largest_numbers() -> dict[tuple[str, int | None], int]:
    """Find the files that may be written, and the most that fits in memory.

    :returns: by file, and the node if it doesn't say that
    :raises exception.KernelError: if they can't be found
    """
    kernel = hugetlb.Hugetlb(_FS, hugetlb.refusing('it only looks'))
    memory = nodes.memory(_FS)
    on_host = sum(node.total_kib for node in memory.values())
    found: dict[tuple[pathlib.Path, int | None], int] = {}
    for node, of_node in memory.items():
        found[hugetlb.compact_file(_FS, node), None] = 1
        for size_kib in kernel.sizes(node):
            most = of_node.total_kib // size_kib
            found[hugetlb.nr_file(_FS, node, size_kib), None] = most
            found[hugetlb.demote_file(_FS, node, size_kib), None] = most
            host_file = hugetlb.host_file(_FS, size_kib)
            found[host_file, node] = on_host // size_kib
    return {(str(path), node): most for (path, node), most in found.items()}


@context.entrypoint
def _pod_promises() -> dict[str, list[tuple[list[int], int, int]]]:
    try:
        found = kubelet.parse(kubelet.read())
    except exception.KernelError as error:
        raise ValueError(str(error)) from error
    return {
        pod: [
            (sorted(promise.nodes), promise.size_kib, promise.pages)
            for promise in promises
        ]
        for pod, promises in found.items()
    }


@context.entrypoint
def _huge_maps(pid: int) -> str:
    try:
        found = type(pid) is int and pid > 0 and processes.guest(_FS, pid)
    except exception.KernelError as error:
        raise PermissionError(errno.EACCES, str(error)) from error
    if not found:
        raise ProcessLookupError(errno.ESRCH, 'No such guest')
    try:
        return processes.huge_maps(_FS, pid)
    except FileNotFoundError as error:
        # It ended in between.
        raise ProcessLookupError(errno.ESRCH, 'No such guest') from error
