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

"""Elastic guests on the host that this is run on.

``python -m tests.host.elastic_story FOLDER STORY [URI]`` stands for the
service, without the rest of Nova: the pools, the ledger and the loop that
gives guests memory and takes it back, on real libvirt, QEMU and huge pages.
What was seen is written as JSON, one value for each step of the story.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import json
import logging
import os
import pathlib
import socket
import sys
import time
import traceback
from typing import Any
import uuid

import libvirt
from nova import objects
from nova.virt.libvirt import guest as libvirt_guest
from nova.virt.libvirt import host as libvirt_host

from nova_numa_hugepages.hugepages import domain_xml
from nova_numa_hugepages.hugepages import elastic as policy
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.manager import HugePageManager
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.hugepages.pools import Pools
from nova_numa_hugepages.hugepages.state import lock
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from nova_numa_hugepages.libvirt import elastic
from nova_numa_hugepages.libvirt import guest_agent
from tests.host.rig import domains

PAGE_KIB = 2048
# Everything takes long under emulation.
LIMIT_S = float(os.environ.get('STORY_LIMIT_S', '400'))
# Of a guest as small as this, its kernel needs much to take more memory.
MARKS = policy.Marks(35, 60, shrink_delay_s=8.0, pause_s=2.0)
BASE_MIB, CEILING_MIB = 192, 448


class Guests:
    """The libvirt of this host, as Nova shows it to the loop."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def list_guests(self, *, only_running: bool) -> list[Any]:
        """List the guests that run."""
        assert only_running
        return [
            libvirt_guest.Guest(domain)
            for domain in self._connection.listAllDomains(
                libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE
            )
        ]

    def _wrap_libvirt_proxy(self, module: Any) -> Any:
        """Return a module as it is, as Nova does without eventlet."""
        return module


class Guest:
    """An elastic guest that boots a kernel.

    :ivar uuid: of its instance
    :ivar console: where its console is
    """

    def __init__(
        self,
        service: Service,
        name: str,
        *cells: domains.Cell,
        arguments: str = '',
        agent: bool = False,
        page_kib: int = PAGE_KIB,
    ) -> None:
        self.page_kib = page_kib
        self._service = service
        self.name = name
        self.uuid = str(uuid.uuid4())
        self.console = service.folder / f'{name}.log'
        self._port = service.folder / f'{name}.port'
        self._connection: socket.socket | None = None
        self.xml = domains.describe(
            name,
            self.uuid,
            cells,
            console=self.console,
            balloon='off',
            arguments=f'memhp_default_state=online_movable {arguments}',
            told=self._port,
            agent=agent,
            page_kib=page_kib,
        )

    @property
    def domain(self) -> Any:
        """Its domain in libvirt."""
        return self._service.connection.lookupByUUIDString(self.uuid)

    def start(self) -> None:
        """Start it, and wait for its kernel."""
        manager = self._service.manager
        needs = domain_xml.page_needs(self.xml)
        with manager.starting(self.uuid, needs, is_defined=lambda: False):
            self._service.connection.createXML(self.xml, 0)
            manager.started(self.uuid)
        self._service.guests.append(self)
        self.wait_for('beat 1')

    def stop(self) -> None:
        """End it."""
        self._service.guests.remove(self)
        self.domain.destroy()
        self._service.manager.gone(self.uuid)

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until its console has a text so often."""
        self._service.until(
            lambda: self._text().count(text) >= times,
            f'{self.name}: {text}',
            look=False,
        )

    def tell(self, text: str) -> None:
        """Tell it to do something, and wait until it has done so."""
        done = f'told {text.split()[0]}'
        before = self._text().count(done)
        self.ask(text)
        self.wait_for(done, before + 1)

    def ask(self, text: str) -> None:
        """Tell it to do something, and don't wait."""
        if self._connection is None:
            # Kept: what isn't read yet would go with it.
            self._connection = socket.socket(socket.AF_UNIX)
            self._connection.connect(str(self._port))
        self._connection.sendall(f'{text}\n'.encode())

    def has(self) -> dict[int, int]:
        """Count its pages by node."""
        process = processes.running(hostfs.HostFS())[self.uuid]
        found = processes.pages_of(
            processes.MapsFile(hostfs.HostFS())(process.pid)
        )
        return {key.node: count for key, count in sorted(found.items())}

    def held(self) -> dict[int, int]:
        """Count what is held for it by node."""
        found: dict[int, int] = {}
        for hold in self._service.manager.held(self.uuid):
            found[hold.node] = found.get(hold.node, 0) + hold.pages
        return found

    def devices(self) -> dict[int, domain_xml.MemoryDevice]:
        """Get its memory devices."""
        return domain_xml.memory_devices(self.domain.XMLDesc(0))

    def current_mib(self) -> dict[int, int]:
        """Get what it has beyond its base, by cell, in MiB."""
        return {
            cell: (device.current or 0) >> 20
            for cell, device in self.devices().items()
        }

    def _text(self) -> str:
        try:
            return self.console.read_text(errors='replace')
        except FileNotFoundError:
            return ''


