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

"""Sizes of elastic guests: as asked for, as they move, as they start again."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

from lxml import etree
from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from nova.virt.libvirt import guest as libvirt_guest
from nova.virt.libvirt import host as libvirt_host
from oslo_log import log as logging

from nova_numa_hugepages import elastic_spec
from nova_numa_hugepages import exception
from nova_numa_hugepages import extra_specs
from nova_numa_hugepages.hugepages import model

LOG = logging.getLogger(__name__)

# What an instance that migrates has, and what an operator wants it to have, in
# the metadata that Nova keeps of it, and how long that may be.
_SIZES = 'numa_hugepages_elastic_pages'
_WANTED = 'numa_hugepages_elastic_wanted_kib'
_NONE = '-'
_MOST = 255
# Nova keeps the properties of an image there that it doesn't know.
_IMAGE = 'image_'


def asked_for(
    instance: objects.Instance, image: objects.ImageMeta
) -> list[elastic_spec.ElasticCell] | None:
    """Return the sizes of the guest cells of an instance.

    Its image can ask for a larger base than its flavor does.

    :returns: None if its memory isn't elastic
    :raises nova.exception.InvalidInput: if what is asked for is not possible
    """
    topology = instance.numa_topology
    properties = {
        name.removeprefix(_IMAGE): value
        for name, value in instance.system_metadata.items()
        if name.startswith(_IMAGE)
    }
    try:
        return elastic_spec.check(
            instance.flavor.extra_specs,
            image.properties,
            [
                (
                    cell.memory,
                    (cell.pagesize if 'pagesize' in cell else None) or 0,
                )
                for cell in (topology.cells if topology else ())
            ],
            of_image=elastic_spec.image_base(properties),
        )
    except (exception.InvalidExtraSpec, exception.ElasticRefused) as error:
        raise nova_exception.InvalidInput(reason=str(error)) from error


class Incoming(NamedTuple):
    """What an instance needs that migrates to this host.

    :ivar needs: one for each guest cell on huge pages
    :ivar wanted_kib: the sizes that an operator has set, by guest cell
    """

    needs: list[model.PageNeed]
    wanted_kib: dict[int, int]


def tell(
    instance: objects.Instance,
    held: Sequence[model.Hold],
    sizes: Mapping[int, model.Size],
) -> None:
    """Have an instance that migrates say what it has now.

    The destination holds that for it, and not all that it may come to have.

    :param instance: changed, and saved
    :param held: what it holds, by guest cell
    :param sizes: how its elastic cells came to their sizes
    """
    wanted = [
        sizes[hold.cell].wanted_kib if hold.cell in sizes else None
        for hold in held
    ]
    for name, values in (
        (
            _SIZES,
            [
                f'{hold.pages}/{hold.base}' if hold.ceiling else None
                for hold in held
            ],
        ),
        (_WANTED, wanted),
    ):
        parts = [_NONE if value is None else str(value) for value in values]
        text = ' '.join([instance.host, *parts])
        if len(text) <= _MOST:
            instance.system_metadata[name] = text
        else:
            # Not what was said before it came here.
            instance.system_metadata.pop(name, None)
    instance.save()


def of_incoming(
    instance: objects.Instance, needs: Sequence[model.PageNeed]
) -> Incoming:
    """Return what an instance needs that migrates to this host.

    Its elastic cells need what they have now, or all where that isn't known.

    :param needs: all that its cells may have
    :raises nova.exception.NovaException: if Nova's database doesn't answer
    """
    everything = Incoming(list(needs), {})
    if extra_specs.elastic_base(instance.flavor.extra_specs) is None:
        return everything
    # The source has written it since the instance was read.
    stored = objects.Instance.get_by_uuid(
        nova_context.get_admin_context(),
        instance.uuid,
        expected_attrs=['system_metadata'],
    )
    try:
        return Incoming(
            [
                need if part == _NONE else _sized(need, part)
                for need, part in _told(stored, _SIZES, needs)
            ]
            or list(needs),
            {
                need.cell: int(part)
                for need, part in _told(stored, _WANTED, needs)
                if part != _NONE
            },
        )
    except ValueError as error:
        LOG.warning(
            'Holding all memory that the instance may have, as what it has '
            'now is not known: %s',
            error,
            instance=instance,
        )
        return everything


def _told(
    stored: objects.Instance, name: str, needs: Sequence[model.PageNeed]
) -> list[tuple[model.PageNeed, str]]:
    """Return what an instance says of each of its cells.

    :returns: nothing if the host that it leaves doesn't say it
    """
    host, *parts = stored.system_metadata.get(name, '').split() or ['']
    if host != stored.host or len(parts) != len(needs):
        return []
    return list(zip(needs, parts, strict=True))


def _sized(need: model.PageNeed, text: str) -> model.PageNeed:
    """Return what a cell needs with its size as it was told."""
    pages, base = map(int, text.split('/'))
    if not 0 < base <= pages <= need.pages:
        raise ValueError(f'{text} cannot be of {need.pages} pages')
    return need._replace(pages=pages, base=base, ceiling=need.pages)


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


def keep_for_next_start(
    host: libvirt_host.Host,
    guest: libvirt_guest.Guest,
    held: Iterable[model.Hold],
) -> None:
    """Define a guest so that it starts with what it holds.

    Only what it has now changes while it runs; Nova starts it again by its
    definition.

    :raises libvirt.libvirtError: if libvirt doesn't do it
    """
    requested_kib = {
        hold.cell: (hold.pages - hold.base) * hold.size_kib
        for hold in held
        if hold.ceiling
    }
    if not requested_kib:
        return
    libvirt = libvirt_host.libvirt
    xml = guest._domain.XMLDesc(
        libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
    )
    host.write_instance_config(_requesting(xml, requested_kib))


def _requesting(xml: str, requested_kib: Mapping[int, int]) -> str:
    """Return the XML of a domain with other sizes of its memory devices."""
    root = etree.fromstring(xml)
    for target in root.findall("devices/memory[@model='virtio-mem']/target"):
        cell = target.findtext('node')
        requested = target.find('requested')
        if requested is not None and int(cell or -1) in requested_kib:
            requested.text = str(requested_kib[int(cell)])
            requested.set('unit', 'KiB')
    text: str = etree.tostring(root, encoding='unicode')
    return text
