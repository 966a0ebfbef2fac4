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

"""Counters of the kernel on memory that fell short or lies elsewhere.

They count from the boot of the host on, and only their differences say
something.

Sources: ``Documentation/admin-guide/numastat.rst``,
``Documentation/accounting/psi.rst`` and ``mm/vmstat.c`` of the kernel.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.kernel import hostfs


class NodeCounters(NamedTuple):
    """How often small pages were allocated on a node.

    :ivar hit: on the node that was wanted
    :ivar miss: here, though another node was wanted
    :ivar foreign: elsewhere, though this node was wanted
    """

    hit: int
    miss: int
    foreign: int


class HostCounters(NamedTuple):
    """How often the host was short of memory in one piece.

    :ivar compact_success: compactions that made a block
    :ivar compact_fail: compactions that made none
    :ivar hugepage_success: huge pages that the buddy allocator gave
    :ivar hugepage_fail: huge pages that it could not give
    :ivar stalls: allocations that had to wait for memory to be reclaimed
    """

    compact_success: int
    compact_fail: int
    hugepage_success: int
    hugepage_fail: int
    stalls: int


class Pressure(NamedTuple):
    """How much tasks wait for memory.

    :ivar some_us: microseconds since the boot, in which some waited
    :ivar full_us: microseconds since the boot, in which all did
    """

    some_us: int
    full_us: int


def of_nodes(fs: hostfs.HostFS) -> dict[int, NodeCounters]:
    """Read the counters of the nodes that are online.

    :returns: by node, ascending
    :raises exception.KernelError: if a file can't be used
    """
    found = {}
    for node in fs.online():
        path = fs.node_folder(node) / 'numastat'
        text = fs.text(path)
        values = dict(_LINE.findall(text))
        try:
            found[node] = NodeCounters(
                *(int(values[f'numa_{name}']) for name in NodeCounters._fields)
            )
        except KeyError as error:
            raise exception.KernelError(
                path, repr(text[:80]), f'a line with {error}'
            ) from error
    return found


def of_host(fs: hostfs.HostFS) -> HostCounters:
    """Read the counters of the host.

    What a kernel doesn't count, or was built without, is 0.

    :raises exception.KernelError: if the file can't be read
    """
    values = dict(_LINE.findall(fs.text(fs.proc / 'vmstat')))

    def value(name: str) -> int:
        return int(values.get(name, 0))

    return HostCounters(
        value('compact_success'),
        value('compact_fail'),
        value('htlb_buddy_alloc_success'),
        value('htlb_buddy_alloc_fail'),
        sum(
            int(count)
            for name, count in values.items()
            if name.startswith('allocstall')
        ),
    )


def pressure(fs: hostfs.HostFS) -> Pressure | None:
    """Read the memory pressure of the host.

    :returns: None if the kernel doesn't tell it
    :raises exception.KernelError: if the file isn't as expected
    """
    path = fs.proc / 'pressure/memory'
    # It is there and can't be read with psi=0.
    try:
        text = fs.text(path)
    except exception.KernelError:
        return None
    lines = {name: int(total) for name, total in _PRESSURE.findall(text)}
    if lines.keys() != {'some', 'full'}:
        raise exception.KernelError(
            path, repr(text[:80]), 'lines of some and full pressure'
        )
    return Pressure(lines['some'], lines['full'])


_LINE = re.compile(r'^(\w+) (\d+)$', re.MULTILINE | re.ASCII)
_PRESSURE = re.compile(
    r'^(some|full) .*\btotal=(\d+)$',
    re.MULTILINE | re.ASCII,
)
