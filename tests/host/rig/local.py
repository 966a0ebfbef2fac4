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

"""The kernel of this machine, with a libvirt of its own.

The machine's own libvirt, if there is one, is not touched: all that this one
writes lies in one folder, which a private mount namespace puts where libvirt
looks.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

from tests.host.rig import channel
from tests.host.rig import children
from tests.host.rig import folders
from tests.host.rig import machine
from tests.host.rig import packages
from tests.host.rig import pagepools

_START_S = 60.0
_STOP_S = 10.0

_QEMU_CONF = """
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
remember_owner = 0
hugetlbfs_mount = [ "{folder}/hugepages" ]
"""
_LIBVIRTD_CONF = """
auth_unix_rw = "none"
unix_sock_group = "root"
log_outputs = "3:file:{logs}/libvirtd.log"
"""
_PLACES = {
    'etc': '/etc/libvirt',
    'lib': '/var/lib/libvirt',
    'log': '/var/log/libvirt',
    'run': '/run/libvirt',
}
_BIND = r"""
set -eu
folder=$1; shift
# libvirtd looks for the user that its package has for QEMU, and doesn't use
# it. Where only the packages with the programs are, there is none.
for file in passwd group; do
    cp "/etc/$file" "$folder/$file"
done
grep -q ^libvirt-qemu: /etc/passwd \
    || echo 'libvirt-qemu:x:64055:64055::/:/bin/false' >>"$folder/passwd"
for name in libvirt-qemu:64055 kvm:64056; do
    grep -q "^${name%:*}:" /etc/group \
        || echo "${name%:*}:x:${name#*:}:" >>"$folder/group"
done
for file in passwd group; do
    mount --bind "$folder/$file" "/etc/$file"
done
mkdir -p "$1" /var/cache/libvirt
mount --bind "$1" /var/cache/libvirt
shift
while [ "$1" != -- ]; do
    mkdir -p "$2"
    mount --bind "$folder/$1" "$2"
    shift 2
done
shift
mount -t hugetlbfs -o pagesize=2M none "$folder/hugepages"
exec "$@"
"""


class LocalHost(machine.Machine):
    """This machine. A context manager; its 2 MiB pools are put back."""

    def __init__(self) -> None:
        self.logs = folders.folder() / 'logs' / 'local'
        self._stack = contextlib.ExitStack()
        self._folder = pathlib.Path()

    def __enter__(self) -> LocalHost:
        with contextlib.ExitStack() as stack:
            lock = folders.alone(folders.folder() / 'local.lock')
            if lock is None:
                raise RuntimeError('another run is using this machine')
            stack.enter_context(lock)
            shutil.rmtree(self.logs, ignore_errors=True)
            self.logs.mkdir(parents=True)
            # What a run that was killed has left comes first: its guests
            # have pages.
            note = folders.folder() / 'local.folder'
            if note.exists():
                _remove(pathlib.Path(note.read_text()))
            stack.enter_context(pagepools.Keeper())
            self._folder = pathlib.Path(tempfile.mkdtemp(prefix='rig-'))
            note.write_text(str(self._folder))
            stack.callback(note.unlink)
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def uri(self) -> str:
        """Where its libvirt listens."""
        socket = self._folder / 'run' / 'libvirt-sock'
        return f'qemu:///system?socket={socket}'

    @property
    def libvirtd_pid(self) -> int:
        """The process of its libvirt."""
        return int((self._folder / 'libvirtd.pid').read_text())

    def run(
        self,
        command: list[str] | str,
        *,
        stdin: str = '',
        timeout: float = 60,
        check: bool = True,
    ) -> channel.Result:
        """Run a command and wait for it.

        :param command: its arguments, or a script for the shell
        :raises channel.CommandFailed: if it fails and ``check`` is set
        """
        if isinstance(command, str):
            command = ['bash', '-euc', command]
        ended = subprocess.run(
            command,
            input=stdin,
            timeout=timeout,
            capture_output=True,
            text=True,
            env={**os.environ, 'PYTHONPATH': folders.python_path()},
        )
        result = channel.Result(ended.stdout, ended.stderr, ended.returncode)
        if check and result.status:
            raise channel.CommandFailed(command, result)
        return result

    def virsh(
        self,
        *arguments: str,
        stdin: str = '',
        timeout: float = 120,
        check: bool = True,
    ) -> channel.Result:
        """Talk to its libvirt."""
        return self.run(
            ['virsh', '--quiet', '--connect', self.uri, *arguments],
            stdin=stdin,
            timeout=timeout,
            check=check,
        )

    def write(self, path: str, text: str) -> None:
        """Write a file, which may be one of the kernel's."""
        pathlib.Path(path).write_text(text)

    def read(self, path: str) -> str:
        """Read a file."""
        return pathlib.Path(path).read_text()

    def _start(self, stack: contextlib.ExitStack) -> None:
        for place in (*_PLACES, 'hugepages'):
            (self._folder / place).mkdir()
        (self._folder / 'etc' / 'qemu.conf').write_text(
            _QEMU_CONF.format(folder=self._folder)
        )
        (self._folder / 'etc' / 'libvirtd.conf').write_text(
            _LIBVIRTD_CONF.format(logs=self.logs)
        )
        libvirtd = children.start(
            [
                'unshare',
                '--mount',
                '--propagation',
                'private',
                'sh',
                '-c',
                _BIND,
                'bind',
                str(self._folder),
                # What libvirt knows of QEMU is kept, as asking takes long.
                str(folders.folder() / 'libvirt-cache'),
                *(word for pair in _PLACES.items() for word in pair),
                '--',
                packages.program('libvirtd') or 'libvirtd',
                '--config',
                '/etc/libvirt/libvirtd.conf',
                '--pid-file',
                str(self._folder / 'libvirtd.pid'),
            ],
            self.logs / 'console.log',
        )
        # Guests outlive their libvirt.
        stack.callback(_remove, self._folder)
        stack.callback(children.stop, libvirtd)
        deadline = time.monotonic() + _START_S
        while self.virsh('version', check=False).status:
            if libvirtd.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f'libvirtd did not start; see {self.logs}')
            time.sleep(0.2)


def _remove(folder: pathlib.Path) -> None:
    """End the guests of a libvirt that has ended, and remove its folder."""
    for file in (folder / 'run' / 'qemu').glob('*.pid'):
        with contextlib.suppress(OSError, ValueError):
            pid = int(file.read_text())
            command = pathlib.Path(f'/proc/{pid}/cmdline')
            # libvirtd's own pid is there too, and may be another's by now.
            if str(folder) in command.read_text():
                os.kill(pid, signal.SIGKILL)
                _wait_for_end(command)
    shutil.rmtree(folder, ignore_errors=True)


def _wait_for_end(command: pathlib.Path) -> None:
    """Wait until a process has let go of its memory."""
    deadline = time.monotonic() + _STOP_S
    with contextlib.suppress(OSError):
        # That of a zombie is empty.
        while command.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
