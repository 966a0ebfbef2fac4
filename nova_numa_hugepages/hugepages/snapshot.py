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

"""All that is known of a host's nodes and pools, at one time.

For the scheduler, by way of the driver, and for people.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
import dataclasses

from nova_numa_hugepages.hugepages import accounts
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import usage
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import nodes as nodes_module
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.policy import ceiling_room_kib
from nova_numa_hugepages.hugepages.policy import PoolPolicy


@dataclasses.dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """One pool.

    :ivar standing: what is promised of it, and to use
    :ivar account: how many of its pages are ours
    :ivar allocatable: pages that could be made now for certain
    :ivar unusable_permille: share of the node's free memory that is in blocks
        too small for such a page
    :ivar holds: who holds pages of it
    """

    standing: usage.PoolUsage
    account: model.Account
    allocatable: int
    unusable_permille: int
    holds: tuple[model.Hold, ...]

    @property
    def offered(self) -> int:
        """Pages that guests can have altogether, those in use included.

        What others use beyond what the operator reserved for them is not
        among them.
        """
        there = self.standing.pool.total + self.allocatable
        excess = max(0, self.standing.occupied - self.standing.reserved)
        return max(0, there - excess)


@dataclasses.dataclass(frozen=True, slots=True)
class HostSnapshot:
    """The nodes and pools of a host.

    :ivar memory: the memory of each node
    :ivar guests: the guests that run, by uuid
    """

    nodes: Mapping[int, nodes_module.Node]
    memory: Mapping[int, nodes_module.NodeMemory]
    pools: Mapping[model.PoolKey, PoolSnapshot]
    guests: Mapping[str, processes.GuestProcess]

    def pooled_kib(self, node: int) -> int:
        """Tell how much memory of a node is in pools."""
        return sum(
            view.standing.pool.total * key.size_kib
            for key, view in self.pools.items()
            if key.node == node
        )


def survey(
    fs: hostfs.HostFS,
    kernel: hugetlb.Hugetlb,
    policy: PoolPolicy,
    books: accounts.AccountsCheck,
    holds: Collection[model.Hold],
    standings: Mapping[model.PoolKey, usage.PoolUsage],
) -> HostSnapshot:
    """Look at a host. Changes nothing and needs no lock.

    :param books: the pools with their accounts
    :param holds: all holds
    :param standings: how the pools stand with these holds
    :raises exception.KernelError: if the kernel's files can't be read
    """
    memory = nodes_module.memory(fs)
    blocks = nodes_module.free_blocks(fs)
    zones = nodes_module.zones(fs)
    pooled: dict[int, int] = {}
    for key, standing in standings.items():
        pooled[key.node] = (
            pooled.get(key.node, 0) + standing.pool.total * key.size_kib
        )
    views = {}
    for key, standing in standings.items():
        room = 0
        if policy.dynamic:
            room = min(
                nodes_module.allocatable_pages(fs, key, zones),
                _allowed(key, memory[key.node], pooled[key.node], policy),
            )
        views[key] = PoolSnapshot(
            standing,
            books.accounts.get(
                key,
                model.Account(*key, floor=standing.pool.persistent),
            ),
            max(0, room),
            nodes_module.unusable_permille(blocks[key.node], key.size_kib),
            tuple(hold for hold in holds if hold.key == key),
        )
    return HostSnapshot(
        nodes_module.read_nodes(fs), memory, views, processes.running(fs)
    )


def _allowed(
    key: model.PoolKey,
    memory: nodes_module.NodeMemory,
    pooled_kib: int,
    policy: PoolPolicy,
) -> int:
    """Tell how many pages the operator's limits allow to promise.

    Unlike for growth, only memory that is free counts: memory of the page
    cache may come back in blocks that are too small.
    """
    room_kib = ceiling_room_kib(memory.total_kib, pooled_kib, policy)
    if key.size_kib <= nodes_module.LARGEST_BLOCK_KIB:
        room_kib = min(room_kib, memory.free_kib - policy.node_free_mib * 1024)
    return room_kib // key.size_kib
