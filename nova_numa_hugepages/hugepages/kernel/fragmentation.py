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

"""The fragmentation of NUMA nodes: what of their memory is in large blocks.

A host may be another one, of which only the files are here: what the kernel
counts in small pages is converted by their size there, and the order of a
block is that of its size in KiB, from 0 for 1 KiB on.

Sources: the parts on ``buddyinfo`` and ``zoneinfo`` in
``Documentation/filesystems/proc.rst``, and ``__zone_watermark_ok`` in
``mm/page_alloc.c`` of the kernel.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
import functools
import re
import resource
from typing import NamedTuple

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import nodes

# The size of small pages of the kernel that runs here.
BASE_KIB = resource.getpagesize() // 1024

# Those that kernels have.
_BASE_SIZES_KIB = (4, 8, 16, 32, 64, 256)

# The low 16 MiB, for old devices that can address no other memory.
_NOT_FOR_US = 'DMA'


class Zone(NamedTuple):
    """A part of a node's memory with blocks of its own.

    :ivar high_kib: free memory below which the kernel begins to reclaim
    :ivar protected_kib: free memory that is kept for those who can't use
        other zones
    :ivar cma_free_kib: free memory that is set aside for devices or for
        larger pages, and lent only to what can be moved
    :ivar blocks: free blocks, by order
    """

    node: int
    name: str
    free_kib: int
    high_kib: int
    protected_kib: int
    cma_free_kib: int
    blocks: tuple[int, ...]


@functools.cache
def base_kib(fs: hostfs.HostFS) -> int:
    """Return the size of small pages.

    The files of another host tell it by the memory of the nodes, which the
    kernel counts both in KiB and in pages.

    :raises exception.KernelError: if it can't be told
    """
    if fs.proc == hostfs.PROC:
        return BASE_KIB
    path = fs.proc / 'zoneinfo'
    pages = sum(map(int, _MANAGED.findall(fs.text(path))))
    total_kib = sum(node.total_kib for node in nodes.memory(fs).values())
    for size_kib in _BASE_SIZES_KIB:
        # Memory may come or go while the files are copied.
        if 0.8 < pages * size_kib / max(1, total_kib) < 1.25:
            return size_kib
    raise exception.KernelError(
        path,
        f'{pages} managed pages',
        f'{total_kib} KiB of memory, as in meminfo of the nodes, in pages of '
        f'{", ".join(map(str, _BASE_SIZES_KIB))} KiB',
    )


_MANAGED = re.compile(r'^ +managed +(\d+)$', re.MULTILINE | re.ASCII)


def zones(fs: hostfs.HostFS) -> list[Zone]:
    """Read the zones that huge pages can be made of.

    :returns: in the kernel's order
    :raises exception.KernelError: if a file can't be used
    """
    blocks = _blocks(fs)
    path = fs.proc / 'zoneinfo'
    found = []
    # On a large host most of the file is on the lists of each CPU.
    parts = _ZONE.split(fs.text(path))
    for node, name, part in zip(
        parts[1::3], parts[2::3], parts[3::3], strict=True
    ):
        key = int(node), name
        # A zone without memory has no free blocks and no line for them.
        if name == _NOT_FOR_US or key not in blocks:
            continue
        head = part.partition('pagesets')[0]
        values = dict(_ZONE_VALUE.findall(head))
        protection = _PROTECTION.search(head)
        if not values.keys() >= {'free', 'high'}:
            raise exception.KernelError(
                path, repr(head[:80]), 'free pages and a high watermark'
            )
        size_kib = base_kib(fs)
        found.append(
            Zone(
                *key,
                int(values['free']) * size_kib,
                int(values['high']) * size_kib,
                int(protection[1].split(', ')[-1]) * size_kib
                if protection
                else 0,
                int(values.get('nr_free_cma', 0)) * size_kib,
                _by_kib(fs, blocks[key]),
            )
        )
    return found


_ZONE = re.compile(r'^Node (\d+), zone +(\S+)$', re.MULTILINE | re.ASCII)
_ZONE_VALUE = re.compile(
    r'^ +(?:pages )?(free|high|nr_free_cma) +(\d+)$', re.MULTILINE | re.ASCII
)
_PROTECTION = re.compile(r'protection: \(([\d, ]+)\)', re.ASCII)


def free_blocks(fs: hostfs.HostFS) -> dict[int, tuple[int, ...]]:
    """Read how many free blocks of which order the nodes have.

    :returns: by node that is online, ascending: for each order, from 0, how
        many blocks of two to the power of it KiB are free
    :raises exception.KernelError: if a file can't be used
    """
    zoned = _blocks(fs)
    orders = max(map(len, zoned.values()), default=0)
    found = {}
    for node in fs.online():
        rows = [
            row
            for (at, name), row in zoned.items()
            if at == node and name != _NOT_FOR_US
        ]
        found[node] = _by_kib(
            fs, tuple(map(sum, zip(*rows, strict=True))) or (0,) * orders
        )
    return found


def allocatable_pages(
    fs: hostfs.HostFS,
    key: model.PoolKey,
    known: Sequence[Zone] | None = None,
) -> int:
    """Return how many pages can be added to a pool now for certain.

    Pages that the buddy allocator gives count if they are free in one piece
    and above the watermark at which the kernel begins to reclaim; free memory
    that is lent by a CMA area doesn't. Larger ones count as far as a CMA area
    is set aside for them and its memory is free: what it has lent the kernel
    would have to move elsewhere, where room may be missing. A stretch of other
    memory that can be moved is luck.

    :param known: what `zones` has read, for a caller that asks for several
    :returns: how many pages, whatever limits the operator has set
    :raises exception.KernelError: if a file can't be used
    """
    found = zones(fs) if known is None else known
    order = _order(key.size_kib)
    if any(has_blocks(zone.blocks, key.size_kib) for zone in found):
        return sum(
            _zone_pages(zone, order) for zone in found if zone.node == key.node
        )
    area = fs.sys / f'kernel/mm/cma/hugetlb{key.node:d}'
    if not area.is_dir():
        return 0
    # Of all areas of the node together.
    free_kib = sum(z.cma_free_kib for z in found if z.node == key.node)
    # Memory that it has lent is available, too. Not before Linux 6.15.
    path = area / 'available_pages'
    if path.exists():
        free_kib = min(free_kib, fs.number(path) * base_kib(fs))
    elif any(not a.name.startswith('hugetlb') for a in area.parent.iterdir()):
        # How much of it is in areas for others is not known.
        free_kib -= key.size_kib
    return max(0, free_kib) // key.size_kib


def whole_pages(zones_of_node: Iterable[Zone], size_kib: int) -> int:
    """Return how many pages could be made of free memory in one piece.

    As many as `allocatable_pages`, if no free memory were in blocks that are
    too small.
    """
    return sum(max(0, _spare_kib(zone)) // size_kib for zone in zones_of_node)


def has_blocks(blocks: Sequence[int], size_kib: int) -> bool:
    """Check whether the buddy allocator gives blocks of a page's size.

    Larger pages come from memory that was set aside for them. Up to which
    order there are blocks depends on the size of small pages: up to 4 MiB with
    4 KiB, up to 512 MiB with 64 KiB.

    :param blocks: free blocks by order, as from `free_blocks`
    """
    return _order(size_kib) < len(blocks)


def unusable_permille(blocks: Sequence[int], size_kib: int) -> int:
    """Return how much of the free memory is in blocks that are too small.

    The "unusable free space index" of Mel Gorman, which the kernel has in
    ``/sys/kernel/debug/extfrag/unusable_index``.

    :param blocks: free blocks by order, as from `free_blocks`
    :param size_kib: what is to fit into a block
    :returns: 0 to 1000; 1000 if nothing is free
    """
    sizes = [count << order for order, count in enumerate(blocks)]
    free = sum(sizes)
    if not free:
        return 1000
    return 1000 * sum(sizes[: _order(size_kib)]) // free


def _order(size_kib: int) -> int:
    return size_kib.bit_length() - 1


def _by_kib(fs: hostfs.HostFS, row: tuple[int, ...]) -> tuple[int, ...]:
    """Convert blocks by order of small pages to blocks by order of KiB."""
    return (0,) * _order(base_kib(fs)) + row


def _zone_pages(zone: Zone, order: int) -> int:
    size_kib = 1 << order
    whole = sum(
        count << (at - order)
        for at, count in enumerate(zone.blocks)
        if at >= order
    )
    # Which of the blocks are in the CMA areas is not known.
    whole_kib = whole * size_kib - zone.cma_free_kib
    return max(0, min(whole_kib, _spare_kib(zone))) // size_kib


def _spare_kib(zone: Zone) -> int:
    """Return how much of a zone can be given away."""
    return (
        zone.free_kib - zone.cma_free_kib - zone.high_kib - zone.protected_kib
    )


def _blocks(fs: hostfs.HostFS) -> dict[tuple[int, str], tuple[int, ...]]:
    """Read the free blocks of each zone, by order of small pages."""
    path = fs.proc / 'buddyinfo'
    found = {}
    for line in fs.text(path).splitlines():
        match = _BUDDYINFO.fullmatch(line)
        if not match:
            raise exception.KernelError(
                path, repr(line), "lines like 'Node 0, zone Normal 1 2 3'"
            )
        found[int(match[1]), match[2]] = tuple(map(int, match[3].split()))
    if not found:
        raise exception.KernelError(path, 'none', 'a line for each zone')
    return found


_BUDDYINFO = re.compile(r'Node (\d+), zone +(\S+)((?: +\d+)+) *', re.ASCII)
