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

"""Elements of a domain that Nova's configuration classes don't have.

Source: https://libvirt.org/formatdomain.html, "Memory Backing", "Memory
balloon device", "Guest NUMA topology" and "Memory devices".
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from lxml import etree
from nova.virt.libvirt import config as vconfig

from nova_numa_hugepages import elastic_spec
from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.hugepages import domain_xml


class _Extended:
    """A configuration object of Nova with more attributes.

    :param original: Nova's object; not changed
    :param added: the attributes to add or replace
    """

    def __init__(
        self, original: vconfig.LibvirtConfigObject, **added: Any
    ) -> None:
        super().__init__()
        self.__dict__.update(original.__dict__, **added)


class _MemoryBacking(_Extended, vconfig.LibvirtConfigGuestMemoryBacking):
    threads: int

    def format_dom(self) -> Any:
        root = super().format_dom()
        root.find('allocation').set('threads', str(self.threads))
        return root


class _MemoryBalloon(_Extended, vconfig.LibvirtConfigMemoryBalloon):
    def format_dom(self) -> Any:
        root = super().format_dom()
        root.set('freePageReporting', 'off')
        return root


class _NUMACell(_Extended, vconfig.LibvirtConfigGuestCPUNUMACell):
    distances: Sequence[int]

    def format_dom(self) -> Any:
        root = super().format_dom()
        add_distances(root, self.distances)
        return root


class _MemoryDevice(vconfig.LibvirtConfigGuestDevice):
    """A virtio-mem device.

    It has no source: its page size and its host node are those of its guest
    cell, which a live migration of Nova rewrites.
    """

    def __init__(
        self, cell: int, size_kib: int, block_kib: int, requested_kib: int
    ) -> None:
        super().__init__(root_name='memory')
        self.cell = cell
        self.size_kib = size_kib
        self.block_kib = block_kib
        self.requested_kib = requested_kib

    def format_dom(self) -> Any:
        root = super().format_dom()
        root.set('model', 'virtio-mem')
        target = etree.SubElement(root, 'target')
        for name, value in (
            ('size', self.size_kib),
            ('node', self.cell),
            ('block', self.block_kib),
            ('requested', self.requested_kib),
        ):
            target.append(self._text_node(name, value))
        return root


class _ElasticMetadata(vconfig.LibvirtConfigObject):
    """The ceilings of the elastic guest cells, in KiB."""

    def __init__(self, ceilings: Mapping[int, int]) -> None:
        super().__init__(
            root_name='elastic',
            ns_prefix='numa_hugepages',
            ns_uri=domain_xml.ELASTIC_NAMESPACE,
        )
        self.ceilings = ceilings

    def format_dom(self) -> Any:
        root = super().format_dom()
        for cell, ceiling_kib in self.ceilings.items():
            element = self._new_node('cell')
            element.set('id', str(cell))
            element.set('ceiling', str(ceiling_kib))
            element.set('unit', 'KiB')
            root.append(element)
        return root


def make_elastic(
    guest: vconfig.LibvirtConfigGuest,
    cells: Sequence[elastic_spec.ElasticCell],
    page_kib: int,
    requested: Mapping[int, int],
) -> None:
    """Make the memory of a guest elastic.

    Each elastic cell boots with its base, and gets a memory device that is one
    block larger than what it gives, as a guest uses blocks that are aligned.

    :param guest: changed
    :param cells: the sizes of its cells
    :param page_kib: the size of its pages
    :param requested: what elastic cells are to have beyond their base, in
        KiB; nothing if missing
    """
    boot_mib = sum(cell.base for cell in cells)
    block_mib = elastic_spec.block_mib(boot_mib, page_kib)
    devices = []
    ceilings = {}
    for number, (numa, cell) in enumerate(
        zip(guest.cpu.numa.cells, cells, strict=True)
    ):
        numa.memory = cell.base * 1024
        if cell.elastic:
            ceilings[number] = cell.ceiling * 1024
            devices.append(
                _MemoryDevice(
                    number,
                    (cell.elastic + block_mib) * 1024,
                    page_kib,
                    requested.get(number, 0),
                )
            )
    guest.memory = boot_mib * 1024
    guest.max_memory_size = guest.memory + sum(
        device.size_kib for device in devices
    )
    guest.max_memory_slots = len(devices)
    guest.metadata.append(_ElasticMetadata(ceilings))
    for device in devices:
        guest.add_device(device)


def with_prealloc_threads(
    backing: vconfig.LibvirtConfigGuestMemoryBacking, threads: int
) -> vconfig.LibvirtConfigGuestMemoryBacking:
    """Return a memory backing that QEMU allocates with several threads.

    :param backing: that of Nova; not changed
    """
    return _MemoryBacking(backing, allocateimmediate=True, threads=threads)


def disable_free_page_reporting(
    devices: list[vconfig.LibvirtConfigGuestDevice],
) -> None:
    """Make a guest keep the huge pages that are free inside it.

    QEMU would return those of 2 MiB to the host's pool. The guest still has a
    right to them, but any process that doesn't ask the driver could take them,
    and the guest would be killed when it needs them again.

    :param devices: the devices of the guest; changed
    """
    devices[:] = [
        _MemoryBalloon(device)
        if isinstance(device, vconfig.LibvirtConfigMemoryBalloon)
        else device
        for device in devices
    ]


def set_distances(
    cells: list[vconfig.LibvirtConfigGuestCPUNUMACell],
    distances: Sequence[Sequence[int]] | None,
) -> None:
    """Set the distances between guest cells, if there are several.

    :param cells: the guest cells; changed
    :param distances: from each cell to each; None to set none
    """
    if distances is not None and len(cells) > 1:
        cells[:] = [
            _NUMACell(cell, distances=row)
            for cell, row in zip(cells, distances, strict=True)
        ]


def add_distances(cell: Any, row: Sequence[int]) -> None:
    """Add the distances of a guest cell to its XML element.

    :param cell: the element; changed
    :param row: the distance to each guest cell, in order
    """
    distances = etree.SubElement(cell, 'distances')
    for sibling, value in enumerate(row):
        etree.SubElement(
            distances, 'sibling', id=str(sibling), value=str(value)
        )


def guest_distances(
    stats: host_stats.HostStats, host_cells: Sequence[int]
) -> list[list[int]] | None:
    """Return the distances between guest cells.

    libvirt requires 10 from a cell to itself and more than that to any other,
    which the firmware of some hosts doesn't distinguish.

    :param host_cells: the host cell of each guest cell
    :returns: from each guest cell to each; None if the stats don't have them
    """
    ids = sorted(stats.distances)
    matrix = stats.distance_matrix(ids)
    if matrix is None or not set(host_cells) <= set(ids):
        return None
    rows = [ids.index(cell) for cell in host_cells]
    return [
        [
            host_stats.MIN_DISTANCE
            if source == target
            else max(host_stats.MIN_DISTANCE + 1, matrix[row][column])
            for target, column in enumerate(rows)
        ]
        for source, row in enumerate(rows)
    ]
