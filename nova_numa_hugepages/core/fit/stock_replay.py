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

"""A replay of the claim on a compute with the stock driver.

Such a compute fits a guest again with stock Nova's fit, whatever the
scheduler chose. Where that fit is right it agrees with ours; where it is
wrong (a page size that sticks, cells taken for another one of their number,
an emulator's CPU on a core half in use) the claim would refuse the guest, or
accept it with a plan that doesn't work. So on these hosts our fit is not
enough: the search of stock Nova is replayed, step by step, on plain values.

The replay follows ``nova.virt.hardware.numa_fit_instance_to_host`` of Nova 34
and is exact in what it accepts. It stops after a number of arrangements,
since the search it follows can take hours; what was not found until then is
not accepted.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import enum
import itertools

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core import units
from nova_numa_hugepages.core.fit import cell_order
from nova_numa_hugepages.core.fit import pinning
from nova_numa_hugepages.core.fit.emulator import emulator_cpus


class ClaimVerdict(enum.Enum):
    """The outcome of a claim, as far as it is known."""

    ACCEPTS = 'accepts'
    REFUSES = 'refuses'
    UNKNOWN = 'unknown'


def plain(request: model.Request) -> bool:
    """Check whether stock Nova's fit treats a request as ours does.

    Guest cells that all ask for the same, with a page size that is given or
    left out, and nothing that concerns host cells together. Then its caches
    hold the truth, and the first arrangement that fits is one that works. What
    ours accepts beyond it takes a policy that is left out here, too.
    """
    first = request.cells[0]
    return (
        not request.emulator_isolated
        and not request.physnets
        and not request.tunneled
        and not request.asks_devices
        and (first.page_size is None or first.page_size > 0)
        and first.cpu_policy is not model.CPUPolicy.MIXED
        and first.thread_policy is not model.ThreadPolicy.ISOLATE
        and all(
            cell.memory_mib == first.memory_mib
            and len(cell.shared_vcpus) == len(first.shared_vcpus)
            and len(cell.dedicated_vcpus) == len(first.dedicated_vcpus)
            for cell in request.cells
        )
    )


def usual(
    host: model.HostTopology,
    chosen: Iterable[model.HostCell] | None = None,
) -> bool:
    """Check whether a host reports all that stock Nova counts on.

    Without page sizes, or without the siblings of the CPUs that it pins to,
    it fails with an exception or counts in another way than ours.

    :param chosen: the host cells that ours takes; all if None
    """
    for cell in host.cells:
        if not cell.pools or (cell.dedicated_cpus and not cell.siblings):
            return False
    for cell in host.cells if chosen is None else chosen:
        cpus = len(cell.dedicated_cpus)
        if cell.shared_cpus != cell.dedicated_cpus:
            cpus += len(cell.shared_cpus)
        # Nova lists each of these CPUs in one set of siblings, and no others.
        if cell.dedicated_cpus and sum(map(len, cell.siblings)) != cpus:
            return False
    return True


@dataclasses.dataclass(frozen=True, slots=True)
class Replayed:
    """The outcome of a replay.

    :ivar verdict: ACCEPTS only if the claim finds a plan, and that plan works
    :ivar places: if so, of each guest cell the host cell, and the page size
        in KiB that it gets there
    """

    request: model.Request
    verdict: ClaimVerdict
    places: Sequence[tuple[model.HostCell, int | None]] = ()

    def plan(self) -> model.Plan | None:
        """Return the plan of the claim.

        The host cells and page sizes are those of the claim. Which of the
        free CPUs of a host cell it takes is not followed, only how many.

        :returns: None if it doesn't accept
        """
        if self.verdict is not ClaimVerdict.ACCEPTS:
            return None
        cells = []
        for index, (cell, size) in enumerate(self.places):
            guest = self.request.cells[index]
            pinned = pinning.pin(
                cell,
                guest,
                emulator=emulator_cpus(self.request, index),
                pack=False,
            )
            if pinned is None:
                return None
            pages = size and units.pages_for(guest.memory_mib, size)
            cells.append(model.CellPlan(cell.id, size, pages, *pinned))
        return model.Plan(tuple(cells))


def replay(
    request: model.Request,
    host: model.HostTopology,
    *,
    limits: model.Limits | None,
    pack: bool,
    devices: model.Devices | None,
    at_most: int,
) -> Replayed:
    """Replay the fit of a stock claim.

    :param at_most: how many arrangements of host cells to try
    """
    free = [len(cell.free_cpus) for cell in host.cells]
    ranked = cell_order.preferred(
        request, host.cells, free, pack=pack, devices=devices
    )
    claim = _Claim(request, limits)
    arrangements = itertools.permutations(
        [host.cells[index] for index in ranked], len(request.cells)
    )
    for chosen in itertools.islice(arrangements, at_most):
        try:
            if not claim.place(chosen):
                continue
        except _NovaFails:
            return Replayed(request, ClaimVerdict.REFUSES)
        if request.asks_devices and devices is not None:
            ids = frozenset(cell.id for cell in chosen)
            if not devices.supports(ids):
                continue
        if not _near_networks(request, host, chosen):
            continue
        if not claim.works(chosen):
            return Replayed(request, ClaimVerdict.REFUSES)
        return Replayed(
            request,
            ClaimVerdict.ACCEPTS,
            tuple(zip(chosen, claim.sizes, strict=True)),
        )
    if next(arrangements, None) is not None:
        return Replayed(request, ClaimVerdict.UNKNOWN)
    return Replayed(request, ClaimVerdict.REFUSES)


class _NovaFails(Exception):
    """Stock Nova's fit ends in an exception, and so does the claim."""


