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

"""The kernel's counters of huge pages on each node.

They are in ``/sys/devices/system/node/nodeN/hugepages/hugepages-SIZEkB``; see
``Documentation/admin-guide/mm/hugetlbpage.rst`` of the kernel.
"""

from __future__ import annotations

import dataclasses
import re

# A line of the shell that prints all counters, each with its path.
COMMAND = (
    'grep -H . /sys/devices/system/node/node[0-9]*/hugepages/hugepages-*/'
    '*_hugepages'
)

_LINE = re.compile(
    r'/node(?P<node>\d+)/hugepages/hugepages-(?P<size>\d+)kB/'
    r'(?P<name>nr|free|surplus)_hugepages:(?P<count>\d+)$'
)


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


def read(text: str) -> dict[tuple[int, int], Pool]:
    """Read the output of `COMMAND`; other counters are ignored.

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
