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
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
import time
from typing import Any

from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from nova.virt.libvirt import guest as libvirt_guest
from nova.virt.libvirt import host as libvirt_host
from oslo_log import log as logging

from nova_numa_hugepages import elastic_spec
from nova_numa_hugepages import exception
from nova_numa_hugepages import extra_specs
from nova_numa_hugepages.hugepages import domain_xml
from nova_numa_hugepages.hugepages import elastic
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import sample
from nova_numa_hugepages.hugepages.manager import HugePageManager

LOG = logging.getLogger(__name__)

# What an instance that migrates has, in the metadata that Nova keeps of it.
_SIZES = 'numa_hugepages_elastic_pages'
# Nova keeps the properties of an image there that it doesn't know.
_IMAGE = 'image_'


def sizes_of(
    instance: objects.Instance, image: objects.ImageMeta
) -> list[elastic_spec.ElasticCell] | None:
    """Return the sizes of the guest cells of an instance.

    Its image can ask for a larger base than its flavor does.

    :returns: None if its memory isn't elastic
    :raises nova.exception.InvalidInput: if what is asked for is not possible
    """
    topology = instance.numa_topology
    specs = instance.flavor.extra_specs
    cells = [
        (cell.memory, (cell.pagesize if 'pagesize' in cell else None) or 0)
        for cell in (topology.cells if topology else ())
    ]
    try:
        sizes = elastic_spec.check(specs, image.properties, cells)
        asked = elastic_spec.of_image(
            {
                name.removeprefix(_IMAGE): value
                for name, value in instance.system_metadata.items()
                if name.startswith(_IMAGE)
            }
        )
        if sizes is None or asked is None:
            return sizes
        by_image = elastic_spec.sizes(
            asked, [mib for mib, _ in cells], cells[0][1]
        )
    except (exception.InvalidExtraSpec, exception.ElasticRefused) as error:
        raise nova_exception.InvalidInput(reason=str(error)) from error
    return [
        max(pair, key=lambda cell: cell.base)
        for pair in zip(sizes, by_image, strict=True)
    ]


def tell_sizes(instance: objects.Instance, held: Sequence[model.Hold]) -> None:
    """Have an instance that migrates say what it has now.

    The destination holds that for it, and not all that it may come to have.

    :param instance: changed, and saved
    :param held: what it holds; of one that isn't elastic nothing is said
    """
    sizes = {
        hold.cell: [hold.pages, hold.base, hold.ceiling]
        for hold in held
        if hold.ceiling
    }
    if sizes:
        instance.system_metadata[_SIZES] = json.dumps(sizes)
        instance.save()
    else:
        forget_sizes(instance)


def forget_sizes(instance: objects.Instance) -> None:
    """Have an instance that doesn't migrate say nothing of its size."""
    if instance.system_metadata.pop(_SIZES, None) is not None:
        instance.save()


def with_sizes(
    instance: objects.Instance, needs: Sequence[model.PageNeed]
) -> list[model.PageNeed]:
    """Return the pages that an instance needs which migrates to this host.

    :param needs: all that its cells may have
    :returns: for elastic cells what they have now
    """
    if extra_specs.elastic_base(instance.flavor.extra_specs) is None:
        return list(needs)
    # The source has written it since the instance was read.
    admin = nova_context.get_admin_context()
    stored = objects.Instance.get_by_uuid(
        admin, instance.uuid, expected_attrs=['system_metadata']
    )
    text = stored.system_metadata.get(_SIZES, '{}')
    try:
        sizes = {int(cell): size for cell, size in json.loads(text).items()}
        return [_sized(need, sizes.get(need.cell)) for need in needs]
    except (AttributeError, TypeError, ValueError) as error:
        LOG.warning(
            'Holding all memory that the instance may have, as what it has '
            'now is not known: %(text)r (%(error)s)',
            {'text': text, 'error': error},
            instance=instance,
        )
        return list(needs)


def _sized(need: model.PageNeed, size: Any) -> model.PageNeed:
    """Return what a cell needs with its size as it was told."""
    if size is None:
        return need
    pages, base, ceiling = map(int, size)
    if ceiling != need.pages or not 0 < base <= pages <= ceiling:
        raise ValueError(f'{size} cannot be of {need.pages} pages')
    return need._replace(pages=pages, base=base, ceiling=ceiling)


def requested(
    cells: Sequence[elastic_spec.ElasticCell],
    page_kib: int,
    held: Iterable[model.Hold],
) -> dict[int, int]:
    """Return what elastic cells are to have beyond their base, in KiB.

    A guest that is started again has what it had.

    :param held: what it holds
    """
    return {
        hold.cell: (hold.pages - hold.base) * page_kib
        for hold in held
        if hold.size_kib == page_kib
        and hold.cell < len(cells)
        and hold.ceiling * page_kib == cells[hold.cell].ceiling * 1024
        and hold.base * page_kib == cells[hold.cell].base * 1024
    }


@dataclasses.dataclass(slots=True)
class _Followed:
    """A guest that is followed.

    :ivar run: the number that libvirt gave it when it started
    :ivar away_since: since when it has less than it was asked to have, None
        if it hasn't; in seconds since the epoch
    :ivar refuses_until: until when it isn't asked again, as it didn't take
        what it was asked to take
    :ivar told: the kinds of trouble that were logged of it, each once until
        it is over
    """

    run: int
    track: elastic.Track
    away_since: float | None = None
    refuses_until: float = 0.0
    told: set[str] = dataclasses.field(default_factory=set)


