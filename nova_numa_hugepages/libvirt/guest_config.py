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

"""What Nova's description of a guest lacks: more of libvirt's elements.

Source: https://libvirt.org/formatdomain.html, "Memory Backing" and "Guest NUMA
topology".
"""

from __future__ import annotations

from collections.abc import Sequence
import copy
from typing import Any

from lxml import etree
from nova.virt.libvirt import config as vconfig
from nova.virt.libvirt import guest as libvirt_guest

from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.libvirt import domain_xml


class MemoryBacking(vconfig.LibvirtConfigGuestMemoryBacking):
    """Memory that QEMU takes at its start, with several threads.

    :param other: what Nova describes; left as it is
    :param threads: how many threads
    """

    def __init__(
        self, other: vconfig.LibvirtConfigGuestMemoryBacking, threads: int
    ) -> None:
        super().__init__()
        self.__dict__.update(other.__dict__)
        self.allocateimmediate = True
        self.threads = threads

    def format_dom(self) -> Any:
        """Describe it as libvirt wants it."""
        root = super().format_dom()
        root.find('allocation').set('threads', str(self.threads))
        return root


class MemoryBalloon(vconfig.LibvirtConfigMemoryBalloon):
    """A balloon that tells QEMU of no free pages.

    QEMU would give those of 2 MiB to the host's pool. They aren't free there,
    as the guest has a right to them, but anything that asks no driver could
    take them, and the guest ends when it wants them back.

    :param other: what Nova describes; left as it is
    """

    def __init__(self, other: vconfig.LibvirtConfigMemoryBalloon) -> None:
        super().__init__()
        self.__dict__.update(other.__dict__)

    def format_dom(self) -> Any:
        """Describe it as libvirt wants it."""
        dev = super().format_dom()
        dev.set('freePageReporting', 'off')
        return dev


class NUMACell(vconfig.LibvirtConfigGuestCPUNUMACell):
    """A guest cell that knows how far the others are.

    :param other: what Nova describes; left as it is
    :param distances: to each guest cell, in their order
    """

    def __init__(
        self,
        other: vconfig.LibvirtConfigGuestCPUNUMACell,
        distances: Sequence[int],
    ) -> None:
        super().__init__()
        self.__dict__.update(other.__dict__)
        self.distances = tuple(distances)

    def format_dom(self) -> Any:
        """Describe it as libvirt wants it."""
        cell = super().format_dom()
        element = etree.SubElement(cell, 'distances')
        for other, value in enumerate(self.distances):
            etree.SubElement(element, 'sibling', id=str(other)).set(
                'value', str(value)
            )
        return cell


class _ArrivingDomain:
    """A domain of libvirt that is kept in another shape where it goes to."""

    def __init__(
        self, other: Any, distances: Sequence[Sequence[int]] | None
    ) -> None:
        self._other = other
        self._distances = distances

    def __getattr__(self, name: str) -> Any:
        return getattr(self._other, name)

    def migrateToURI3(
        self, uri: str, params: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        if 'persistent_xml' in params:
            params = {
                **params,
                'persistent_xml': domain_xml.with_distances(
                    params['persistent_xml'], self._distances
                ),
            }
        return self._other.migrateToURI3(uri, params, *args, **kwargs)


def arriving_with(
    guest: libvirt_guest.Guest, distances: Sequence[Sequence[int]] | None
) -> libvirt_guest.Guest:
    """Have a guest kept with other distances by the host it migrates to.

    A guest that runs keeps those that it started with: it read them when it
    booted, and libvirt refuses to send a guest on with others ("Target NUMA
    distance from 0 to 1 doesn't match source"). What the destination keeps
    of it for its next start gets those of the destination.

    :param distances: between its cells there; None for none
    :returns: the guest, to be migrated
    """
    arriving = copy.copy(guest)
    arriving._domain = _ArrivingDomain(guest._domain, distances)
    return arriving


def keep_free_pages(devices: list[vconfig.LibvirtConfigGuestDevice]) -> None:
    """Have a guest keep huge pages that are free inside of it.

    :param devices: those of the guest; is changed
    """
    devices[:] = [
        MemoryBalloon(device)
        if isinstance(device, vconfig.LibvirtConfigMemoryBalloon)
        else device
        for device in devices
    ]


def set_distances(
    cells: list[vconfig.LibvirtConfigGuestCPUNUMACell],
    distances: Sequence[Sequence[int]] | None,
) -> None:
    """Give the guest cells of a description distances.

    :param cells: is changed
    :param distances: from each to each; None for none
    """
    if distances is not None and len(cells) > 1:
        cells[:] = [
            NUMACell(cell, row)
            for cell, row in zip(cells, distances, strict=True)
        ]


def guest_distances(
    known: host_stats.HostStats, host_cells: Sequence[int]
) -> list[list[int]] | None:
    """Tell how far guest cells are from each other.

    libvirt takes 10 for a cell to itself, and more than that to any other,
    which the firmware of some hosts doesn't tell apart.

    :param host_cells: the host cell of each guest cell
    :returns: from each guest cell to each; None if the host doesn't tell
    """
    ids = sorted(known.distances)
    matrix = known.distance_matrix(ids)
    if matrix is None or not set(host_cells) <= set(ids):
        return None
    places = [ids.index(cell) for cell in host_cells]
    return [
        [
            host_stats.MIN_DISTANCE
            if one == other
            else max(host_stats.MIN_DISTANCE + 1, matrix[here][there])
            for other, there in enumerate(places)
        ]
        for one, here in enumerate(places)
    ]
