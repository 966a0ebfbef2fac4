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

"""The huge pages that a domain's XML asks for.

QEMU goes by the XML, be the guest new, resumed, rescued or defined long ago.
So its needs are read there, and not from Nova's plan.

Source: https://libvirt.org/formatdomain.html, "Memory Backing", "NUMA Node
Tuning", "Guest NUMA topology" and "Memory devices".
"""

from __future__ import annotations

from typing import Final
from typing import NamedTuple
from xml.etree import ElementTree

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hostfs

# The metadata of a domain in which the ceilings of its guest cells are, as a
# memory device is larger than what it gives.
ELASTIC_NAMESPACE: Final = 'urn:nova-numa-hugepages:elastic:1'

# libvirt's units of memory, in bytes.
_UNITS = {
    'b': 1,
    'bytes': 1,
    'KB': 10**3,
    'k': 2**10,
    'KiB': 2**10,
    'MB': 10**6,
    'M': 2**20,
    'MiB': 2**20,
    'GB': 10**9,
    'G': 2**30,
    'GiB': 2**30,
    'TB': 10**12,
    'T': 2**40,
    'TiB': 2**40,
}


class MemoryDevice(NamedTuple):
    """The memory device of an elastic guest cell, in bytes.

    :ivar block: the steps in which it can change
    :ivar requested: what the guest was asked to have
    :ivar current: what it has; None for a domain that doesn't run
    """

    size: int
    block: int
    requested: int
    current: int | None


def page_needs(xml: str) -> list[model.PageNeed]:
    """Return the huge pages that QEMU will allocate for a domain.

    An elastic cell needs what it is asked to have at first.

    :returns: one need for each guest cell on huge pages, none for a domain
        on small pages
    :raises exception.InvalidDomain: if the XML doesn't say how many on which
        NUMA node
    """
    root = _parse(xml)
    backing = root.find('./memoryBacking/hugepages')
    if backing is None:
        return []
    sizes, common = _page_sizes(backing)
    ceilings = _ceilings(root)
    devices = _devices(root)
    needs = []
    for cell, memory in _cells(root):
        size = sizes.get(cell, common)
        if size is None:
            continue
        count, rest = divmod(memory, size)
        if rest or not count:
            raise exception.InvalidDomain(
                f'guest cell {cell} has {memory} bytes, which is no number '
                f'of pages of {size} bytes'
            )
        need = model.PageNeed(
            cell, _host_node(root, cell), size // 1024, count
        )
        if cell in ceilings and cell in devices:
            need = _elastic(need, ceilings[cell], devices[cell])
        needs.append(need)
    if not needs:
        raise exception.InvalidDomain('no guest cell uses its huge pages')
    return needs


def memory_devices(xml: str) -> dict[int, MemoryDevice]:
    """Return the memory devices of the elastic cells of a domain, by cell.

    :returns: empty if it isn't elastic
    :raises exception.InvalidDomain: if it doesn't say how large they are
    """
    root = _parse(xml)
    devices = _devices(root)
    return {cell: devices[cell] for cell in _ceilings(root) if cell in devices}


def requesting(xml: str, cell: int, requested_kib: int) -> str:
    """Return the memory device of a guest cell, asking for another size.

    As libvirt takes it to update the device of a running domain.

    :param xml: the domain
    :raises exception.InvalidDomain: if the cell has none
    """
    for element in _parse(xml).findall(
        "./devices/memory[@model='virtio-mem']"
    ):
        requested = element.find('target/requested')
        if requested is None or element.findtext('target/node') != str(cell):
            continue
        requested.text = str(requested_kib)
        requested.set('unit', 'KiB')
        return ElementTree.tostring(element, encoding='unicode')
    raise exception.InvalidDomain(f'guest cell {cell} has no memory device')


