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

"""Pages that are allocated for a guest and freed, step by step.

What the driver does before a guest starts and after it has gone, on a kernel
that is simulated. Ledger, pools and picture are the real ones.
"""

from __future__ import annotations

import pathlib
import tempfile
import time
from unittest import mock

from nova.tests.fixtures import libvirt as fakelibvirt
from nova.virt.libvirt import host as libvirt_host
from rich import console as rich_console
from rich import padding

from nova_numa_hugepages import exception
from nova_numa_hugepages.cmd.host import opening
from nova_numa_hugepages.cmd.host import settings
from nova_numa_hugepages.cmd.host.inspect import collect
from nova_numa_hugepages.cmd.host.render import picture
from nova_numa_hugepages.hugepages import elastic as marks
from nova_numa_hugepages.hugepages import manager
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import policy
from nova_numa_hugepages.hugepages import pools
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.state import lock
from nova_numa_hugepages.hugepages.state.ledger import FILE_NAME
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from nova_numa_hugepages.libvirt import elastic
from nova_numa_hugepages.monitor import collector
from nova_numa_hugepages.monitor import history
from nova_numa_hugepages.monitor import insight
from nova_numa_hugepages.monitor import page
from nova_numa_hugepages.monitor import view
from tests.fixtures import elastic_guest
from tests.fixtures import kernel as fake_kernel

HOST = 'elastic'
GUEST = '8f1d5a3c-52ad-4c1b-9a55-0d6d8d1f7a10'
BIG_GUEST = 'c4be2d0e-6a7f-4f0e-8a35-53b1c9f0e2d7'

_NODES = {
    0: fake_kernel.FakeNode(total=16384, used=512, cpus=range(8)),
    1: fake_kernel.FakeNode(total=16384, used=512, cpus=range(8, 16)),
}
_PAGE_KIB = 2048
_MARKS = marks.Marks(shrink_delay_s=60.0, pause_s=30.0)
_FLOOR = 512


class ElasticError(Exception):
    """Pages are not where they should be."""


def play(console: rich_console.Console, page_file: pathlib.Path) -> None:
    """Start and delete a guest on a host with pools that grow.

    :param page_file: where the monitor's page of the host goes
    :raises ElasticError: if pages are missing, or left, or the page can't be
        written
    """
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        with Ledger.open(folder / FILE_NAME) as ledger:
            _Scene(console, folder, ledger, page_file).play()


class _Libvirt:
    """What libvirt says of the guest, which runs on a simulated kernel."""

    def uuids(self) -> frozenset[str]:
        return frozenset({GUEST})

    def xml(self, uuid: str) -> str:
        cells = ''.join(
            f'<cell id="{node}" cpus="{4 * node}-{4 * node + 3}" '
            'memory="4194304"/>'
            for node in _NODES
        )
        nodes = ''.join(
            f'<memnode cellid="{node}" mode="strict" nodeset="{node}"/>'
            for node in _NODES
        )
        pins = ''.join(
            f'<vcpupin vcpu="{vcpu}" cpuset="{8 * (vcpu // 4) + vcpu % 4}"/>'
            for vcpu in range(8)
        )
        return (
            '<domain><metadata><instance><name>guest</name>'
            '<flavor name="db.large"/></instance></metadata>'
            f'<memoryBacking><hugepages><page size="{_PAGE_KIB}"/></hugepages>'
            f'</memoryBacking><cputune>{pins}</cputune><numatune>{nodes}'
            f'</numatune><cpu><numa>{cells}</numa></cpu></domain>'
        )

    def stats(self) -> dict[str, dict[str, str]]:
        return {
            'guest': {
                'balloon.available': '8150000',
                'balloon.usable': '3100000',
                'balloon.unused': '2000000',
                'balloon.disk_caches': '900000',
                'balloon.last-update': str(int(time.time())),
            }
        }


