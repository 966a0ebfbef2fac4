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

"""A virtual host with four NUMA nodes, on a machine that may have one.

Nodes 0 and 1 are near each other, and so are 2 and 3::

    +--------+  12  +--------+        each node: two threads of one core,
    | node 0 |------| node 1 |        and 1.5 GiB
    +--------+      +--------+
        | 21            | 21
    +--------+  12  +--------+
    | node 2 |------| node 3 |
    +--------+      +--------+

It runs on TCG, as KVM isn't everywhere, and is slow. Its root is this
machine's: all programs and files are at the same paths, and what it writes
is lost at a reboot, but for ``/persist``.
"""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from tests.host.rig import channel
from tests.host.rig import children
from tests.host.rig import export
from tests.host.rig import folders
from tests.host.rig import machine
from tests.host.rig import packages

NODES = 4
CPUS_PER_NODE = 2
_DISTANCES = {(0, 1): 12, (0, 2): 21, (0, 3): 21} | {
    (1, 2): 21,
    (1, 3): 21,
    (2, 3): 12,
}
# A file in the virtual host, whose text is written to a log outside.
SERVICE_LOG = '/run/service-log'
_AGENT = pathlib.Path(__file__).with_name('agent.py')
_BOOT_S = 150.0
# TCG with several threads may let a CPU write to where a device was before it
# was moved, which happens early in a boot. QEMU then fails an assertion of
# that device, or reads where no memory is. Or a CPU keeps a translation of an
# instruction that the kernel has just patched, and all CPUs trap on its
# breakpoint for ever. Both seen with QEMU 7.2, which is why the kernel boots
# on one CPU and `host-init.sh` adds the others.
_CRASHES = frozenset({signal.SIGABRT, signal.SIGSEGV})
# Between the end of its channel and that of QEMU.
_END_S = 2.0
# The file is sparse.
_PERSIST_MIB = 16384


