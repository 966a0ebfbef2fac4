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

"""What kinds of memory the blocks of a node were last given out for.

Memory for which a page can't be moved stays where it is until it is freed, and
no huge page can be made of a block with some of it.

Source: ``mm/vmstat.c`` of the kernel, on ``pagetypeinfo``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.kernel import hostfs


class PageBlocks(NamedTuple):
    """Blocks of a node by what they were given out for.

    :ivar movable: for memory that can be moved elsewhere
    :ivar unmovable: for memory of the kernel that can't
    :ivar reclaimable: for caches of the kernel, which it can drop
    """

    movable: int
    unmovable: int
    reclaimable: int

    @property
    def all(self) -> int:
        """All of them."""
        return self.movable + self.unmovable + self.reclaimable


def of_nodes(fs: hostfs.HostFS) -> dict[int, PageBlocks]:
    """Read the blocks of each node.

    :returns: by node; empty if the kernel doesn't tell
    :raises exception.KernelError: if the file isn't as expected, or this user
        can't read it
    """
    path = fs.proc / 'pagetypeinfo'
    if not path.exists():
        return {}
    try:
        text = fs.text(path)
    except exception.KernelError as error:
        raise exception.KernelError(
            path,
            'one that this user may not read',
            'a file that this user may read (the monitor needs '
            'CAP_DAC_READ_SEARCH)',
        ) from error
    head, found, rows = text.partition('Number of blocks type')
    names, _, rows = rows.partition('\n')
    counts: dict[int, dict[str, int]] = {}
    for line in _ROW.finditer(rows):
        node = counts.setdefault(int(line[1]), {})
        for name, count in zip(names.split(), line[2].split(), strict=False):
            node[name] = node.get(name, 0) + int(count)
    if not found or not counts:
        raise exception.KernelError(
            path, repr(head[:80]), 'a table of blocks by type'
        )
    return {
        node: PageBlocks(
            row.get('Movable', 0) + row.get('CMA', 0),
            row.get('Unmovable', 0) + row.get('HighAtomic', 0),
            row.get('Reclaimable', 0),
        )
        for node, row in counts.items()
    }


_ROW = re.compile(
    r'^Node +(\d+), zone +\S+((?: +\d+)+) *$', re.MULTILINE | re.ASCII
)
