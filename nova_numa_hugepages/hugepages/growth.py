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

"""Growth of pools, and its undoing.

How the kernel enlarges a pool, and what helps when it falls short:
``Documentation/admin-guide/mm/hugetlbpage.rst`` and
``Documentation/admin-guide/sysctl/vm.rst``.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

from oslo_log import log as logging

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.accounts import Accounts
from nova_numa_hugepages.hugepages.kernel import fragmentation
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import nodes
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.hugepages.usage import UsageReader

LOG = logging.getLogger(__name__)

# Seconds between attempts when neither compaction nor other pages helped.
PAUSE_S = 0.2


@dataclasses.dataclass(frozen=True, slots=True)
class GrowthHost:
    """The host whose pools grow, as far as growth needs it.

    :ivar accounts: whose the pages are
    :ivar usage: reads the use of the pools
    :ivar holds: reads all holds
    :ivar clock: seconds of a clock that only goes forward
    """

    kernel: hugetlb.Hugetlb
    accounts: Accounts
    usage: UsageReader
    holds: Callable[[], Sequence[model.Hold]]
    clock: Callable[[], float]
    sleep: Callable[[float], None]


class _Step(NamedTuple):
    """Something that was done to a pool.

    :ivar pages: persistent pages that were gained
    :ivar settings: how often it had been set from outside by then
    """

    key: model.PoolKey
    pages: int
    settings: int


class _Split(NamedTuple):
    """Large pages that were split.

    :ivar floor: how many of them were floor
    """

    large: _Step
    small: _Step
    floor: int


class Growth:
    """One attempt to allocate pages, all of them or none.

    Needs the host's lock from its construction to the last call. Its methods
    raise `exception.KernelError` if the kernel's files can't be used, and
    `exception.LedgerError` if the ledger can't be.

    :param policy: what is allowed for it
    :param wanted: the pages that it is for, which don't count as idle
    :param without: a holder and a purpose whose holds don't count
    :param wanted_idle: as for `usage.UsageReader.read`
    """

    def __init__(
        self,
        host: GrowthHost,
        policy: PoolPolicy,
        wanted: Mapping[model.PoolKey, int],
        without: tuple[str, model.Purpose] | None = None,
        wanted_idle: Mapping[model.PoolKey, int] | None = None,
    ) -> None:
        self._host = host
        self._kernel = host.kernel
        self._accounts = host.accounts
        self._policy = policy
        self._wanted = wanted
        self._wanted_idle = wanted_idle
        self._without = without
        self._deadline = host.clock() + policy.time_limit_s
        # A write that an error has ended, with what was ours before it.
        self._cut_off: _Step | None = None
        # What is to be undone, in the order in which it was done.
        self._done: list[_Step] = []
        self._split: list[_Split] = []

    @property
    def made(self) -> dict[model.PoolKey, int]:
        """How many persistent pages were gained, by pool."""
        made: dict[model.PoolKey, int] = {}
        for step in self._done:
            if step.pages > 0:
                made[step.key] = made.get(step.key, 0) + step.pages
        return made

    def grow(
        self, missing: Mapping[model.PoolKey, int]
    ) -> dict[model.PoolKey, int]:
        """Add free pages to pools.

        Where the kernel gives too few, these are tried, each of which the
        policy can switch off:

        1. the node's memory is compacted
        2. idle larger pages of the node are split, if that is enough
        3. idle pages of other sizes that are ours are handed over
        4. all of it once more, until the time limit

        :param missing: free pages to add
        :returns: how many are still missing, by pool; empty if none is
        """
        # The goals are totals, which others don't change by taking pages.
        goals = {
            key: self._kernel.pool(key).total + count
            for key, count in missing.items()
        }
        memory = nodes.memory(self._kernel.fs)
        too_many = {
            key: missing[key]
            for key, goal in goals.items()
            if goal * key.size_kib > memory[key.node].total_kib
        }
        if too_many:
            # The memory that there is isn't taken from others in vain.
            return too_many
        left = self._enlarge(goals, goals)
        while left:
            if self._policy.compact:
                for node in sorted({key.node for key in left}):
                    self._kernel.compact(node)
                left = self._enlarge(goals, left)
            if left and self._policy.demote:
                self._demote(left)
                left = self._missing(goals)
            if left and self._policy.hand_over:
                for key, count in left.items():
                    self._hand_over(key, count)
                left = self._enlarge(goals, left)
            if (
                not left
                or self._host.clock() >= self._deadline
                or all(self._limit(key) <= 0 for key in left)
            ):
                break
            self._host.sleep(PAUSE_S)
            left = self._enlarge(goals, left)
        return left

    def undo(self) -> list[str]:
        """Undo everything, the last step first.

        :returns: a sentence for each step that could not be undone; what was
            ours stays accounted as ours, and is freed later
        """
        left: list[str] = []
        while self._cut_off or self._done or self._split:
            try:
                left += self._undo_one()
            except exception.NUMAHugepagesError as error:
                # What is in other pools can be undone nevertheless.
                left.append(f'a growth could not be undone: {error}')
        return left

    def _undo_one(self) -> list[str]:
        """Undo the last step, which is not tried again if that fails."""
        if self._cut_off is not None:
            step, self._cut_off = self._cut_off, None
            gained = self._accounts.account(step.key).grown - step.pages
            if gained:
                self._done.append(step._replace(pages=gained))
            return []
        if not self._done:
            return self._join(self._split.pop())
        step = self._done.pop()
        if self._was_set(step):
            return []
        rest = step.pages + self._accounts.add(step.key, -step.pages)
        if not rest or self._was_set(step):
            return []
        again = 'freed again' if rest > 0 else 'allocated again'
        return [f'{abs(rest)} pages of {step.key} could not be {again}']

    def _step(self, key: model.PoolKey, pages: int = 0) -> _Step:
        return _Step(key, pages, self._accounts.settings[key])

    def _was_set(self, *steps: _Step) -> bool:
        """Check whether pools were set from outside since something was done.

        It can't be undone then.
        """
        for step in steps:
            self._accounts.account(step.key)
        settings = self._accounts.settings
        return any(settings[step.key] != step.settings for step in steps)

    def _limit(self, key: model.PoolKey) -> int:
        """Return how many pages the operator's limits allow to add."""
        memory = nodes.memory(self._kernel.fs)[key.node]
        pooled_kib = model.pooled_kib(self._kernel.pools().values(), key.node)
        room_kib = self._policy.room_kib(memory, pooled_kib)
        return max(0, room_kib // key.size_kib)

    def _idle(self, key: model.PoolKey) -> int:
        """Return how many free pages of a pool are neither held nor wanted."""
        usage = self._host.usage.read(
            self._host.holds(),
            self._without,
            wanted=self._wanted,
            wanted_idle=self._wanted_idle,
        )
        return usage[key].unclaimed

    def _enlarge(
        self, goals: Mapping[model.PoolKey, int], left: Iterable[model.PoolKey]
    ) -> dict[model.PoolKey, int]:
        """Enlarge the pools that are left; others may be handed over."""
        goals = {key: goals[key] for key in left}
        for key, goal in goals.items():
            pool = self._kernel.pool(key)
            step = min(goal - pool.total, self._limit(key))
            if step > 0:
                # Surplus pages become persistent before others are allocated.
                self._add(key, pool.surplus + step)
        return self._missing(goals)

    def _missing(
        self, goals: Mapping[model.PoolKey, int]
    ) -> dict[model.PoolKey, int]:
        return model.above_zero(
            {
                key: goal - self._kernel.pool(key).total
                for key, goal in goals.items()
            }
        )

    def _add(self, key: model.PoolKey, count: int) -> int:
        """Add persistent pages to a pool, so that it can be undone."""
        grown = self._accounts.account(key).grown
        self._cut_off = self._step(key, grown)
        gained = self._accounts.add(key, count)
        self._cut_off = None
        if gained:
            self._done.append(self._step(key, gained))
        return gained

    def _demote(self, missing: Mapping[model.PoolKey, int]) -> None:
        """Split larger pages, if that makes up for all that is missing.

        It can't be undone for certain, so it is only done if it is enough.
        """
        steps = []
        for key, count in missing.items():
            if key.size_kib != hugetlb.DEMOTED_KIB:
                return
            rest = count
            for size_kib in self._kernel.sizes(key.node):
                large = model.PoolKey(key.node, size_kib)
                if size_kib <= key.size_kib or not self._kernel.can_demote(
                    large
                ):
                    continue
                ratio = size_kib // key.size_kib
                split = min(-(-rest // ratio), max(0, self._idle(large)))
                if split > 0:
                    steps.append((large, split))
                    rest -= split * ratio
            if rest > 0:
                return
        for large, split in steps:
            done, floor = self._accounts.demote(large, split)
            if done:
                LOG.info(
                    'Split idle huge pages: %s.', model.in_words({large: done})
                )
                small = large._replace(size_kib=hugetlb.DEMOTED_KIB)
                self._split.append(
                    _Split(self._step(large, -done), self._step(small), floor)
                )

    def _join(self, split: _Split) -> list[str]:
        """Allocate large pages again in place of those that were split.

        Those that were the operator's come first, and are the operator's
        again. So are the pieces of those that can't be joined.
        """
        key, small = split.large.key, split.small.key
        count, floor = -split.large.pages, split.floor
        left = f'pages of {key} that were split could not be joined'
        if self._was_set(split.large, split.small):
            return [f'{count} {left}: a pool was set from outside']
        ratio = key.size_kib // small.size_kib
        before, small_before = map(self._accounts.account, (key, small))
        free = self._kernel.pool(small).free
        removed = -self._accounts.add(
            small, -min(count * ratio, free), of_floor=floor * ratio
        )
        short = count - self._accounts.add(key, count)
        if short:
            self._accounts.add(small, min(short * ratio, removed))
        if self._was_set(split.large, split.small):
            return [f'{short} {left}: a pool was set from outside']
        joined = min(count - short, floor)
        self._accounts.set_floor(key, before.floor + joined)
        self._accounts.set_floor(small, small_before.floor - joined * ratio)
        return [f'{short} {left}'] if short else []

    def _hand_over(self, key: model.PoolKey, count: int) -> None:
        """Free idle pages of ours that the node has in other sizes."""
        rest_kib = count * key.size_kib
        for size_kib in self._kernel.sizes(key.node):
            other = model.PoolKey(key.node, size_kib)
            if other == key or rest_kib <= 0:
                continue
            spare = min(
                self._accounts.account(other).grown,
                self._idle(other),
                -(-rest_kib // size_kib),
            )
            if spare > 0:
                rest_kib += self._add(other, -spare) * size_kib


def describe_limits(
    fs: hostfs.HostFS, policy: PoolPolicy, key: model.PoolKey
) -> str:
    """Describe what limits the growth of a pool.

    :raises exception.KernelError: if the kernel's files can't be used
    """
    memory = nodes.memory(fs)[key.node]
    free_mib = (memory.free_kib + policy.cache_kib(memory)) // 1024
    text = (
        f'NUMA node {key.node} has {free_mib} MiB free, of which '
        f'{policy.node_free_mib} MiB stay free'
    )
    if (free_mib - policy.node_free_mib) * 1024 < key.size_kib:
        return text
    unusable = fragmentation.unusable_permille(
        fragmentation.free_blocks(fs)[key.node], key.size_kib
    )
    return (
        f'{text}, and pools may take {policy.ceiling_percent} % of its '
        f'memory; {unusable // 10} % of the free memory is in blocks that '
        'are too small'
    )
