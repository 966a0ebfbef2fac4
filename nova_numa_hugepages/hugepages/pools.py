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

"""The huge page pools of a host, on behalf of its guests.

What the kernel has is read each time, who holds what is in the ledger, and the
ledger changes before or after the kernel in the order that a process which is
killed in between leaves nothing that can't be found out.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import time

from oslo_log import log as logging

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import growth
from nova_numa_hugepages.hugepages import leaks
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import pods
from nova_numa_hugepages.hugepages import promises
from nova_numa_hugepages.hugepages import ready
from nova_numa_hugepages.hugepages import snapshot
from nova_numa_hugepages.hugepages.accounts import Accounts
from nova_numa_hugepages.hugepages.accounts import AccountsCheck
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import nodes
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from nova_numa_hugepages.hugepages.usage import PoolUsage
from nova_numa_hugepages.hugepages.usage import UsageReader

LOG = logging.getLogger(__name__)

# Others wait while a guest that runs gets more, so that is tried again rather
# than for long.
RESIZE_LIMIT_S = 5.0

Usage = Mapping[model.PoolKey, PoolUsage]


class Pools:
    """The huge page pools of a host, with the ledger of who holds what.

    Safe to use from several threads and processes at once. Each method raises
    `exception.KernelError` if files of the kernel can't be used that it needs,
    and `exception.LedgerError` if the ledger can't be.

    :param lock: the lock of the host, over all processes
    :param read_maps: reads where the huge pages of a process are
    :param pod_pages: the pages of pods, None if there are none
    :param read_only: why the pools can't be changed here, None if they can
    :param clock: seconds since the epoch
    :param ticks: seconds of a clock that only goes forward
    """

    def __init__(
        self,
        kernel: hugetlb.Hugetlb,
        ledger: Ledger,
        policy: PoolPolicy,
        *,
        lock: contextlib.AbstractContextManager[object],
        read_maps: processes.MapsReader,
        pod_pages: pods.PodPages | None = None,
        read_only: str | None = None,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._kernel = kernel
        self._ledger = ledger
        self._policy = policy
        self._lock = lock
        self._read_only = read_only
        self._clock = clock
        self._ticks = ticks
        self._sleep = sleep
        self._accounts = Accounts(kernel, ledger)
        self._leaks = leaks.LeakFinder(ledger)
        self._ready = ready.ReadyPages(ledger, policy, clock)
        self._usage = UsageReader(
            kernel,
            read_maps,
            self._accounts,
            ledger,
            policy.reserved,
            pod_pages,
            policy.lend_ratio,
        )
        self._host = growth.GrowthHost(
            kernel,
            self._accounts,
            self._usage,
            ledger.holds,
            ticks,
            sleep,
        )
        self._promises = promises.Promises(
            kernel.fs,
            ledger,
            self._usage,
            self._host,
            self._ready,
            lambda: self._why_no_growth,
            clock,
        )

    @property
    def policy(self) -> PoolPolicy:
        """The operator's policy."""
        return self._policy

    # Whether the pools can change.

    @property
    def can_grow(self) -> bool:
        """Whether pages can be allocated."""
        return self._why_no_growth is None

    @property
    def _why_no_growth(self) -> str | None:
        if self._read_only is not None:
            return f'pools are read-only: {self._read_only}'
        if not self._policy.dynamic:
            return 'pools are static, so none were allocated'
        return None

    def make_read_only(self, reason: str) -> None:
        """Leave the pools as they are from now on."""
        self._read_only = reason
        LOG.warning(
            'Huge page pools are read-only (%s): reserving from existing '
            'pages only. Restart nova-compute once this is fixed.',
            reason,
        )

    # Reading.

    def now(self) -> float:
        """Return the time, in seconds since the epoch."""
        return self._clock()

    def holds(
        self, holder: str | None = None, *purposes: model.Purpose
    ) -> list[model.Hold]:
        """List what is held.

        :param holder: for whom; for all if None
        :param purposes: for what; for all purposes if none
        """
        return self._ledger.holds(holder, *purposes)

    def check_processes(self) -> None:
        """Check that all guests that run can be seen.

        :raises exception.KernelError: if they can't
        """
        processes.check_visible(self._kernel.fs)

    def running(self) -> dict[str, processes.GuestProcess]:
        """Get the guests that run, by uuid."""
        return processes.running(self._kernel.fs)

    def pages_of(
        self, process: processes.GuestProcess
    ) -> dict[model.PoolKey, int]:
        """Read which huge pages a guest has, by pool.

        :returns: nothing if the process is gone
        """
        return self._usage.pages_of(process)

    def usage(
        self,
        without: tuple[str, model.Purpose] | None = None,
        *,
        holds: Collection[model.Hold] | None = None,
    ) -> Usage:
        """Read the use of each pool.

        :param without: a holder and a purpose whose holds don't count
        :param holds: the holds to go by; those of the ledger if None
        """
        if holds is None:
            holds = self._ledger.holds()
        return self._usage.read(holds, without)

    def check_accounts(self) -> AccountsCheck:
        """Compare the accounts with the kernel; changes nothing."""
        return self._accounts.read()

    def snapshot(self) -> snapshot.HostSnapshot:
        """Take a snapshot of the host; changes nothing."""
        return snapshot.take(
            self._kernel.fs,
            self._policy,
            self._usage,
            self._ledger.holds(),
            can_grow=self.can_grow,
            ready=self._ledger.ready(),
            waits=self._ledger.waits(),
        )

    def freeable(
        self,
        accounts: Mapping[model.PoolKey, model.Account] | None = None,
        usage: Usage | None = None,
    ) -> dict[model.PoolKey, int]:
        """Count the idle pages that could be freed, by pool.

        They are those that we allocated, without those that the policy keeps
        ready. What was there before us, or is the operator's, is never freed.

        :param accounts: the accounts to go by; those of the ledger if None
        :param usage: the use of the pools; as it is now if None
        """
        if accounts is None:
            accounts = self._ledger.accounts()
        ours = {key: account.grown for key, account in accounts.items()}
        if self._read_only is not None or not any(ours.values()):
            return {}
        usage = self.usage() if usage is None else usage
        kept = self._kept_ready(ours)
        return model.above_zero(
            {
                key: min(grown, usage[key].unclaimed) - kept[key]
                for key, grown in ours.items()
                if grown and key in usage
            }
        )

    def _kept_ready(
        self, keys: Iterable[model.PoolKey]
    ) -> dict[model.PoolKey, int]:
        """Return how many idle pages of pools are kept ready now."""
        return self._ready.kept(keys, nodes.memory(self._kernel.fs))

    # Changing.

    def hold(
        self,
        holder: str,
        needs: Sequence[model.PageNeed],
        purpose: model.Purpose = model.Purpose.GUEST,
    ) -> None:
        """Promise pages to a guest, and allocate those that are missing.

        All of the guest's cells get their pages, or none does. Idempotent: a
        holder that comes again, for the same pages or for others, has its
        promise replaced, and keeps the one it had if the new one can't be
        given. To be called before the guest starts.

        :param holder: the uuid of the instance
        :param needs: one for each guest cell on huge pages; a holder that
            needs none releases what it held for this purpose
        :raises exception.NotEnoughPages: if the host has too few; the pools
            are then as before
        :raises exception.PoolsReadOnly: if it has too few, and the pools turn
            out to be read-only; they are from then on
        """
        deadline = self._ticks() + self._policy.time_limit_s
        try:
            if not needs:
                self.release(holder, purpose)
                return
            while not self._holds(holder, needs, purpose, deadline):
                self._wait(holder, needs, purpose, deadline)
        except exception.PoolsReadOnly as error:
            # The scheduler must not be offered pages to be allocated.
            self.make_read_only(error.reason)
            raise

    def resize(
        self, holder: str, pages: Mapping[int, int], *, quick: bool = False
    ) -> None:
        """Change how many pages the elastic cells of a running guest may use.

        All of them get their new number, or none does. Idempotent. To be
        called before a guest is given more, and after it has given back.

        :param pages: by guest cell, from its base to its ceiling; cells that
            aren't named keep what they have
        :param quick: whether to take only what the kernel has at hand
        :raises ValueError: if a cell isn't elastic, or can't have so many
        :raises exception.NotEnoughPages: if the host has too few; the pools
            are then as before
        :raises exception.PoolsReadOnly: as for `hold`
        """
        policy = dataclasses.replace(
            self._policy,
            time_limit_s=min(RESIZE_LIMIT_S, self._policy.time_limit_s),
        )
        if quick:
            policy = policy.at_hand()
        with self._lock:
            held = self.holds(holder, model.Purpose.GUEST)
            rows = [
                dataclasses.replace(
                    hold, pages=pages.get(hold.cell, hold.pages)
                )
                for hold in held
            ]
            cells = {row.cell for row in rows if row.ceiling}
            if pages.keys() - cells or any(
                not row.base <= row.pages <= row.ceiling
                for row in rows
                if row.ceiling
            ):
                raise ValueError(f'{holder} cannot have {pages} of {held}')
            if rows == held:
                return
            self.refresh()
            before, after = model.by_pool(held), model.by_pool(rows)
            more = model.above_zero(
                {key: after[key] - before[key] for key in after}
            )
            less_idle = {key: -count for key, count in more.items()}
            try:
                self._promises.make(
                    promises.Wanted(more, less_idle, None),
                    policy,
                    lambda made: promises.more_grown(rows, made),
                )
            except exception.PoolsReadOnly as error:
                self.make_read_only(error.reason)
                raise

    def settle(self, holder: str, needs: Sequence[model.PageNeed]) -> bool:
        """Have a running guest hold what it was asked to have. Idempotent.

        A service that is killed while it changes that leaves another number,
        and one that has lost its ledger doesn't know that a cell is elastic.

        :param needs: its needs as it runs, one for each guest cell
        :returns: whether it holds anything; one that doesn't is left alone
        """
        held = self.holds(holder, model.Purpose.GUEST)
        if not held or sorted(hold.need for hold in held) == sorted(needs):
            return bool(held)
        with self._lock:
            held = self.holds(holder, model.Purpose.GUEST)
            if not held:
                # It was released meanwhile.
                return False
            rows = [
                dataclasses.replace(
                    row, state=model.State.TAKEN, since=held[0].since
                )
                for row in self._promises.rows(
                    holder, needs, model.Purpose.GUEST, {}
                )
            ]
            grown = model.added_up((hold.key, hold.grown) for hold in held)
            self.replace(
                holder, {model.Purpose.GUEST: promises.more_grown(rows, grown)}
            )
            LOG.info(
                'Holds %(now)s, as it was asked to have, in place of '
                '%(before)s.',
                {
                    'now': model.in_words(model.by_pool(needs)),
                    'before': model.in_words(model.by_pool(held)),
                },
                instance_uuid=holder,
            )
        return True

    def sizes(self, holder: str) -> dict[int, model.Size]:
        """Get how the elastic cells of a guest came to their sizes."""
        return self._ledger.sizes(holder)

    def put_size(self, holder: str, cell: int, size: model.Size) -> None:
        """Set the size that an operator wants an elastic cell to have."""
        self._ledger.put_size(holder, cell, size)

    def note_size(
        self, holder: str, cell: int, changed: float, why: str
    ) -> None:
        """Note when and why the size of an elastic cell has changed."""
        self._ledger.note_size(holder, cell, changed, why)

    def waits(self) -> list[model.Wait]:
        """List the elastic cells that need pages which aren't there."""
        return self._ledger.waits()

    def put_waits(self, holder: str, missing_kib: Mapping[int, int]) -> None:
        """Note which pages the elastic cells of a guest need and don't get.

        :param missing_kib: by cell, without those that need none
        """
        self._ledger.put_waits(holder, missing_kib, self._clock())

    def mark_taken(self, holder: str) -> None:
        """Record that a guest has started and has its pages. Idempotent."""
        self._ledger.set_state(holder, model.Purpose.GUEST, model.State.TAKEN)

    def record_placement(
        self, holder: str, found: Mapping[model.PoolKey, int]
    ) -> None:
        """Record where the memory of a guest was found."""
        self._ledger.put_placement(holder, found, self._clock())

    def move(
        self, holder: str, old: model.Purpose, new: model.Purpose
    ) -> None:
        """Hold for another purpose what is held for one. Idempotent."""
        if self.holds(holder, old):
            with self._lock:
                self._ledger.move(holder, old, new)

    def release(self, holder: str, *purposes: model.Purpose) -> None:
        """Release the pages of a guest that is gone for good. Idempotent.

        Those that we allocated are freed, except for those that the policy
        keeps ready. Pages that the kernel doesn't free now are freed by a
        later `trim`.

        :param purposes: what they were held for; all purposes if none
        """
        if self.holds(holder, *purposes):
            with self._lock:
                self.drop(holder, *purposes)
                try:
                    idle = self.freeable()
                except exception.KernelError as error:
                    LOG.warning(
                        'Cannot free idle huge pages now; will retry: %s',
                        error,
                        instance_uuid=holder,
                    )
                else:
                    self._free(idle, {})

    # Changing in steps, by a caller that has the lock.

    def locked(self) -> contextlib.AbstractContextManager[object]:
        """Get the lock of the host, over all processes."""
        return self._lock

    def refresh(self) -> Sequence[str]:
        """Bring the accounts in step with the kernel, and log the changes.

        :returns: the changes, a sentence each
        """
        changes = self._accounts.refresh().changes
        for change in changes:
            LOG.warning('Huge pages: %s.', change)
        return changes

    def find_leaks(self) -> None:
        """Find pages that guests which have ended have left in use.

        If a process can't be read, none are found.
        """
        holds = self._ledger.holds()
        try:
            running = self.running()
            usage = self._usage.read(holds, running=running)
        except exception.KernelError as error:
            LOG.warning('Cannot look for leaked huge pages: %s', error)
            return
        self._leaks.find(usage, running, holds)

    def drop(self, holder: str, *purposes: model.Purpose) -> None:
        """Drop what is held for a guest; the pages stay in the pools.

        For the parameters see `release`.
        """
        self.refresh()
        self.find_leaks()
        dropped = self._ledger.drop(holder, *purposes)
        LOG.info(
            'Released %s.',
            model.in_words(model.by_pool(dropped)),
            instance_uuid=holder,
        )

    def replace(
        self, holder: str, holds: Mapping[model.Purpose, Sequence[model.Hold]]
    ) -> None:
        """Replace what is held for a guest.

        :param holds: what is to be held for which purpose, perhaps nothing
        """
        with self._ledger.transaction():
            for purpose, rows in holds.items():
                self._ledger.replace_holds(holder, purpose, rows)

    def allocate(
        self,
        missing: Mapping[model.PoolKey, int],
        *,
        quick: bool,
        allocated: dict[model.PoolKey, int],
    ) -> Mapping[model.PoolKey, int]:
        """Allocate pages that are promised and missing, as far as possible.

        :param quick: whether to take only what the kernel has at hand
        :param allocated: what was allocated is added to it, also if an error
            ends it
        :returns: how many are still missing, by pool
        """
        if not missing or not self.can_grow:
            return missing
        policy = self._policy.at_hand() if quick else self._policy
        attempt = growth.Growth(self._host, policy, missing)
        try:
            return attempt.grow(missing)
        finally:
            for key, count in attempt.made.items():
                allocated[key] = allocated.get(key, 0) + count

    def make_ready(self, *, is_short: bool = False) -> None:
        """Allocate idle pages as the policy keeps ready, if they are at hand.

        Only as many as the forecast says: the fixed margin is never allocated
        in advance.

        :param is_short: whether pages that are promised are missing, so that
            none are kept ready now
        """
        # What was taken before counts no more, whether or not some are made.
        self._ready.made()
        kept: dict[model.PoolKey, int] = {}
        if self.can_grow:
            kept = model.above_zero(self._kept_ready(self._ledger.accounts()))
        if kept != self._ledger.ready():
            self._ledger.set_ready(kept)
        if not self._policy.ready_risk_percent or is_short:
            return
        warm_kib = self._policy.warm_mib * 1024
        ahead = {
            key: count
            for key, count in kept.items()
            if count > warm_kib // key.size_kib
        }
        # All guests are looked at for it.
        usage = self.usage() if ahead else {}
        missing = model.above_zero(
            {
                key: count - max(0, usage[key].unclaimed)
                for key, count in ahead.items()
            }
        )
        made: dict[model.PoolKey, int] = {}
        for key, count in missing.items():
            self.allocate({key: count}, quick=True, allocated=made)
        if made:
            LOG.info('Made ready: %s.', model.in_words(made))

    def trim(self, freed: dict[model.PoolKey, int] | None = None) -> None:
        """Free the idle pages that we allocated, as far as the kernel does.

        Needs accounts that are in step.

        :param freed: receives how many pages were freed, pool by pool, also
            if an error ends it
        """
        self._free(self.freeable(), {} if freed is None else freed)

    def _free(
        self,
        idle: Mapping[model.PoolKey, int],
        freed: dict[model.PoolKey, int],
    ) -> None:
        for key, pages in idle.items():
            settings = self._accounts.settings[key]
            count = -self._accounts.add(key, -pages)
            if self._accounts.settings[key] != settings:
                # None of its pages are ours any more.
                continue
            if count > 0:
                freed[key] = count
                LOG.info(
                    'Freed idle huge pages: %s.', model.in_words({key: count})
                )
            if count < pages:
                LOG.info(
                    'Kernel freed only %(count)d of %(idle)d idle pages of '
                    '%(pool)s; will retry.',
                    {'count': count, 'idle': pages, 'pool': key},
                )

    def _holds(
        self,
        holder: str,
        needs: Sequence[model.PageNeed],
        purpose: model.Purpose,
        deadline: float,
    ) -> bool:
        """Promise pages.

        :param deadline: until when to try again
        :returns: whether that could be done; if not, it may be in a moment
        """
        with self._lock:
            try:
                self._hold(holder, needs, purpose)
            except promises.MayPass:
                if self._ticks() >= deadline:
                    raise
                return False
        return True

    def _wait(
        self,
        holder: str,
        needs: Sequence[model.PageNeed],
        purpose: model.Purpose,
        deadline: float,
    ) -> None:
        """Wait until it is known whether there are enough pages."""
        wanted = promises.Wanted.of(holder, needs, purpose)
        while self._ticks() < deadline:
            self._sleep(growth.PAUSE_S)
            if not self._promises.may_pass(wanted):
                break

    def _hold(
        self,
        holder: str,
        needs: Sequence[model.PageNeed],
        purpose: model.Purpose,
    ) -> None:
        self.refresh()
        held = self.holds(holder, purpose)
        if (
            purpose is not model.Purpose.RESIZE
            and sorted(hold.need for hold in held) == sorted(needs)
            and holder in self.running()
        ):
            # It runs on just these pages.
            return
        wanted = promises.Wanted.of(holder, needs, purpose)
        if not held and purpose is not model.Purpose.RESIZE:
            wanted = wanted._replace(is_start=True)
        made = self._promises.make(
            wanted,
            self._policy,
            lambda made: self._promises.rows(holder, needs, purpose, made),
        )
        LOG.info(
            'Reserved %(pages)s (purpose: %(purpose)s, newly allocated: '
            '%(made)s).',
            {
                'pages': model.in_words(model.by_pool(needs)),
                'purpose': purpose,
                'made': model.in_words(made),
            },
            instance_uuid=holder,
        )
