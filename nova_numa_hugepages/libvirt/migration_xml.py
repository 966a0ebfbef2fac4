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

"""Changes that a live migration makes to the XML of a domain.

A running guest keeps the distances that it started with: its kernel read them
when it booted, and libvirt refuses to migrate a guest with others ("Target
NUMA distance from 0 to 1 doesn't match source"). The persistent configuration
at the destination, for the next start there, gets those of the destination.
"""

from __future__ import annotations

from collections.abc import Sequence
import copy
from typing import Any

from lxml import etree
from nova.virt.libvirt import guest as libvirt_guest

from nova_numa_hugepages import exception
from nova_numa_hugepages.libvirt import guest_config


class _MigratingDomain:
    """A domain of libvirt whose persistent XML gets other distances."""

    def __init__(
        self, domain: Any, distances: Sequence[Sequence[int]] | None
    ) -> None:
        self._domain = domain
        self._distances = distances

    def __getattr__(self, name: str) -> Any:
        return getattr(self._domain, name)

    def migrateToURI3(
        self, uri: str, params: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        if 'persistent_xml' in params:
            params = {
                **params,
                'persistent_xml': replace_distances(
                    params['persistent_xml'], self._distances
                ),
            }
        return self._domain.migrateToURI3(uri, params, *args, **kwargs)


def with_destination_distances(
    guest: libvirt_guest.Guest, distances: Sequence[Sequence[int]] | None
) -> libvirt_guest.Guest:
    """Return a guest that migrates with the distances of the destination.

    :param guest: not changed
    :param distances: between its guest cells there; None for none
    """
    migrating = copy.copy(guest)
    migrating._domain = _MigratingDomain(guest._domain, distances)
    return migrating


def replace_distances(
    xml: str, distances: Sequence[Sequence[int]] | None
) -> str:
    """Return the XML of a domain with other distances.

    :param distances: from each guest cell to each; None for none
    :returns: the XML with these distances only; with none if they are of
        another number of guest cells
    :raises exception.InvalidDomain: if it is no XML
    """
    try:
        root = etree.fromstring(xml)
    except etree.XMLSyntaxError as error:
        raise exception.InvalidDomain(f'it is no XML: {error}') from error
    cells = root.findall('./cpu/numa/cell')
    for element in root.findall('./cpu/numa/cell/distances'):
        element.getparent().remove(element)
    if distances is not None and len(distances) == len(cells):
        for cell, row in zip(cells, distances, strict=True):
            guest_config.add_distances(cell, row)
    text: str = etree.tostring(root, encoding='unicode')
    return text
