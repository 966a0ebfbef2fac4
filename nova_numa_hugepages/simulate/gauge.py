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

import collections
from collections.abc import Sequence
import operator
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


# The kind of a flavor, None if it asks for no cells, pages or dedicated CPUs;
# and its share.
MixFlavor = tuple[guest_kinds.GuestKind | None, float]

# Amounts of resources: dedicated CPUs, vCPUs that float, and MiB by page size
# in KiB, or by `model.PageRequest` where a guest leaves the size open.
_CPUS = 'cpus'
_SHARED = 'shared'
_Amounts: TypeAlias = collections.Counter[str | int]


class _Host(NamedTuple):
    """A host.

    :ivar all: dedicated CPUs and huge pages, free or not
    :ivar free: what is free; small pages for guests that have them to
        themselves
    :ivar slots: of each kind
    """

    all: _Amounts
    free: _Amounts
    slots: Sequence[int]


def _take(kind: guest_kinds.GuestKind) -> _Amounts:
    """Return what a guest takes, wherever its cells are."""
    take: _Amounts = collections.Counter()
    for need, number in kind.needs:
        wish = need.page_size
        if wish is None or 0 < wish <= cell_room.LARGEST_BASE_KIB:
            wish = model.PageRequest.SMALL
        take[_CPUS] += need.cpus * number
        take[_SHARED] += need.shared * number
        take[wish] += need.memory * number // units.KIB_PER_MIB
    # Without what it takes nothing of.
    return +take


def _most(take: _Amounts, free: _Amounts) -> int:
    """Return how many guests fit, if all that is free is in one place."""
    return min(
        (free[name] // amount for name, amount in take.items()), default=0
    )


class Gauge:
    """Measures a fleet.

    :param mix: the flavors that are asked for
    """

    def __init__(self, mix: Sequence[MixFlavor]) -> None:
        kinds = [kind for kind, _ in mix if kind is not None]
        self._shares = [share for kind, share in mix if kind is not None]
        self._takes = [_take(kind) for kind in kinds]
        self._counter = counter.Counter(
            kinds, model.Strategy(), by_placement=True
        )
        # By host, and what they have in all.
        self._hosts: dict[str, tuple[object, _Host]] = {}
        self._all: _Amounts = collections.Counter()
        self._free: _Amounts = collections.Counter()
        self._slots = [0] * len(self._takes)

    def sample(
        self, hosts: Sequence[_State], arrivals: int, guests: int
    ) -> results.Sample:
        """Measure the fleet as it is now."""
        for host in hosts:
            self._update(host)
        whole = self._all.copy()
        free = self._free.copy()
        cpus = whole.pop(_CPUS)
        pages = whole.total()
        free_pages = sum(free[size] for size in whole)
        free[model.PageRequest.LARGE] = free_pages
        free[model.PageRequest.ANY] = (
            free_pages + free[model.PageRequest.SMALL]
        )
        missing = [
            max(0, _most(take, free) - count)
            for take, count in zip(self._takes, self._slots, strict=True)
        ]
        stranded = sum(self._stranded(missing, size) for size in whole)
        return results.Sample(
            arrivals,
            guests,
            _share(cpus - free[_CPUS], cpus),
            _share(pages - free_pages, pages),
            _share(self._stranded(missing, _CPUS), cpus),
            _share(stranded, pages),
        )

    def _stranded(self, missing: Sequence[int], name: str | int) -> float:
        """Return how much of a free resource is in the wrong place.

        Flavors that take nothing of it have no say.

        :param missing: slots that there would be in one place, and are not
        """
        weight = total = 0.0
        for count, take, share in zip(
            missing, self._takes, self._shares, strict=True
        ):
            if name in take:
                weight += share
                total += share * count * take[name]
        return total / weight if weight else 0.0

    def _update(self, host: _State) -> None:
        """Measure a host again if it has changed."""
        topology, before = self._hosts.get(host.host, (None, None))
        if topology is host.numa_topology:
            return
        if before is not None:
            self._all.subtract(before.all)
            self._free.subtract(before.free)
            self._slots = list(map(operator.sub, self._slots, before.slots))
        found = self._measure(host)
        self._all.update(found.all)
        self._free.update(found.free)
        self._slots = list(map(operator.add, self._slots, found.slots))
        self._hosts[host.host] = host.numa_topology, found

    def _measure(self, host: _State) -> _Host:
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
        whole: _Amounts = collections.Counter()
        free: _Amounts = collections.Counter()
        for cell in read.cells:
            whole[_CPUS] += len(cell.dedicated_cpus)
            free[_CPUS] += len(cell.free_cpus)
            small, *huge = cell.pools
            free[model.PageRequest.SMALL] += _mib(small, small.free)
            for pool in huge:
                whole[pool.size_kib] += _mib(pool, pool.total - pool.reserved)
                free[pool.size_kib] += _mib(pool, pool.free)
        free[_SHARED] = sum(max(0, cell.shared.vcpus) for cell in offer.cells)
        return _Host(whole, free, self._counter.slots(offer))


def _mib(pool: model.PagePool, pages: int) -> int:
    return int(pages) * pool.size_kib // units.KIB_PER_MIB


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
