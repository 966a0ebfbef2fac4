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

"""Elastic memory of the guests of a host: giving it, and taking it back.

A thread of the compute service looks at each elastic guest in turn. What a
guest gets is held for it before it is asked to take it; what it gives back is
held until it has done so. Of what the guest does only what libvirt says it has
counts.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import threading
import time
from typing import Any

from nova import exception as nova_exception
from nova.virt.libvirt import guest as libvirt_guest
from nova.virt.libvirt import host as libvirt_host
from oslo_log import log as logging

from nova_numa_hugepages import elastic_spec
from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import domain_xml
from nova_numa_hugepages.hugepages import elastic
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import sample
from nova_numa_hugepages.hugepages.manager import HugePageManager
from nova_numa_hugepages.libvirt import guest_agent

LOG = logging.getLogger(__name__)

# So long an agent that doesn't answer isn't asked again, in seconds.
_SILENT_S = 300.0
# A migration is in Nova's database after so long, in seconds.
_MIGRATION_KNOWN_S = 60.0


@dataclasses.dataclass(slots=True)
class _Followed:
    """A guest that is followed. All times are seconds of the same clock.

    :ivar run: the number that libvirt gave it when it started
    :ivar away_since: since when it has less than it was asked to have, None
        if it hasn't
    :ivar refuses_until: until when its use isn't looked at, as it didn't take
        what it was asked to take
    :ivar short_until: until when it isn't given more, as there was nothing
    :ivar short_wait_s: how long that was
    :ivar silent_until: until when its agent isn't asked, as it doesn't answer
    :ivar told: the kinds of trouble that were logged of it, each once until
        it is over
    :ivar told_at: the pages that it had when it was told that it takes none
    """

    run: int
    track: elastic.Track
    away_since: float | None = None
    refuses_until: float = 0.0
    short_until: float = 0.0
    short_wait_s: float = 0.0
    silent_until: float = 0.0
    told: set[str] = dataclasses.field(default_factory=set)
    told_at: int = 0


class ElasticGuests:
    """Gives the elastic guests of a host memory, and takes it back.

    :param host: their libvirt
    :param marks: when they grow and shrink
    :param migrating: gets the uuids of instances that move, None if that
        isn't possible
    :param return_limit_s: how long they have to take what they were asked to
        take, in seconds; also after a reset, which takes it from them
    :param ask_agent: asks their agents, None if they aren't asked
    :param clock: seconds since the epoch
    :param ticks: seconds of a clock that only goes forward
    """

    def __init__(
        self,
        host: libvirt_host.Host,
        manager: HugePageManager,
        marks: elastic.Marks,
        *,
        migrating: Callable[[], frozenset[str] | None],
        return_limit_s: float = 600.0,
        ask_agent: guest_agent.Ask | None = None,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._manager = manager
        self._marks = marks
        self._migrating = migrating
        self._return_limit_s = return_limit_s
        self._ask_agent = ask_agent
        self._clock = clock
        self._ticks = ticks
        self._followed: dict[str, _Followed] = {}
        # Guests that aren't elastic, by uuid, with the number of their run.
        self._others: dict[str, int] = {}
        # What cells of guests need and can't get, in KiB, and the pools.
        self._waits: dict[str, dict[int, int]] = {}
        for wait in manager.waits():
            self._waits.setdefault(wait.holder, {})[wait.cell] = wait.kib
        self._short: frozenset[model.PoolKey] = frozenset()
        self._stopped = threading.Event()

    def start(self, interval_s: float) -> None:
        """Look from now on, in a thread that doesn't keep the service alive.

        :param interval_s: how often
        """

        def run() -> None:
            while not self._stopped.wait(interval_s):
                try:
                    self.look()
                except Exception:
                    LOG.exception('Could not look after elastic instances')

        threading.Thread(target=run, name='elastic', daemon=True).start()

    def stop(self) -> None:
        """Look no more. A look that has begun comes to its end."""
        self._stopped.set()

    def look(self) -> None:
        """Look at all elastic guests that run, and change what has to be.

        What goes wrong with one doesn't keep others from it.
        """
        self._thaw()
        try:
            guests = self._host.list_guests(only_running=True)
        except (
            nova_exception.NovaException,
            libvirt_host.libvirt.libvirtError,
        ) as error:
            LOG.warning(
                'Could not list libvirt domains; the memory of elastic '
                'instances stays as it is: %s',
                error,
            )
            return
        here = {guest.uuid for guest in guests}
        for uuid in self._waits.keys() - here:
            with self._logged(uuid):
                self._note_waits(uuid, {})
        short: set[model.PoolKey] = set()
        for guest in guests:
            uuid = guest.uuid
            if self._others.get(uuid) == guest.id:
                continue
            with self._manager.undisturbed(uuid) as is_free:
                if not is_free:
                    # It is being started, stopped or moved.
                    self._followed.pop(uuid, None)
                    continue
                with self._logged(uuid):
                    self._look_at(guest, uuid)
                with self._logged(uuid):
                    short |= self._short_of(uuid)
        self._short = frozenset(short)
        for known in (self._followed, self._others):
            for uuid in known.keys() - here:
                del known[uuid]

    @contextlib.contextmanager
    def _logged(self, uuid: str) -> Iterator[None]:
        """Log what goes wrong with a guest, once until it is over."""
        try:
            yield
        except (
            exception.NUMAHugepagesError,
            nova_exception.NovaException,
            libvirt_host.libvirt.libvirtError,
        ) as error:
            if self._is_new(uuid, _ERROR):
                LOG.warning(
                    'Could not look after the elastic memory of the '
                    'instance: %s',
                    error,
                    instance_uuid=uuid,
                )
        except Exception:
            # Others go on.
            if self._is_new(uuid, _ERROR):
                LOG.exception(
                    'Could not look after elastic instances',
                    instance_uuid=uuid,
                )

    def _thaw(self) -> None:
        """Let the sizes of guests change again whose migration is over."""
        frozen = self._manager.frozen(_MIGRATION_KNOWN_S)
        if not frozen:
            return
        moving = self._migrating()
        for uuid in frozen - moving if moving is not None else ():
            self._manager.thaw(uuid)

    def _short_of(self, uuid: str) -> set[model.PoolKey]:
        """Return the pools that have too few pages for a guest."""
        waits = self._waits.get(uuid, {})
        held = self._manager.held(uuid) if waits else []
        return {hold.key for hold in held if hold.cell in waits}

    def _look_at(self, guest: libvirt_guest.Guest, uuid: str) -> None:
        if not guest._domain.isActive():
            # It ended since they were listed.
            return
        xml = guest.get_xml_desc()
        devices = domain_xml.memory_devices(xml)
        if not devices:
            self._others[uuid] = guest.id
            self._note_waits(uuid, {})
            return
        if (
            guest.get_job_info().type
            != libvirt_host.libvirt.VIR_DOMAIN_JOB_NONE
        ):
            # It is being migrated or saved: its devices can't change.
            return
        followed = self._followed.get(uuid)
        if followed is not None and followed.run != guest.id:
            self._note_waits(uuid, {})
            followed = None
        if followed is None:
            followed = _Followed(guest.id, elastic.Track())
            self._followed[uuid] = followed
        needs = domain_xml.page_needs(xml)
        cells = _cells(needs, devices)
        asked = {cell.number: max(cell.asked, cell.current) for cell in cells}
        if not self._manager.settle(
            uuid,
            [
                need._replace(pages=asked.get(need.cell, need.pages))
                for need in needs
            ],
        ):
            # It holds nothing as a guest of this host, at least not yet.
            self._note_waits(uuid, {})
            return
        self._follow(guest, followed, cells, xml)
        sizes = self._manager.sizes(uuid)
        decision = _by_operator(cells, sizes)
        followed.track.enough = set()
        if decision is None and self._ticks() >= followed.refuses_until:
            now = self._clock()
            # Others wait for what these don't need.
            pressed = {need.cell for need in needs if need.key in self._short}
            by_use = [
                cell
                for cell in cells
                if sizes.get(cell.number, _AUTO).wanted_kib is None
            ]
            inside = _inside(guest, now)
            memory = self._cell_memory(guest, followed, by_use)
            if memory:
                decision = elastic.decide_each(
                    by_use,
                    inside,
                    memory,
                    followed.track,
                    self._marks,
                    now,
                    pressed,
                )
            else:
                decision = elastic.decide(
                    by_use, inside, followed.track, self._marks, now, pressed
                )
        if decision is not None:
            self._change(guest, followed, cells, decision, xml)
        self._end_waits(uuid, cells, sizes, followed.track.enough, decision)
        followed.told.discard(_ERROR)

    def _end_waits(
        self,
        uuid: str,
        cells: Sequence[elastic.Cell],
        sizes: Mapping[int, model.Size],
        enough: Collection[int],
        decision: elastic.Decision | None,
    ) -> None:
        """Note which cells of a guest wait no more.

        :param enough: cells of which it is known that they need no more
        """
        changing = decision.pages if decision is not None else {}
        waits = {
            number: kib
            for number, kib in self._waits.get(uuid, {}).items()
            if number in changing
            or not (
                number in enough
                or sizes.get(number, _AUTO).wanted_kib is not None
            )
        }
        numbers = {cell.number for cell in cells}
        self._note_waits(
            uuid, {cell: kib for cell, kib in waits.items() if cell in numbers}
        )

    def _cell_memory(
        self,
        guest: libvirt_guest.Guest,
        followed: _Followed,
        cells: Sequence[elastic.Cell],
    ) -> dict[int, elastic.CellMemory]:
        """Ask the agent of a guest how much memory of its cells is usable.

        :returns: nothing if it doesn't say, or it doesn't matter
        """
        if (
            self._ask_agent is None
            or len(cells) < 2
            or self._ticks() < followed.silent_until
        ):
            return {}
        try:
            memory = guest_agent.cell_memory(
                self._ask_agent,
                guest._domain,
                [cell.number for cell in cells],
            )
        except (
            exception.GuestAgentError,
            libvirt_host.libvirt.libvirtError,
        ) as error:
            followed.silent_until = self._ticks() + _SILENT_S
            if self._is_new(guest.uuid, _SILENT):
                LOG.info(
                    'The NUMA nodes of the instance get and give memory '
                    'evenly, as its guest agent does not say how much of '
                    'each is usable: %s',
                    error,
                    instance_uuid=guest.uuid,
                )
            return {}
        followed.told.discard(_SILENT)
        return memory

    def _follow(
        self,
        guest: libvirt_guest.Guest,
        followed: _Followed,
        cells: list[elastic.Cell],
        xml: str,
    ) -> None:
        """See whether a guest takes what it was asked to take."""
        current = sum(cell.current for cell in cells)
        if current > followed.told_at:
            followed.told.discard(_UNABLE)
        if all(cell.current >= cell.asked for cell in cells):
            followed.away_since = None
            return
        now = self._ticks()
        if followed.away_since is None:
            followed.away_since = now
        waited = now - followed.away_since
        if waited < self._return_limit_s:
            return
        if self._is_new(guest.uuid, _UNABLE):
            LOG.warning(
                'The instance has not taken the memory that it was given for '
                '%d s, and is left with what it has. Its kernel needs '
                'virtio_mem, and has to bring added memory online '
                '(memhp_default_state=online_movable).',
                waited,
                instance_uuid=guest.uuid,
            )
        followed.told_at = current
        followed.away_since = None
        followed.refuses_until = now + self._return_limit_s
        for cell in cells:
            if cell.current < cell.asked:
                self._ask(guest, xml, cell, cell.current)

    def _change(
        self,
        guest: libvirt_guest.Guest,
        followed: _Followed,
        cells: list[elastic.Cell],
        decision: elastic.Decision,
        xml: str,
    ) -> None:
        """Carry out a decision.

        What is given back first, as others may need it; of what is given it
        is held first, then the guest is asked to take it.
        """
        more = {}
        for cell in cells:
            count = decision.pages.get(cell.number, cell.asked)
            if count > max(cell.asked, cell.current):
                more[cell.number] = count
            elif count != cell.asked:
                # What it has is held for it.
                self._resize(guest, followed, cell, decision, xml)
        if more and self._ticks() >= followed.short_until:
            held = self._hold(guest.uuid, followed, cells, more, decision)
            missing = {
                cell.number: (
                    more[cell.number]
                    - held.get(cell.number, max(cell.asked, cell.current))
                )
                * cell.size_kib
                for cell in cells
                if cell.number in more
            }
            self._note_waits(
                guest.uuid, {**self._waits.get(guest.uuid, {}), **missing}
            )
            for cell in cells:
                if cell.number in held:
                    self._resize(
                        guest,
                        followed,
                        cell,
                        decision._replace(pages=held),
                        xml,
                    )

    def _resize(
        self,
        guest: libvirt_guest.Guest,
        followed: _Followed,
        cell: elastic.Cell,
        decision: elastic.Decision,
        xml: str,
    ) -> None:
        count = decision.pages[cell.number]
        self._ask(guest, xml, cell, count)
        now = self._clock()
        why = decision.why[cell.number]
        self._manager.note_size(guest.uuid, cell.number, now, why)
        followed.track.change(cell.number, now)
        LOG.info(
            'Elastic memory of guest NUMA node %(cell)d: from %(from)d to '
            '%(to)d MiB, as %(why)s.',
            {
                'cell': cell.number,
                'from': cell.asked * cell.size_kib // 1024,
                'to': count * cell.size_kib // 1024,
                'why': why,
            },
            instance_uuid=guest.uuid,
        )

    def _hold(
        self,
        uuid: str,
        followed: _Followed,
        cells: list[elastic.Cell],
        more: dict[int, int],
        decision: elastic.Decision,
    ) -> dict[int, int]:
        """Hold more for a guest, or as little as is of use.

        :param more: pages by cell
        :returns: what is held; empty if there isn't enough
        """
        try:
            self._manager.resize(uuid, more)
            held = more
        except exception.NotEnoughPages as error:
            held = self._hold_least(uuid, cells, more)
            if not held:
                followed.short_wait_s = elastic.longer_wait(
                    followed.short_wait_s
                )
                followed.short_until = self._ticks() + followed.short_wait_s
                if self._is_new(uuid, _SHORT):
                    LOG.warning(
                        'The instance cannot be given more memory (%(why)s), '
                        'and stays as it is: %(error)s',
                        {
                            'why': decision.why[min(more)],
                            'error': error,
                        },
                        instance_uuid=uuid,
                    )
                return {}
        followed.short_wait_s = 0.0
        followed.told.discard(_SHORT)
        return held

    def _hold_least(
        self, uuid: str, cells: list[elastic.Cell], more: Mapping[int, int]
    ) -> dict[int, int]:
        for cell in cells:
            if cell.number not in more:
                continue
            least = {
                cell.number: min(
                    more[cell.number],
                    max(cell.asked, cell.current) + cell.block,
                )
            }
            if least == more:
                # That was tried.
                continue
            try:
                self._manager.resize(uuid, least, quick=True)
            except exception.NotEnoughPages:
                continue
            return least
        return {}

    def _note_waits(self, uuid: str, missing_kib: Mapping[int, int]) -> None:
        """Note which cells of a guest wait for pages."""
        waits = {cell: kib for cell, kib in missing_kib.items() if kib > 0}
        if waits != self._waits.get(uuid, {}):
            self._manager.put_waits(uuid, waits)
            self._waits[uuid] = waits
        if not waits:
            self._waits.pop(uuid, None)

    def _ask(
        self,
        guest: libvirt_guest.Guest,
        xml: str,
        cell: elastic.Cell,
        pages: int,
    ) -> None:
        """Ask a guest to have so many pages in a cell."""
        element = domain_xml.requesting(
            xml, cell.number, (pages - cell.base) * cell.size_kib
        )
        guest._domain.updateDeviceFlags(
            element, libvirt_host.libvirt.VIR_DOMAIN_AFFECT_LIVE
        )

    def _is_new(self, uuid: str, kind: str) -> bool:
        """Check whether a kind of trouble was not logged of a guest yet."""
        followed = self._followed.get(uuid)
        if followed is None:
            return True
        known = kind in followed.told
        followed.told.add(kind)
        return not known


# Kinds of trouble.
_ERROR = 'error'
_SHORT = 'short'
_SILENT = 'silent'
_UNABLE = 'unable'
_AUTO = model.Size(None, 0.0, 'it started')


def _cells(
    needs: list[model.PageNeed],
    devices: Mapping[int, domain_xml.MemoryDevice],
) -> list[elastic.Cell]:
    """Return the elastic cells of a guest that runs."""
    boot_kib = sum((need.base or need.pages) * need.size_kib for need in needs)
    cells = []
    for need in needs:
        device = devices.get(need.cell)
        if device is None or not need.ceiling:
            continue
        block_mib = elastic_spec.block_mib(boot_kib // 1024, need.size_kib)
        current = (device.current or 0) // (need.size_kib * 1024)
        cells.append(
            elastic.Cell(
                need.cell,
                need.base,
                need.pages,
                min(need.ceiling, need.base + current),
                need.ceiling,
                block_mib * 1024 // need.size_kib,
                need.size_kib,
            )
        )
    return cells


def _by_operator(
    cells: list[elastic.Cell], sizes: Mapping[int, model.Size]
) -> elastic.Decision | None:
    """Return the change to the sizes that an operator wants, if any."""
    pages = {}
    for cell in cells:
        wanted_kib = sizes.get(cell.number, _AUTO).wanted_kib
        if wanted_kib is None:
            continue
        # Up to whole blocks.
        more_kib = wanted_kib - cell.base * cell.size_kib
        blocks = -(-more_kib // (cell.block * cell.size_kib))
        count = min(cell.ceiling, cell.base + max(0, blocks) * cell.block)
        if count != cell.asked:
            pages[cell.number] = count
    if not pages:
        return None
    return elastic.Decision(
        pages, dict.fromkeys(pages, 'an operator wants it')
    )


def _inside(
    guest: libvirt_guest.Guest, now: float
) -> sample.MemoryInside | None:
    """Get what the kernel of a guest says of its memory."""
    stats: Mapping[str, Any] = guest._domain.memoryStats()
    # The names that virsh has.
    names = {'last_update': 'last-update'}
    return sample.inside(
        {
            f'balloon.{names.get(name, name)}': str(value)
            for name, value in stats.items()
        },
        now,
    )