class _Warnings(logging.Handler):
    """Keeps the warnings that are logged."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._seen = seen

    def emit(self, record: logging.LogRecord) -> None:
        self._seen.append(record.getMessage())


class Service:
    """The service's part on this host.

    :ivar connection: to libvirt
    :ivar seen: the warnings of the loop
    :ivar guests: those that run
    :ivar curves: of each, by name: seconds since the beginning, what it has
        and what its programs use, in MiB
    """

    def __init__(
        self, folder: pathlib.Path, uri: str | None, **options: Any
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.connection = libvirt.open(uri)
        libvirt_host.libvirt = libvirt
        libvirt_guest.libvirt = libvirt
        self._ledger = Ledger.open(folder / 'ledger.sqlite')
        self._options = options
        self.seen: list[str] = []
        self.guests: list[Guest] = []
        self.curves: dict[str, list[tuple[float, int, int]]] = {}
        self._began = time.monotonic()
        logging.getLogger(elastic.__name__).addHandler(_Warnings(self.seen))
        self.start()

    def start(self) -> None:
        """Start, again if it was killed: only the ledger is known then."""
        fs = hostfs.HostFS()
        self.pools = Pools(
            hugetlb.Hugetlb(fs, hugetlb.write_number),
            self._ledger,
            PoolPolicy(
                **{
                    'node_free_mib': 64,
                    'ceiling_percent': 95,
                    'time_limit_s': 5.0,
                    **self._options,
                }
            ),
            lock=lock.HostLock(self.folder),
            read_maps=processes.MapsFile(fs),
        )
        self.pools.refresh()
        self.manager = HugePageManager(self.pools)
        host = Guests(self.connection)
        self.loop = elastic.ElasticGuests(
            host,
            self.manager,
            MARKS,
            migrating=frozenset,
            return_limit_s=60.0,
            ask_agent=guest_agent.ask_by(host),
        )

    def look(self) -> None:
        """Look at all guests, once."""
        self.loop.look()
        for guest in self.guests:
            self._note(guest)

    def _note(self, guest: Guest) -> None:
        """Note what a guest has and uses."""
        stats = guest.domain.memoryStats()
        if 'usable' not in stats:
            return
        used_kib = stats['available'] - stats['usable']
        self.curves.setdefault(guest.name, []).append(
            (
                round(time.monotonic() - self._began, 1),
                sum(guest.has().values()) * guest.page_kib // 1024,
                used_kib // 1024,
            )
        )

    def until(
        self,
        holds: Callable[[], Any],
        what: str,
        *,
        look: bool = True,
        pause_s: float = 1.0,
    ) -> float:
        """Wait until something is so; the loop looks meanwhile.

        :returns: how long that took, in seconds
        """
        began = time.monotonic()
        while not holds():
            if time.monotonic() - began > LIMIT_S:
                raise TimeoutError(f'{what}; warnings: {self.seen}')
            if look:
                self.look()
            time.sleep(pause_s)
        return round(time.monotonic() - began, 1)

    def free(self, node: int) -> int:
        """Count the free pages of a node."""
        return self.pools.usage()[model.PoolKey(node, PAGE_KIB)].pool.free


Seen = Iterator[tuple[str, Any]]


def elastic_cell(node: int) -> domains.Cell:
    """A guest cell on a node, with a CPU of it."""
    # As the virtual hosts have them.
    return domains.Cell(node, BASE_MIB, [2 * node], CEILING_MIB)


def grow_and_shrink(service: Service, node: int) -> Seen:
    """It fills, and gets more; it frees, and gives that back."""
    guest = Guest(service, 'one', elastic_cell(node))
    guest.start()
    yield 'at first', (guest.has(), guest.held())
    service.look()
    # It takes more than its base has, as it comes.
    guest.ask('fill 80')
    yield (
        'seconds to grow',
        service.until(
            lambda: sum(guest.current_mib().values()) >= 128, 'it grows'
        ),
    )
    service.until(
        lambda: 'told fill' in guest._text(), 'it has filled its memory'
    )
    yield 'when full', (guest.has(), guest.held(), guest.current_mib())
    guest.tell('free')
    yield (
        'seconds to shrink',
        service.until(
            lambda: not sum(guest.current_mib().values()), 'it shrinks'
        ),
    )
    service.look()
    yield 'when idle', (guest.has(), guest.held())
    yield 'warnings', service.seen
    guest.stop()
    yield 'at last', (service.free(node), len(service.pools.holds()))


def lend(service: Service, node: int) -> Seen:
    """Two share what one can have; one waits until the other gives back."""
    one, two = (
        Guest(service, name, elastic_cell(node)) for name in ('one', 'two')
    )
    one.start()
    two.start()
    one.ask('fill 80')
    service.until(lambda: one.current_mib()[0] >= 128, 'the first grows')
    service.until(lambda: 'told fill' in one._text(), 'the first is full')
    # It needs some memory to take more.
    two.ask('fill 50')
    service.until(lambda: service.seen, 'the second has to wait')
    yield 'warned', service.seen[0]
    yield 'waits', (one.held(), two.held(), two.current_mib())
    one.tell('free')
    yield (
        'seconds until it is its turn',
        service.until(lambda: two.current_mib()[0] >= 128, 'the second grows'),
    )
    yield 'then', (one.held(), two.held(), two.has())
    yield 'curves', service.curves
    for guest in (one, two):
        guest.stop()
    yield 'at last', (service.free(node), len(service.pools.holds()))


def reset(service: Service, node: int) -> Seen:
    """What it had stays held for it; a service that is killed heals it."""
    guest = Guest(service, 'one', elastic_cell(node))
    guest.start()
    guest.ask('fill 80')
    service.until(lambda: guest.current_mib()[0] >= 128, 'it grows')
    large = guest.held()
    yield 'large', (guest.has(), large)
    guest.domain.reset(0)
    time.sleep(2)
    yield 'reset', (guest.has(), guest.current_mib())
    service.look()
    yield 'held meanwhile', guest.held() == large
    yield (
        'seconds until it is back',
        service.until(lambda: guest.has() == large, 'its new kernel takes it'),
    )
    # Killed between holding more and asking for it.
    [hold] = service.manager.held(guest.uuid)
    service.manager.resize(guest.uuid, {0: hold.pages + 64})
    service.start()
    service.look()
    yield 'healed', guest.held() == large
    # Killed before it is known what was given back.
    guest.domain.updateDeviceFlags(
        domain_xml.requesting(guest.domain.XMLDesc(0), 0, 0),
        libvirt.VIR_DOMAIN_AFFECT_LIVE,
    )
    service.start()
    service.until(lambda: not guest.current_mib()[0], 'it gives all back')
    service.look()
    yield 'healed again', (guest.has(), guest.held())
    guest.stop()


def without_driver(service: Service, node: int) -> Seen:
    """It stays at its base, and is told of once."""
    guest = Guest(
        service,
        'one',
        elastic_cell(node),
        arguments='ignore=virtio_mem fill=45',
    )
    guest.start()
    service.until(lambda: guest.devices()[0].requested, 'it is asked')
    service.until(lambda: service.seen, 'it is told')
    service.look()
    yield 'told', service.seen
    yield 'asked', guest.devices()[0].requested
    yield 'held', (guest.has(), guest.held())
    guest.stop()


def by_cell(service: Service, node: int) -> Seen:
    """The cell whose programs need more gets it, whatever the other has."""
    guest = Guest(
        service,
        'one',
        # What its kernel needs is in the first.
        domains.Cell(node, 384, [2 * node], 640),
        elastic_cell(node),
        agent=True,
    )
    guest.start()
    guest.tell('bind 1')
    guest.ask('fill 110')
    yield (
        'seconds to grow',
        service.until(lambda: guest.current_mib()[1] >= 128, 'it grows'),
    )
    yield 'has', guest.current_mib()
    yield 'warnings', service.seen
    guest.stop()


def by_hand(service: Service, node: int) -> Seen:
    """How long it takes, beside what the kernel takes to make the pages."""
    guest = Guest(service, 'one', elastic_cell(node))
    guest.start()
    _set(service, guest, CEILING_MIB)
    more = CEILING_MIB - BASE_MIB
    yield (
        'seconds',
        service.until(
            lambda: guest.current_mib()[0] >= more, 'it has all', pause_s=0.1
        ),
    )
    guest.stop()
    key = model.PoolKey(node, PAGE_KIB)
    kernel = hugetlb.Hugetlb(hostfs.HostFS(), hugetlb.write_number)
    before = kernel.pool(key).persistent
    began = time.monotonic()
    kernel.set_persistent(key, before + more * 1024 // PAGE_KIB)
    yield 'seconds of the kernel', round(time.monotonic() - began, 4)
    kernel.set_persistent(key, before)


def gigantic(service: Service, node: int) -> Seen:
    """On pages of 1 GiB it grows, and shrinks as far as its kernel can."""
    guest = Guest(
        service,
        'one',
        domains.Cell(node, 1024, [2 * node], 2048),
        page_kib=1 << 20,
    )
    guest.start()
    yield 'at first', (guest.has(), guest.held())
    _set(service, guest, 2048)
    yield (
        'seconds',
        service.until(lambda: guest.current_mib()[0] >= 1024, 'it grows'),
    )
    yield 'large', (guest.has(), guest.held())
    _set(service, guest, 1024)
    for _ in range(30):
        service.look()
        time.sleep(1)
    service.look()
    yield 'asked back', (guest.current_mib()[0], guest.has(), guest.held())
    guest.stop()
    yield 'at last', len(service.pools.holds())


def _set(service: Service, guest: Guest, mib: int) -> None:
    """Do what ``host elastic --set`` does."""
    size = model.Size(mib * 1024, time.time(), 'a test')
    service.pools.put_size(guest.uuid, 0, size)


STORIES = {
    story.__name__: story
    for story in (
        grow_and_shrink,
        lend,
        reset,
        without_driver,
        by_cell,
        by_hand,
        gigantic,
    )
}
OPTIONS: dict[str, dict[str, Any]] = {
    'lend': {'dynamic': False, 'lend_ratio': 2.0}
}


def main(folder: str, name: str, node: str, uri: str | None = None) -> None:
    """Tell a story, and write what was seen."""
    logging.basicConfig(level=logging.INFO)
    objects.register_all()
    service = Service(pathlib.Path(folder), uri, **OPTIONS.get(name, {}))
    seen: dict[str, Any] = {}
    status = 0
    began = time.monotonic()
    try:
        for step, value in STORIES[name](service, int(node)):
            seen[step] = value
            took = time.monotonic() - began
            print(f'{took:.0f} s {step}: {value}', file=sys.stderr, flush=True)
    except BaseException:
        traceback.print_exc()
        status = 1
    json.dump(seen, sys.stdout)
    sys.stdout.flush()
    os._exit(status)


if __name__ == '__main__':
    main(*sys.argv[1:])
