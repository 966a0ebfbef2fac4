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

"""This machine's files, for a virtual host to read and never to write."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import time

from tests.host.rig import children
from tests.host.rig import folders
from tests.host.rig import packages

# In a mount namespace of its own: what is served is read-only whatever the
# virtual host asks for, and this machine's mounts stay as they are.
_SERVE = """
set -eu
root=$1; shift
while [ "$1" != -- ]; do
    mount --bind "$1" "$root$1"
    mount -o remount,bind,ro "$root$1"
    shift
done
shift
exec "$@"
"""
_START_S = 20.0


def serve(
    folder: pathlib.Path, logs: pathlib.Path
) -> tuple[subprocess.Popen[bytes], pathlib.Path]:
    """Serve the root of this machine through virtiofs.

    :param folder: where the socket goes; its path has to be short
    :param logs: where the log goes
    :returns: the server, which ends with the virtual host, and its socket
    """
    root, socket = folder / 'root', folder / 'root.socket'
    root.mkdir(exist_ok=True)
    socket.unlink(missing_ok=True)
    server = packages.program('virtiofsd')
    assert server is not None
    if server.startswith('/usr/lib/qemu/'):
        # QEMU's own, until QEMU 7.2
        options = ['-o', f'source={root},cache=always,sandbox=chroot']
        options += ['-o', 'no_posix_lock,log_level=warn']
    else:
        options = ['--shared-dir', str(root), '--cache', 'always']
        options += ['--sandbox', 'chroot', '--log-level', 'warn']
    process = children.start(
        [
            'unshare',
            '--mount',
            '--propagation',
            'private',
            'sh',
            '-c',
            _SERVE,
            'serve',
            str(root),
            *_mounts(),
            '--',
            server,
            f'--socket-path={socket}',
            '--thread-pool-size=2',
            *options,
        ],
        logs / 'virtiofsd.log',
    )
    deadline = time.monotonic() + _START_S
    while not socket.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            children.stop(process)
            raise RuntimeError(
                f'virtiofsd did not start; see {logs / "virtiofsd.log"}'
            )
        time.sleep(0.05)
    return process, socket


def _mounts() -> list[str]:
    """The mounts that have what a virtual host reads, outermost first."""
    needed = [
        '/usr',
        '/etc',
        '/var/lib',
        os.fspath(folders.PROJECT),
        os.fspath(folders.folder()),
        os.path.realpath(sys.prefix),
        os.path.realpath(sys.base_prefix),
    ]
    # Not os.path.ismount(), which doesn't see all bind mounts.
    lines = pathlib.Path('/proc/self/mountinfo').read_text().splitlines()
    known = {_unescaped(line.split()[4]) for line in lines}
    mounts = {'/'}
    for path in map(pathlib.PurePath, needed):
        within = [str(p) for p in (path, *path.parents) if str(p) in known]
        mounts.update(within[:1])
    return sorted(mounts)


def _unescaped(path: str) -> str:
    """Undo what the kernel does to white space in ``mountinfo``."""
    return re.sub(r'\\([0-7]{3})', lambda m: chr(int(m[1], 8)), path)
