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

"""Use of the huge page pools: what is promised, and what is left to promise.

The kernel knows how many pages are free, and to whom it gave the others. To
whom a free page was promised is in the ledger only.
"""

from __future__ import annotations

import collections
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import pods
from nova_numa_hugepages.hugepages.accounts import Accounts
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.state.ledger import Ledger

# How often what is reserved and what is free are read, as guests that start
# take pages meanwhile.
_LOOKS = 10
# How often guests are looked at, as they take and return pages meanwhile.
_LOOKS_AT_GUESTS = 3


@dataclasses.dataclass(frozen=True, slots=True)
class PoolUsage:
    """The use of a pool.

    :ivar pool: the counters of the kernel
    :ivar account: whose its pages are
    :ivar promised: free pages that holders have a right to; pages that a
        running guest has returned for now are among them, and those that
        elastic guests may have later and that aren't lent
    :ivar starting: those of them whose holder is taking them right now
    :ivar mapped: promised pages for which the kernel keeps one, on whatever
        node, or which it is clearing: guests are taking them right now, or
        have returned them
    :ivar ours: pages in use that belong to a hold
    :ivar reserved: pages that the operator holds back from guests
    :ivar leaked: pages in use that guests have left which have ended
    :ivar pods: pages that a kubelet promised to pods, and that these don't
        have yet
    :ivar awaited: free pages that are kept for processes other than holders,
        which have reserved them in the kernel and not touched them yet
    :ivar missing: pages of this size of which the host has too few for all
        that is promised and reserved; the next that are allocated are those
    :ivar owed: those of them that are to be allocated in this pool
    :ivar spare: pages of this size that are free on the host, and neither
        promised nor reserved
    :ivar kept_idle: those promised pages that elastic guests may have later
    :ivar lendable: pages that elastic guests may have later, and that may be
        promised to others meanwhile
    """

    pool: model.Pool
    account: model.Account
    promised: int = 0
    starting: int = 0
    mapped: int = 0
    ours: int = 0
    reserved: int = 0
    leaked: int = 0
    pods: int = 0
    awaited: int = 0
    missing: int = 0
    owed: int = 0
    spare: int = 0
    lendable: int = 0
    kept_idle: int = 0

    @property
    def occupied(self) -> int:
        """Pages that processes without a hold use."""
        return max(0, self.pool.in_use - self.ours)

    @property
    def held_back(self) -> int:
        """Free pages that are kept from guests.

        What others use comes out of what the operator reserved, unless it is
        leaked. Pages that aren't the operator's are not allocated because of
        what he reserved; they are because of what pods were promised.
        """
        reserved = min(self.reserved, self.account.floor)
        used = max(0, self.occupied - self.leaked)
        return max(0, reserved - used, self.awaited + self.pods)

    @property
    def overdue(self) -> int:
        """Pages that are promised and missing, as others have them."""
        needed = self.promised - self.starting + self.awaited + self.owed
        return max(0, min(self.promised, needed - self.pool.free))

    @property
    def available(self) -> int:
        """Free pages that can be promised; below 0 if too many are."""
        kept = self.promised + self.held_back + self.owed
        return min(self.pool.free - kept, self.spare)

    @property
    def unclaimed(self) -> int:
        """Free pages that no guest would miss; below 0 if there are none."""
        return self.available - self.lendable

    @property
    def lent(self) -> int:
        """Pages that elastic guests may want back, and that others have."""
        return min(self.lendable, max(0, -self.unclaimed))

    def __str__(self) -> str:
        parts = [f'{self.pool.total} there, {self.pool.free} free']
        if self.promised:
            parts.append(f'{self.promised} promised to other instances')
        if self.held_back:
            parts.append(f'{self.held_back} held back')
        if self.occupied:
            parts.append(f'{self.occupied} used by others')
        if self.missing:
            parts.append(
                f'{self.missing} more reserved on the host than are free'
            )
        return ', '.join(parts)


