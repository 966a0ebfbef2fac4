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

"""The kernel's counters of huge pages, and ``numa_maps`` of a process.

The counters of each node are in
``/sys/devices/system/node/nodeN/hugepages/hugepages-SIZEkB``, and
``/proc/PID/numa_maps`` shows where memory really is; see
``Documentation/admin-guide/mm/hugetlbpage.rst`` and
``Documentation/filesystems/proc.rst`` of the kernel.
"""

from __future__ import annotations

from collections import Counter
import dataclasses
import re

# A line of the shell that prints all counters, each with its path.
COUNTERS = (
    'grep -H . /sys/devices/system/node/node[0-9]*/hugepages/hugepages-*/'
    '*_hugepages'
)

_LINE = re.compile(
    r'/node(?P<node>\d+)/hugepages/hugepages-(?P<size>\d+)kB/'
    r'(?P<name>nr|free|surplus)_hugepages:(?P<count>\d+)$'
)
_NODE = re.compile(r'\bN(\d+)=(\d+)\b')
_SIZE = re.compile(r'\bkernelpagesize_kB=(\d+)\b')


@dataclasses.dataclass(frozen=True, slots=True)
class Pool:
    """Pages of one size on one node, as the kernel counts them.

    :ivar total: with the surplus ones
    """

    total: int
    free: int
    surplus: int

    @property
    def used(self) -> int:
        """Pages that a process has."""
        return self.total - self.free


def pools(text: str) -> dict[tuple[int, int], Pool]:
    """Read the output of `COUNTERS`; other counters are ignored.

    :returns: pools by node and page size in KiB
    :raises ValueError: if a counter of a pool is missing
    """
    counts: dict[tuple[int, int], dict[str, int]] = {}
    for line in text.splitlines():
        match = _LINE.search(line.strip())
        if match:
            key = int(match['node']), int(match['size'])
            counts.setdefault(key, {})[match['name']] = int(match['count'])
    try:
        return {
            key: Pool(found['nr'], found['free'], found['surplus'])
            for key, found in counts.items()
        }
    except KeyError as error:
        raise ValueError(f'no counter {error} of a pool in {text!r}') from None


def huge_pages(text: str) -> dict[tuple[int, int], int]:
    """Count the huge pages that a process has touched.

    :param text: the whole of its ``numa_maps``
    :returns: pages by node and page size in KiB
    :raises ValueError: if a mapping of huge pages has no page size
    """
    counts: Counter[tuple[int, int]] = Counter()
    for line in text.splitlines():
        # A file may be mapped whose name has the word in it.
        words = [word for word in line.split() if not word.startswith('file=')]
        if 'huge' not in words:
            continue
        rest = ' '.join(words)
        size = _SIZE.search(rest)
        if size is None:
            raise ValueError(f'no page size in numa_maps: {line}')
        for node, pages in _NODE.findall(rest):
            counts[int(node), int(size[1])] += int(pages)
    return dict(counts)
