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


"""What is used of a fleet at a moment, and what is stranded.

Resources are stranded when they are free and yet nobody can use them. That
depends on who asks: for each flavor the slots are counted (``core/slots.py``),
and what these slots would not take of the free CPUs and pages is stranded for
that flavor. The figures are means over the flavors, weighted by their shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from typing import TypeAlias

from nova.scheduler import host_manager

from nova_numa_hugepages import nova_objects
from nova_numa_hugepages.core import facts
from nova_numa_hugepages.core import model
from nova_numa_hugepages.core import scarcity
from nova_numa_hugepages.core import slots
from nova_numa_hugepages.core import units
from nova_numa_hugepages.simulate import results

_State: TypeAlias = host_manager.HostState


class Asked(NamedTuple):
    """A flavor of the mix.

    :ivar kind: None if it asks for no cells, pages or dedicated CPUs
    """

    kind: slots.GuestKind | None
    share: float


class _Host(NamedTuple):
    """A host. Memory in MiB, by page size in KiB.

    :ivar slots: of each kind
    """

    cpus: int
    free_cpus: int
    pages: dict[int, int]
    free_pages: dict[int, int]
    slots: Sequence[int]


class Gauge:
    """Measures a fleet.

    :param mix: the flavors that are asked for
    """

    def __init__(self, mix: Sequence[Asked]) -> None:
        counted = [one for one in mix if one.kind is not None]
        self._shares = [one.share for one in counted]
        self._cpus = []
        self._pages: list[dict[int, int]] = []
        kinds = []
        for one in counted:
            assert one.kind is not None
            kinds.append(one.kind)
            self._cpus.append(
                sum(need.cpus * number for need, number in one.kind.needs)
            )
            taken: dict[int, int] = {}
            for need, number in one.kind.needs:
                size = need.page_size or 0
                if size > 0:
                    taken[size] = taken.get(size, 0) + (
                        need.memory * number // units.KIB_PER_MIB
                    )
            self._pages.append(taken)
        self._counts = scarcity.Scarcity(kinds, model.Strategy())
        self._hosts: dict[str, tuple[object, _Host]] = {}

    def sample(
        self, hosts: Sequence[_State], arrivals: int, guests: int
    ) -> results.Sample:
        """Measure the fleet as it is now."""
        measured = [self._host(host) for host in hosts]
        left = [
            sum(column)
            for column in zip(*(host.slots for host in measured), strict=True)
        ]
        cpus = sum(host.cpus for host in measured)
        free = sum(host.free_cpus for host in measured)
        pages = _sum([host.pages for host in measured])
        free_pages = _sum([host.free_pages for host in measured])
        memory = sum(pages.values())
        stranded = {
            size: self._stranded(
                count, left, [taken.get(size, 0) for taken in self._pages]
            )
            for size, count in free_pages.items()
        }
        return results.Sample(
            arrivals,
            guests,
            _share(cpus - free, cpus),
            _share(memory - sum(free_pages.values()), memory),
            _share(self._stranded(free, left, self._cpus), cpus),
            _share(sum(stranded.values()), memory),
        )

    def _stranded(
        self, free: int, left: Sequence[int], takes: Sequence[int]
    ) -> float:
        """Tell how much of something free is out of reach of the mix.

        :param takes: how much of it a guest of each kind takes; those that
            take nothing of it have no say
        """
        weight = total = 0.0
        for count, take, share in zip(left, takes, self._shares, strict=True):
            if take:
                weight += share
                total += share * max(0, free - count * take)
        return total / weight if weight else 0.0

    def _host(self, host: _State) -> _Host:
        known = self._hosts.get(host.host)
        if known is not None and known[0] is host.numa_topology:
            return known[1]
        value = host.stats.get(facts.STATS_KEY)
        read = nova_objects.host_topology(
            host.numa_topology,
            facts.parse(value) if value else None,
            networks=False,
        )
        room = self._counts.measure(
            read,
            model.Limits(
                cpu_ratio=host.cpu_allocation_ratio,
                ram_ratio=host.ram_allocation_ratio,
            ),
        )
        pools = [pool for cell in read.cells for pool in cell.pools[1:]]
        found = _Host(
            sum(len(cell.dedicated_cpus) for cell in read.cells),
            sum(len(cell.free_cpus) for cell in read.cells),
            _sum(
                [
                    {pool.size_kib: _mib(pool, pool.total - pool.reserved)}
                    for pool in pools
                ]
            ),
            _sum([{pool.size_kib: _mib(pool, pool.free)} for pool in pools]),
            self._counts.slots(room),
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


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
