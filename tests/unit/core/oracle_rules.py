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


"""The rules of the oracle that look at one guest cell on one host cell."""

from __future__ import annotations

from collections.abc import Iterator

from nova_numa_hugepages.core.model import CPUPolicy
from nova_numa_hugepages.core.model import GuestCell
from nova_numa_hugepages.core.model import HostCell
from nova_numa_hugepages.core.model import HostTopology
from nova_numa_hugepages.core.model import Limits
from nova_numa_hugepages.core.model import PagePool
from nova_numa_hugepages.core.model import PageRequest
from nova_numa_hugepages.core.model import Strategy
from nova_numa_hugepages.core.model import ThreadPolicy


def chooses(guest: GuestCell) -> bool:
    """Check whether the fit is free to choose the page size."""
    return guest.page_size in (PageRequest.LARGE, PageRequest.ANY)


def is_pinned(guest: GuestCell) -> bool:
    """Check whether the guest cell may have CPUs of its own."""
    return guest.cpu_policy in (CPUPolicy.DEDICATED, CPUPolicy.MIXED)


def is_floating(guest: GuestCell) -> bool:
    """Check whether the guest cell may have floating vCPUs."""
    return guest.cpu_policy in (CPUPolicy.SHARED, CPUPolicy.MIXED)


def size_taken(guest: GuestCell, cell: HostCell, size_kib: int) -> int | None:
    """Return the page size that a guest cell is accounted on (R2, R3).

    :param size_kib: the page size of the cells that ask LARGE or ANY
    :returns: the size in KiB, None if the host cell has no such pages
    """
    sizes = sorted(pool.size_kib for pool in cell.pools)
    if not sizes:
        return None
    if guest.page_size is None or guest.page_size == PageRequest.SMALL:
        return sizes[0]
    if guest.page_size == PageRequest.LARGE:
        return size_kib if size_kib in sizes[1:] else None
    if guest.page_size == PageRequest.ANY:
        return size_kib if size_kib in sizes else None
    return guest.page_size if guest.page_size in sizes else None


def pages_fit(guest: GuestCell, cell: HostCell, size_kib: int) -> bool:
    """R2: memory is a whole number of pages, and there are that many."""
    if guest.page_size is None and not cell.pools:
        if is_pinned(guest):
            return guest.memory_mib <= cell.memory_mib - cell.memory_used_mib
        return guest.memory_mib <= cell.memory_mib
    taken = size_taken(guest, cell, size_kib)
    if taken is None:
        return False
    (pool,) = (pool for pool in cell.pools if pool.size_kib == taken)
    need_kib = guest.memory_mib * 1024
    if need_kib % taken:
        return False
    if guest.page_size is None and not is_pinned(guest):
        return need_kib // taken <= pool.total
    return need_kib // taken <= pool.total - pool.used - pool.reserved


def cpus_fit(guest: GuestCell, cell: HostCell, emulator: int) -> bool:
    """R4: there are as many CPUs as the guest cell needs.

    :param emulator: CPUs more for the emulator
    """
    if is_pinned(guest):
        need = len(guest.dedicated_vcpus) + emulator
        if need > len(cell.dedicated_cpus):
            return False
        if need > len(cell.dedicated_cpus - cell.pinned_cpus):
            return False
    if is_floating(guest):
        return len(guest.shared_vcpus) <= len(cell.shared_cpus)
    return True


def threads_per_core(cell: HostCell) -> int:
    """Return the size of the largest core, 1 where none is known."""
    return max((len(core) for core in cell.siblings), default=1) or 1


def cores(cell: HostCell) -> Iterator[frozenset[int]]:
    """Walk over the cores; a CPU in no sibling set is its own core."""
    known = set()
    for core in cell.siblings:
        known |= core
        yield frozenset(core)
    for cpu in cell.dedicated_cpus:
        if cpu not in known:
            yield frozenset({cpu})


def threads_fit(guest: GuestCell, cell: HostCell, emulator: int) -> bool:
    """R5: the thread policy can be honoured, for the emulator too."""
    if not is_pinned(guest):
        return True
    vcpus = len(guest.dedicated_vcpus)
    free = cell.dedicated_cpus - cell.pinned_cpus
    threads = threads_per_core(cell)
    if guest.thread_policy == ThreadPolicy.REQUIRE and vcpus:
        # With T == 1 no core has two threads, so nothing is left to try.
        return any(
            many * sum(len(core & free) >= many for core in cores(cell))
            >= vcpus
            for many in range(2, threads + 1)
        )
    if guest.thread_policy == ThreadPolicy.ISOLATE:
        # CPUs in no sibling set are out: Nova would not account them.
        whole = [core for core in cell.siblings if core and core <= free]
        full = [core for core in whole if len(core) == threads]
        return len(full) >= vcpus and len(whole) >= vcpus + emulator
    return True