class VirtualHost(machine.Machine):
    """A virtual host. A context manager, which boots it and ends it.

    :param name: its name, and that of the folder of its logs and its disk
    :param node_mib: memory of a node
    :param kernel_arguments: more words for its kernel command line
    :param address: its address on the link to its peer
    :param link: the socket of that link; the host that boots first makes it
    :param outside: whether it reaches the loopback of this machine, at
        10.0.2.2
    :param logs: the folder that its own one is made in; by default that of
        the rig
    """

    def __init__(
        self,
        name: str = 'host',
        *,
        node_mib: int = 1536,
        kernel_arguments: str = '',
        address: str | None = None,
        link: pathlib.Path | None = None,
        outside: bool = False,
        logs: pathlib.Path | None = None,
    ) -> None:
        self.name = name
        self.node_mib = node_mib
        self.logs = (logs or folders.folder() / 'logs') / name
        self._kernel_arguments = kernel_arguments
        self.address = address
        self._link = link
        self._outside = outside
        self._sockets: pathlib.Path | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._channel: channel.Channel | None = None
        self._made_link = False

    def __enter__(self) -> VirtualHost:
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir(parents=True)
        # A path of a socket may have no more than a hundred characters.
        self._sockets = pathlib.Path(tempfile.mkdtemp(prefix='rig-'))
        try:
            self._make_disk()
            self.boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.power_off()
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
        (self.logs / 'persist.img').unlink(missing_ok=True)

    @property
    def service_log(self) -> pathlib.Path:
        """Where what is written to `SERVICE_LOG` there goes."""
        return self.logs / 'service.log'

    def boot(self) -> None:
        """Boot it, until it takes commands. libvirt takes some seconds more.

        If its emulator crashes or its kernel hangs, it is booted again, once.

        :raises RuntimeError: if it doesn't come up
        """
        for again in (True, False):
            if self._try_to_boot():
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._processes[-1].wait(_END_S)
            status = self._processes[-1].poll()
            self.power_off()
            problem = (
                f'the virtual host {self.name} does not boot; its console '
                f'and the messages of QEMU are in {self.logs}'
            )
            if status is None:
                why = f'Its agent has not answered within {_BOOT_S:.0f} s'
            elif -status in _CRASHES:
                why = f'QEMU was ended by {signal.Signals(-status).name}'
            else:
                again = False
            if not again:
                raise RuntimeError(problem)
            print(f'{problem}. {why}: booting it again.', file=sys.stderr)

    def _try_to_boot(self) -> bool:
        assert self._sockets is not None
        server, root = export.serve(self._sockets, self.logs)
        self._processes.append(server)
        agent = self._sockets / 'agent.socket'
        agent.unlink(missing_ok=True)
        qemu = children.start(
            self._command(root, agent), self.logs / 'qemu.log'
        )
        self._processes.append(qemu)
        deadline = time.monotonic() + _BOOT_S
        while self._channel is None:
            with contextlib.suppress(OSError):
                self._channel = channel.Channel(agent)
            time.sleep(0.05)
            if qemu.poll() is not None or time.monotonic() > deadline:
                return False
        return self._channel.greeted(_BOOT_S)

    def power_off(self) -> None:
        """Cut its power. Idempotent."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        while self._processes:
            children.stop(self._processes.pop())
        if self._made_link and self._link is not None:
            # QEMU leaves it behind when it is aborted.
            self._link.unlink(missing_ok=True)
            self._made_link = False

    def reboot(self) -> None:
        """Cut its power and boot it again; ``/persist`` is kept."""
        self.power_off()
        self.boot()

    def spawn(
        self,
        command: list[str] | str,
        *,
        stdin: str = '',
        timeout: float = 600,
    ) -> channel.Process:
        """Start a command as root.

        :param command: its arguments, or a script for the shell
        :param timeout: seconds after which it is killed
        """
        assert self._channel is not None, 'the virtual host is off'
        if isinstance(command, str):
            command = ['bash', '-euc', command]
        return self._channel.start(
            command,
            stdin=stdin,
            timeout=timeout,
            env={'PYTHONPATH': folders.python_path()},
        )

    def run(
        self,
        command: list[str] | str,
        *,
        stdin: str = '',
        timeout: float = 60,
        check: bool = True,
    ) -> channel.Result:
        """Run a command as root and wait for it; see `spawn`.

        :raises channel.CommandFailed: if it fails and ``check`` is set
        """
        result = self.spawn(command, stdin=stdin, timeout=timeout).wait()
        if check and result.status:
            raise channel.CommandFailed(command, result)
        return result

    def write(self, path: str, text: str) -> None:
        """Write a file, which may be one of the kernel's."""
        self.run(['tee', path], stdin=text)

    def read(self, path: str) -> str:
        """Read a file."""
        return self.run(['cat', path]).out

    def virsh(
        self,
        *arguments: str,
        stdin: str = '',
        timeout: float = 120,
        check: bool = True,
    ) -> channel.Result:
        """Talk to its libvirt."""
        self.wait_for_libvirt()
        return self.run(
            ['virsh', '--quiet', *arguments],
            stdin=stdin,
            timeout=timeout,
            check=check,
        )

    def wait_for_libvirt(self, timeout: float = 120) -> None:
        """Wait until its libvirt takes connections."""
        self.run(
            'until [ -S /run/libvirt/libvirt-sock ]; do sleep 0.2; done',
            timeout=timeout,
        )

    def _make_disk(self) -> None:
        disk = self.logs / 'persist.img'
        with disk.open('wb') as file:
            file.truncate(_PERSIST_MIB << 20)
        subprocess.run(
            [packages.program('mkfs.ext4') or 'mkfs.ext4', '-q', str(disk)],
            check=True,
            capture_output=True,
        )

    def _command(self, root: pathlib.Path, agent: pathlib.Path) -> list[str]:
        memory = self.node_mib * NODES
        arguments = [
            'console=ttyS0 quiet panic=-1 mitigations=off maxcpus=1',
            f'rig.name={self.name}',
            f'rig.python={sys.executable}',
            f'rig.agent={_AGENT}',
        ]
        if self.address:
            arguments.append(f'rig.address={self.address}')
        if self._kernel_arguments:
            arguments.append(self._kernel_arguments)
        images = folders.folder() / 'images'
        return [
            packages.program('qemu-system-x86_64') or 'qemu-system-x86_64',
            *('-name', self.name, '-nodefaults', '-no-reboot'),
            *('-display', 'none', '-machine', 'q35'),
            *('-accel', 'tcg,thread=multi,tb-size=512'),
            # A model of AMD's wouldn't show threads of a core under TCG.
            *('-cpu', 'Nehalem,+pdpe1gb'),
            *('-m', f'{memory}M', *_topology(self.node_mib)),
            *('-kernel', str(images / 'kernel')),
            *('-initrd', str(images / 'host.img')),
            *('-append', ' '.join(arguments)),
            *('-chardev', f'socket,id=root,path={root}'),
            *('-device', 'vhost-user-fs-pci,chardev=root,tag=root'),
            *('-chardev', f'socket,id=agent,path={agent},server=on,wait=off'),
            *('-device', 'virtio-serial-pci'),
            *('-device', 'virtserialport,chardev=agent,name=agent'),
            *('-chardev', f'file,id=log,path={self.service_log},append=on'),
            *('-device', 'virtserialport,chardev=log,name=log'),
            *(
                '-drive',
                f'file={self.logs / "persist.img"},if=virtio,format=raw',
            ),
            *('-device', 'virtio-rng-pci'),
            *('-serial', f'file:{self.logs / "console.log"}'),
            *self._network(),
        ]

    def _network(self) -> list[str]:
        words = []
        if self.address is not None and self._link is not None:
            self._made_link = not self._link.exists()
            server = 'on' if self._made_link else 'off'
            last = int(self.address.rpartition('.')[2])
            words += [
                '-netdev',
                f'stream,id=link,server={server},addr.type=unix,'
                f'addr.path={self._link}',
                '-device',
                'virtio-net-pci,netdev=link,romfile=,'
                f'mac=52:54:00:00:00:{last:02x}',
            ]
        if self._outside:
            words += [
                *('-netdev', 'user,id=outside,ipv6=off'),
                '-device',
                'virtio-net-pci,netdev=outside,romfile=,mac=52:54:00:00:01:00',
            ]
        return words


def _topology(node_mib: int) -> list[str]:
    words = [
        '-smp',
        f'{NODES * CPUS_PER_NODE},sockets={NODES},cores=1,'
        f'threads={CPUS_PER_NODE}',
    ]
    for node in range(NODES):
        first = node * CPUS_PER_NODE
        words += [
            '-object',
            f'memory-backend-memfd,id=node{node},size={node_mib}M,share=on',
            '-numa',
            f'node,nodeid={node},memdev=node{node},'
            f'cpus={first}-{first + CPUS_PER_NODE - 1}',
        ]
    for (one, other), distance in _DISTANCES.items():
        words += ['-numa', f'dist,src={one},dst={other},val={distance}']
    return words
