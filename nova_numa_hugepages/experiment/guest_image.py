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

"""What a guest of an experiment boots: an initramfs, made on the host.

It has busybox, the compiled ``probe.c``, and the programs of the workloads as
this host has them, with their libraries. No disk and no network is needed.

The format is in ``driver-api/early-userspace/buffer-format.rst`` of the
kernel's documentation.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
import pathlib
import re
import shutil
import subprocess

from nova_numa_hugepages import exception
from nova_numa_hugepages.experiment.workload import Workload

# What it takes to make one, and the Debian package that has each.
PROGRAMS = {'busybox': 'busybox-static', 'cpio': 'cpio', 'ldd': 'libc-bin'}

# Where its workloads have their files.
WORK = pathlib.Path('/work')
PROBE = '/bin/probe'

_LIBRARY = re.compile(r'(/\S+) \(0x')
# It is told on its second serial port what to run. What runs has that port as
# its standard input and output.
_INIT = """\
#!/bin/busybox sh
export PATH=/bin LC_ALL=C
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mknod -m 666 /dev/null c 1 3
mknod /dev/ttyS1 c 4 65
exec </dev/ttyS1 >/dev/ttyS1 2>&1
stty raw -echo
echo madvise >/sys/kernel/mm/transparent_hugepage/enabled
# Who tells it something may come late.
until read -r -t 1 line; do
    echo booted
done
while :; do
    begin=$(cut -d' ' -f1 /proc/uptime)
    sh -c "$line"
    status=$?
    echo "ended $status $begin $(cut -d' ' -f1 /proc/uptime)"
    read -r line
done
"""


class ImageError(exception.NUMAHugepagesError):
    """The image can't be made."""


def build(
    folder: pathlib.Path, probe: str, workloads: Sequence[Workload]
) -> pathlib.Path:
    """Make the image.

    :param folder: a new folder for it
    :param probe: the compiled ``probe.c``, linked statically
    :returns: the image
    :raises ImageError: if a program is missing or fails
    """
    root = folder / 'root'
    (root / 'bin').mkdir(parents=True)
    work = root / WORK.relative_to('/')
    work.mkdir()
    for workload in workloads:
        workload.prepare(work)
    programs = {name for each in workloads for name in each.programs}
    for name in ('busybox', *sorted(programs)):
        _add(root, name)
    shutil.copy(probe, root / PROBE.lstrip('/'))
    init = root / 'init'
    init.write_text(_INIT)
    init.chmod(0o755)
    image = folder / 'guest.img'
    names = sorted(str(path.relative_to(root)) for path in root.rglob('*'))
    with image.open('wb') as file:
        packed = subprocess.run(
            ['cpio', '--create', '--quiet', '--format=newc', '--owner=0:0'],
            cwd=root,
            input='\n'.join(names).encode(),
            stdout=file,
            stderr=subprocess.PIPE,
            check=False,
        )
    if packed.returncode:
        raise ImageError(
            f'cpio failed: {packed.stderr.decode(errors="replace").strip()}'
        )
    return image


def _add(root: pathlib.Path, name: str) -> None:
    """Add a program of this host, with its libraries."""
    program = shutil.which(name)
    if program is None:
        raise ImageError(f'The program {name} is missing on this host.')
    shutil.copy(program, root / 'bin' / name)
    for library in _libraries(program):
        target = root / library.lstrip('/')
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)


def _libraries(program: str) -> Iterable[str]:
    """List the libraries of a program; one that is static has none."""
    listed = subprocess.run(
        ['ldd', program], capture_output=True, text=True, check=False
    )
    return _LIBRARY.findall(listed.stdout)