def isolation_fits(
    guest: GuestCell, cell: HostCell, host: HostTopology
) -> bool:
    """R5: no thread siblings under a dedicated guest that isolates.

    Unless the host has no shared CPUs at all, or pins guests to those that
    are shared.
    """
    return (
        guest.thread_policy != ThreadPolicy.ISOLATE
        or guest.cpu_policy != CPUPolicy.DEDICATED
        or threads_per_core(cell) == 1
        or cell.shared_cpus == cell.dedicated_cpus
        or not any(other.shared_cpus for other in host.cells)
    )


def limits_fit(
    guest: GuestCell, cell: HostCell, limits: Limits | None
) -> bool:
    """R6: the overcommit ratios, for guest cells that float."""
    if limits is None or not is_floating(guest):
        return True
    return (
        cell.shared_used + len(guest.shared_vcpus)
        <= len(cell.shared_cpus) * limits.cpu_ratio
    ) and (
        cell.memory_used_mib + guest.memory_mib
        <= cell.memory_mib * limits.ram_ratio
    )


def larger_pools(cell: HostCell) -> list[PagePool]:
    """List all pools but that of the smallest pages."""
    return sorted(cell.pools)[1:]


def in_use_kib(cell: HostCell) -> int:
    """Sum up the larger pages that guests use or the operator reserves."""
    return sum(
        (pool.used + pool.reserved) * pool.size_kib
        for pool in larger_pools(cell)
    )


def existing_kib(host: HostTopology, index: int) -> int:
    """Sum up the larger pages that exist, of the reported ones.

    Pages in use exist, whatever is said to be allocatable: the two may have
    been read at different times.
    """
    allocatable = host.allocatable[index] if host.allocatable else {}
    return sum(
        max(
            pool.total - allocatable.get(pool.size_kib, 0),
            pool.used + pool.reserved,
        )
        * pool.size_kib
        for pool in larger_pools(host.cells[index])
    )


def small_capacity_kib(cell: HostCell, existing: int) -> int:
    """Return how much memory is in no pool.

    :param existing: memory in larger pages that exist, in KiB
    """
    small = min(cell.pools)
    # Memory is in whole MiB, pages are not.
    if existing // 1024 > cell.memory_mib:
        existing = in_use_kib(cell)
    left = cell.memory_mib * 1024 - existing
    # Pages that the operator reserves come out of what there is.
    return max(
        0,
        min(left, small.total * small.size_kib)
        - small.reserved * small.size_kib,
    )


def small_use_kib(cell: HostCell) -> int:
    """Return how much memory on the smallest pages is in use."""
    small = min(cell.pools)
    return small.used * small.size_kib


def small_pages_fit(
    guest: GuestCell,
    cell: HostCell,
    size_kib: int,
    existing: int,
    limits: Limits | None,
    strategy: Strategy,
) -> bool:
    """R7: guests on the smallest pages share what is in no pool.

    :param existing: memory in larger pages that exist, in KiB
    """
    if not strategy.account_small_pages or not cell.pools:
        return True
    small = min(cell.pools)
    if size_taken(guest, cell, size_kib) != small.size_kib:
        return True
    if is_pinned(guest):
        ratio = 1.0
    elif limits is not None:
        ratio = limits.ram_ratio
    else:
        return True
    need = guest.memory_mib * 1024
    capacity = small_capacity_kib(cell, existing)
    return small_use_kib(cell) + need <= capacity * ratio


def sizes_fit_together(
    guest: GuestCell,
    host: HostTopology,
    index: int,
    size_kib: int,
    limits: Limits | None,
    strategy: Strategy,
) -> bool:
    """R8: what has to be allocated comes out of what is in no pool."""
    cell = host.cells[index]
    reported = sum(pool.total * pool.size_kib for pool in cell.pools)
    if reported // 1024 <= cell.memory_mib:
        return True
    small = min(cell.pools)
    taken = size_taken(guest, cell, size_kib)
    floats = taken == small.size_kib and not is_pinned(guest)
    if floats and limits is None:
        # Nothing is known of the ratio of guests that overcommit.
        return True
    existing = existing_kib(host, index)
    if taken == small.size_kib and not strategy.account_small_pages:
        # The operator wants idle pages to count as memory.
        existing = in_use_kib(cell)
    capacity = small_capacity_kib(cell, existing)
    need = guest.memory_mib * 1024
    if existing // 1024 <= cell.memory_mib:
        allocatable = host.allocatable[index] if host.allocatable else {}
        for pool in larger_pools(cell):
            idle = pool.total - allocatable.get(pool.size_kib, 0)
            idle -= pool.used + pool.reserved
            if pool.size_kib == taken:
                need -= max(0, idle) * pool.size_kib
    if need <= 0:
        return True
    small_use = small_use_kib(cell)
    if limits is None:
        return need + min(small_use, capacity) <= capacity
    ratio = max(limits.ram_ratio, 1.0)
    if not floats:
        need *= ratio
    return need + small_use <= capacity * ratio
