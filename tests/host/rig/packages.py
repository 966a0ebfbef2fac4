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

"""What the rig is made of: packages of Debian or Ubuntu.

QEMU and libvirt are installed where they are missing. The kernel of the
virtual hosts and their first user space are fetched and unpacked, never
installed.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
import gzip
import lzma
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
from typing import NamedTuple

# What has to be there, and the packages that may have it; which of them do
# differs between releases.
PROGRAMS = {
    'qemu-system-x86_64': ('qemu-system-x86',),
    'qemu-img': ('qemu-utils',),
    'virtiofsd': ('virtiofsd', 'qemu-system-common'),
    'libvirtd': ('libvirt-daemon', 'libvirt-daemon-driver-qemu'),
    'virsh': ('libvirt-clients',),
    'modprobe': ('kmod',),
    'mkfs.ext4': ('e2fsprogs',),
    'mount': ('mount',),
    'unshare': ('util-linux',),
    'zstd': ('zstd',),
}
KERNELS = {
    'debian': 'linux-image-cloud-amd64',
    'ubuntu': 'linux-image-virtual',
}
# What it takes to build Python's binding of libvirt.
LIBVIRT_PYTHON = 'libvirt-python==12.8.0'
_COMPILERS = {'gcc': ('gcc', 'libc6-dev'), 'pkg-config': ('pkg-config',)}
# virtiofsd isn't on the PATH.
_FOLDERS = ('/usr/sbin', '/sbin', '/usr/libexec', '/usr/lib/qemu')


class Kernel(NamedTuple):
    """An unpacked kernel.

    :ivar image: what QEMU boots
    :ivar root: the folder that has ``lib/modules``
    """

    image: pathlib.Path
    root: pathlib.Path
    release: str


def program(name: str) -> str | None:
    """Find a program of `PROGRAMS`."""
    path = os.pathsep.join([os.environ.get('PATH', ''), *_FOLDERS])
    return shutil.which(name, path=path)


def distribution() -> str:
    """Return which distribution this is: ``debian`` or ``ubuntu``.

    :raises SystemExit: if it is another one
    """
    text = pathlib.Path('/etc/os-release').read_text()
    names = re.findall(r'^ID(?:_LIKE)?="?([a-z ]*)"?$', text, re.MULTILINE)
    for name in ' '.join(names).split():
        if name in KERNELS:
            return name
    raise SystemExit('The virtual hosts can be built on Debian and Ubuntu.')


def install(programs: Mapping[str, Iterable[str]] = PROGRAMS) -> None:
    """Install what is missing. Idempotent, and quick if nothing is.

    :param programs: what has to be there, and the packages that may have it
    """
    missing = [name for name in programs if program(name) is None]
    if not missing:
        return
    _install(package for name in missing for package in programs[name])
    missing = [name for name in missing if program(name) is None]
    if missing:
        raise SystemExit(f'These could not be installed: {missing}')


def install_dependencies(package: str, prefix: str) -> None:
    """Install what a package needs, but not the package.

    :param prefix: of the packages that are wanted of that
    """
    if not _exists(package):
        _apt_update()
    needed = re.findall(r'Depends: (\S+)', _depends(package))
    missing = [
        name
        for name in needed
        if name.startswith(prefix) and not _is_installed(name)
    ]
    if missing:
        _install(missing)


def build_libvirt_python(folder: pathlib.Path) -> None:
    """Build what Nova speaks with libvirt through. Idempotent.

    :param folder: where to; it isn't put into the environment, whose packages
        come without a compiler
    """
    done = folder / LIBVIRT_PYTHON
    if done.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    wanted = [
        package
        for name, packages in _COMPILERS.items()
        if program(name) is None
        for package in packages
    ]
    if not pathlib.Path('/usr/include/libvirt/libvirt.h').exists():
        wanted.append('libvirt-dev')
    if not pathlib.Path(sysconfig.get_path('include'), 'Python.h').exists():
        version = '.'.join(map(str, sys.version_info[:2]))
        wanted.append(f'python{version}-dev')
    if wanted:
        _install(wanted)
    print(f'Building {LIBVIRT_PYTHON}…', flush=True)
    _run(
        sys.executable,
        *('-m', 'pip', 'install', '--quiet', '--no-deps'),
        *('--target', str(folder), LIBVIRT_PYTHON),
    )
    done.touch()


def fetch(folder: pathlib.Path) -> tuple[Kernel, pathlib.Path]:
    """Fetch and unpack the kernel and busybox. Idempotent.

    :param folder: where to; made if it isn't there
    :returns: the kernel, and the program of busybox
    """
    done = folder / 'done'
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if not _exists(KERNELS[distribution()]):
            _apt_update()
        unpack(_kernel_packages(), folder / 'kernel')
        unpack(['busybox-static'], folder / 'busybox')
        kernel = _kernel(folder / 'kernel')
        _run('depmod', '-b', str(kernel.root), kernel.release)
        done.touch()
    busybox = next((folder / 'busybox').glob('**/bin/busybox'))
    return _kernel(folder / 'kernel'), busybox


def modules(kernel: Kernel, *names: str) -> list[tuple[str, bytes]]:
    """Read kernel modules, with those that they need, in load order.

    Modules that are built into the kernel, or that it doesn't have, are left
    out.
    """
    found: dict[str, bytes] = {}
    for name in names:
        listed = subprocess.run(
            [
                program('modprobe') or 'modprobe',
                '-d',
                str(kernel.root),
                '-S',
                kernel.release,
                '--show-depends',
                name,
            ],
            capture_output=True,
            text=True,
        )
        for path in re.findall(r'^insmod (\S+)', listed.stdout, re.MULTILINE):
            stem = pathlib.Path(path).name.split('.')[0]
            if stem not in found:
                found[stem] = _decompressed(pathlib.Path(path))
    return [(f'{stem}.ko', data) for stem, data in found.items()]


def _decompressed(path: pathlib.Path) -> bytes:
    data = path.read_bytes()
    match path.suffix:
        case '.xz':
            return lzma.decompress(data)
        case '.gz':
            return gzip.decompress(data)
        case '.zst':
            return subprocess.run(
                ['zstd', '-dc'], input=data, capture_output=True, check=True
            ).stdout
    return data


def _kernel(folder: pathlib.Path) -> Kernel:
    image = next((folder / 'boot').glob('vmlinuz-*'))
    release = image.name.removeprefix('vmlinuz-')
    root = folder
    if not (root / 'lib' / 'modules').exists():
        root = folder / 'usr'
    return Kernel(image, root, release)


def _kernel_packages() -> list[str]:
    """Name the packages of the newest kernel, without its firmware."""
    meta = KERNELS[distribution()]
    images = re.findall(r'Depends: (linux-image-\d\S+)', _depends(meta))
    if not images:
        raise SystemExit(f'apt knows of no kernel behind {meta}.')
    return images[:1] + re.findall(
        r'Depends: (linux-modules-\d\S+)', _depends(images[0])
    )


def _depends(package: str) -> str:
    return subprocess.run(
        ['apt-cache', 'depends', package],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def _exists(package: str) -> bool:
    shown = subprocess.run(['apt-cache', 'show', package], capture_output=True)
    return shown.returncode == 0


def _is_installed(package: str) -> bool:
    """Check whether a package is there; what is there isn't upgraded."""
    shown = subprocess.run(
        ['dpkg-query', '--show', '--showformat=${db:Status-Status}', package],
        capture_output=True,
        text=True,
    )
    return shown.stdout.startswith('installed')


