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


"""The resources of a fleet that are in use at a moment, or stranded.

Resources are stranded when they are free, but in the wrong place. Which place
is wrong depends on who asks: for each flavor the slots are counted
(``core/capacity``), and those that there would be if all that is free were in
one place. What the slots that are missing would take is stranded for that
flavor. The figures are means over the flavors, weighted by their shares.

So CPUs for which there are no pages left are not stranded, nor are pages for
which there are no CPUs left: no placement would have helped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from typing import TypeAlias

from nova.scheduler import host_manager

from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.core import model
from nova_numa_hugepages.core import units
from nova_numa_hugepages.core.capacity import cell_room
from nova_numa_hugepages.core.capacity import counter
from nova_numa_hugepages.core.capacity import guest_kinds
from nova_numa_hugepages.nova_fit import translate
from nova_numa_hugepages.simulate import results

_State: TypeAlias = host_manager.HostState


class MixFlavor(NamedTuple):
    """A flavor of the mix.

    :ivar kind: None if it asks for no cells, pages or dedicated CPUs
    """

    kind: guest_kinds.GuestKind | None
    share: float


class _Free(NamedTuple):
    """Free resources; memory in MiB.

    :ivar cpus: dedicated CPUs
    :ivar shared: vCPUs that may float
    :ivar small: on small pages, for guests that have it to themselves
    :ivar huge: on huge pages, by page size in KiB
    """

    cpus: int
    shared: int
    small: int
    huge: dict[int, int]


class _Host(NamedTuple):
    """A host.

    :ivar cpus: dedicated CPUs, free or not
    :ivar huge: memory in huge pages, free or not, as in `_Free`
    :ivar slots: of each kind
    """

    cpus: int
    huge: dict[int, int]
    free: _Free
    slots: Sequence[int]


class _Take:
    """The resources that a guest takes, wherever its cells are.

    :ivar cpus: dedicated CPUs
    :ivar huge: memory in MiB on huge pages of a size that is asked for, by
        that size in KiB
    """

    def __init__(self, kind: guest_kinds.GuestKind) -> None:
        self.cpus = sum(need.cpus * number for need, number in kind.needs)
        self._shared = sum(need.shared * number for need, number in kind.needs)
        self._memory: dict[int, int] = {}
        for need, number in kind.needs:
            wish = need.page_size
            if wish is None or 0 < wish <= cell_room.LARGEST_BASE_KIB:
                wish = model.PageRequest.SMALL
            mib = need.memory * number // units.KIB_PER_MIB
            self._memory[wish] = self._memory.get(wish, 0) + mib
        self.huge = {
            size: mib for size, mib in self._memory.items() if size > 0
        }

    def most(self, free: _Free) -> int:
        """Return how many guests fit, if all that is free is in one place."""
        counts = []
        if self.cpus:
            counts.append(free.cpus // self.cpus)
        if self._shared:
            counts.append(free.shared // self._shared)
        for wish, mib in self._memory.items():
            if mib:
                counts.append(_wished(wish, free) // mib)
        return min(counts, default=0)


def _wished(wish: int, free: _Free) -> int:
    match wish:
        case model.PageRequest.SMALL:
            return free.small
        case model.PageRequest.LARGE:
            return sum(free.huge.values())
        case model.PageRequest.ANY:
            return free.small + sum(free.huge.values())
        case _:
            return free.huge.get(wish, 0)


class Gauge:
    """Measures a fleet.

    :param mix: the flavors that are asked for
    """

    def __init__(self, mix: Sequence[MixFlavor]) -> None:
        kinds = []
        self._shares = []
        for one in mix:
            if one.kind is not None:
                kinds.append(one.kind)
                self._shares.append(one.share)
        self._takes = [_Take(kind) for kind in kinds]
        self._counter = counter.Counter(
            kinds, model.Strategy(), by_placement=True
        )
        self._hosts: dict[str, tuple[object, _Host]] = {}

    def sample(
        self, hosts: Sequence[_State], arrivals: int, guests: int
    ) -> results.Sample:
        """Measure the fleet as it is now."""
        measured = [self._host(host) for host in hosts]
        free = _sum_free([host.free for host in measured])
        left = [
            sum(column)
            for column in zip(*(host.slots for host in measured), strict=True)
        ]
        missing = [
            max(0, take.most(free) - count)
            for take, count in zip(self._takes, left, strict=True)
        ]
        cpus = sum(host.cpus for host in measured)
        huge = _sum([host.huge for host in measured])
        memory = sum(huge.values())
        stranded = sum(
            self._stranded(
                missing, [take.huge.get(size, 0) for take in self._takes]
            )
            for size in huge
        )
        return results.Sample(
            arrivals,
            guests,
            _share(cpus - free.cpus, cpus),
            _share(memory - sum(free.huge.values()), memory),
            _share(
                self._stranded(missing, [take.cpus for take in self._takes]),
                cpus,
            ),
            _share(stranded, memory),
        )

    def _stranded(self, missing: Sequence[int], takes: Sequence[int]) -> float:
        """Return how much of a free resource is in the wrong place.

        :param missing: slots that there would be in one place, and are not
        :param takes: how much of it a guest of each kind takes; those that
            take nothing of it have no say
        """
        weight = total = 0.0
        for count, take, share in zip(
            missing, takes, self._shares, strict=True
        ):
            if take:
                weight += share
                total += share * count * take
        return total / weight if weight else 0.0

    def _host(self, host: _State) -> _Host:
        known = self._hosts.get(host.host)
        if known is not None and known[0] is host.numa_topology:
            return known[1]
        value = host.stats.get(host_stats.STATS_KEY)
        read = translate.host_topology(
            host.numa_topology,
            host_stats.parse(value) if value else None,
            networks=False,
        )
        offer = self._counter.measure(
            read,
            model.Limits(
                cpu_ratio=host.cpu_allocation_ratio,
                ram_ratio=host.ram_allocation_ratio,
            ),
        )
        pools = [pool for cell in read.cells for pool in cell.pools[1:]]
        found = _Host(
            sum(len(cell.dedicated_cpus) for cell in read.cells),
            _sum(
                [
                    {pool.size_kib: _mib(pool, pool.total - pool.reserved)}
                    for pool in pools
                ]
            ),
            _Free(
                sum(len(cell.free_cpus) for cell in read.cells),
                sum(max(0, cell.shared.vcpus) for cell in offer.cells),
                sum(
                    _mib(cell.pools[0], cell.pools[0].free)
                    for cell in read.cells
                    if cell.pools
                ),
                _sum(
                    [{pool.size_kib: _mib(pool, pool.free)} for pool in pools]
                ),
            ),
            self._counter.slots(offer),
        )
        self._hosts[host.host] = host.numa_topology, found
        return found


def _mib(pool: model.PagePool, pages: int) -> int:
    return int(pages) * pool.size_kib // units.KIB_PER_MIB


def _sum(counts: Sequence[dict[int, int]]) -> dict[int, int]:
    total: dict[int, int] = {}
    for one in counts:
        for size, count in one.items():
            total[size] = total.get(size, 0) + count
    return total


def _sum_free(parts: Sequence[_Free]) -> _Free:
    return _Free(
        sum(part.cpus for part in parts),
        sum(part.shared for part in parts),
        sum(part.small for part in parts),
        _sum([part.huge for part in parts]),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
