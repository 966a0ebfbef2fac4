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

"""The choice between hosts on which a guest costs the same."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

from nova_numa_hugepages.core import model


def grow_kib(
    host: model.HostTopology, cells: Mapping[int, model.HostCell]
) -> int:
    """Return the memory in huge pages to allocate for a guest.

    :param cells: id of each host cell that the guest takes something of to
        that cell with the guest
    :returns: in KiB; 0 where all pages exist
    """
    missing = 0
    if not host.allocatable:
        return missing
    for before, made in zip(host.cells, host.allocatable, strict=True):
        after = cells.get(before.id)
        if after is None:
            continue
        for had, has in zip(before.pools, after.pools, strict=True):
            exist = max(0, int(had.free) - made.get(had.size_kib, 0))
            taken = int(has.used - had.used)
            missing += max(0, taken - exist) * had.size_kib
    return missing


def imbalance(
    cells: Sequence[model.HostCell], taken: Mapping[int, tuple[int, int]]
) -> float:
    """Return how unevenly the host cells of a host will be used.

    :param taken: id of a host cell to the dedicated CPUs, and the memory in
        MiB, that a guest takes of it
    :returns: the widest gap between two cells in the share of dedicated CPUs
        that are free, plus that in the share of memory; from 0 to 2
    """
    cpus = []
    memory = []
    for cell in cells:
        less_cpus, less_mib = taken.get(cell.id, (0, 0))
        if cell.dedicated_cpus:
            free = len(cell.dedicated_cpus) - len(cell.pinned_cpus)
            cpus.append((free - less_cpus) / len(cell.dedicated_cpus))
        if cell.memory_mib:
            left = cell.memory_mib - cell.memory_used_mib - less_mib
            memory.append(left / cell.memory_mib)
    gap = max(cpus) - min(cpus) if cpus else 0.0
    return gap + max(memory) - min(memory) if memory else gap
