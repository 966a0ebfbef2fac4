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

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

from nova_numa_hugepages.core import cellfit
from nova_numa_hugepages.core import matching
from nova_numa_hugepages.core import memory
from nova_numa_hugepages.core import model
from nova_numa_hugepages.core import order
from nova_numa_hugepages.core import pinning
from nova_numa_hugepages.core import search
from nova_numa_hugepages.core import units
from nova_numa_hugepages.core.memory import Miss
from nova_numa_hugepages.core.reasons import Reason

Confirm = Callable[[frozenset[int]], bool]

_BY_NAME = (model.PageRequest.LARGE, model.PageRequest.ANY)
_NOTHING: Mapping[int, int] = {}


def fit(
    request: model.Request,
    host: model.HostTopology,
    *,
    limits: model.Limits | None = None,
    strategy: model.Strategy | None = None,
    devices: model.Devices | None = None,
    confirm: Confirm | None = None,
) -> model.Plan | model.Rejection:
    """Fit a guest on a host.

    :param limits: the overcommit ratios; None for no check against them
    :param strategy: how to choose; the defaults of `model.Strategy` if None
    :param devices: the host's PCI devices, if it reports any
    :param confirm: has the last word on a set of host cells, by their ids
    :returns: the best plan, or why there is none
    """
    fitter = Fitter(request, strategy or model.Strategy())
    choice = fitter.choose(
        host, limits=limits, devices=devices, confirm=confirm
    )
    if isinstance(choice, model.Rejection):
        return choice
    return fitter.plan(choice)


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """A plan without the pinning, which a scheduler doesn't need.

    :ivar cells: the host cell of each guest cell
    :ivar common_size_kib: what stands for ``large`` and ``any``
    :ivar distance: as `model.Plan.distance`
    :ivar farthest: as `model.Plan.farthest`
    """

    cells: tuple[model.HostCell, ...]
    common_size_kib: int | None
    distance: int
    farthest: int