class _Claim:
    """The state that stock Nova keeps, most of it in the guest's cells."""

    def __init__(
        self,
        request: model.Request,
        limits: model.Limits | None,
    ) -> None:
        self.request = request
        self.limits = limits
        # Of each guest cell: its id, which becomes that of the host cell; the
        # page size, which sticks; the host cell that it is pinned to.
        self.ids = list(range(len(request.cells)))
        self.sizes = [cell.page_size for cell in request.cells]
        self.pinned: list[int | None] = [None] * len(request.cells)
        self.fits: set[tuple[int, int]] = set()
        self.misfits: set[tuple[int, int]] = set()

    def place(self, chosen: Sequence[model.HostCell]) -> bool:
        """Try one arrangement of host cells for the guest cells."""
        for index, cell in enumerate(chosen):
            pair = (cell.id, self.ids[index])
            if pair in self.misfits:
                return False
            if pair in self.fits:
                self.ids[index] = cell.id
                continue
            if not self._fits(index, cell):
                self.misfits.add(pair)
                return False
            self.ids[index] = cell.id
            self.fits.add(pair)
        return True

    def works(self, chosen: Sequence[model.HostCell]) -> bool:
        """Check whether the plan can be accounted, and is what it says."""
        for index, cell in enumerate(chosen):
            guest = self.request.cells[index]
            if not cell.pools and self.sizes[index] is None:
                return False
            if not guest.dedicated_vcpus:
                continue
            if self.pinned[index] != cell.id:
                return False
            if guest.thread_policy is model.ThreadPolicy.ISOLATE and (
                not self._isolation_works(index, cell)
            ):
                return False
        return True

    def _fits(self, index: int, cell: model.HostCell) -> bool:
        guest = self.request.cells[index]
        emulator = emulator_cpus(self.request, index)
        own = guest.cpu_policy is not model.CPUPolicy.SHARED
        floats = guest.cpu_policy is not model.CPUPolicy.DEDICATED
        needed = len(guest.dedicated_vcpus) + emulator
        if (
            not self._memory_fits(index, cell)
            or (own and needed > len(cell.free_cpus))
            or (floats and len(guest.shared_vcpus) > len(cell.shared_cpus))
        ):
            return False
        if own:
            if not _stock_pins(guest, cell, emulator):
                return False
            # These stick even if a ratio is exceeded.
            self.ids[index] = cell.id
            self.pinned[index] = cell.id
        if not floats or self.limits is None:
            return True
        return (
            cell.shared_used + len(guest.shared_vcpus)
            <= len(cell.shared_cpus) * self.limits.cpu_ratio
            and cell.memory_used_mib + guest.memory_mib
            <= cell.memory_mib * self.limits.ram_ratio
        )

    def _memory_fits(self, index: int, cell: model.HostCell) -> bool:
        guest = self.request.cells[index]
        wish = self.sizes[index]
        own = guest.cpu_policy is not model.CPUPolicy.SHARED
        if wish is None:
            if not cell.pools:
                room = cell.free_memory_mib if own else cell.memory_mib
                return guest.memory_mib <= room
            return _pages_fit(guest, cell.pools[0], free=own)
        pools = sorted(cell.pools, reverse=True)
        if wish == model.PageRequest.SMALL:
            pools = pools[-1:]
        elif wish == model.PageRequest.LARGE:
            pools = pools[:-1]
        elif wish != model.PageRequest.ANY:
            pools = [pool for pool in pools if pool.size_kib == wish]
        for pool in pools:
            if _pages_fit(guest, pool, free=True):
                self.sizes[index] = pool.size_kib
                return True
        return False

    def _isolation_works(self, index: int, cell: model.HostCell) -> bool:
        """Check whether the emulator's CPU is on a whole free core.

        Stock Nova takes the first free CPU of a core without a vCPU, and then
        accounts all threads of that core.
        """
        if not emulator_cpus(self.request, index):
            return True
        threads = pinning.threads_per_core(cell)
        free = cell.free_cpus
        cores = [siblings for siblings in cell.siblings if siblings & free]
        whole = [core for core in cores if len(core & free) == threads]
        count = len(self.request.cells[0].dedicated_vcpus)
        rest = [core for core in cores if core not in whole[:count]]
        return bool(rest) and rest[0] <= free