class ElasticGuests:
    """Gives the elastic guests of a host memory, and takes it back.

    :param host: their libvirt
    :param marks: when they grow and shrink
    :param return_limit_s: how long they have to take what they were asked to
        take, in seconds; also after a reset, which takes it from them
    :param clock: seconds since the epoch
    """

    def __init__(
        self,
        host: libvirt_host.Host,
        manager: HugePageManager,
        marks: elastic.Marks,
        *,
        return_limit_s: float = 600.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._host = host
        self._manager = manager
        self._marks = marks
        self._return_limit_s = return_limit_s
        self._clock = clock
        self._followed: dict[str, _Followed] = {}
        # Guests that aren't elastic, by uuid, with the number of their run.
        self._others: dict[str, int] = {}

    def look(self) -> None:
        """Look at all elastic guests that run, and change what has to be.

        What goes wrong with one doesn't keep others from it.
        """
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
        here = set()
        for guest in guests:
            uuid = guest.uuid
            here.add(uuid)
            if self._others.get(uuid) == guest.id:
                continue
            if uuid in self._manager.busy():
                # It is being started, stopped or moved.
                self._followed.pop(uuid, None)
                continue
            try:
                self._look_at(guest, uuid)
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
        for known in (self._followed, self._others):
            for uuid in known.keys() - here:
                del known[uuid]

    def _look_at(self, guest: libvirt_guest.Guest, uuid: str) -> None:
        xml = guest.get_xml_desc()
        devices = domain_xml.memory_devices(xml)
        if not devices:
            self._others[uuid] = guest.id
            return
        if (
            guest.get_job_info().type
            != libvirt_host.libvirt.VIR_DOMAIN_JOB_NONE
        ):
            # It is being migrated or saved: its devices can't change.
            return
        followed = self._followed.get(uuid)
        if followed is None or followed.run != guest.id:
            followed = _Followed(guest.id, elastic.Track())
            self._followed[uuid] = followed
        needs = domain_xml.page_needs(xml)
        cells = _cells(needs, devices)
        asked = {cell.number: max(cell.asked, cell.current) for cell in cells}
        self._manager.settle(
            uuid,
            [
                need._replace(pages=asked.get(need.cell, need.pages))
                for need in needs
            ],
        )
        now = self._clock()
        self._follow(guest, followed, cells, xml, now)
        if now < followed.refuses_until:
            return
        sizes = self._manager.sizes(uuid)
        decision = _by_operator(cells, sizes) or elastic.decide(
            [
                cell
                for cell in cells
                if sizes.get(cell.number, _AUTO).wanted is None
            ],
            _inside(guest, now),
            followed.track,
            self._marks,
            now,
        )
        if decision is not None:
            self._change(guest, followed, cells, decision, xml, now)
        followed.told.discard(_ERROR)

    def _follow(
        self,
        guest: libvirt_guest.Guest,
        followed: _Followed,
        cells: list[elastic.Cell],
        xml: str,
        now: float,
    ) -> None:
        """See whether a guest takes what it was asked to take."""
        if all(cell.current >= cell.asked for cell in cells):
            followed.away_since = None
            if any(cell.current > cell.base for cell in cells):
                followed.told.discard(_UNABLE)
            return
        if followed.away_since is None:
            followed.away_since = now
        waited = now - followed.away_since
        # Set back, the clock must not keep it for ever.
        if 0 <= waited < self._return_limit_s:
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
        now: float,
    ) -> None:
        """Carry out a decision: hold first, then ask the guest."""
        uuid = guest.uuid
        more = {
            cell.number: decision.pages[cell.number]
            for cell in cells
            if decision.pages.get(cell.number, 0) > cell.asked
        }
        why = decision.why
        pages = dict(decision.pages)
        if more:
            try:
                self._manager.resize(uuid, more)
            except exception.NotEnoughPages as error:
                more = self._least(uuid, cells, more)
                if not more:
                    if self._is_new(uuid, _SHORT):
                        LOG.warning(
                            'The instance cannot be given more memory '
                            '(%(why)s), and stays as it is: %(error)s',
                            {'why': why, 'error': error},
                            instance_uuid=uuid,
                        )
                    return
                pages = more
        for cell in cells:
            if pages.get(cell.number, cell.asked) == cell.asked:
                continue
            count = pages[cell.number]
            self._ask(guest, xml, cell, count)
            before = self._manager.sizes(uuid).get(cell.number, _AUTO)
            self._manager.put_size(
                uuid, cell.number, model.Size(before.wanted, now, why)
            )
            LOG.info(
                'Elastic memory of guest NUMA node %(cell)d: from %(from)d '
                'to %(to)d MiB, as %(why)s.',
                {
                    'cell': cell.number,
                    'from': cell.asked * cell.size_kib // 1024,
                    'to': count * cell.size_kib // 1024,
                    'why': why,
                },
                instance_uuid=uuid,
            )
        followed.track.changed = now
        if more:
            followed.told.discard(_SHORT)

    def _least(
        self,
        uuid: str,
        cells: list[elastic.Cell],
        wanted: Mapping[int, int],
    ) -> dict[int, int]:
        """Hold the least more that is of use, where there isn't enough.

        :returns: the pages of a cell; empty if there isn't even that
        """
        for cell in cells:
            if cell.number in wanted:
                pages = {cell.number: cell.asked + cell.block}
                try:
                    self._manager.resize(uuid, pages)
                except exception.NotEnoughPages:
                    continue
                return pages
        return {}

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
        wanted = sizes.get(cell.number, _AUTO).wanted
        if wanted is None:
            continue
        # Up to whole blocks.
        blocks = -(-(wanted - cell.base) // cell.block)
        count = min(cell.ceiling, cell.base + max(0, blocks) * cell.block)
        if count != cell.asked:
            pages[cell.number] = count
    return elastic.Decision(pages, 'an operator wants it') if pages else None


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