class UsageReader:
    """Reads the use of the pools of a host.

    :param read_maps: reads where the huge pages of a process are
    :param accounts: whose the pages are
    :param ledger: what guests have left in use
    :param reserved: pages that the operator holds back from guests
    :param pod_pages: the pages of pods, None if there are none
    :param lend_ratio: as for `policy.PoolPolicy`
    """

    def __init__(
        self,
        kernel: hugetlb.Hugetlb,
        read_maps: processes.MapsReader,
        accounts: Accounts,
        ledger: Ledger,
        reserved: Mapping[model.PoolKey, int],
        pod_pages: pods.PodPages | None = None,
        lend_ratio: float = 1.0,
    ) -> None:
        self._kernel = kernel
        self._lend_ratio = lend_ratio
        self._pod_pages = pod_pages
        self._read_maps = read_maps
        self._accounts = accounts
        self._ledger = ledger
        self._reserved = reserved
        # Page sizes that had surplus pages since guests have returned some.
        self._had_surplus: set[int] = set()

    def read(
        self,
        holds: Collection[model.Hold],
        without: tuple[str, model.Purpose] | None = None,
        *,
        running: Mapping[str, processes.GuestProcess] | None = None,
        wanted: Mapping[model.PoolKey, int] | None = None,
        wanted_idle: Mapping[model.PoolKey, int] | None = None,
    ) -> dict[model.PoolKey, PoolUsage]:
        """Read the use of each pool.

        :param holds: all holds of the ledger
        :param without: a holder and a purpose whose holds don't count
        :param running: the guests that were just found running
        :param wanted: pages that count as promised, too
        :param wanted_idle: pages that count as those that an elastic guest
            may have later
        :raises exception.KernelError: if the kernel's files can't be read
        """
        # Processes come first and pools last: a page that a starting guest
        # takes in between then counts twice, rather than not at all.
        if running is None:
            running = processes.running(self._kernel.fs)
        pools: dict[model.PoolKey, model.Pool] = {}
        for _ in range(_LOOKS_AT_GUESTS):
            before = pools or self._kernel.pools()
            shares = self._shares(holds, running)
            reserved_now, pools = self._counters()
            # What guests return or take meanwhile would hide what others do.
            if before == pools:
                break
        kept_sizes = self._sizes_kept(shares, pools.values())
        promised: dict[model.PoolKey, int] = collections.Counter(wanted)
        ours: dict[model.PoolKey, int] = collections.Counter()
        starting: dict[model.PoolKey, int] = collections.Counter()
        mapped: dict[model.PoolKey, int] = collections.Counter()
        kept: dict[model.PoolKey, int] = collections.Counter()
        free = {key: pool.free for key, pool in pools.items()}
        for looked_at in shares:
            key = looked_at.hold.key
            share = looked_at.bounded(free.get(key, 0))
            free[key] = free.get(key, 0) - share.returned
            reserved = share.reserved
            if not share.starting and key.size_kib not in kept_sizes:
                reserved = 0
            ours[key] += share.has
            if (share.hold.holder, share.hold.purpose) == without:
                left = reserved_now.get(key.size_kib, 0) - reserved
                reserved_now[key.size_kib] = max(0, left)
                continue
            promised[key] += share.missing
            if share.starting:
                starting[key] += share.missing
                mapped[key] += reserved
            else:
                kept[key] += reserved
        taken = _taken_meanwhile(mapped, reserved_now)
        idle = collections.Counter(wanted_idle)
        idle.update(
            model.idle_by_pool(
                hold
                for hold in holds
                if (hold.holder, hold.purpose) != without
            )
        )
        lendable = self._lendable(idle, pools)
        for key, count in idle.items():
            promised[key] += count - lendable.get(key, 0)
        asked = {
            key: count
            + max(0, (wanted_idle or {}).get(key, 0) - lendable.get(key, 0))
            for key, count in (wanted or {}).items()
        }
        accounts = self._accounts.read(pools).accounts
        leaks = self._ledger.leaks()
        of_pods = self._pod_pages.absent(pools) if self._pod_pages else {}
        found = {}
        for key, pool in pools.items():
            more = taken.get(key, 0)
            has = ours[key] + more
            # What it has returned since it was looked at.
            back = max(0, has - pool.in_use)
            found[key] = PoolUsage(
                pool,
                accounts[key],
                promised[key] - more + back,
                starting[key] - more,
                mapped[key] - more + kept[key],
                has - back,
                self._reserved.get(key, 0),
                leaks.get(key, 0),
                of_pods.get(key, 0),
                lendable=lendable.get(key, 0),
                kept_idle=max(0, idle[key] - lendable.get(key, 0)),
            )
        for size_kib, count in reserved_now.items():
            of_size = [
                used
                for key, used in sorted(found.items())
                if key.size_kib == size_kib
            ]
            for used in _with_awaited(of_size, count, asked):
                found[used.pool.key] = used
        return found

    def _lendable(
        self,
        idle: Mapping[model.PoolKey, int],
        pools: Mapping[model.PoolKey, model.Pool],
    ) -> dict[model.PoolKey, int]:
        """Count the pages that may be lent, by pool.

        :param idle: pages that elastic guests may have later
        """
        return {
            key: model.lendable(count, pools[key].total, self._lend_ratio)
            for key, count in idle.items()
            if key in pools
        }

    def _counters(
        self,
    ) -> tuple[dict[int, int], dict[model.PoolKey, model.Pool]]:
        """Read what is reserved and what is free, at one time if possible."""
        reserved = self._kernel.reserved()
        for _ in range(_LOOKS):
            pools = self._kernel.pools()
            before, reserved = reserved, self._kernel.reserved()
            if before == reserved:
                break
        return reserved, pools

    def _shares(
        self,
        holds: Collection[model.Hold],
        running: Mapping[str, processes.GuestProcess],
    ) -> list[_Share]:
        """Find out which pages guests have of those that are held for them."""
        held: dict[str, dict[int, int]] = {}
        for hold in holds:
            if hold.purpose is not model.Purpose.RESIZE:
                sizes = held.setdefault(hold.holder, collections.Counter())
                sizes[hold.size_kib] += hold.pages
        guests: dict[str, _GuestPages | None] = {}
        shares = []
        for hold in holds:
            process = running.get(hold.holder)
            if hold.purpose is model.Purpose.RESIZE or process is None:
                shares.append(_Share(hold))
                continue
            taken = hold.state is model.State.TAKEN
            if hold.holder not in guests:
                guests[hold.holder] = self._look(
                    process, held[hold.holder], taken=taken
                )
            guest = guests[hold.holder]
            if guest is not None:
                has, reserved = guest.take(hold.key, hold.pages)
                returned = hold.pages - has if taken else 0
                shares.append(
                    _Share(hold, has, reserved, returned, starting=not taken)
                )
            elif taken:
                shares.append(_Share(hold, hold.pages))
            else:
                shares.append(_Share(hold, starting=True))
        return shares

    def _sizes_kept(
        self, shares: Collection[_Share], pools: Collection[model.Pool]
    ) -> set[int]:
        """List the page sizes of which the kernel keeps what was returned.

        Not one that has, or had, surplus pages: it kept none then.
        """
        returned = {
            share.hold.size_kib
            for share in shares
            if share.reserved and not share.starting
        }
        self._had_surplus &= returned
        self._had_surplus |= {pool.size_kib for pool in pools if pool.surplus}
        if not returned or not self._kernel.keeps_returned():
            return set()
        return {pool.size_kib for pool in pools} - self._had_surplus

    def pages_of(
        self, process: processes.GuestProcess
    ) -> dict[model.PoolKey, int]:
        """Read which huge pages a guest has, by pool.

        :returns: nothing if the process is gone
        :raises exception.KernelError: if that can't be read
        """
        try:
            text = self._read_maps(process.pid)
        except ProcessLookupError:
            return {}
        return processes.pages_of(text)

    def _look(
        self,
        process: processes.GuestProcess,
        held: Mapping[int, int],
        *,
        taken: bool,
    ) -> _GuestPages | None:
        """Read where the huge pages of a guest are.

        If that can't be read, those that it is taking count twice: as
        promised, and as used by others. That lasts until it has started, and
        is logged then. A guest that has started counts as having all of its
        pages.

        :param held: the pages that are held for it, by size
        :param taken: whether it has started
        """
        try:
            maps = self._read_maps(process.pid)
        except ProcessLookupError:
            # It has ended.
            maps = ''
        except exception.KernelError:
            return None
        return _GuestPages(maps, held, taken=taken)


