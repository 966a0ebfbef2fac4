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

"""What a process really has, and whether that is what its arm says.

Sources: ``smaps_rollup`` and ``numa_maps`` in
``Documentation/filesystems/proc.rst`` of the kernel.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
import re
from typing import Any
from typing import NamedTuple

from nova_numa_hugepages.experiment.plan import Arm
from nova_numa_hugepages.experiment.plan import SMALL
from nova_numa_hugepages.experiment.plan import THP
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import processes

_ROLLUP = re.compile(r'^(\w+): +(\d+) kB$', re.MULTILINE)
_CPUS = re.compile(r'^Cpus_allowed_list:\s*(\S+)$', re.MULTILINE)

_OWN = re.compile('anon=|file=/memfd:')

# The program itself and its stack are on small pages of any node.
_SHARE = 0.9
# Of what a workload says that it takes: less is not all of it yet.
_ENOUGH = 0.4


class InPlace(NamedTuple):
    """What a process has.

    :ivar own_kib: its own memory, without huge pages of a pool
    :ivar transparent_kib: of that, in transparent huge pages
    :ivar huge_kib: huge pages of pools, in KiB by page size
    :ivar nodes_kib: all memory but files, in KiB by NUMA node
    :ivar cpus: on which it may run
    """

    own_kib: int
    transparent_kib: int
    huge_kib: Mapping[int, int]
    nodes_kib: Mapping[int, int]
    cpus: frozenset[int]

    @property
    def total_kib(self) -> int:
        """All of its memory but files."""
        return self.own_kib + sum(self.huge_kib.values())

    def as_json(self) -> dict[str, Any]:
        """Return it for the raw data."""
        return {**self._asdict(), 'cpus': sorted(self.cpus)}


def read(fs: hostfs.HostFS, pid: int) -> InPlace:
    """Read what a process has.

    :raises OSError: if it has ended, or can't be read
    """
    folder = fs.proc / f'{pid:d}'
    rollup = {
        name: int(value)
        for name, value in _ROLLUP.findall(
            (folder / 'smaps_rollup').read_text()
        )
    }
    allowed = _CPUS.search((folder / 'status').read_text())
    maps = (folder / 'numa_maps').read_text('ascii', 'replace')
    own_kib = 0
    huge_kib: dict[int, int] = collections.Counter()
    nodes_kib: dict[int, int] = collections.Counter()
    for line in maps.splitlines():
        words = line.split()
        is_huge = 'huge' in words
        # Files, as its program, are anybody's; but not memory without a name.
        if not is_huge and not any(map(_OWN.match, words)):
            continue
        for key, pages in processes.pages_of(line).items():
            nodes_kib[key.node] += pages * key.size_kib
            if is_huge:
                huge_kib[key.size_kib] += pages * key.size_kib
            else:
                own_kib += pages * key.size_kib
    return InPlace(
        own_kib,
        rollup.get('AnonHugePages', 0) + rollup.get('ShmemPmdMapped', 0),
        {size: kib for size, kib in huge_kib.items() if kib},
        dict(nodes_kib),
        frozenset(hostfs.parse_set(allowed[1]) if allowed else ()),
    )


def problems(
    found: InPlace,
    arm: Arm,
    memory_mib: int,
    node: int | None,
    cpus: frozenset[int],
    *,
    least_share: float = _SHARE,
) -> list[str]:
    """List in what a process is not what its arm says.

    :param memory_mib: what it should have about; 0 if where its memory is does
        not matter
    :param node: on which its memory should be, None for any
    :param cpus: on which it should run
    :param least_share: how much of its memory has to be as the arm says
    """
    wrong = []
    if found.cpus != cpus:
        wrong.append(
            f'it may run on CPUs {hostfs.format_ids(found.cpus) or "unknown"} '
            f'instead of {hostfs.format_ids(cpus)}'
        )
    if not memory_mib:
        return wrong
    total_mib = found.total_kib // 1024
    if total_mib < memory_mib * _ENOUGH:
        return [
            *wrong,
            f'it was seen with {total_mib} MiB only, of about '
            f'{memory_mib} MiB',
        ]
    on_huge = sum(found.huge_kib.values())
    share = {
        SMALL: 1 - (on_huge + found.transparent_kib) / found.total_kib,
        THP: found.transparent_kib / found.total_kib,
    }.get(
        arm.pages,
        found.huge_kib.get(arm.page_kib or 0, 0) / found.total_kib,
    )
    if share < least_share:
        wrong.append(
            f'{share:.0%} of its memory is on {arm.describe().split(",")[0]}'
        )
    if node is not None:
        near = found.nodes_kib.get(node, 0) / max(
            1, sum(found.nodes_kib.values())
        )
        if near < least_share:
            wrong.append(f'{near:.0%} of its memory is on NUMA node {node}')
    return wrong
