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

"""A host with a fake kernel and a ledger, for tests of the commands."""

from collections.abc import Iterator
import contextlib
import dataclasses
import io
import os
import pathlib
import sqlite3
import threading

from nova_numa_hugepages import exception
from nova_numa_hugepages.cmd import main
from nova_numa_hugepages.cmd.host.opening import Machine
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import policy
from nova_numa_hugepages.hugepages.kernel import file_locks
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.pools import Pools
from nova_numa_hugepages.hugepages.state import service_lock
from nova_numa_hugepages.hugepages.state.ledger import FILE_NAME
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from tests.fixtures.kernel import Event
from tests.fixtures.kernel import FakeKernel
from tests.fixtures.kernel import FakeNode
from tests.fixtures.kernel import LARGE_KIB
from tests.fixtures.kernel import SMALL_KIB

SMALL = SMALL_KIB
LARGE = LARGE_KIB
ONE = '11111111-1111-4111-8111-111111111111'
TWO = '22222222-2222-4222-8222-222222222222'
THREE = '33333333-3333-4333-8333-333333333333'


class Answers(io.StringIO):
    """Text that is typed at a terminal."""

    def isatty(self) -> bool:
        return True


class Host:
    """A host, and the commands on it.

    The commands run in a container that has its files mounted.

    :ivar kernel: its kernel
    :ivar state: the folder of its ledger
    :ivar ledger: its ledger
    :ivar conf: the configuration of its service
    :ivar own: the ``/proc`` of the container
    :ivar machine: the machine that the commands run on
    """

    def __init__(self, root: pathlib.Path, nodes=None) -> None:
        self.root = root / 'host'
        self.state = root / 'state'
        self.ledger = self.state / FILE_NAME
        self.root.mkdir()
        self.state.mkdir()
        self.kernel = FakeKernel(self.root, nodes)
        self.conf = root / 'usual.conf'
        self.conf.write_text(f'[DEFAULT]\nstate_path = {self.state}\n')
        # The service has run.
        (self.state / service_lock.NAME).touch()
        self.own = root / 'own'
        self._mount()
        self.machine = Machine(
            fs=hostfs.HostFS(self.root / 'sys', self.own),
            writer=self.kernel.write,
            read_maps=lambda fs: self.kernel.read_maps,
        )

    def _mount(self) -> None:
        """Mount its files, of the kernel that runs."""
        (self.own / 'self').mkdir(parents=True)
        (self.own / 'sys').symlink_to(self.root / 'proc/sys')
        real = str(self.root.resolve()).replace(' ', r'\040')
        (self.own / 'self/mountinfo').write_text(
            '22 1 0:20 / / rw shared:1 - ext4 /dev/vda rw\n'
            f'23 22 0:21 / {real}/sys rw,nosuid shared:2 - sysfs sysfs rw\n'
            f'24 22 0:22 / {real}/proc rw - proc proc rw\n'
        )

    def change(self, **parts) -> None:
        """Change parts of the machine that the commands run on."""
        self.machine = dataclasses.replace(self.machine, **parts)

    def forbid_maps(self) -> None:
        """Let this user not see where the memory of processes is."""

        def read_maps(pid: int) -> str:
            raise exception.KernelError(
                f'/proc/{pid}/numa_maps',
                'Permission denied',
                'a file that can be read',
            ) from PermissionError()

        self.change(read_maps=lambda fs: read_maps)

    def define(self, *uuids: str) -> None:
        """Have libvirt know some guests, and no others."""
        self.change(domains=lambda *_: frozenset(uuids))

    @contextlib.contextmanager
    def pools(self) -> Iterator[Pools]:
        """Open the pools as the service does, and make a ledger."""
        with Ledger.open(self.ledger) as ledger:
            pools = Pools(
                hugetlb.Hugetlb(self.kernel.fs, self.kernel.write),
                ledger,
                policy.PoolPolicy(node_free_mib=256),
                lock=threading.RLock(),
                read_maps=self.kernel.read_maps,
            )
            pools.refresh()
            yield pools

    def hold(self, uuid, *cells, purpose=model.Purpose.GUEST) -> None:
        """Have the service hold pages.

        :param cells: node and pages for each guest cell
        """
        needs = [
            model.PageNeed(cell, node, SMALL, count)
            for cell, (node, count) in enumerate(cells)
        ]
        with self.pools() as pools:
            pools.hold(uuid, needs, purpose)

    def start(self, uuid, counts, name='instance-00000001') -> int:
        """Start a guest on 2 MiB pages, by node."""
        return self.kernel.start_guest(
            uuid,
            {
                model.PoolKey(node, SMALL): count
                for node, count in counts.items()
            },
            name=name,
        )

    def holders(self) -> dict[str, int]:
        """Get how many pages each holder has in the ledger."""
        found: dict[str, int] = {}
        with Ledger.open(self.ledger, read_only=True) as ledger:
            for hold in ledger.holds():
                found[hold.holder] = found.get(hold.holder, 0) + hold.pages
        return found

    @contextlib.contextmanager
    def service(self, folder: pathlib.Path | None = None) -> Iterator[str]:
        """Have ``nova-compute`` run, as this process.

        :param folder: that of its ledger
        :returns: its process as messages name it
        """
        folder = folder or self.state
        service_lock.hold(folder)
        try:
            yield file_locks.name_process(os.getpid())
        finally:
            service_lock.release(folder)

    def long_ago(self) -> None:
        """Make all holds so old that no guest is starting any more."""
        with Ledger.open(self.ledger) as ledger:
            for holder, purpose in {
                (hold.holder, hold.purpose) for hold in ledger.holds()
            }:
                ledger.replace_holds(
                    holder,
                    purpose,
                    [
                        dataclasses.replace(hold, since=1.0)
                        for hold in ledger.holds(holder)
                        if hold.purpose is purpose
                    ],
                )

    def dump(self) -> list[str]:
        """Get all that is in the ledger."""
        with contextlib.closing(sqlite3.connect(self.ledger)) as connection:
            return list(connection.iterdump())

    def total(self, node: int) -> int:
        """Get how many 2 MiB pages a node has."""
        return self.kernel.pool(model.PoolKey(node, SMALL)).total

    def run(self, *words: str) -> int:
        """Run ``nova-numa-hugepages host`` on it.

        :returns: the exit code
        """
        options = ['--root', str(self.root), '--ledger', str(self.ledger)]
        if words[0] != 'show':
            options += ['--config-file', str(self.conf)]
        return self.call(words[0], *options, *words[1:])

    def call(self, *words: str) -> int:
        """Run ``nova-numa-hugepages host`` without its usual options."""
        return main.run(['host', *words], self.machine)


