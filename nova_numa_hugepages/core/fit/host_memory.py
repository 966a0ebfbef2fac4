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

"""Memory of a whole host for guests that are in no cell.

A guest without a NUMA topology floats over the whole host, and no host cell
accounts for it. Its memory is on small pages all the same, so all guests on
small pages together have to fit in what the page pools of the host leave, also
after pages were allocated for a guest.
"""

from __future__ import annotations

import math

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core import units
from nova_numa_hugepages.core.fit import memory
from nova_numa_hugepages.core.rejection import Reason
from nova_numa_hugepages.core.rejection import Rejection


def room_mib(
    host: model.HostTopology,
    *,
    total_mib: int,
    used_mib: int,
    ram_ratio: float,
) -> int | None:
    """Return how much memory on small pages a whole host has left.

    :param total_mib: all memory that the host reports
    :param used_mib: the memory that all guests and the operator's reserve
        take on the host, on pages of any size
    :param ram_ratio: the host's RAM allocation ratio
    :returns: in MiB, below 0 if too much is in use; None if nothing limits
        it: the host has no page pools, or it reports more memory than its
        cells have, because its guests are on files
    """
    # Nova cuts the memory of each cell to whole MiB.
    of_cells = sum(cell.memory_mib + 1 for cell in host.cells)
    if total_mib > of_cells:
        return None
    if not any(pool.total for cell in host.cells for pool in cell.pools[1:]):
        return None
    capacity = 0
    for index, cell in enumerate(host.cells):
        capacity += memory.small_capacity_kib(cell, host.allocatable_of(index))
    # All but the guests on huge pages, which are all in cells.
    huge = sum(
        pool.used * pool.size_kib
        for cell in host.cells
        for pool in cell.pools[1:]
    )
    small = max(0, used_mib * units.KIB_PER_MIB - huge)
    return int(capacity * ram_ratio - small) // units.KIB_PER_MIB


def miss(memory_mib: int, room: int | None) -> Rejection | None:
    """Check memory on small pages against a whole host.

    :param room: what it has left, see `room_mib`
    :returns: None if it fits
    """
    if room is None or memory_mib <= room:
        return None
    return Rejection(Reason.HOST_MEMORY, needed=memory_mib, best=max(0, room))


def needed_mib(
    request: model.Request,
    host: model.HostTopology,
    cells: tuple[model.HostCell, ...],
    common: int | None,
    *,
    ram_ratio: float,
) -> int:
    """Return how much memory on small pages a guest takes of a whole host.

    That of its cells on small pages, and what is allocated as huge pages for
    the others, which is never overcommitted.

    :param cells: the host cell of each guest cell
    :param common: the page size that stands for ``large`` and ``any``
    :param ram_ratio: the host's RAM allocation ratio
    :returns: in MiB, as `room_mib`
    """
    allocatable = {
        cell.id: host.allocatable_of(index)
        for index, cell in enumerate(host.cells if host.allocatable else ())
    }
    total = new_kib = 0
    for guest, cell in zip(request.cells, cells, strict=True):
        if memory.on_small_pages(guest, cell, common):
            total += guest.memory_mib
        elif allocatable:
            size_kib = guest.page_size
            if size_kib in model.SEVERAL_SIZES:
                size_kib = common
            exist = memory.existing_pages(cell, allocatable[cell.id])
            idle = memory.idle_kib(cell, size_kib, exist)
            new_kib += max(0, guest.memory_mib * units.KIB_PER_MIB - idle)
    return total + math.ceil(new_kib * ram_ratio / units.KIB_PER_MIB)