class Fitter:
    """One request, to be fitted on any number of hosts."""

    def __init__(
        self, request: model.Request, strategy: model.Strategy
    ) -> None:
        self.request = request
        self.strategy = strategy
        # Guest cells that ask for the same are judged once for each host
        # cell. The emulator's CPU makes guest cell 0 another kind.
        kinds: dict[tuple[model.GuestCell, int], int] = {}
        self._kind_of: list[int] = []
        for index, guest in enumerate(request.cells):
            emulator = int(request.emulator_isolated and index == 0)
            kind = kinds.setdefault((guest, emulator), len(kinds))
            self._kind_of.append(kind)
        self._kinds = list(kinds)
        self._by_name = any(c.page_size in _BY_NAME for c in request.cells)

    def choose(
        self,
        host: model.HostTopology,
        *,
        limits: model.Limits | None = None,
        devices: model.Devices | None = None,
        confirm: Confirm | None = None,
    ) -> Choice | model.Rejection:
        """Choose the host cells, as `fit` does.

        :returns: the best choice, or why there is none
        """
        if len(host.cells) < len(self.request.cells):
            return model.Rejection(
                Reason.TOO_FEW_CELLS,
                needed=len(self.request.cells),
                best=len(host.cells),
            )
        ranked = order.preferred(
            self.request,
            host.cells,
            pack=self.strategy.pack,
            devices=devices,
        )
        attempt = _Attempt(self, host, ranked, limits, devices, confirm)
        if not self._by_name:
            return attempt.run(None)
        sizes = {pool.size_kib for cell in host.cells for pool in cell.pools}
        rejection = None
        for size in sorted(sizes, reverse=True):
            outcome = attempt.run(size)
            if isinstance(outcome, Choice):
                return outcome
            if rejection is None or outcome.reason > rejection.reason:
                rejection = outcome
        # Without any page size no attempt was made.
        return rejection or model.Rejection(Reason.PAGE_SIZE)

    def plan(self, choice: Choice) -> model.Plan:
        """Complete a choice with page sizes and pinning."""
        cells = []
        for index, (guest, cell) in enumerate(
            zip(self.request.cells, choice.cells, strict=True)
        ):
            size = memory.page_size_on(guest, cell, choice.common_size_kib)
            assert not isinstance(size, Miss), size
            pinned = pinning.pin(
                cell,
                guest,
                emulator=int(self.request.emulator_isolated and index == 0),
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


class _Attempt:
    """One request on one host."""

    def __init__(
        self,
        fitter: Fitter,
        host: model.HostTopology,
        ranked: list[int],
        limits: model.Limits | None,
        devices: model.Devices | None,
        confirm: Confirm | None,
    ) -> None:
        self.fitter = fitter
        self.request = fitter.request
        self.ranked = ranked
        self.cells = [host.cells[index] for index in ranked]
        self.allocatable = (
            [host.allocatable[index] for index in ranked]
            if host.allocatable
            else [_NOTHING] * len(ranked)
        )
        self.limits = limits
        self.devices = devices if self.request.asks_devices else None
        self.confirm = confirm
        self.distances = self._distances(host)

    def run(self, common_size_kib: int | None) -> Choice | model.Rejection:
        """Choose for one page size that stands for ``large`` and ``any``."""
        count = len(self.request.cells)
        misses: list[dict[int, Miss]] = []
        masks = []
        for guest, emulator in self.fitter._kinds:
            mask = 0
            missed = {}
            for position, cell in enumerate(self.cells):
                miss = cellfit.cell_miss(
                    guest,
                    cell,
                    common_size_kib=common_size_kib,
                    emulator=emulator,
                    limits=self.limits,
                    strategy=self.fitter.strategy,
                    allocatable=self.allocatable[position],
                )
                if miss is None:
                    mask |= 1 << position
                else:
                    missed[position] = miss
            masks.append(mask)
            misses.append(missed)
        kind_of = self.fitter._kind_of
        fits = [masks[kind] for kind in kind_of]
        alike = len(masks) == 1
        if not alike or masks[0].bit_count() < count:
            found = matching.match(fits)
            if -1 in found:
                return self._nearest_miss(fits, found, misses)
        problem = search.Problem(
            fits=fits,
            alike=alike,
            distances=self.distances,
            touch=[mask for _, mask in self._networks()],
        )
        best = search.best_set(problem)
        if best is None:
            names = ', '.join(name for name, _ in self._networks())
            return model.Rejection(Reason.NETWORK, detail=names)
        if not self._accepted(best):
            # The best set of all is not one with the devices.
            best = search.best_set(
                dataclasses.replace(
                    problem,
                    needs=self._device_needs(),
                    accepts=self._accepted,
                )
            )
            if best is None:
                return model.Rejection(Reason.DEVICES)
        if not alike:
            chosen = sum(1 << position for position in best)
            assigned = matching.first_assignment(fits, chosen)
        else:
            assigned = best
        return Choice(
            cells=tuple(self.cells[position] for position in assigned),
            common_size_kib=common_size_kib,
            distance=search.spread(best, self.distances),
            farthest=self._farthest(best),
        )

    def _distances(self, host: model.HostTopology) -> list[list[int]] | None:
        """Order the host's distances by preference.

        The two directions of a pair, which firmware reports separately,
        count by the larger one.

        :returns: None where they can't make a difference
        """
        known = host.distances
        if known is None or len(self.request.cells) == 1:
            return None
        return [
            [max(known[i][j], known[j][i]) for j in self.ranked]
            for i in self.ranked
        ]

    def _farthest(self, chosen: list[int]) -> int:
        if self.distances is None:
            return 0
        return max(
            self.distances[one][other]
            for one in chosen
            for other in chosen
            if one != other
        )

    def _networks(self) -> list[tuple[str, int]]:
        """Tell near which host cells the guest's networks are.

        Networks that are near none of the host's cells may be used from
        everywhere.

        :returns: (name, mask of positions), the masks not 0
        """
        networks = []
        for physnet in sorted(self.request.physnets):
            mask = self._mask(physnet in c.physnets for c in self.cells)
            if mask:
                networks.append((f'physical network {physnet}', mask))
        if self.request.tunneled:
            mask = self._mask(cell.tunneled for cell in self.cells)
            if mask:
                networks.append(('the tunnel endpoint', mask))
        return networks

    @staticmethod
    def _mask(flags: Iterable[bool]) -> int:
        return sum(1 << index for index, flag in enumerate(flags) if flag)

    def _device_needs(self) -> list[tuple[list[int], int]]:
        if self.devices is None:
            return []
        return [
            ([counts.get(cell.id, 0) for cell in self.cells], least)
            for counts, least in self.devices.needs()
        ]

    def _accepted(self, chosen: Sequence[int]) -> bool:
        """Ask for the verdicts on a set that cost more than ours."""
        if self.devices is None and self.confirm is None:
            return True
        ids = frozenset(self.cells[position].id for position in chosen)
        if self.devices is not None and not self.devices.supports(ids):
            return False
        return self.confirm is None or self.confirm(ids)

    def _nearest_miss(
        self,
        fits: list[int],
        found: list[int],
        misses: list[dict[int, Miss]],
    ) -> model.Rejection:
        """Tell which guest cell lacks a host cell, and by how little.

        The guest cells that compete for too few host cells would be placed
        if one of them fitted on another host cell. Of all such pairs the
        nearest miss is the one that fails the latest rule by the least.
        """
        competing = matching.reachable(fits, found)
        nearest: tuple[tuple[int, int], int, Miss] | None = None
        for guest in competing:
            for miss in misses[self.fitter._kind_of[guest]].values():
                key = (int(miss.reason), miss.best - miss.needed)
                if nearest is None or key > nearest[0]:
                    nearest = (key, guest, miss)
        if nearest is None:
            # They fit on every host cell, of which there are too few.
            return model.Rejection(
                Reason.PLACES, needed=len(competing), best=len(self.cells)
            )
        _, guest, miss = nearest
        return model.Rejection(
            miss.reason,
            needed=miss.needed,
            best=miss.best,
            guest_cell=guest,
            page_size_kib=miss.page_size_kib,
        )