def _pages_fit(
    guest: model.GuestCell, pool: model.PagePool, *, free: bool
) -> bool:
    if pool.size_kib <= 0:
        return False
    pages = units.pages_for(guest.memory_mib, pool.size_kib)
    return pages is not None and pages <= (pool.free if free else pool.total)


def _stock_pins(
    guest: model.GuestCell, cell: model.HostCell, emulator: int
) -> bool:
    """Check whether stock Nova pins a guest cell, as it counts cores."""
    count = len(guest.dedicated_vcpus)
    if not cell.siblings:
        raise _NovaFails
    free = cell.free_cpus
    sizes = [len(siblings & free) for siblings in cell.siblings]
    room = sum(sizes)
    threads = pinning.threads_per_core(cell)
    if guest.thread_policy is model.ThreadPolicy.ISOLATE:
        if threads not in sizes:
            return False
        if threads != 1 and cell.dedicated_cpus != cell.shared_cpus:
            return False
        whole = sizes.count(threads)
        others = sum(size > 0 for size in sizes) - count
        return 0 < count <= whole and (not emulator or others > 0)
    if guest.thread_policy is model.ThreadPolicy.REQUIRE:
        found = max(sizes) > 1 and count <= pinning.sibling_room(cell)
    else:
        found = count <= room
    # Without a vCPU to pin, it takes the emulator's CPU for not found.
    return found and (not emulator or (count > 0 and count < room))


def _near_networks(
    request: model.Request,
    host: model.HostTopology,
    chosen: Sequence[model.HostCell],
) -> bool:
    for physnet in request.physnets:
        near = [cell for cell in host.cells if physnet in cell.physnets]
        if near and not any(cell in chosen for cell in near):
            return False
    if request.tunneled and any(cell.tunneled for cell in host.cells):
        return any(cell.tunneled for cell in chosen)
    return True
