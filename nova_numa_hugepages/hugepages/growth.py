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

"""Making pages, and undoing it.

What the kernel does when a pool is enlarged, and what helps when it falls
short: ``Documentation/admin-guide/mm/hugetlbpage.rst`` and
``Documentation/admin-guide/sysctl/vm.rst``.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses

from oslo_log import log as logging

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.accounts import Accounts
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import nodes
from nova_numa_hugepages.hugepages.policy import ceiling_room_kib
from nova_numa_hugepages.hugepages.policy import PoolPolicy

LOG = logging.getLogger(__name__)

# Seconds between attempts when neither compaction nor other pages helped.
PAUSE_S = 0.2


@dataclasses.dataclass(frozen=True, slots=True)
class _Split:
    """Large pages that were split.

    :ivar floor: how many of them were the operator's
    """

    key: model.PoolKey
    count: int
    floor: int


class Growth:
    """One attempt to make pages, all of it or nothing.

    Needs the host's lock from its construction to the last call.

    :param idle: tells how many free pages of a pool nobody has a right to
    :param clock: seconds of a clock that only goes forward
    """

    def __init__(
        self,
        kernel: hugetlb.Hugetlb,
        accounts: Accounts,
        fs: hostfs.HostFS,
        policy: PoolPolicy,
        *,
        idle: Callable[[model.PoolKey], int],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._kernel = kernel
        self._accounts = accounts
        self._fs = fs
        self._policy = policy
        self._idle = idle
        self._clock = clock
        self._sleep = sleep
        self._deadline = clock() + policy.time_limit_s
        # What was done, for the way back: pool and persistent pages gained,
        # in the order in which it was done.
        self._done: list[tuple[model.PoolKey, int]] = []
        self._split: list[_Split] = []

    @property
    def made(self) -> dict[model.PoolKey, int]:
        """How many persistent pages were gained, by pool."""
        made: dict[model.PoolKey, int] = {}
        for key, count in self._done:
            if count > 0:
                made[key] = made.get(key, 0) + count
        return made

    def grow(
        self, wanted: Mapping[model.PoolKey, int]
    ) -> dict[model.PoolKey, int]:
        """Add free pages to pools.

        What falls short is tried again with these, each of which the policy
        can switch off:

        1. the node's memory is compacted
        2. idle larger pages of the node are split, if that is enough
        3. idle pages of other sizes that are ours are handed over
        4. all of it once more, until the time limit

        :param wanted: free pages to add
        :returns: how many are missing, by pool; empty if none is
        :raises exception.KernelError: if the kernel's files can't be used
        :raises exception.LedgerError: if the ledger can't be used
        """
        # The goals are totals, which others don't change by taking pages.
        goals = {
            key: self._kernel.pool(key).total + count
            for key, count in wanted.items()
            if count > 0
        }
        missing = self._enlarge(goals)
        while missing:
            if self._policy.compact:
                for node in sorted({key.node for key in missing}):
                    self._kernel.compact(node)
                missing = self._enlarge(missing_goals(goals, missing))
            if missing and self._policy.demote:
                self._demote(missing)
                missing = self._missing(goals)
            if missing and self._policy.hand_over:
                for key, count in missing.items():
                    self._hand_over(key, count)
                missing = self._enlarge(missing_goals(goals, missing))
            if not missing or self._clock() >= self._deadline:
                break
            if all(self.limit(key) <= 0 for key in missing):
                break
            self._sleep(PAUSE_S)
            missing = self._enlarge(missing_goals(goals, missing))
        return missing

    def undo(self) -> list[str]:
        """Put everything back, the last step first.

        :returns: a sentence for each step that could not be put back; what
            was ours stays accounted as ours, and is given back later
        :raises: as for `grow`
        """
        left = []
        while self._done:
            key, gained = self._done[-1]
            before = self._kernel.pool(key)
            after = self._accounts.set_persistent(
                key, max(0, before.persistent - gained)
            )
            self._done.pop()
            short = (before.persistent - after.persistent) - gained
            if short:
                left.append(
                    f'{abs(short)} pages of {key} could not be '
                    + ('taken back' if short < 0 else 'put back')
                )
        while self._split:
            left.extend(self._join(self._split[-1]))
            self._split.pop()
        return left

    def limit(self, key: model.PoolKey) -> int:
        """Tell how many pages the operator's limits allow to add.

        :returns: 0 if none
        """
        memory = nodes.memory(self._fs)[key.node]
        free_kib = memory.free_kib + memory.reclaimable_kib
        return max(
            0,
            min(
                free_kib - self._policy.node_free_mib * 1024,
                ceiling_room_kib(
                    memory.total_kib, self._pooled_kib(key.node), self._policy
                ),
            )
            // key.size_kib,
        )

    def _enlarge(
        self, goals: Mapping[model.PoolKey, int]
    ) -> dict[model.PoolKey, int]:
        for key, goal in goals.items():
            before = self._kernel.pool(key)
            step = min(goal - before.total, self.limit(key))
            if step > 0:
                # Surplus pages become persistent before new ones are made.
                after = self._accounts.set_persistent(key, before.total + step)
                self._note(key, after.persistent - before.persistent)
        return self._missing(goals)

    def _missing(
        self, goals: Mapping[model.PoolKey, int]
    ) -> dict[model.PoolKey, int]:
        missing = {
            key: goal - self._kernel.pool(key).total
            for key, goal in goals.items()
        }
        return {key: count for key, count in missing.items() if count > 0}

    def _demote(self, missing: Mapping[model.PoolKey, int]) -> None:
        """Split larger pages, if that makes up for all that is missing.

        It can't be undone for certain, and so isn't tried in vain.
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
            floor = self._accounts.floor(large)
            done = self._accounts.demote(large, split)
            if done:
                LOG.info(
                    'Split %(count)d idle pages of %(pool)s.',
                    {'count': done, 'pool': large},
                )
                floor -= self._accounts.floor(large)
                self._split.append(_Split(large, done, floor))

    def _join(self, split: _Split) -> list[str]:
        """Make large pages again of those that `_demote` split.

        Those that the operator had are joined first, and are the operator's
        again. So are the pieces of those that can't be joined.
        """
        key, count = split.key, split.count
        small = model.PoolKey(key.node, hugetlb.DEMOTED_KIB)
        ratio = key.size_kib // small.size_kib
        pieces = count * ratio
        floor, small_floor = map(self._accounts.floor, (key, small))
        pool = self._kernel.pool(small)
        self._accounts.set_persistent(
            small, max(0, pool.persistent - min(pieces, pool.free))
        )
        before = self._kernel.pool(key)
        after = self._accounts.set_persistent(key, before.persistent + count)
        short = before.persistent + count - after.persistent
        if short:
            back = self._kernel.pool(small)
            self._accounts.set_persistent(
                small, back.persistent + short * ratio
            )
        joined = min(count - short, split.floor)
        self._accounts.set_floor(key, floor + joined)
        self._accounts.set_floor(small, small_floor - joined * ratio)
        if not short:
            return []
        return [f'{short} pages of {key} that were split could not be joined']

    def _hand_over(self, key: model.PoolKey, count: int) -> None:
        """Give back idle pages of ours of other sizes of the node."""
        rest_kib = count * key.size_kib
        for size_kib in self._kernel.sizes(key.node):
            other = model.PoolKey(key.node, size_kib)
            if other == key or rest_kib <= 0:
                continue
            spare = min(self._accounts.grown(other), self._idle(other))
            give = min(spare, -(-rest_kib // size_kib))
            if give <= 0:
                continue
            before = self._kernel.pool(other)
            after = self._accounts.set_persistent(
                other, before.persistent - give
            )
            self._note(other, after.persistent - before.persistent)
            rest_kib -= (before.total - after.total) * size_kib

    def _note(self, key: model.PoolKey, gained: int) -> None:
        if gained:
            self._done.append((key, gained))

    def _pooled_kib(self, node: int) -> int:
        return sum(
            pool.total * pool.size_kib
            for key, pool in self._kernel.pools().items()
            if key.node == node
        )


def missing_goals(
    goals: Mapping[model.PoolKey, int], missing: Mapping[model.PoolKey, int]
) -> dict[model.PoolKey, int]:
    """Keep the goals that are not reached."""
    return {key: goals[key] for key in missing}
