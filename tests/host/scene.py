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

"""What the tests do on a host: guests, pools and the service's part."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import itertools
import json
import pathlib
import re
import signal
import sys
import time
from typing import Any
import uuid as uuid_module

from tests.host.rig import channel
from tests.host.rig import domains
from tests.host.rig import folders
from tests.host.rig import machine
from tests.host.rig import virtual

Host = machine.Machine

_numbers = itertools.count(1)

_FRAGMENT = str(folders.PROJECT / 'tests' / 'host' / 'fragment.py')
_SCATTER_S = 240.0

# The cells of a guest on two nodes that are far from each other.
CELLS = (domains.Cell(1, 128, [2, 3]), domains.Cell(3, 64, [6, 7]))

# The nodes of the virtual hosts are small.
POLICY = {'node_free_mib': 64, 'ceiling_percent': 95, 'time_limit_s': 5.0}


class Guest:
    """A guest on huge pages, as libvirt starts it.

    :param cells: where each of its cells is
    :param page_kib: the size of its pages
    :param console: where its console goes; without, it boots nothing
    :param user: the id of the user that its QEMU runs as
    :param balloon: whether it reports pages that are free inside, ``on`` or
        ``off``; without, it has no balloon
    """

    def __init__(
        self,
        host: Host,
        *cells: domains.Cell,
        page_kib: int = 2048,
        console: pathlib.PurePath | None = None,
        user: int = 0,
        balloon: str | None = None,
        arguments: str = '',
    ) -> None:
        self.host = host
        self.cells = cells
        self.page_kib = page_kib
        self.console = console
        self.user = user
        self.balloon = balloon
        self.arguments = arguments
        self.name = f'guest{next(_numbers)}'
        self.uuid = str(uuid_module.uuid4())

    @property
    def needs(self) -> list[list[int]]:
        """The pages that it needs, as `tests.host.drive` takes them."""
        return [
            [
                number,
                cell.node,
                self.page_kib,
                cell.mib * 1024 // self.page_kib,
            ]
            for number, cell in enumerate(self.cells)
        ]

    def start(self) -> None:
        """Start it; its memory is all there when this returns."""
        path = f'/tmp/{self.name}.xml'
        self.host.write(path, self.xml())
        self.host.virsh('create', path)

    def migrate(self, host: virtual.VirtualHost, *cells: domains.Cell) -> None:
        """Move it to another host, and onto other nodes, while it runs."""
        assert host.address is not None
        source, self.host, self.cells = self.host, host, cells
        path = f'/tmp/{self.name}-there.xml'
        source.write(path, self.xml())
        source.virsh(
            *('migrate', '--live', '--xml', path, self.name),
            f'qemu+tcp://{host.address}/system',
            f'tcp://{host.address}',
            timeout=300,
        )

    def xml(self) -> str:
        """Describe it, where it is now."""
        return domains.describe(
            self.name,
            self.uuid,
            self.cells,
            page_kib=self.page_kib,
            console=self.console,
            user=self.user,
            balloon=self.balloon,
            arguments=self.arguments,
        )

    def destroy(self) -> None:
        """End it at once."""
        self.host.virsh('destroy', self.name)


def taken(guest: Guest) -> list[list[object]]:
    """Return what a guest on `CELLS` holds once it has its pages."""
    return [[guest.uuid, 'taken', 1, 64], [guest.uuid, 'taken', 3, 32]]


def wait_for_beat(
    host: Host, console: pathlib.PurePath, number: int, limit_s: float
) -> None:
    """Wait until a guest has shown that often that it lives.

    :param console: where its console goes
    """
    deadline = time.monotonic() + limit_s
    text = ''
    while len(re.findall('^beat', text, re.MULTILINE)) < number:
        assert time.monotonic() < deadline, text
        time.sleep(1)
        text = host.run(['cat', str(console)], check=False).out


class Service:
    """Processes that do the service's part on a host.

    :param folder: where the ledger is
    :param policy: what differs from `POLICY`
    """

    def __init__(self, host: Host, folder: str, **policy: Any) -> None:
        self.host = host
        self.folder = folder
        self.policy = {**POLICY, **policy}

    def do(self, *steps: Sequence[Any], timeout: float = 120) -> list[Any]:
        """Do steps in one process, and return what each returned."""
        return results(self._run(steps, timeout, True))

    def run(
        self, guest: Guest, needs: Sequence[Sequence[int]] | None = None
    ) -> None:
        """Start a guest as the service does.

        :param needs: what is held for it, if not what it takes
        """
        self.do(['hold', guest.uuid, guest.needs if needs is None else needs])
        guest.start()
        self.do(['taken', guest.uuid])

    def die(self, *steps: Sequence[Any]) -> None:
        """Do steps in a process that has to be killed in one of them."""
        result = self._run(steps, 120, False)
        # By signal 9, which a shell in between gives as 128 more.
        assert result.status in (-9, 137), result

    def start(self, *steps: Sequence[Any]) -> channel.Process:
        """Start to do steps, on a virtual host."""
        assert isinstance(self.host, virtual.VirtualHost)
        return self.host.spawn(_COMMAND, stdin=self._request(steps))

    def pools(self) -> dict[str, dict[str, int]]:
        """Return the pools by node."""
        found: dict[str, dict[str, int]] = self.do(['pools'])[0]
        return found

    def _run(
        self, steps: Sequence[Sequence[Any]], timeout: float, check: bool
    ) -> channel.Result:
        return self.host.run(
            _COMMAND,
            stdin=self._request(steps),
            timeout=timeout,
            check=check,
        )

    def _request(self, steps: Sequence[Sequence[Any]]) -> str:
        return json.dumps(
            {'folder': self.folder, 'policy': self.policy, 'steps': steps}
        )


_COMMAND = [sys.executable, '-m', 'tests.host.drive']


def results(ended: channel.Result) -> list[Any]:
    """Read what the steps of a process returned."""
    found: list[Any] = json.loads(ended.out)
    return found


def set_pools(host: Host, *counts: int) -> None:
    """Set up the pools of the nodes as an operator does, the first first."""
    for node, count in enumerate(counts):
        host.write(_pool(node), str(count))


def totals(host: Host) -> list[int]:
    """Read how many pages each node has."""
    return [int(text) for text in host.run(f'cat {_pool("*")}').out.split()]


def _pool(node: int | str) -> str:
    return (
        f'/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/'
        'nr_hugepages'
    )


@contextlib.contextmanager
def scattered(host: virtual.VirtualHost, node: int) -> Iterator[None]:
    """Have the free memory of a node in pieces too small for huge pages."""
    process = host.spawn([sys.executable, '-I', _FRAGMENT, str(node)])
    try:
        process.wait_for('scattered', _SCATTER_S)
        yield
    finally:
        process.kill(signal.SIGTERM)
