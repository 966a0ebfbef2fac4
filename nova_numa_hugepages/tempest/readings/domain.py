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

"""The NUMA placement in the XML of a libvirt domain.

The elements are those of "NUMA Node Tuning", "Memory Backing", "CPU Tuning"
and "CPU model and topology" in libvirt's reference of the domain format.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from xml.etree import ElementTree

_UNITS_KIB = {'KiB': 1, 'K': 1, 'MiB': 1024, 'M': 1024, 'GiB': 1024**2}


@dataclasses.dataclass(frozen=True, slots=True)
class Domain:
    """The NUMA side of a domain. Keys are numbers of guest cells.

    :ivar nodes: host nodes that the memory of a cell may be on
    :ivar modes: what libvirt calls the mode, such as ``strict``
    :ivar page_sizes_kib: of cells on huge pages
    :ivar pins: CPUs of the host by vCPU; empty if the CPUs are shared
    :ivar distances: those that the guest sees: to each cell, by cell. Empty if
        it sees none.
    """

    nodes: Mapping[int, frozenset[int]]
    modes: Mapping[int, str]
    page_sizes_kib: Mapping[int, int]
    pins: Mapping[int, frozenset[int]]
    distances: Mapping[int, Mapping[int, int]]


def number_set(text: str) -> frozenset[int]:
    """Read a set as libvirt writes it, for example ``0-3,^2,8``.

    :raises ValueError: if the text is not a set
    """
    found: set[int] = set()
    for part in text.split(','):
        first, _, last = part.strip().removeprefix('^').partition('-')
        numbers = range(int(first), int(last or first) + 1)
        if part.strip().startswith('^'):
            found.difference_update(numbers)
        else:
            found.update(numbers)
    return frozenset(found)


def read(xml: str) -> Domain:
    """Read the XML of a domain.

    :raises ValueError: if a page size or a set can't be understood
    :raises xml.etree.ElementTree.ParseError: if it is not XML
    """
    root = ElementTree.fromstring(xml)
    memory = {
        int(node.get('cellid', '')): node
        for node in root.findall('./numatune/memnode')
    }
    cells = root.findall('./cpu/numa/cell')
    return Domain(
        {
            cell: number_set(node.get('nodeset', ''))
            for cell, node in memory.items()
        },
        {cell: node.get('mode', 'strict') for cell, node in memory.items()},
        _page_sizes(root, range(len(cells))),
        {
            int(pin.get('vcpu', '')): number_set(pin.get('cpuset', ''))
            for pin in root.findall('./cputune/vcpupin')
        },
        {
            int(cell.get('id', '')): {
                int(other.get('id', '')): int(other.get('value', ''))
                for other in cell.findall('./distances/sibling')
            }
            for cell in cells
            if cell.find('./distances') is not None
        },
    )


def _page_sizes(root: ElementTree.Element, cells: range) -> dict[int, int]:
    """Get the page sizes; one without a nodeset is for all other cells."""
    sizes: dict[int, int] = {}
    rest = None
    for page in root.findall('./memoryBacking/hugepages/page'):
        unit = page.get('unit', 'KiB')
        if unit not in _UNITS_KIB:
            raise ValueError(f'unknown unit of a page size: {unit}')
        size_kib = int(page.get('size', '')) * _UNITS_KIB[unit]
        of = page.get('nodeset')
        if of is None:
            rest = size_kib
        else:
            sizes.update(dict.fromkeys(number_set(of), size_kib))
    if rest is not None:
        sizes = {cell: sizes.get(cell, rest) for cell in cells}
    return sizes
