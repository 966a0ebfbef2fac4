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

"""The fit of one request on one host: the choice of its host cells."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import operator

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.fit import cell_fit
from nova_numa_hugepages.core.fit import cell_order
from nova_numa_hugepages.core.fit import matching
from nova_numa_hugepages.core.fit import pinning
from nova_numa_hugepages.core.fit import search
from nova_numa_hugepages.core.rejection import Miss
from nova_numa_hugepages.core.rejection import Reason
from nova_numa_hugepages.core.rejection import Rejection

_Matrix = Sequence[Sequence[int]]


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


class HostFit:
    """One request on one host, whose cells are in the order of preference.

    :param kinds: the different guest cells, each with the dedicated CPUs
        that it needs for the emulator
    :param kind_of: for each guest cell the index of its kind
    :ivar ranked: indices of the host's cells, the preferred first
    :ivar free: the free dedicated CPUs of each of the host's cells
    :ivar cells: the host's cells, the preferred first; a position is an index
        into these
    """

    def __init__(
        self,
        request: model.Request,
        kinds: Sequence[tuple[model.GuestCell, int]],
        kind_of: Sequence[int],
        host: model.HostTopology,
        *,
        strategy: model.Strategy,
        limits: model.Limits | None,
        devices: model.Devices | None,
    ) -> None:
        self.request = request
        self.kinds = kinds
        self.kind_of = kind_of
        self.strategy = strategy
        self.free = [len(cell.free_cpus) for cell in host.cells]
        self.ranked = cell_order.preferred(
            request,
            host.cells,
            self.free,
            pack=strategy.pack,
            devices=devices,
        )
        self.cells = [host.cells[index] for index in self.ranked]
        self.host = host
        self.limits = limits
        self.devices = devices if request.asks_devices else None
        self.distances = self._distances()

    def choose(self, common_size_kib: int | None) -> Choice | Rejection:
        """Choose for one page size that stands for ``large`` and ``any``."""
        masks: list[int] = []
        misses: list[dict[int, Miss]] = []
        for guest, emulator in self.kinds:
            mask, of_kind = self._check(guest, emulator, common_size_kib)
            masks.append(mask)
            misses.append(of_kind)
        fits = [masks[kind] for kind in self.kind_of]
        alike = len(masks) == 1
        if not alike or masks[0].bit_count() < len(fits):
            matched = matching.match(fits)
            if -1 in matched:
                return self._nearest_miss(fits, matched, misses)
        best = self._search(fits, alike)
        if isinstance(best, Rejection):
            return best
        assigned = best
        if not alike:
            chosen = sum(1 << position for position in best)
            assigned = matching.first_assignment(fits, chosen)
        return Choice(
            cells=tuple([self.cells[position] for position in assigned]),
            common_size_kib=common_size_kib,
            distance=search.spread(best, self.distances),
            farthest=search.farthest(best, self.distances),
        )

    def _check(
        self,
        guest: model.GuestCell,
        emulator: int,
        common_size_kib: int | None,
    ) -> tuple[int, dict[int, Miss]]:
        """Check one kind of guest cell on the host cells.

        Where nothing but the order decides among host cells that fit, the
        first ones are enough.

        :returns: the mask of host cells that it fits on, and the misses
        """
        enough = len(self.cells)
        if len(self.kinds) == 1 and self._only_order_matters():
            enough = len(self.kind_of)
        own_cores = self._asks_for_own_cores(guest)
        mask = 0
        misses = {}
        for position, cell in enumerate(self.cells):
            if own_cores and pinning.shares_cores(cell):
                misses[position] = Miss(Reason.HYPERTHREADS)
                continue
            miss = cell_fit.cell_miss(
                guest,
                cell,
                common_size_kib=common_size_kib,
                free=self.free[self.ranked[position]],
                emulator=emulator,
                limits=self.limits,
                strategy=self.strategy,
                allocatable=self.host.allocatable_of(self.ranked[position]),
            )
            if miss is not None:
                misses[position] = miss
                continue
            mask |= 1 << position
            enough -= 1
            if not enough:
                break
        return mask, misses

    def _asks_for_own_cores(self, guest: model.GuestCell) -> bool:
        """Check whether thread siblings would be accounted wrongly.

        Nova asks Placement for a host without thread siblings when dedicated
        CPUs are isolated. If there is none it asks again, for shared CPUs,
        in the hope of a host where both are the same. A host that keeps them
        apart has to be rejected then: Placement has counted CPUs that the
        guest is not pinned to (Nova's bug 1889633).
        """
        return (
            guest.thread_policy is model.ThreadPolicy.ISOLATE
            and guest.cpu_policy is model.CPUPolicy.DEDICATED
            and any(cell.shared_cpus for cell in self.cells)
        )

    def _only_order_matters(self) -> bool:
        return (
            self.distances is None
            and self.devices is None
            and not self.request.physnets
            and not self.request.tunneled
        )

    def _search(self, fits: list[int], alike: bool) -> list[int] | Rejection:
        """Search for the best set of host cells, as positions."""
        networks = self._networks()
        problem = search.Problem(
            fits=fits,
            alike=alike,
            distances=self.distances,
            touch=[mask for _, mask in networks],
        )
        best = search.best_set(problem)
        if best is None:
            names = ', '.join(name for name, _ in networks)
            return Rejection(Reason.NETWORK, detail=names)
        if self._accepted(best):
            return best
        # The best set of all is not one with the devices.
        best = search.best_set(
            dataclasses.replace(
                problem,
                needs=self._device_needs(),
                accepts=self._accepted,
            )
        )
        return Rejection(Reason.DEVICES) if best is None else best

    def _distances(self) -> _Matrix | None:
        """Order the host's distances by preference.

        :returns: None where they can't make a difference
        """
        known = self.host.distances
        if known is None or len(self.request.cells) == 1:
            return None
        in_order = operator.itemgetter(*self.ranked)
        return [in_order(row) for row in in_order(known)]

    def _networks(self) -> list[tuple[str, int]]:
        """Find the host cells that the guest's networks are near.

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
        """Check a set for the devices, which costs more than the rest."""
        return self.devices is None or self.devices.supports(
            frozenset(self.cells[position].id for position in chosen)
        )

    def _nearest_miss(
        self,
        fits: list[int],
        matched: list[int],
        misses: list[dict[int, Miss]],
    ) -> Rejection:
        """Find the guest cell that misses a host cell by the least.

        The guest cells that compete for too few host cells would be placed
        if one of them fitted on another host cell. Of all such pairs the
        nearest miss is the one that fails the latest rule by the least.
        """
        competing = matching.reachable(fits, matched)
        nearest: tuple[tuple[int, int], int, Miss] | None = None
        for guest in competing:
            for miss in misses[self.kind_of[guest]].values():
                key = (int(miss.reason), miss.best - miss.needed)
                if nearest is None or key > nearest[0]:
                    nearest = (key, guest, miss)
        # There are enough host cells, so one of them is missed.
        assert nearest is not None
        _, guest, miss = nearest
        return Rejection(
            miss.reason,
            needed=miss.needed,
            best=miss.best,
            guest_cell=guest,
            page_size_kib=miss.page_size_kib,
        )