class _Scene:
    def __init__(
        self,
        console: rich_console.Console,
        folder: pathlib.Path,
        ledger: Ledger,
        page_file: pathlib.Path,
    ) -> None:
        self._console = console
        self._page_file = page_file
        self._kernel = fake_kernel.FakeKernel(folder / 'kernel', _NODES)
        self._policy = policy.PoolPolicy()
        self._ledger = ledger.path
        self._manager = manager.HugePageManager(
            pools.Pools(
                hugetlb.Hugetlb(self._kernel.fs, self._kernel.write),
                ledger,
                self._policy,
                lock=lock.HostLock(folder),
                read_maps=self._kernel.read_maps,
            )
        )

    def play(self) -> None:
        for node in _NODES:
            self._kernel.operator_writes(
                model.PoolKey(node, _PAGE_KIB), _FLOOR
            )
        self._reconcile()
        self._say(
            'A host of two nodes on a simulated kernel. The operator has set '
            f'up {_FLOOR} pages of 2 MiB on each; these are the floor.'
        )
        needs = [
            model.PageNeed(0, 0, _PAGE_KIB, 2048),
            model.PageNeed(1, 1, _PAGE_KIB, 2048),
        ]
        with self._manager.starting(GUEST, needs, is_defined=lambda: False):
            self._kernel.start_guest(
                GUEST, {need.key: need.pages for need in needs}, name='guest'
            )
            self._manager.started(GUEST)
        self._say(
            'A guest starts that needs 4 GiB of each. Before it did, the '
            'missing pages were allocated, and all of them held for it:'
        )
        self._draw()
        self._write_page()
        self._refuse()
        self._kernel.stop_guest(GUEST)
        self._manager.gone(GUEST)
        left = {
            node: self._kernel.pool(model.PoolKey(node, _PAGE_KIB)).total
            for node in _NODES
        }
        if set(left.values()) != {_FLOOR}:
            raise ElasticError(
                f'pages left by node: {left}, expected {_FLOOR} on each'
            )
        self._say(
            'The guest is deleted. The pages that were allocated for it are '
            f'freed, and both pools are at {_FLOOR} pages again.'
        )
        self._grow_and_shrink()

    def _grow_and_shrink(self) -> None:
        """Have an elastic guest fill, and then free what it has filled."""
        need = model.PageNeed(0, 0, _PAGE_KIB, 1024, 1024, 2048)
        guest = elastic_guest.ElasticGuest(self._kernel, GUEST, [need])
        with self._manager.starting(GUEST, [need], is_defined=lambda: False):
            guest.start()
            self._manager.started(GUEST)
        self._say(
            'An elastic guest starts '
            '(numa_hugepages:elastic_base_percent=50). It boots with 2 GiB, '
            'and may come to have 4. By what its kernel says is usable it '
            'gets more, and gives it back:'
        )
        now = time.time()
        guests = elastic.ElasticGuests(
            elastic_guest.Libvirt(guest),
            self._manager,
            _MARKS,
            migrating=frozenset,
            clock=lambda: now,
            ticks=lambda: now,
        )
        sizes = []
        with mock.patch.object(libvirt_host, 'libvirt', fakelibvirt):
            for wanted_mib in (300, 1900, 2900, 2900, 2900, *(900,) * 5):
                mib = sum(guest.pages().values()) * _PAGE_KIB // 1024
                # Programs have to wait for what isn't there.
                used_mib = min(wanted_mib, mib - 50)
                now += 60
                guest.says(mib, mib - used_mib, now)
                guests.look()
                guest.follow()
                guests.look()
                then = sum(guest.pages().values()) * _PAGE_KIB // 1024
                bar = '█' * (used_mib // 128)
                bar += '▒' * (mib // 128 - len(bar))
                change = '' if then == mib else f' → {then} MiB'
                self._console.print(
                    f'  {bar:32} {used_mib:4} of {mib} MiB used{change}'
                )
                sizes.append(then)
        if not max(sizes) > 3000 or sizes[-1] != 2048:
            raise ElasticError(f'it had {sizes} MiB one after the other')
        self._console.print('  █ used inside   ▒ usable')
        guest.stop()
        self._manager.gone(GUEST)

    def _refuse(self) -> None:
        """Have a guest that is too big refused, and nothing changed."""
        needs = [model.PageNeed(0, 1, _PAGE_KIB, 7000)]
        before = self._kernel.pool(needs[0].key)
        try:
            with self._manager.starting(
                BIG_GUEST, needs, is_defined=lambda: False
            ):
                raise ElasticError('a guest of 14000 MiB was not refused')
        except exception.NotEnoughPages as error:
            self._say(
                f'Another one is refused, so Nova tries the next host: {error}'
            )
        if self._kernel.pool(needs[0].key) != before:
            raise ElasticError('a guest that was refused has left pages')

    def _reconcile(self) -> None:
        self._manager.reconcile(
            lambda: frozenset(), lambda: frozenset(), starting=True
        )

    def _draw(self) -> None:
        host = collect.inspect(
            opening.Machine(
                self._kernel.fs, read_maps=lambda fs: self._kernel.read_maps
            ),
            None,
            settings.Settings(self._ledger, self._policy),
        )
        for part in list(picture.draw(host, HOST))[1:]:
            self._console.print(padding.Padding(part, (0, 0, 0, 2)))

    def _write_page(self) -> None:
        found = collector.Collector(
            self._kernel.fs, self._policy, self._ledger, _Libvirt()
        ).collect()
        past = history.History(None)
        seen = insight.Seen(
            found, insight.Analyst(past, self._policy).look(found)
        )
        text = page.render(
            view.view(HOST, seen, [], view.curves(past, found.time))
        )
        try:
            self._page_file.parent.mkdir(parents=True, exist_ok=True)
            self._page_file.write_text(text, encoding='utf-8')
        except OSError as error:
            raise ElasticError(
                f'{self._page_file}: cannot be written: {error.strerror}; '
                'name another file with --page'
            ) from error

    def _say(self, line: str) -> None:
        self._console.print(padding.Padding(line, (0, 0, 0, 2)))