class _Share(NamedTuple):
    """What a guest has of the pages that are held for it.

    :ivar has: how many of them it has; none if it doesn't run
    :ivar reserved: for how many of the others the kernel keeps a page, if it
        keeps those that a guest has returned
    :ivar returned: those that it had, and returned through its balloon
    :ivar starting: whether it is taking them right now
    """

    hold: model.Hold
    has: int = 0
    reserved: int = 0
    returned: int = 0
    starting: bool = False

    def bounded(self, free: int) -> _Share:
        """Return the same with no more returned pages than are free.

        It may have taken the others again by now, or the kernel doesn't show
        them: those of shared memory that others map, too.
        """
        more = max(0, self.returned - free)
        return self._replace(
            has=self.has + more,
            reserved=min(self.reserved, self.missing - more),
            returned=self.returned - more,
        )

    @property
    def missing(self) -> int:
        """The pages that it doesn't have."""
        return self.hold.pages - self.has


def _taken_meanwhile(
    mapped: Mapping[model.PoolKey, int], reserved: Mapping[int, int]
) -> dict[model.PoolKey, int]:
    """Count pages that starting guests have taken since they were looked at.

    Or that the kernel is clearing for them: these are neither free nor
    reserved any more, and not mapped yet. They show when the kernel keeps
    fewer pages than all those guests have mapped, and if it can be told which
    pool they are in.

    :param mapped: pages that they have mapped and not taken, by pool
    :param reserved: pages that the kernel keeps, by size
    """
    by_size: dict[int, list[model.PoolKey]] = {}
    for key, count in mapped.items():
        if count:
            by_size.setdefault(key.size_kib, []).append(key)
    return {
        keys[0]: max(0, mapped[keys[0]] - reserved.get(size_kib, 0))
        for size_kib, keys in by_size.items()
        if len(keys) == 1
    }


