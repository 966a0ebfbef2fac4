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

"""The fit: where a guest's NUMA cells go on a host, or why they don't.

Exact: if a valid assignment exists, one is found. No permutations are walked:
which guest cell fits on which host cell is judged for each pair on its own
(``cellfit.py``), a bipartite matching tells whether all find a place at the
same time (``matching.py``), and only what concerns the set of host cells
together is searched for, over sets (``search.py``).

Of all valid assignments the best is taken, by these keys in this order:

1. the page size, where the guest asks for ``large`` or ``any``: the largest,
   and one for all cells of the guest
2. the sum of the distances between the chosen host cells, each pair once:
   the smallest; where distances are unknown all count as equal
3. the preference of the chosen host cells (``order.py``), as a sorted list
   of ranks: the first in lexicographic order
4. the rank of each guest cell's host cell, in the guest's order: the first
   in lexicographic order

The answer depends on the arguments alone, and none of them is changed.
"""

from __future__ import annotations

import dataclasses

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core import units
from nova_numa_hugepages.core.fit import cell_order
from nova_numa_hugepages.core.fit import host_fit
from nova_numa_hugepages.core.fit import memory
from nova_numa_hugepages.core.fit import pinning
from nova_numa_hugepages.core.rejection import Miss
from nova_numa_hugepages.core.rejection import Reason
from nova_numa_hugepages.core.rejection import Rejection

_BY_NAME = (model.PageRequest.LARGE, model.PageRequest.ANY)


def fit(
    request: model.Request,
    host: model.HostTopology,
    *,
    limits: model.Limits | None = None,
    strategy: model.Strategy | None = None,
    devices: model.Devices | None = None,
    confirm: host_fit.Confirm | None = None,
) -> model.Plan | Rejection:
    """Fit a guest on a host.

    :param limits: the overcommit ratios; None for no check against them
    :param strategy: how to choose; the defaults of `model.Strategy` if None
    :param devices: the host's PCI devices, if it reports any
    :param confirm: has the last word on a set of host cells, by their ids
    :returns: the best plan, or why there is none
    :raises ValueError: if the host's distances are not symmetric
    """
    known = host.distances
    if known and [*map(tuple, known)] != [*zip(*known, strict=False)]:
        raise ValueError(f'distances have to be symmetric: {known}')
    fitter = Fitter(request, strategy or model.Strategy())
    choice = fitter.choose(
        host, limits=limits, devices=devices, confirm=confirm
    )
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
        # Guest cells that ask for the same are judged once for each host
        # cell. The emulator's CPU makes guest cell 0 another kind.
        numbers: dict[tuple[object, ...], int] = {}
        self.kinds: list[tuple[model.GuestCell, int]] = []
        self.kind_of: list[int] = []
        for index, guest in enumerate(request.cells):
            emulator = self.emulator(index)
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
        self._by_name = any(c.page_size in _BY_NAME for c in request.cells)

    def choose(
        self,
        host: model.HostTopology,
        *,
        limits: model.Limits | None = None,
        devices: model.Devices | None = None,
        confirm: host_fit.Confirm | None = None,
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
        free = [len(cell.free_cpus) for cell in host.cells]
        ranked = cell_order.preferred(
            self.request,
            host.cells,
            free,
            pack=self.strategy.pack,
            devices=devices,
        )
        here = host_fit.HostFit(
            self.request,
            self.kinds,
            self.kind_of,
            host,
            ranked,
            free,
            strategy=self.strategy,
            limits=limits,
            devices=devices,
            confirm=confirm,
        )
        if not self._by_name:
            return here.run(None)
        sizes = {pool.size_kib for cell in host.cells for pool in cell.pools}
        rejection = None
        for size in sorted(sizes, reverse=True):
            outcome = here.run(size)
            if isinstance(outcome, host_fit.Choice):
                return outcome
            if rejection is None or outcome.reason > rejection.reason:
                rejection = outcome
        # Without any page size no attempt was made.
        return rejection or Rejection(Reason.PAGE_SIZE)

    def emulator(self, index: int) -> int:
        """Count the dedicated CPUs more for the emulator's threads.

        They are in the host cell of guest cell 0. Guests that have no
        dedicated CPUs don't get any for their emulator either.
        """
        shared = self.request.cells[index].cpu_policy is (
            model.CPUPolicy.SHARED
        )
        return int(
            self.request.emulator_isolated and index == 0 and not shared
        )

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
                emulator=self.emulator(index),
                pack=self.strategy.pack,
            )
            assert pinned is not None, (guest, cell)
            cells.append(
                model.CellPlan(
                    host_cell=cell.id,
                    page_size_kib=size,
                    pages=size and units.pages_for(guest.memory_mib, size),
                    pinning=pinned[0],
                    emulator_cpus=pinned[1],
                )
            )
        return model.Plan(
            cells=tuple(cells),
            distance=choice.distance,
            farthest=choice.farthest,
        )
