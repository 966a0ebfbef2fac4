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

"""The fit of one guest cell on one host cell.

All rules that concern a single pair of cells. What concerns the set of the
chosen host cells (networks, PCI devices, distances) is in ``host_fit.py``.
"""

from __future__ import annotations

from collections.abc import Mapping

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.fit import memory
from nova_numa_hugepages.core.fit import pinning
from nova_numa_hugepages.core.rejection import Miss
from nova_numa_hugepages.core.rejection import Reason


def cell_miss(
    guest: model.GuestCell,
    cell: model.HostCell,
    *,
    common_size_kib: int | None,
    free: int,
    emulator: int,
    limits: model.Limits | None,
    strategy: model.Strategy,
    allocatable: Mapping[int, int],
) -> Miss | None:
    """Find the first rule that a guest cell fails on a host cell.

    :param common_size_kib: the size that stands for ``large`` and ``any``
    :param free: the free dedicated CPUs of the host cell
    :param emulator: dedicated CPUs for the emulator, see
        `emulator.emulator_cpus`
    :param limits: the overcommit ratios, None for no check against them
    :param allocatable: page size in KiB to pages that don't exist yet
    :returns: None if the guest cell fits
    """
    miss = memory.memory_miss(
        guest,
        cell,
        common_size_kib,
        limits=limits,
        account_small_pages=strategy.account_small_pages,
        allocatable=allocatable,
    )
    if miss:
        return miss
    if guest.cpu_policy is not model.CPUPolicy.SHARED:
        miss = _dedicated_miss(guest, cell, free, emulator)
    if miss or guest.cpu_policy is model.CPUPolicy.DEDICATED:
        return miss
    needed = len(guest.shared_vcpus)
    if needed > len(cell.shared_cpus):
        return Miss(Reason.SHARED_CPUS, needed, len(cell.shared_cpus))
    return None if limits is None else _ratio_miss(guest, cell, limits)


def _dedicated_miss(
    guest: model.GuestCell, cell: model.HostCell, free: int, emulator: int
) -> Miss | None:
    count = len(guest.dedicated_vcpus)
    needed = count + emulator
    if not needed:
        return None
    if needed > free:
        return Miss(Reason.DEDICATED_CPUS, needed, free)
    if guest.thread_policy is model.ThreadPolicy.ISOLATE:
        for_vcpus, whole = pinning.isolated_room(cell)
        if count > for_vcpus:
            return Miss(Reason.CORES, count, for_vcpus)
        if needed > whole:
            return Miss(Reason.CORES, needed, whole)
    elif count and guest.thread_policy is model.ThreadPolicy.REQUIRE:
        siblings = pinning.sibling_room(cell)
        if count > siblings:
            return Miss(Reason.THREADS, count, siblings)
    return None


def _ratio_miss(
    guest: model.GuestCell, cell: model.HostCell, limits: model.Limits
) -> Miss | None:
    needed = len(guest.shared_vcpus)
    room = len(cell.shared_cpus) * limits.cpu_ratio - cell.shared_used
    if needed > room:
        return Miss(Reason.CPU_RATIO, needed, max(0, int(room)))
    room = cell.memory_mib * limits.ram_ratio - cell.memory_used_mib
    if guest.memory_mib > room:
        return Miss(Reason.RAM_RATIO, guest.memory_mib, max(0, int(room)))
    return None
