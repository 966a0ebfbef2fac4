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

"""Pages held for guests: promised, made where they lack, and given back.

This is the policy. What the kernel has is read each time, who holds what is
in the ledger, and the ledger changes before or after the kernel in the order
that a process which is killed in between leaves nothing that can't be told.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import time

from oslo_log import log as logging

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import shortage
from nova_numa_hugepages.hugepages import usage
from nova_numa_hugepages.hugepages.accounts import Accounts
from nova_numa_hugepages.hugepages.growth import Growth
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.hugepages.state.ledger import Ledger

LOG = logging.getLogger(__name__)

# Others may take pages while we make them. How often that is tried again.
_ROUNDS = 3

Standings = Mapping[model.PoolKey, usage.PoolUsage]


class Pools:
    """The page pools of this host, on behalf of its guests.

    Safe to use from several threads and processes at once. Each method raises
    `exception.KernelError` if the kernel's files can't be used that it needs,
    and `exception.LedgerError` if the ledger can't be.

    :param kernel: the kernel's pools
    :param ledger: who holds what
    :param fs: where the kernel's files are
    :param policy: what the operator allows
    :param lock: the lock of the host, over all processes
    :param read_maps: reads the ``numa_maps`` of a process
    :param writable: whether the pools can be changed from here
    :param clock: seconds since the epoch
    :param ticks: seconds of a clock that only goes forward
    """

    def __init__(
        self,
        kernel: hugetlb.Hugetlb,
        ledger: Ledger,
        fs: hostfs.HostFS,
        policy: PoolPolicy,
        *,
        lock: contextlib.AbstractContextManager[object],
        read_maps: usage.MapsReader,
        writable: bool = True,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.kernel = kernel
        self.ledger = ledger
        self.fs = fs
        self.policy = policy
        self.lock = lock
        self.writable = writable
        self.clock = clock
        self.accounts = Accounts(kernel, ledger, fs)
        self._promises = usage.Promises(fs, read_maps)
        self._ticks = ticks
        self._sleep = sleep

    def hold(
        self,
        holder: str,
        needs: Sequence[model.PageNeed],
        purpose: model.Purpose = model.Purpose.GUEST,
    ) -> None:
        """Promise pages to a guest, and make those that lack.

        All of the guest's cells get their pages, or none does. Idempotent: a
        holder that comes again, for the same pages or for others, has its
        promise replaced, and keeps the one it had if the new one can't be
        given. To be called before the guest starts.

        :param holder: the uuid of the instance
        :param needs: one for each guest cell on huge pages; a holder that
            needs none gives back what it held for this purpose
        :raises exception.NotEnoughPages: if the host has too few; the pools
            are then as before
        """
        if not needs:
            self.release(holder, purpose)
            return
        wanted = model.by_pool(needs)
        with self.lock:
            self.report(self.accounts.refresh().changes)
            if self._runs_on(holder, needs, purpose):
                return
            growth = self._provide(wanted, (holder, purpose))
            try:
                self.ledger.replace_holds(
                    holder, purpose, self._rows(holder, needs, purpose, growth)
                )
            except BaseException:
                self._back_out(growth)
                raise
        LOG.info(
            'Holding %(pages)s for %(holder)s (%(purpose)s), %(grown)s.',
            {
                'pages': model.in_words(wanted),
                'holder': holder,
                'purpose': purpose,
                'grown': f'{model.in_words(growth.made)} of it newly made'
                if growth.made
                else 'all of it there before',
            },
        )

    def taken(self, holder: str) -> None:
        """Note that a guest has started and has its pages. Idempotent."""
        self.ledger.set_state(holder, model.Purpose.GUEST, model.State.TAKEN)

    def move(
        self, holder: str, old: model.Purpose, new: model.Purpose
    ) -> None:
        """Hold for another purpose what is held for one. Idempotent."""
        with self.lock:
            self.ledger.move(holder, old, new)

    def release(
        self, holder: str, *purposes: model.Purpose
    ) -> dict[model.PoolKey, int]:
        """Give back the pages of a guest that is gone for good. Idempotent.

        What we made of them goes back to the kernel, but for what the policy
        keeps ready. Pages that the kernel doesn't take back now it is offered
        again by the next `trim`.

        :param purposes: what they were held for; all purposes if none
        :returns: how many pages went back to the kernel, by pool
        """
        if not self._holds(holder, purposes):
            return {}
        with self.lock:
            self.drop(holder, *purposes)
            return self.trim()

    def drop(self, holder: str, *purposes: model.Purpose) -> None:
        """Strike out what is held for a guest; the pages stay in the pools.

        Needs the lock. For the parameters see `release`.
        """
        self.report(self.accounts.refresh().changes)
        dropped = self._holds(holder, purposes)
        with self.ledger.transaction():
            for purpose in {hold.purpose for hold in dropped}:
                self.ledger.drop(holder, purpose)
        LOG.info(
            'Released %(pages)s of %(holder)s.',
            {
                'pages': model.in_words(model.by_pool(dropped)),
                'holder': holder,
            },
        )

    def trim(
        self, given: dict[model.PoolKey, int] | None = None
    ) -> dict[model.PoolKey, int]:
        """Give back what we made and nobody has a right to.

        Needs the lock, and accounts that are in step.

        :param given: takes the answer pool by pool, should an error end it
        :returns: how many pages went back, by pool
        """
        given = {} if given is None else given
        for key, spare in self.spare().items():
            before = self.kernel.pool(key)
            after = self.accounts.set_persistent(
                key, before.persistent - spare
            )
            gone = before.persistent - after.persistent
            if gone > 0:
                given[key] = gone
                LOG.info(
                    'Gave %(count)d pages of %(pool)s back to the kernel.',
                    {'count': gone, 'pool': key},
                )
            if gone < spare:
                LOG.info(
                    'The kernel kept %(count)d of %(spare)d idle pages of '
                    '%(pool)s; they will be offered again.',
                    {'count': spare - gone, 'spare': spare, 'pool': key},
                )
        return given

    def spare(
        self,
        accounts: Mapping[model.PoolKey, model.Account] | None = None,
        holds: Collection[model.Hold] | None = None,
    ) -> dict[model.PoolKey, int]:
        """Tell how many pages of each pool could be given back.

        :param accounts: what to go by instead of those of the ledger
        :param holds: as for `standings`
        """
        if accounts is None:
            accounts = self.ledger.accounts()
        grown = {key: one.grown for key, one in accounts.items() if one.grown}
        if not grown or not self.writable:
            return {}
        standings = self.standings(holds=holds)
        spare = {
            key: min(count, standings[key].available)
            - self.policy.warm_mib * 1024 // key.size_kib
            for key, count in grown.items()
            if key in standings
        }
        return {key: count for key, count in spare.items() if count > 0}

    def pages_of(
        self, process: processes.GuestProcess
    ) -> dict[model.PoolKey, int]:
        """Tell which huge pages a guest has, by pool.

        :returns: nothing if the process is gone
        """
        return self._promises.pages_of(process)

    def standings(
        self,
        without: tuple[str, model.Purpose] | None = None,
        *,
        holds: Collection[model.Hold] | None = None,
    ) -> Standings:
        """Tell how each pool stands.

        :param without: a holder and a purpose whose holds don't count
        :param holds: what to go by instead of those of the ledger
        """
        if holds is None:
            holds = self.ledger.holds()
        return self._promises.standings(
            self.kernel, holds, self.policy.reserved, without=without
        )

    def growth(
        self,
        wanted: Mapping[model.PoolKey, int],
        without: tuple[str, model.Purpose] | None = None,
        *,
        policy: PoolPolicy | None = None,
    ) -> Growth:
        """Begin an attempt to make pages. Needs the lock.

        :param wanted: what the pages are for, which isn't idle
        :param without: as for `standings`
        :param policy: what is allowed for it, instead of what usually is
        """

        def idle(key: model.PoolKey) -> int:
            return self.standings(without)[key].available - wanted.get(key, 0)

        return Growth(
            self.kernel,
            self.accounts,
            self.fs,
            policy or self.policy,
            idle=idle,
            clock=self._ticks,
            sleep=self._sleep,
        )

    def report(self, changes: Collection[str]) -> None:
        """Tell the operator what was found different from the ledger."""
        for change in changes:
            LOG.warning('Huge pages: %s.', change)

    def _provide(
        self,
        wanted: Mapping[model.PoolKey, int],
        without: tuple[str, model.Purpose],
    ) -> Growth:
        """See to it that there are free pages, or raise."""
        growth = self.growth(wanted, without)
        try:
            for left in reversed(range(_ROUNDS)):
                standings = self.standings(without)
                short = _short(wanted, standings)
                if not short:
                    return growth
                if (
                    not (self.policy.dynamic and self.writable)
                    or not left
                    or short.keys() - standings.keys()
                    or growth.grow(short)
                ):
                    break
            standings = self.standings(without)
            raise exception.NotEnoughPages(
                shortage.explain(
                    self.fs,
                    self.policy,
                    wanted,
                    _short(wanted, standings),
                    standings,
                    growth.made,
                )
            )
        except BaseException:
            self._back_out(growth)
            raise

    def _runs_on(
        self,
        holder: str,
        needs: Sequence[model.PageNeed],
        purpose: model.Purpose,
    ) -> bool:
        """Tell whether a guest runs on just what it holds."""
        return (
            sorted(h.need for h in self._holds(holder, (purpose,)))
            == sorted(needs)
            and purpose is not model.Purpose.RESIZE
            and holder in processes.running(self.fs)
        )

    def _back_out(self, growth: Growth) -> None:
        for sentence in growth.undo():
            LOG.error('Huge pages: %s.', sentence)

    def _rows(
        self,
        holder: str,
        needs: Sequence[model.PageNeed],
        purpose: model.Purpose,
        growth: Growth,
    ) -> list[model.Hold]:
        rows = []
        made = growth.made
        now = self.clock()
        for need in needs:
            grown = min(need.pages, made.get(need.key, 0))
            if grown:
                made[need.key] -= grown
            rows.append(
                model.Hold(
                    holder,
                    purpose,
                    need.cell,
                    need.node,
                    need.size_kib,
                    need.pages,
                    grown,
                    model.State.HELD,
                    now,
                )
            )
        return rows

    def _holds(
        self, holder: str, purposes: Collection[model.Purpose]
    ) -> list[model.Hold]:
        return [
            hold
            for hold in self.ledger.holds(holder)
            if not purposes or hold.purpose in purposes
        ]


def _short(
    wanted: Mapping[model.PoolKey, int], standings: Standings
) -> dict[model.PoolKey, int]:
    short = {
        key: count - (standings[key].available if key in standings else 0)
        for key, count in wanted.items()
    }
    return {key: count for key, count in short.items() if count > 0}
