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

"""The fit: a guest's NUMA cells onto those of a host.

Exact: if a valid assignment exists, one is found. No permutations are walked:
which guest cell fits on which host cell is checked for each pair on its own
(``cell_fit.py``), a bipartite matching shows whether all find a place at the
same time (``matching.py``), and only what concerns the set of host cells
together is searched for, over sets (``search.py``).

Of all valid assignments the best is taken, by these keys in this order:

1. the page size, where the guest asks for ``large`` or ``any``: the largest,
   and one for all cells of the guest
2. the largest distance between two of the chosen host cells: the smallest, so
   that ``max_distance`` rejects no host that has a nearer placement; where
   distances are unknown all count as equal
3. the sum of these distances, each pair once: the smallest
4. the preference of the chosen host cells (``cell_order.py``), as a sorted
   list of ranks: the first in lexicographic order
5. the rank of each guest cell's host cell, in the guest's order: the first
   in lexicographic order

The answer depends on the arguments alone, and none of them is changed.
"""

from __future__ import annotations

import dataclasses

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core import units
from nova_numa_hugepages.core.fit import host_fit
from nova_numa_hugepages.core.fit import memory
from nova_numa_hugepages.core.fit import pinning
from nova_numa_hugepages.core.fit.emulator import emulator_cpus
from nova_numa_hugepages.core.rejection import Miss
from nova_numa_hugepages.core.rejection import Reason
from nova_numa_hugepages.core.rejection import Rejection


def fit(
    request: model.Request,
    host: model.HostTopology,
    *,
    limits: model.Limits | None = None,
    strategy: model.Strategy | None = None,
    devices: model.Devices | None = None,
) -> model.Plan | Rejection:
    """Fit a guest on a host.

    :param limits: the overcommit ratios; None for no check against them
    :param strategy: how to choose; the defaults of `model.Strategy` if None
    :param devices: the host's PCI devices, if it reports any
    :returns: the best plan, or why there is none
    :raises ValueError: if the host's distances are not symmetric
    """
    rows = host.distances
    if rows and [*map(tuple, rows)] != [*zip(*rows, strict=False)]:
        raise ValueError(f'distances have to be symmetric: {rows}')
    fitter = Fitter(request, strategy or model.Strategy())
    choice = fitter.choose(host, limits=limits, devices=devices)
    if isinstance(choice, Rejection):
        return choice
    return fitter.plan(choice)


class Fitter:
    """One request, to be fitted on any number of hosts."""

    def __init__(
        self, request: model.Request, strategy: model.Strategy
    ) -> None:
        self.request = request
        self.strategy = strategy
        # Guest cells that ask for the same are checked once for each host
        # cell. The emulator's CPU makes guest cell 0 another kind.
        numbers: dict[tuple[object, ...], int] = {}
        self.kinds: list[tuple[model.GuestCell, int]] = []
        self.kind_of: list[int] = []
        for index, guest in enumerate(request.cells):
            emulator = emulator_cpus(request, index)
            kind = (
                len(guest.shared_vcpus),
                len(guest.dedicated_vcpus),
                dataclasses.replace(
                    guest,
                    shared_vcpus=frozenset(),
                    dedicated_vcpus=frozenset(),
                ),
                emulator,
            )
            if kind not in numbers:
                numbers[kind] = len(numbers)
                self.kinds.append((guest, emulator))
            self.kind_of.append(numbers[kind])
        self._several_sizes = any(
            cell.page_size in model.SEVERAL_SIZES for cell in request.cells
        )

    def choose(
        self,
        host: model.HostTopology,
        *,
        limits: model.Limits | None = None,
        devices: model.Devices | None = None,
    ) -> host_fit.Choice | Rejection:
        """Choose the host cells, as `fit` does.

        :returns: the best choice, or why there is none
        """
        if len(host.cells) < len(self.request.cells):
            return Rejection(
                Reason.TOO_FEW_CELLS,
                needed=len(self.request.cells),
                best=len(host.cells),
            )
        on_host = host_fit.HostFit(
            self.request,
            self.kinds,
            self.kind_of,
            host,
            strategy=self.strategy,
            limits=limits,
            devices=devices,
        )
        if not self._several_sizes:
            return on_host.choose(None)
        sizes = {pool.size_kib for cell in host.cells for pool in cell.pools}
        rejection = None
        for size in sorted(sizes, reverse=True):
            choice = on_host.choose(size)
            if isinstance(choice, host_fit.Choice):
                return choice
            if rejection is None or choice.reason > rejection.reason:
                rejection = choice
        # A host may report no page size at all.
        return rejection or Rejection(Reason.PAGE_SIZE)

    def plan(self, choice: host_fit.Choice) -> model.Plan:
        """Complete a choice with page sizes and pinning."""
        cells = []
        for index, (guest, cell) in enumerate(
            zip(self.request.cells, choice.cells, strict=True)
        ):
            pool = memory.pool_for(guest, cell, choice.common_size_kib)
            assert not isinstance(pool, Miss), pool
            size = None
            if pool and guest.page_size is not None:
                size = pool.size_kib
            pinned = pinning.pin(
                cell,
                guest,
                emulator=emulator_cpus(self.request, index),
                pack=self.strategy.pack,
            )
            assert pinned is not None, (guest, cell)
            pages = size and units.pages_for(guest.memory_mib, size)
            cells.append(model.CellPlan(cell.id, size, pages, *pinned))
        return model.Plan(tuple(cells), choice.distance, choice.farthest)
