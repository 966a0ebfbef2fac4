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

"""The operator's policy for the huge page pools of a host.

The options that it is read from are in ``conf/compute.py``, where each is
explained; the defaults here are theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import nodes


@dataclasses.dataclass(frozen=True, slots=True)
class PoolPolicy:
    """The changes that are allowed.

    :ivar dynamic: pools may be enlarged; otherwise pages are held and checked
        only
    :ivar node_free_mib: memory of each node that no pool may take
    :ivar ceiling_percent: how much of a node's memory its pools may take
    :ivar cache_percent: how much of the page cache of a node counts as free,
        since the kernel takes it back
    :ivar warm_mib: memory in idle pages of each pool that is kept when guests
        are deleted, although it was allocated for them
    :ivar compact: memory may be compacted to allocate pages
    :ivar demote: idle larger pages may be split, for good
    :ivar hand_over: idle pages that were allocated in another size may be
        freed for it
    :ivar time_limit_s: how long allocating pages for one guest may take, in
        seconds
    :ivar start_limit_s: how long a guest may take from its pages being held
        until it runs on them, in seconds
    :ivar keep_powered_off: guests that are powered off keep their pages
    :ivar reserved: pages of a pool that no guest may have
        (``[DEFAULT] reserved_huge_pages``)
    :ivar ready_risk_percent: the share of starts that may find that their
        pages have to be made first; idle pages are kept ready for the others.
        0 to keep none but `warm_mib`
    :ivar ready_limit_percent: how much of a node's memory may be kept ready
    :ivar lend_ratio: how far the memory of elastic guests may be promised
        beyond the pages of a pool; 1.0 to promise each page once
    """

    dynamic: bool = True
    node_free_mib: int = 1024
    ceiling_percent: int = 90
    cache_percent: int = 50
    warm_mib: int = 0
    compact: bool = True
    demote: bool = False
    hand_over: bool = True
    time_limit_s: float = 30.0
    start_limit_s: float = 600.0
    keep_powered_off: bool = True
    reserved: Mapping[model.PoolKey, int] = dataclasses.field(
        default_factory=dict
    )
    ready_risk_percent: float = 1.0
    ready_limit_percent: int = 10
    lend_ratio: float = 1.0

    def cache_kib(self, memory: nodes.NodeMemory) -> int:
        """Return how much of a node's page cache counts as free, in KiB.

        It comes back in small blocks.
        """
        if not self.compact:
            return 0
        return memory.reclaimable_kib * self.cache_percent // 100

    def room_kib(self, memory: nodes.NodeMemory, pooled_kib: int) -> int:
        """Return how much more memory of a node may go into pools, in KiB.

        :param pooled_kib: memory that is in pools of whatever size
        """
        room_kib = memory.total_kib * self.ceiling_percent // 100 - pooled_kib
        free_kib = memory.free_kib + self.cache_kib(memory)
        return min(room_kib, free_kib - self.node_free_mib * 1024)

    def at_hand(self) -> PoolPolicy:
        """Get the policy that takes only what the kernel has at hand."""
        return dataclasses.replace(
            self,
            compact=False,
            demote=False,
            hand_over=False,
            time_limit_s=0.0,
        )


def read(group: Any, reserved: Mapping[model.PoolKey, int]) -> PoolPolicy:
    """Read the policy from the configuration.

    :param group: the options of the group ``[numa_hugepages]``
    :param reserved: pages of pools that no guest may have
    """
    return PoolPolicy(
        dynamic=group.page_pools == 'dynamic',
        node_free_mib=group.node_free_memory_mib,
        ceiling_percent=group.node_ceiling_percent,
        cache_percent=group.page_cache_percent,
        warm_mib=group.warm_margin_mib,
        compact=group.compact_memory,
        demote=group.demote_pages,
        hand_over=group.hand_over_pages,
        time_limit_s=group.grow_time_limit,
        start_limit_s=group.start_time_limit,
        keep_powered_off=group.powered_off_pages == 'keep',
        reserved=reserved,
        ready_risk_percent=group.ready_risk_percent,
        ready_limit_percent=group.ready_limit_percent,
        lend_ratio=group.elastic_lend_ratio,
    )