def _parse(xml: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise exception.InvalidDomain(f'it is no XML: {error}') from error


def _ceilings(root: ElementTree.Element) -> dict[int, int]:
    """Return the ceilings of the elastic cells, in bytes."""
    found = {}
    path = f'./metadata/{{{ELASTIC_NAMESPACE}}}elastic/{{*}}cell'
    for element in root.findall(path):
        cell = _number(element.get('id'), 'an elastic guest cell')
        found[cell] = _bytes(
            element.get('ceiling'),
            element.get('unit'),
            f'the ceiling of guest cell {cell}',
        )
    return found


def _devices(root: ElementTree.Element) -> dict[int, MemoryDevice]:
    """Return the memory devices of guest cells that can change."""
    found = {}
    for element in root.findall("./devices/memory[@model='virtio-mem']"):
        target = element.find('target')
        if target is None:
            raise exception.InvalidDomain('a memory device has no target')
        cell = _number(target.findtext('node'), 'the cell of a memory device')
        if cell in found:
            raise exception.InvalidDomain(
                f'guest cell {cell} has two memory devices'
            )
        sizes = {
            part.tag: _bytes(
                part.text, part.get('unit'), f'the {part.tag} of a device'
            )
            for part in target
            if part.tag in ('size', 'block', 'requested', 'current')
        }
        if missing := {'size', 'block', 'requested'} - sizes.keys():
            raise exception.InvalidDomain(
                f'a memory device has no {min(missing)}'
            )
        found[cell] = MemoryDevice(
            sizes['size'],
            sizes['block'],
            sizes['requested'],
            sizes.get('current'),
        )
    return found


def _elastic(
    need: model.PageNeed, ceiling: int, device: MemoryDevice
) -> model.PageNeed:
    """Return what an elastic cell needs.

    :param ceiling: in bytes
    """
    size = need.size_kib * 1024
    most, rest = divmod(ceiling, size)
    if rest or most < need.pages:
        raise exception.InvalidDomain(
            f'guest cell {need.cell} has a ceiling of {ceiling} bytes'
        )
    return need._replace(
        pages=min(most, need.pages + -(-device.requested // size)),
        base=need.pages,
        ceiling=most,
    )


def _number(text: str | None, of_what: str) -> int:
    text = (text or '').strip()
    if not (text.isascii() and text.isdecimal()):
        raise exception.InvalidDomain(f'{of_what} has the number {text!r}')
    return int(text)


def _page_sizes(
    backing: ElementTree.Element,
) -> tuple[dict[int, int], int | None]:
    """Return page sizes in bytes: by guest cell, and for all others."""
    sizes: dict[int, int] = {}
    common = None
    for page in backing.findall('page'):
        size = _bytes(page.get('size'), page.get('unit'), 'a page')
        if size < 1024 or size % 1024:
            raise exception.InvalidDomain(f'no page has {size} bytes')
        nodeset = page.get('nodeset')
        if nodeset is None:
            common = size
            continue
        for cell in _numbers(nodeset):
            sizes[cell] = size
    if not sizes and common is None:
        raise exception.InvalidDomain('it names no page size')
    return sizes, common


def _cells(root: ElementTree.Element) -> list[tuple[int, int]]:
    """Return the guest cells with their memory in bytes."""
    cells = []
    for index, cell in enumerate(root.findall('./cpu/numa/cell')):
        number = _number(cell.get('id', str(index)), 'a guest cell')
        memory = _bytes(
            cell.get('memory'), cell.get('unit'), f'guest cell {number}'
        )
        cells.append((number, memory))
    if cells:
        return cells
    # Without cells there is one, with all of the memory.
    element = root.find('memory')
    if element is None:
        raise exception.InvalidDomain('it has no memory')
    return [(0, _bytes(element.text, element.get('unit'), 'the memory'))]


def _host_node(root: ElementTree.Element, cell: int) -> int:
    """Return the NUMA node that the memory of a guest cell is tied to."""
    element = root.find(f"./numatune/memnode[@cellid='{cell}']")
    if element is None:
        element = root.find('./numatune/memory')
    nodeset = None if element is None else element.get('nodeset')
    if element is None or nodeset is None:
        raise exception.InvalidDomain(
            f'guest cell {cell} is tied to no host node'
        )
    mode = element.get('mode', 'strict')
    nodes = _numbers(nodeset)
    if mode != 'strict' or len(nodes) != 1:
        raise exception.InvalidDomain(
            f'guest cell {cell} has its memory on host nodes {nodeset!r} in '
            f"mode {mode!r}; expected one node in mode 'strict'"
        )
    return min(nodes)


def _numbers(text: str) -> set[int]:
    try:
        return hostfs.parse_set(text)
    except ValueError as error:
        raise exception.InvalidDomain(
            f'{text!r} is no set of nodes: {error}'
        ) from error


def _bytes(count: str | None, unit: str | None, of_what: str) -> int:
    text = (count or '').strip()
    if not (text.isascii() and text.isdecimal()):
        raise exception.InvalidDomain(f'{of_what} has the size {count!r}')
    # Without a unit it is KiB, for pages and memory alike.
    factor = _UNITS.get(unit or 'KiB')
    if factor is None:
        raise exception.InvalidDomain(f'{of_what} has the unit {unit!r}')
    return int(text) * factor
