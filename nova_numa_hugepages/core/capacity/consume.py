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

"""The accounting of a guest to host cells.

As ``nova.virt.hardware.numa_usage_from_instance_numa`` does it.
"""

from __future__ import annotations

from collections.abc import Set
import itertools

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core import units
from nova_numa_hugepages.core.fit import host_fit
from nova_numa_hugepages.core.fit import memory
from nova_numa_hugepages.core.fit.emulator import emulator_cpus
from nova_numa_hugepages.core.fit.fitter import Fitter
from nova_numa_hugepages.core.rejection import Miss


def consume(
    cell: model.HostCell,
    guest: model.GuestCell,
    *,
    cpus: Set[int],
    size_kib: int | None,
) -> model.HostCell:
    """Account a guest cell to a host cell.

    :param cpus: the dedicated CPUs that it takes
    :param size_kib: its page size, None for the smallest one
    :returns: the host cell with what is left
    """
    taken_kib = guest.memory_mib * units.KIB_PER_MIB
    pools: list[model.PagePool] = []
    for pool in cell.pools:
        size, total, used, reserved = pool
        if size == size_kib or (size_kib is None and not pools):
            pools.append(
                model.PagePool(size, total, used + taken_kib // size, reserved)
            )
        else:
            pools.append(pool)
    return cell._replace(
        pinned_cpus=cell.pinned_cpus | cpus,
        memory_used_mib=cell.memory_used_mib + guest.memory_mib,
        shared_used=cell.shared_used + len(guest.shared_vcpus),
        pools=pools,
    )


def after_choice(
    fitter: Fitter, choice: host_fit.Choice
) -> dict[int, model.HostCell]:
    """Account a guest to the host cells of a choice, without pinning it.

    As many CPUs are taken as its pinning takes, but any ones.

    :returns: id of each of these host cells to what is left of it
    """
    cells = {}
    request = fitter.request
    for index, cell in enumerate(choice.cells):
        guest = request.cells[index]
        pool = memory.pool_for(guest, cell, choice.common_size_kib)
        assert not isinstance(pool, Miss), pool
        count = len(guest.dedicated_vcpus) + emulator_cpus(request, index)
        cpus = frozenset(itertools.islice(cell.free_cpus, count))
        size = pool.size_kib if pool else None
        cells[cell.id] = consume(cell, guest, cpus=cpus, size_kib=size)
    return cells


def after_plan(
    request: model.Request, plan: model.Plan, host: model.HostTopology
) -> dict[int, model.HostCell]:
    """Account a guest to the host cells of a plan.

    :returns: id of each of these host cells to what is left of it
    """
    by_id = {cell.id: cell for cell in host.cells}
    cells = {}
    for guest, planned in zip(request.cells, plan.cells, strict=True):
        cell = by_id[planned.host_cell]
        cpus = {cpu for _, cpu in planned.pinning} | planned.emulator_cpus
        if guest.thread_policy is model.ThreadPolicy.ISOLATE:
            # The other threads of these cores are left idle.
            cpus.update(*(core for core in cell.siblings if core & cpus))
        cells[cell.id] = consume(
            cell, guest, cpus=cpus, size_kib=planned.page_size_kib
        )
    return cells