def _with_awaited(
    pools: Sequence[PoolUsage],
    reserved: int,
    wanted: Mapping[model.PoolKey, int],
) -> list[PoolUsage]:
    """Keep pages of a size for those that have reserved them in the kernel.

    The kernel counts them on the whole host, and doesn't say on which node
    they will be. They are kept on each node among the pages that weren't
    allocated for guests; if these are too few, others are kept on one node or
    the other; and if all of those are promised, as many are missing. So what
    is available on two nodes is available on both at once.

    :param reserved: how many pages the kernel keeps, also for guests that are
        starting
    :param wanted: pages that count as promised, in pools in which those that
        are missing can be allocated; that is where pages are promised if empty
    """
    # Who maps pages is refused if fewer are free than are reserved already.
    spare = -reserved + sum(
        max(0, used.pool.free - max(0, used.promised - used.mapped))
        for used in pools
    )
    missing = max(0, -spare)
    # What is being cleared for guests may hide some of it.
    count = max(0, reserved - sum(used.mapped for used in pools))
    # None is idle if some are missing.
    kept = _keep(pools, count, {}, all_idle=missing > 0)
    # Those for which the kernel keeps a page are missing in their own pool,
    # unless they are being cleared.
    left = missing - sum(
        min(
            used.mapped,
            max(0, used.promised - used.starting - used.pool.free),
        )
        for used in pools
    )
    owed = [0] * len(pools)
    # First where they would be kept without what is wanted: there no more can
    # be had than what was available.
    for most in (
        [
            there if used.pool.key in wanted else 0
            for used, there in zip(
                pools, _keep(pools, count, wanted), strict=True
            )
        ],
        [
            (missing if used.pool.key in wanted else 0)
            if wanted
            else used.promised
            for used in pools
        ],
    ):
        for index, limit in enumerate(most):
            more = max(0, min(left, limit))
            owed[index] += more
            left -= more
    return [
        dataclasses.replace(
            used,
            awaited=there,
            missing=missing,
            owed=due,
            spare=max(0, spare),
        )
        for used, there, due in zip(pools, kept, owed, strict=True)
    ]


def _keep(
    pools: Sequence[PoolUsage],
    count: int,
    wanted: Mapping[model.PoolKey, int],
    *,
    all_idle: bool = False,
) -> list[int]:
    """Choose where free pages are kept for those that have reserved them.

    :param count: how many they have reserved
    :param wanted: pages that count as promised, and not here
    :param all_idle: whether to keep all that isn't promised
    :returns: how many are kept, pool by pool
    """
    promised = [used.promised - wanted.get(used.pool.key, 0) for used in pools]
    kept = [
        max(
            0,
            min(
                count,
                used.pool.free
                - used.pods
                - max(guests, used.account.grown - used.pods),
            ),
        )
        for used, guests in zip(pools, promised, strict=True)
    ]
    rest = max(0, count - sum(kept))
    for index, used in enumerate(pools):
        idle = used.pool.free - used.pods - promised[index] - kept[index]
        idle = max(0, idle)
        more = idle if all_idle else min(rest, idle)
        rest -= min(rest, more)
        kept[index] += more
    return kept


class _GuestPages:
    """The pages of a guest.

    :param maps: as `processes.huge_maps` reads it
    :param held: the pages that are held for it, by size
    :param taken: whether it has had all of its pages. Then it has returned
        those that it has nowhere, and what it has elsewhere takes the place of
        what it should have. The kernel keeps pages for what it returned only
        in memory that no other process can map.
    """

    def __init__(
        self, maps: str, held: Mapping[int, int], *, taken: bool
    ) -> None:
        self._maps = maps
        self._taken = taken
        self._pages = processes.pages_of(maps)
        self._reserved: dict[int, int] = {}
        self._returned = {
            size_kib: count
            - sum(
                pages
                for key, pages in self._pages.items()
                if key.size_kib == size_kib
            )
            for size_kib, count in held.items()
        }

    def take(self, key: model.PoolKey, held: int) -> tuple[int, int]:
        """Take the pages of one of its holds out of what it has.

        :param held: how many pages it holds
        :returns: how many of these it has, and for how many of the others the
            kernel keeps a page. A guest that starts maps one cell after the
            other, and touches each before it maps the next one.
        """
        size_kib = key.size_kib
        left = self._pages.get(key, 0)
        has = min(held, left)
        self._pages[key] = left - has
        if self._taken:
            returned = max(0, min(held - has, self._returned[size_kib]))
            self._returned[size_kib] -= returned
            has = held - returned
        if size_kib not in self._reserved:
            untouched_kib = processes.untouched_kib(
                self._maps, size_kib, private=self._taken
            )
            self._reserved[size_kib] = untouched_kib // size_kib
        reserved = min(held - has, self._reserved[size_kib])
        self._reserved[size_kib] -= reserved
        return has, reserved
