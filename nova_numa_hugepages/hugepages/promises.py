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

"""Pages that are promised to a guest: all of them, or none.

What is missing is allocated before; if that isn't enough, it is freed again.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

from oslo_log import log as logging

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import growth
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import ready
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from nova_numa_hugepages.hugepages.usage import PoolUsage
from nova_numa_hugepages.hugepages.usage import UsageReader

LOG = logging.getLogger(__name__)

# How often pages are allocated, as others may take some of them meanwhile.
_ATTEMPTS = 2

Usage = Mapping[model.PoolKey, PoolUsage]


class Wanted(NamedTuple):
    """Pages that are to be promised.

    :ivar pages: by pool
    :ivar idle: those that an elastic guest may have later, by pool; below 0
        if it had a right to them before
    :ivar without: a holder and a purpose whose holds don't count
    :ivar is_start: whether an instance comes to the host that wasn't there
    """

    pages: Mapping[model.PoolKey, int]
    idle: Mapping[model.PoolKey, int]
    without: tuple[str, model.Purpose] | None
    is_start: bool = False

    @classmethod
    def of(
        cls,
        holder: str,
        needs: Sequence[model.PageNeed],
        purpose: model.Purpose,
    ) -> Wanted:
        """Get what is wanted in place of all that is held."""
        return cls(
            model.by_pool(needs),
            model.idle_by_pool(needs),
            (holder, purpose),
        )

    @property
    def all(self) -> dict[model.PoolKey, int]:
        """What is wanted altogether, by pool."""
        return {key: self.count(key) for key in {*self.pages, *self.idle}}

    def count(self, key: model.PoolKey) -> int:
        """Return how many pages of a pool are wanted altogether."""
        return self.pages.get(key, 0) + max(0, self.idle.get(key, 0))


class MayPass(exception.NotEnoughPages):
    """There may be enough pages in a moment."""


class Promises:
    """Makes promises. Whoever calls it has the lock of the host.

    :param why_no_growth: returns why no pages can be allocated, None if they
        can
    :param clock: seconds since the epoch
    """

    def __init__(
        self,
        fs: hostfs.HostFS,
        ledger: Ledger,
        usage: UsageReader,
        host: growth.GrowthHost,
        ready_pages: ready.ReadyPages,
        why_no_growth: Callable[[], str | None],
        clock: Callable[[], float],
    ) -> None:
        self._fs = fs
        self._ledger = ledger
        self._usage = usage
        self._host = host
        self._ready = ready_pages
        self._why_no_growth = why_no_growth
        self._clock = clock

    def make(
        self,
        wanted: Wanted,
        policy: PoolPolicy,
        rows: Callable[[Mapping[model.PoolKey, int]], Sequence[model.Hold]],
    ) -> Mapping[model.PoolKey, int]:
        """Allocate what is missing, and replace what is held.

        :param rows: gets what the holder holds then for the purpose, from
            what was allocated
        :returns: what was allocated, by pool
        """
        attempt = growth.Growth(
            self._host, policy, wanted.pages, wanted.without, wanted.idle
        )
        try:
            self._provide(attempt, wanted, policy)
            made = attempt.made
            holds = rows(made)
            with self._ledger.transaction():
                self._ledger.replace_holds(
                    holds[0].holder, holds[0].purpose, holds
                )
                if wanted.is_start:
                    self._ready.note_start(wanted.all)
        except BaseException:
            for sentence in attempt.undo():
                LOG.error('Huge pages: %s.', sentence)
            raise
        return made

    def may_pass(self, wanted: Wanted) -> bool:
        """Check whether pages are missing that may be there in a moment."""
        usage, short = self._short(wanted)
        return bool(short) and _may_pass(short, usage)

    def _provide(
        self,
        attempt: growth.Growth,
        wanted: Wanted,
        policy: PoolPolicy,
    ) -> None:
        """Make sure that there are free pages.

        :raises exception.NotEnoughPages: if there are not
        """
        left: Mapping[model.PoolKey, int] = {}
        for _ in range(_ATTEMPTS):
            usage, short = self._short(wanted)
            if not short:
                return
            if (
                self._why_no_growth() is not None
                or short.keys() - usage.keys()
            ):
                break
            left = attempt.grow(short)
            if left:
                break
        usage, short = self._short(wanted)
        if short:
            # Pools that weren't tried are not what is missing.
            short = {key: short[key] for key in short.keys() & left} or short
            passes = _may_pass(short, usage)
            usage = self._read(wanted.without)
            raise (MayPass if passes else exception.NotEnoughPages)(
                [
                    f'{min(count, wanted.count(key))} of '
                    f'{wanted.count(key)} pages of {key} are missing'
                    + self._explain(
                        key, policy, usage.get(key), attempt.made.get(key, 0)
                    )
                    for key, count in sorted(short.items())
                ]
            )

    def _short(self, wanted: Wanted) -> tuple[Usage, dict[model.PoolKey, int]]:
        """Find out which pages are missing.

        :returns: the use of the pools with what is wanted, and pages by pool
        """
        usage = self._usage.read(
            self._ledger.holds(),
            wanted.without,
            wanted=wanted.pages,
            wanted_idle=wanted.idle,
        )
        if wanted.without is not None:
            return usage, model.above_zero(
                {
                    key: -usage[key].available if key in usage else count
                    for key, count in wanted.pages.items()
                }
            )
        # A guest that grows takes from what elastic guests may have, of which
        # some may be missing. It must have a page for each that it takes, and
        # no other may miss more than before.
        before = self._read()
        return usage, {
            key: short
            for key in wanted.pages
            if (
                short := max(
                    -usage[key].available - usage[key].kept_idle,
                    min(0, before[key].available) - usage[key].available,
                )
            )
            > 0
        }

    def _explain(
        self,
        key: model.PoolKey,
        policy: PoolPolicy,
        usage: PoolUsage | None,
        made: int,
    ) -> str:
        """Explain why a pool has too few pages, in words for operators.

        :param usage: its use with what was allocated, None if there is no such
            pool
        :param made: pages that were allocated, and are about to be freed again
        """
        if usage is None:
            return ': the host has no such pool'
        why = self._why_no_growth() or growth.describe_limits(
            self._fs, policy, key
        )
        numbers = f', {made} made now and undone' if made else ''
        return f' ({usage}{numbers}): {why}'

    def rows(
        self,
        holder: str,
        needs: Sequence[model.PageNeed],
        purpose: model.Purpose,
        made: Mapping[model.PoolKey, int],
    ) -> list[model.Hold]:
        """Get what a holder holds once it is promised what it needs.

        :param made: what was allocated for it, by pool
        """
        left = dict(made)
        rows = []
        now = self._clock()
        for need in needs:
            grown = min(need.pages, left.get(need.key, 0))
            left[need.key] = left.get(need.key, 0) - grown
            rows.append(
                model.Hold(
                    holder,
                    purpose,
                    need.cell,
                    *need.key,
                    need.pages,
                    grown,
                    model.State.HELD,
                    now,
                    need.base,
                    need.ceiling,
                )
            )
        return rows

    def _read(self, without: tuple[str, model.Purpose] | None = None) -> Usage:
        return self._usage.read(self._ledger.holds(), without)


def more_grown(
    rows: Sequence[model.Hold], made: Mapping[model.PoolKey, int]
) -> list[model.Hold]:
    """Note which pages were allocated for holds that have changed."""
    left = dict(made)
    found = []
    for row in rows:
        more = min(max(0, row.pages - row.grown), left.get(row.key, 0))
        left[row.key] = left.get(row.key, 0) - more
        found.append(
            dataclasses.replace(row, grown=min(row.pages, row.grown + more))
        )
    return found


def _may_pass(short: Mapping[model.PoolKey, int], usage: Usage) -> bool:
    """Check whether what is missing may be pages of a guest that is starting.

    Those that it takes while it is looked at, or that the kernel is clearing
    for it, count as promised to it and as used or reserved by others.
    """
    twice: dict[int, int] = collections.Counter()
    starting: dict[int, int] = collections.Counter()
    for key, used in usage.items():
        taken = min(used.starting, used.occupied)
        twice[key.size_kib] += taken + used.awaited + used.owed
        # As promised and used, and as promised and reserved.
        starting[key.size_kib] += 2 * used.starting
    return all(
        count <= min(twice[key.size_kib], starting[key.size_kib])
        for key, count in short.items()
    )
