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

"""The initramfs of a virtual host, and of a guest in it."""

from __future__ import annotations

import gzip
import pathlib
import re
import stat
import subprocess

from tests.host.rig import packages

HERE = pathlib.Path(__file__).parent

_HOST_MODULES = (
    'virtio_pci',
    'virtiofs',
    'overlay',
    'virtio_console',
    'virtio_blk',
    'ext4',
    'virtio_net',
    'virtio_rng',
)
# What compresses is asked for by the swap, which doesn't name it as needed.
_GUEST_MODULES = (
    'virtio_pci',
    'virtio_balloon',
    'virtio_mem',
    'lzo-rle',
    'zram',
)
_DIRECTORY = stat.S_IFDIR | 0o755
_PROGRAM = stat.S_IFREG | 0o755


def build(
    folder: pathlib.Path,
    kernel: packages.Kernel,
    busybox: pathlib.Path,
    agent: pathlib.Path,
) -> None:
    """Write ``host.img``, ``guest.img``, and ``agent.img``.

    The last one is a guest with QEMU's guest agent, and larger.

    :param folder: where to
    :param agent: the agent's program
    """
    for name, modules in (
        ('host', _HOST_MODULES),
        ('guest', _GUEST_MODULES),
        ('agent', (*_GUEST_MODULES, 'virtio_console')),
    ):
        script = HERE / f'{"host" if name == "host" else "guest"}-initramfs.sh'
        files = {
            'init': script.read_bytes(),
            'bin/busybox': busybox.read_bytes(),
        }
        if name == 'host':
            files['host-init'] = (HERE / 'host-init.sh').read_bytes()
        if name == 'agent':
            files.update(_with_libraries(agent))
        loaded = packages.modules(kernel, *modules)
        files.update({f'modules/{file}': data for file, data in loaded})
        files['modules/order'] = '\n'.join(file for file, _ in loaded).encode()
        # Replaced as a whole: another run may be reading it.
        path = folder / f'{name}.img'
        new = path.with_suffix('.new')
        new.write_bytes(gzip.compress(_newc(files), compresslevel=1, mtime=0))
        new.replace(path)


def _with_libraries(program: pathlib.Path) -> dict[str, bytes]:
    """Read a program, and the libraries of this machine that it needs."""
    listed = subprocess.run(
        ['ldd', str(program)], capture_output=True, text=True, check=True
    )
    libraries = re.findall(r'(/\S+) \(0x', listed.stdout)
    return {
        f'bin/{program.name}': program.read_bytes(),
        **{
            library.lstrip('/'): pathlib.Path(library).read_bytes()
            for library in libraries
        },
    }


def _newc(files: dict[str, bytes]) -> bytes:
    """Pack programs into an archive that the kernel takes as initramfs.

    The format is in ``driver-api/early-userspace/buffer-format.rst`` of the
    kernel's documentation.
    """
    folders = sorted(
        {
            str(parent)
            for name in files
            for parent in pathlib.PurePath(name).parents
        }
        - {'.'}
    )
    entries = [
        *((name, _DIRECTORY, b'') for name in folders),
        *((name, _PROGRAM, data) for name, data in files.items()),
        ('TRAILER!!!', 0, b''),
    ]
    archive = bytearray()
    for number, (name, mode, data) in enumerate(entries, 1):
        path = name.encode() + b'\0'
        fields = (
            number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0,
        )  # fmt: skip
        archive += b'070701' + b''.join(b'%08X' % field for field in fields)
        for part in (path, data):
            archive += part
            archive += bytes(-len(archive) % 4)
    return bytes(archive)
