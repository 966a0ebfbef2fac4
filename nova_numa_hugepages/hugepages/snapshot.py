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

"""Snapshots of a host: its nodes, its pools, and who holds their pages."""

from __future__ import annotations

import collections
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import cgroups
from nova_numa_hugepages.hugepages.kernel import fragmentation
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import nodes
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.kernel.nodes import Node
from nova_numa_hugepages.hugepages.kernel.nodes import NodeMemory
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.hugepages.usage import PoolUsage
from nova_numa_hugepages.hugepages.usage import UsageReader


@dataclasses.dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """One pool.

    :ivar usage: what is promised of it, and what is in use
    :ivar allocatable: pages that could be allocated now
    :ivar unusable_permille: share of the node's free memory that is in blocks
        too small for a page of this size
    :ivar fragmented: pages that could be allocated now as well, if free memory
        were in one piece
    :ivar of_blocks: whether pages of this size are made of free blocks, not of
        memory that was set aside for them
    :ivar holds: who holds pages of it
    :ivar ready: idle pages that are kept ready
    """

    usage: PoolUsage
    allocatable: int
    unusable_permille: int
    fragmented: int
    of_blocks: bool
    holds: tuple[model.Hold, ...]
    ready: int = 0

    @property
    def account(self) -> model.Account:
        """How many of its pages are ours."""
        return self.usage.account

    @property
    def offered(self) -> int:
        """Pages that guests can have altogether, those in use included.

        Nova takes off what its instances have and what the operator reserved.
        What is left is what a hold can get: not among it is what others use or
        have a right to beyond what is reserved. What may be lent comes on top.
        """
        usage = self.usage
        there = usage.pool.total + self.allocatable - usage.missing
        others = usage.occupied + usage.held_back - usage.reserved
        return max(0, there - max(0, others))

    def held_beside(self, holders: Collection[str] | None) -> int:
        """Count the pages that are held for others than these holders.

        :param holders: all of them if None
        """
        if holders is None:
            return 0
        return sum(
            hold.at_most for hold in self.holds if hold.holder not in holders
        )


@dataclasses.dataclass(frozen=True, slots=True)
class HostSnapshot:
    """The nodes and pools of a host.

    :ivar memory: the memory of each node
    :ivar guests: the guests that run, by uuid
    :ivar can_grow: whether the pools can grow
    :ivar waits: the elastic cells that need pages which aren't there
    """

    nodes: Mapping[int, Node]
    memory: Mapping[int, NodeMemory]
    pools: Mapping[model.PoolKey, PoolSnapshot]
    guests: Mapping[str, processes.GuestProcess]
    can_grow: bool
    waits: tuple[model.Wait, ...] = ()

    def others(
        self,
        fs: hostfs.HostFS,
        in_place: Iterable[Mapping[model.PoolKey, int] | None],
    ) -> dict[model.PoolKey, dict[str, int]]:
        """Find out who uses the pages that no guest has.

        :param in_place: the pages of each guest, None where they are not known
        :returns: as `cgroups.occupants`
        """
        ours: dict[model.PoolKey, int] = collections.Counter()
        for counts in in_place:
            for key, count in (counts or {}).items():
                ours[key] += count
        return cgroups.occupants(
            fs,
            {key: pool.usage.pool for key, pool in self.pools.items()},
            ours,
            {process.pid for process in self.guests.values()},
        )

    def pooled_kib(self, node: int) -> int:
        """Return how much memory of a node is in pools."""
        return model.pooled_kib(
            (pool.usage.pool for pool in self.pools.values()), node
        )


def take(
    fs: hostfs.HostFS,
    policy: PoolPolicy,
    usage: UsageReader,
    holds: Collection[model.Hold],
    *,
    can_grow: bool,
    ready: Mapping[model.PoolKey, int],
    waits: Iterable[model.Wait],
) -> HostSnapshot:
    """Take a snapshot of a host. Changes nothing and needs no lock.

    :param holds: all holds
    :param can_grow: whether the pools can grow
    :param ready: how many idle pages are kept ready, by pool
    :param waits: the elastic cells that need pages which aren't there
    :raises exception.KernelError: if the kernel's files can't be read
    :raises exception.LedgerError: if the ledger can't be read
    """
    used = usage.read(holds)
    memory = nodes.memory(fs)
    blocks = fragmentation.free_blocks(fs)
    zones = fragmentation.zones(fs)
    pools = {}
    for key, found in used.items():
        room = lost = 0
        free = blocks[key.node]
        of_blocks = fragmentation.has_blocks(free, key.size_kib)
        if can_grow:
            pooled_kib = model.pooled_kib(
                (other.pool for other in used.values()), key.node
            )
            room = fragmentation.allocatable_pages(fs, key, zones)
            whole = room
            if of_blocks:
                whole = fragmentation.whole_pages(
                    (zone for zone in zones if zone.node == key.node),
                    key.size_kib,
                )
                cached = policy.cache_kib(memory[key.node]) // key.size_kib
                room += cached
                whole += cached
            limit_kib = policy.room_kib(memory[key.node], pooled_kib)
            limit = max(0, limit_kib // key.size_kib)
            room = min(room, limit)
            lost = min(whole, limit) - room
        pools[key] = PoolSnapshot(
            found,
            room,
            fragmentation.unusable_permille(free, key.size_kib),
            lost,
            of_blocks,
            tuple(hold for hold in holds if hold.key == key),
            ready.get(key, 0),
        )
    guests = processes.running(fs)
    return HostSnapshot(
        nodes.read_nodes(fs),
        memory,
        pools,
        guests,
        can_grow,
        tuple(wait for wait in waits if wait.holder in guests),
    )
