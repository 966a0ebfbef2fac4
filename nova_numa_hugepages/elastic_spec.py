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

"""Elastic memory: what a flavor asks for, and what of it can be had.

The memory of the flavor is the ceiling. Of each guest cell the instance boots
with its base; the rest comes and goes by use, through a virtio-mem device of
its own.

Source: https://libvirt.org/formatdomain.html, "Memory devices", and
Documentation/admin-guide/mm/memory-hotplug.rst of the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import re
from typing import Final
from typing import NamedTuple

from nova_numa_hugepages import exception
from nova_numa_hugepages import extra_specs

# A guest adds and removes memory in blocks of this size, and in larger ones
# if it has booted with much.
BLOCK_MIB: Final = 128
LEAST_PAGE_KIB: Final = 2048
LARGE_BLOCK_MIB: Final = 2048
LARGE_BLOCKS_FROM_MIB: Final = 64 * 1024

# What is added is movable, and can't be used for what the kernel of the guest
# needs for itself. It needs so much that isn't.
LEAST_BOOT_MIB = 1024
LEAST_BOOT_PERCENT: Final = extra_specs.LEAST_BASE_PERCENT

# Names of extra specs and image properties that exclude it, and why.
_EXCLUDED: Final = {
    'hw:cpu_realtime': 'locks the memory of the instance',
    'hw:locked_memory': 'locks the memory of the instance',
    'hw_locked_memory': 'locks the memory of the instance',
    'hw:mem_encryption': 'encrypts the memory of the instance',
    'hw_mem_encryption': 'encrypts the memory of the instance',
    'hw:pmem': 'adds memory devices that Nova looks up by their position',
}
# What Nova reads as no, or as none.
_OFF: Final = ('', '0', 'f', 'false', 'n', 'no', 'off')
_MACHINE: Final = re.compile(r'(?:pc-(?:i440fx-|q35-)?|virt-)(\d+)\.(\d+)')
_LAST_MACHINE: Final = (6, 2)


class ElasticCell(NamedTuple):
    """The sizes of an elastic guest cell, in MiB.

    :ivar base: what it boots with, and always has
    :ivar ceiling: what it may come to have
    """

    base: int
    ceiling: int

    @property
    def elastic(self) -> int:
        """What comes and goes."""
        return self.ceiling - self.base


def block_mib(boot_mib: int, page_kib: int) -> int:
    """Return the steps in which a guest can be given memory, in MiB.

    :param boot_mib: what it boots with, all cells together
    """
    large = boot_mib >= LARGE_BLOCKS_FROM_MIB
    return max(LARGE_BLOCK_MIB if large else BLOCK_MIB, page_kib // 1024)


def sizes(
    bases: Sequence[extra_specs.ElasticBase],
    cells_mib: Sequence[int],
    page_kib: int,
) -> list[ElasticCell]:
    """Return the sizes of the guest cells of an elastic instance.

    The base of a cell is rounded up, so that the rest is whole blocks.

    :param bases: what is asked for, of which the largest counts
    :param cells_mib: the memory of each cell
    :raises exception.ElasticRefused: if it would boot with too little, or
        there is nothing left that could come and go
    """
    if page_kib < LEAST_PAGE_KIB:
        raise exception.ElasticRefused(
            'its pages are not huge pages of 2 MiB or more',
            'Set hw:mem_page_size to 2MB, 1GB or large',
        )
    asked = [max(base.of(mib) for base in bases) for mib in cells_mib]
    total = sum(cells_mib)
    block = block_mib(sum(asked), page_kib)
    found = _whole_blocks(asked, cells_mib, block)
    boot = sum(cell.base for cell in found)
    if block_mib(boot, page_kib) != block:
        # By what it is rounded up, it boots with much.
        block = block_mib(boot, page_kib)
        found = _whole_blocks(asked, cells_mib, block)
        boot = sum(cell.base for cell in found)
    if sum(asked) == total:
        # All of it is base: nothing is asked for.
        return found
    if boot == total:
        raise exception.ElasticRefused(
            f'no NUMA node of the instance has {block} MiB beyond its base, '
            'which is the least that can be added',
            'Give the flavor more memory, or a smaller base',
        )
    least_mib = max(LEAST_BOOT_MIB, -(-total * LEAST_BOOT_PERCENT // 100))
    if boot < least_mib:
        raise exception.ElasticRefused(
            f'it would boot with {boot} MiB, and its kernel needs at least '
            f'{least_mib} MiB for {total} MiB',
            'Give the flavor a larger base',
        )
    return found


def _whole_blocks(
    asked: Sequence[int], cells_mib: Sequence[int], block: int
) -> list[ElasticCell]:
    return [
        ElasticCell(mib - (mib - least) // block * block, mib)
        for least, mib in zip(asked, cells_mib, strict=True)
    ]


def check(
    specs: Mapping[str, str],
    properties: Mapping[str, object],
    cells: Sequence[tuple[int, int]],
    *,
    of_image: extra_specs.ElasticBase | None = None,
) -> list[ElasticCell] | None:
    """Check what is asked for, and return the sizes of the guest cells.

    :param specs: the extra specs of the flavor
    :param properties: the properties of the image, with underscores
    :param cells: the memory of each guest cell in MiB, and the size of its
        pages in KiB
    :param of_image: the base that the image asks for, None if it asks for none
    :returns: None if its memory isn't elastic
    :raises exception.InvalidExtraSpec: if an extra spec has no meaning
    :raises exception.ElasticRefused: if it is not possible
    """
    base = extra_specs.elastic_base(specs)
    if base is None:
        return None
    check_combination(specs, properties)
    return sizes(
        [base] if of_image is None else [base, of_image],
        [mib for mib, _ in cells],
        min((page_kib for _, page_kib in cells), default=0),
    )


def image_base(
    properties: Mapping[str, str],
) -> extra_specs.ElasticBase | None:
    """Return the base that an image asks for.

    :param properties: its properties, by their names
    :returns: None if it asks for none
    :raises exception.InvalidExtraSpec: if a property has no meaning
    """
    # The names of extra specs, with underscores.
    found = {
        spec: properties[name]
        for spec in (
            extra_specs.ELASTIC_BASE_PERCENT,
            extra_specs.ELASTIC_BASE_MIB,
        )
        if (name := spec.replace(':', '_')) in properties
    }
    return extra_specs.elastic_base(found)


def check_combination(
    specs: Mapping[str, str], properties: Mapping[str, object]
) -> None:
    """Check that nothing else that is asked for excludes elastic memory.

    :param specs: the extra specs of the flavor
    :param properties: the properties of the image, with underscores
    :raises exception.ElasticRefused: if something does
    """
    for name, why in _EXCLUDED.items():
        value = (specs if ':' in name else properties).get(name)
        text = '' if value is None else str(value).strip().lower()
        if text not in _OFF:
            raise exception.ElasticRefused(
                f'{name} is {value!r}, which {why}', 'Unset it'
            )
    machine = properties.get('hw_machine_type')
    found = _MACHINE.fullmatch(str(machine or ''))
    if found and (int(found[1]), int(found[2])) <= _LAST_MACHINE:
        raise exception.ElasticRefused(
            f'machine type {machine} is too old for virtio-mem',
            'Set hw_machine_type to a later one, such as q35',
        )
