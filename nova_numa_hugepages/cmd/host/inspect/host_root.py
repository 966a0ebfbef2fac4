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

"""The host's files: at ``/``, in a mount of them, or in a copy."""

from __future__ import annotations

import pathlib
import re

from nova_numa_hugepages import exception
from nova_numa_hugepages.cmd.host import errors
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import processes

_BOOT_ID = 'sys/kernel/random/boot_id'
_OCTAL = re.compile(r'\\([0-7]{3})')


def host_fs(root: pathlib.Path | None, own: hostfs.HostFS) -> hostfs.HostFS:
    """Return where the files of the kernel are.

    :param root: the value of `--root`
    :param own: those of the kernel that this program runs on
    :raises errors.BadInput: if there are none, or those of other nodes
    :raises exception.KernelError: if the nodes cannot be read
    """
    if root is None:
        return own
    for folder in (root / 'sys/devices/system/node', root / 'proc'):
        if not folder.is_dir():
            raise errors.BadInput(
                f'--root {root}: found no {folder}, expected the folder with '
                'the sys and proc of a host'
            )
    fs = hostfs.HostFS(root / 'sys', root / 'proc', root / 'run')
    _check_nodes(root, fs)
    return fs


def _check_nodes(root: pathlib.Path, fs: hostfs.HostFS) -> None:
    """Check that each node that is online has its folder, and no other has.

    :raises errors.BadInput: if not
    """
    path = fs.nodes_folder / 'online'
    listed = set(fs.online())
    present = {
        int(folder.name.removeprefix('node'))
        for folder in fs.nodes_folder.glob('node[0-9]*')
    }
    for node in sorted(listed ^ present):
        folder = fs.node_folder(node)
        raise errors.BadInput(
            f'--root {root}: '
            + (
                f'{path} lists NUMA node {node}, and there is no {folder}'
                if node in listed
                else f'there is {folder}, and {path} does not list NUMA node '
                f'{node}'
            )
            + '. A copy has to have all files of one moment.'
        )


def below(root: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """Return where a path of the host is, without ever leaving its files.

    :raises errors.BadInput: if a symbolic link leads out of them
    """
    found = root / path.relative_to(path.anchor)
    real = found.resolve()
    if not real.is_relative_to(root.resolve()):
        raise errors.BadInput(
            f'--root {root}: {found} leads out of it, to {real}, which may be '
            "another host's. Name the ledger with --ledger."
        )
    return found


def check_live(root: pathlib.Path | None, own: hostfs.HostFS) -> None:
    """Check that the files are those of the running kernel, and no copy.

    :raises errors.BadInput: if they are not
    """
    reason = None if root is None else _why_not_live(root, own)
    if reason is not None:
        raise errors.BadInput(
            f'--root {root}: {reason}, so nothing is changed there. A copy '
            'can only be shown: nova-numa-hugepages host show --root '
            f'{root}'
        )


def check_processes(fs: hostfs.HostFS) -> None:
    """Check that the processes are those of the host, with all guests.

    :raises errors.BadInput: if they are not
    """
    try:
        processes.check_visible(fs)
    except exception.KernelError as error:
        raise errors.BadInput(
            f'{error}. So these are not the process ids of the host, and '
            'running instances would be taken for powered off. Start the '
            'container with the process ids of the host (--pid=host), or run '
            'this on the host, as root.'
        ) from error


def _why_not_live(root: pathlib.Path, own: hostfs.HostFS) -> str | None:
    """Return why the files are not those of the running kernel.

    The format: ``/proc/PID/mountinfo`` in ``proc(5)``.

    :returns: None if they are
    """
    mounts: dict[pathlib.Path, tuple[str, str]] = {}
    for line in own.text(own.proc / 'self/mountinfo').splitlines():
        before, _, after = line.partition(' - ')
        fields = before.split()
        # Of several mounts on one folder the last is on top.
        mounts[pathlib.Path(_unescaped(fields[4]))] = (
            after.split()[0],
            fields[3],
        )
    for name, kind in (('sys', 'sysfs'), ('proc', 'proc')):
        if mounts.get((root / name).resolve()) != (kind, '/'):
            return f'{root / name} is not a mounted {kind}'
    if own.text(root / 'proc' / _BOOT_ID) != own.text(own.proc / _BOOT_ID):
        return f'{root / "proc" / _BOOT_ID} is that of another kernel'
    return None


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
