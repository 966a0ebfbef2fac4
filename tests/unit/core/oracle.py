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


"""The rules of the fit, tried one by one on every assignment.

This is a second reading of the rules that ``core/fit/`` implements. It is
slow and plain on purpose: all permutations of host cells, all page sizes,
each rule checked from the host's values with nothing remembered. The rules
have the numbers R1 to R10 in their names or docstrings.
"""

from __future__ import annotations

from collections.abc import Sequence
import itertools
from typing import NamedTuple

from nova_numa_hugepages.core.model import Devices
from nova_numa_hugepages.core.model import HostCell
from nova_numa_hugepages.core.model import HostTopology
from nova_numa_hugepages.core.model import Limits
from nova_numa_hugepages.core.model import Request
from nova_numa_hugepages.core.model import Strategy
from tests.unit.core.oracle_rules import chooses
from tests.unit.core.oracle_rules import cpus_fit
from tests.unit.core.oracle_rules import existing_kib
from tests.unit.core.oracle_rules import is_pinned
from tests.unit.core.oracle_rules import isolation_fits
from tests.unit.core.oracle_rules import limits_fit
from tests.unit.core.oracle_rules import pages_fit
from tests.unit.core.oracle_rules import size_taken
from tests.unit.core.oracle_rules import sizes_fit_together
from tests.unit.core.oracle_rules import small_pages_fit
from tests.unit.core.oracle_rules import threads_fit

SPREAD = Strategy()


class Best(NamedTuple):
    """The best of all valid assignments; no two of them are equally good.

    :ivar page_sizes: page size in KiB by guest cell, None without a wish
    :ivar host_cells: host cell id by guest cell
    :ivar key: what assignments are compared by, smaller is better: the
        largest distance and the sum of all, in both directions, the ranks of
        the chosen host cells in ascending order, the ranks by guest cell
    """

    page_sizes: tuple[int | None, ...]
    host_cells: tuple[int, ...]
    key: tuple[int, int, tuple[int, ...], tuple[int, ...]]


def oracle(
    request: Request,
    host: HostTopology,
    limits: Limits | None = None,
    strategy: Strategy = SPREAD,
    devices: Devices | None = None,
) -> Best | None:
    """Find the best assignment of guest cells to host cells.

    :returns: the best assignment, or None if no assignment is valid
    """
    ranks = rank(request, host, strategy, devices)
    for size_kib in common_sizes(request, host):
        found = []
        # R1: permutations are injective, and there are none when the guest
        # has more cells than the host.
        for chosen in itertools.permutations(
            range(len(host.cells)), len(request.cells)
        ):
            if not is_valid(
                request, host, chosen, size_kib, limits, strategy, devices
            ):
                continue
            by_guest = tuple(ranks[index] for index in chosen)
            key = (
                *distance(host, chosen),
                tuple(sorted(by_guest)),
                by_guest,
            )
            found.append((key, chosen))
        if found:
            key, chosen = min(found)
            return Best(
                tuple(
                    None
                    if guest.page_size is None
                    else size_taken(guest, host.cells[index], size_kib)
                    for guest, index in zip(request.cells, chosen, strict=True)
                ),
                tuple(host.cells[index].id for index in chosen),
                key,
            )
    return None


def common_sizes(request: Request, host: HostTopology) -> list[int]:
    """List the sizes to try for cells that ask LARGE or ANY (R3).

    :returns: sizes in KiB, largest first; one that is never looked at if no
        cell asks so
    """
    if not any(chooses(guest) for guest in request.cells):
        return [0]
    sizes = {pool.size_kib for cell in host.cells for pool in cell.pools}
    return sorted(sizes, reverse=True)


def is_valid(
    request: Request,
    host: HostTopology,
    chosen: Sequence[int],
    size_kib: int,
    limits: Limits | None,
    strategy: Strategy,
    devices: Devices | None,
) -> bool:
    """Check all rules on one assignment.

    :param chosen: index into the host's cells by guest cell
    :param size_kib: the page size of the cells that ask LARGE or ANY
    """
    for number, (guest, index) in enumerate(
        zip(request.cells, chosen, strict=True)
    ):
        cell = host.cells[index]
        existing = existing_kib(host, index)
        emulator = int(request.emulator_isolated and number == 0)
        if not (
            pages_fit(guest, cell, size_kib)
            and cpus_fit(guest, cell, emulator)
            and threads_fit(guest, cell, emulator)
            and isolation_fits(guest, cell, host)
            and limits_fit(guest, cell, limits)
            and small_pages_fit(
                guest, cell, size_kib, existing, limits, strategy
            )
            and sizes_fit_together(
                guest, host, index, size_kib, limits, strategy
            )
        ):
            return False
    cells = [host.cells[index] for index in chosen]
    if not network_fits(request, host, cells):
        return False
    if request.asks_devices and devices is not None:  # R10
        return devices.supports(frozenset(cell.id for cell in cells))
    return True


def network_fits(
    request: Request, host: HostTopology, chosen: Sequence[HostCell]
) -> bool:
    """R9: networks that are near some host cell are near a chosen one."""
    for physnet in request.physnets:
        if any(physnet in cell.physnets for cell in host.cells) and not any(
            physnet in cell.physnets for cell in chosen
        ):
            return False
    if request.tunneled and any(cell.tunneled for cell in host.cells):
        return any(cell.tunneled for cell in chosen)
    return True


def distance(host: HostTopology, chosen: Sequence[int]) -> tuple[int, int]:
    """Find the largest distance, and the sum of all, in both directions."""
    if host.distances is None:
        return (0, 0)
    pairs = [
        host.distances[one][other]
        for one, other in itertools.permutations(chosen, 2)
    ]
    return (max(pairs, default=0), sum(pairs))


def rank(
    request: Request,
    host: HostTopology,
    strategy: Strategy,
    devices: Devices | None,
) -> list[int]:
    """Number the host cells in the order in which Nova tries them.

    :returns: the rank of each host cell, 0 is tried first
    """
    if len(host.cells) == len(request.cells):
        return list(range(len(host.cells)))
    first = request.cells[0]
    order = list(range(len(host.cells)))

    def free_memory(index: int) -> int:
        return host.cells[index].memory_mib - host.cells[index].memory_used_mib

    def free_cpus(index: int) -> int:
        cell = host.cells[index]
        return len(cell.dedicated_cpus - cell.pinned_cpus)

    # Sorts are stable, so the last one counts most: as Nova does it.
    order.sort(key=free_memory, reverse=not strategy.pack)
    if is_pinned(first):
        order.sort(key=free_cpus, reverse=not strategy.pack)
    else:
        order.sort(
            key=lambda index: host.cells[index].shared_used,
            reverse=strategy.pack,
        )
    if devices is not None:
        order.sort(
            key=lambda index: devices.count(host.cells[index].id),
            reverse=request.asks_devices,
        )
    return [order.index(index) for index in range(len(host.cells))]