def install_virsh(folder: pathlib.Path, line: str) -> None:
    """Install a virsh that runs a line of the shell."""
    path = folder / 'virsh'
    path.write_text(f'#!/bin/sh\n{line}\n')
    path.chmod(0o755)


def write(path: pathlib.Path, text: str) -> pathlib.Path:
    """Write a file of the configuration."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def two_guests(folder: pathlib.Path) -> Host:
    """Make a host on which one guest runs, and another one is off.

    The first has pages on both nodes, the second holds some on node 1. Open
    vSwitch has some on node 0.
    """
    host = Host(
        folder,
        {
            0: FakeNode(pools={SMALL: 128}),
            1: FakeNode(pools={SMALL: 16}),
        },
    )
    host.hold(ONE, (0, 64), (1, 32))
    host.hold(TWO, (1, 100))
    host.start(ONE, {0: 64, 1: 32})
    host.kernel.take({model.PoolKey(0, SMALL): 8})
    return host


def one_runs_one_is_off(folder: pathlib.Path) -> Host:
    """Make a host of two guests, each on 64 pages that were made for it.

    The first runs on node 0, the second holds its pages on node 1.
    """
    host = Host(folder, {0: FakeNode(), 1: FakeNode()})
    host.hold(ONE, (0, 64))
    host.hold(TWO, (1, 64))
    host.start(ONE, {0: 64})
    return host


def one_runs_on_the_floor(folder: pathlib.Path) -> Host:
    """Make a host of two guests that are no longer starting.

    The first runs on 16 pages of the floor and 48 grown, the second is off.
    """
    host = Host(folder, {0: FakeNode(pools={SMALL: 16}), 1: FakeNode()})
    host.hold(ONE, (0, 64))
    host.hold(TWO, (0, 20), (1, 100))
    host.long_ago()
    host.start(ONE, {0: 64})
    return host


def refuse_writes(event: Event) -> None:
    """Let no pool be written, as a hook of the kernel."""
    if event.kind == 'write':
        raise exception.PoolsReadOnly('nr_hugepages: Permission denied')


def guests_unknown(drawn: str, holder: str, held: str) -> str:
    """Check that a picture shows of guests only what is held for them.

    :param drawn: the picture
    :param held: what is held for the holder, in words
    :returns: the picture as one line
    """
    text = ' '.join(drawn.split())
    assert 'It is not known which instances run here.' in text
    assert f'{holder} holds 2 MiB pages: {held}' in text
    assert 'is not running' not in text
    assert 'missing' not in text
    assert 'used by' not in text
    return text