def unpack(packages: list[str], folder: pathlib.Path) -> None:
    """Fetch packages and unpack them into a new folder."""
    print(f'Fetching {" ".join(packages)}…', flush=True)
    debs = folder.with_suffix('.debs')
    # Of a run that was killed.
    shutil.rmtree(debs, ignore_errors=True)
    debs.mkdir()
    _apt('apt-get', 'download', *packages, cwd=debs)
    for deb in debs.glob('*.deb'):
        _run('dpkg-deb', '-x', str(deb), str(folder))
    shutil.rmtree(debs)


def unpack_once(package: str, prefix: str, folder: pathlib.Path) -> None:
    """Unpack a package that would start a server if it was installed.

    What it needs is installed. Idempotent.

    :param prefix: of the packages that are wanted of that
    :param folder: where to; made if it isn't there
    """
    done = folder.with_suffix('.done')
    if done.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    install_dependencies(package, prefix)
    unpack([package], folder)
    done.touch()


def _install(packages: Iterable[str]) -> None:
    _apt_update()
    wanted = [name for name in dict.fromkeys(packages) if _exists(name)]
    print(f'Installing {" ".join(wanted)}…', flush=True)
    _apt('apt-get', 'install', '-y', '--no-install-recommends', *wanted)


def _apt_update() -> None:
    print('Reading the lists of packages…', flush=True)
    _apt('apt-get', 'update')


def _apt(*command: str, cwd: pathlib.Path | None = None) -> None:
    name, *rest = command
    _run(name, '-qq', '-o', 'DPkg::Lock::Timeout=600', *rest, cwd=cwd)


def _run(*command: str, cwd: pathlib.Path | None = None) -> None:
    found = program(command[0])
    if found is None:
        raise SystemExit(f'{command[0]} is not there.')
    ended = subprocess.run(
        [found, *command[1:]],
        cwd=cwd,
        env={**os.environ, 'DEBIAN_FRONTEND': 'noninteractive'},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if ended.returncode:
        raise SystemExit(
            f'{ended.stdout}{" ".join(command)} failed with {ended.returncode}'
        )
