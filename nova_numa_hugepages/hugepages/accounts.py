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

"""Accounts of whose pages are in the pools, kept in step with the kernel.

The persistent pages of a pool are the floor and what we grew. Any difference
comes from the operator, or from a write of ours that was cut off.

Writing needs the host's lock.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.state.ledger import Ledger

# How often a pool is written again that others made too large meanwhile.
_ATTEMPTS = 3


@dataclasses.dataclass(frozen=True, slots=True)
class AccountsCheck:
    """The accounts of a host's pools, compared with the kernel.

    :ivar accounts: one account for each pool, in step with it
    :ivar changes: sentences on the differences from the ledger
    :ivar rebooted: whether the host was rebooted since
    """

    accounts: Mapping[model.PoolKey, model.Account]
    changes: Sequence[str] = ()
    rebooted: bool = False


class Accounts:
    """Writes pools, and keeps account of it.

    Each method raises `exception.KernelError` if the kernel's files can't be
    used, and `exception.LedgerError` if the ledger can't be.

    :ivar settings: how often each pool was found set from outside between two
        refreshes. What we did to it before can't be undone: the number that
        was set is the operator's.
    """

    def __init__(self, kernel: hugetlb.Hugetlb, ledger: Ledger) -> None:
        self._kernel = kernel
        self._ledger = ledger
        self.settings: collections.Counter[model.PoolKey] = (
            collections.Counter()
        )
        # Differences that were found between two refreshes.
        self._unreported: list[str] = []
        # What writes have come to that the ledger could not be told, by the
        # announcement that is there.
        self._unsettled: dict[model.Account, model.Account] = {}

    def read(
        self, pools: Mapping[model.PoolKey, model.Pool] | None = None
    ) -> AccountsCheck:
        """Compare the pools with the ledger; changes neither.

        :param pools: all pools, if they were just read
        """
        if pools is None:
            pools = self._kernel.pools()
        last = self._ledger.boot_id
        rebooted = last is not None and last != self._kernel.fs.boot_id()
        changes: list[str] = []
        if rebooted:
            changes.append(
                'the host was rebooted; its pools are as the kernel command '
                'line and the operator set them up'
            )
        # Without an account all pages of a pool belong to the floor.
        stored = {} if rebooted else self._ledger.accounts()
        accounts = {
            key: _in_step(pool, self._known(stored.get(key)), changes)
            for key, pool in pools.items()
        }
        return AccountsCheck(accounts, tuple(changes), rebooted)

    def refresh(self) -> AccountsCheck:
        """Bring the ledger in step with the pools. Idempotent.

        :returns: the accounts, and what was different
        """
        known = self._ledger.accounts()
        for account in known.values():
            if account.announced_to is not None:
                # The helper of a service that was killed may be at it.
                self._kernel.wait_for_writers(account.key)
        check = self.read()
        changes = (*self._unreported, *check.changes)
        if check.accounts != known or check.rebooted:
            with self._ledger.transaction():
                if check.rebooted or known.keys() - check.accounts.keys():
                    self._ledger.forget_accounts()
                for account in check.accounts.values():
                    self._ledger.put_account(account)
        self._unsettled.clear()
        boot_id = self._kernel.fs.boot_id()
        if self._ledger.boot_id != boot_id:
            self._ledger.set_boot_id(boot_id)
        self._unreported.clear()
        return dataclasses.replace(check, changes=changes)

    def account(self, key: model.PoolKey) -> model.Account:
        """Get the account of a pool, in step with it.

        What was announced and never settled, because the ledger could not be
        written, is settled first: the next announcement would replace it.
        """
        return self._current(key)[1]

    def _current(self, key: model.PoolKey) -> tuple[model.Pool, model.Account]:
        stored = self._ledger.account(key)
        known = self._known(stored)
        if stored is None or known is None:
            raise exception.NUMAHugepagesError(
                f'the ledger has no account of the pool of {key}'
            )
        if known.announced_to is not None:
            self._kernel.wait_for_writers(key)
        pool = self._kernel.pool(key)
        changes: list[str] = []
        account = _in_step(pool, known, changes)
        if account != stored:
            self._ledger.settle(key, account.floor, account.grown)
            self._unsettled.pop(stored, None)
            self._note(key, changes)
        return pool, account

    def _known(self, stored: model.Account | None) -> model.Account | None:
        """Get what is known of an account of the ledger."""
        return stored and self._unsettled.get(stored, stored)

    def _note(self, key: model.PoolKey, changes: Sequence[str]) -> None:
        """Note that a pool was set from outside, if it was."""
        self._unreported += changes
        self.settings[key] += bool(changes)

    def add(self, key: model.PoolKey, count: int, *, of_floor: int = 0) -> int:
        """Add persistent pages to a pool, or remove some of ours.

        The ledger learns of the write before it is made. Pages that the pool
        gains are ours, and so were those that it loses. If the pool is found
        set from outside, none of its pages are ours any more. A number that is
        set between the look at the pool and the end of the write can't always
        be told from ours.

        Free pages that the kernel doesn't remove it counts as surplus, and
        never removes them later. They are made persistent again, and stay
        ours. So are pages that come on top because others write at the same
        time; they are removed again, as far as the kernel does. If an error
        ends it, the pool may have changed; the next `refresh` finds that out.

        :param count: how many pages, below 0 to remove them; the kernel adds
            or removes as many of them as it can
        :param of_floor: how many may be removed that are not ours
        :returns: how many persistent pages were gained, below 0 if lost; 0 if
            the pool was set from outside meanwhile
        :raises exception.PoolsReadOnly: if pools can't be written here
        """
        before, account = self._current(key)
        settings = self.settings[key]
        count = max(count, -account.grown - min(of_floor, account.floor))
        if not count:
            return 0
        wanted = before.persistent + count
        after = self._set(key, before, wanted, attempts=_ATTEMPTS)
        if self.settings[key] != settings:
            return 0
        return after.persistent - before.persistent

    def _set(
        self,
        key: model.PoolKey,
        before: model.Pool,
        wanted: int,
        *,
        attempts: int = 0,
    ) -> model.Pool:
        now, account = self._current(key)
        if now.persistent != before.persistent:
            # The number that was set meanwhile stands.
            return now
        after, meant = self._write(key, account, now, wanted)
        # Pages in use go when they are freed. Of the others all should.
        to_go = min(now.free, now.persistent - wanted)
        refused = to_go - max(0, now.total - after.total)
        # Those that are persistent are more than was asked for.
        refused = min(refused, after.surplus)
        if refused > 0:
            return self._set(key, after, after.persistent + refused)
        if attempts and wanted < after.persistent <= meant:
            return self._set(key, after, wanted, attempts=attempts - 1)
        return after

    def _write(
        self,
        key: model.PoolKey,
        account: model.Account,
        before: model.Pool,
        wanted: int,
    ) -> tuple[model.Pool, int]:
        """Write a pool once; what came out is accounted.

        :returns: the pool, and how many pages the kernel took it for at most
        """
        self._ledger.announce(key, before.persistent, wanted)
        announced = dataclasses.replace(
            account, announced_from=before.persistent, announced_to=wanted
        )
        meant = self._kernel.set_persistent(key, wanted)
        after = self._kernel.pool(key)
        changes: list[str] = []
        settled = _in_step(
            after,
            dataclasses.replace(
                announced,
                announced_to=max(wanted, min(meant, after.persistent)),
            ),
            changes,
        )
        self._note(key, changes)
        self._unsettled[announced] = settled
        self._ledger.settle(key, settled.floor, settled.grown)
        del self._unsettled[announced]
        return after, meant

    def set_floor(self, key: model.PoolKey, floor: int) -> None:
        """Record whose the pages of a pool are; the pool stays as it is.

        :param floor: how many are the operator's; the rest is ours
        """
        account = self.account(key)
        persistent = account.floor + account.grown
        floor = min(floor, persistent)
        self._ledger.settle(key, floor, persistent - floor)

    def demote(self, key: model.PoolKey, count: int) -> tuple[int, int]:
        """Split idle pages of a pool into 2 MiB pages.

        Pages that are ours stay ours in their new size, and those of the
        floor stay floor. A process that is killed in between leaves all of
        both pools to the floor.

        :param key: the pool of the large pages
        :returns: how many pages were split, and how many of them were floor
        :raises: as for `add`
        """
        small_key = model.PoolKey(key.node, hugetlb.DEMOTED_KIB)
        small = self.account(small_key)
        before, large = self._current(key)
        self._kernel.demote(key, count)
        split = max(0, before.total - self._kernel.pool(key).total)
        ours = min(split, large.grown)
        floor = min(split - ours, large.floor)
        ratio = key.size_kib // hugetlb.DEMOTED_KIB
        with self._ledger.transaction():
            self._ledger.settle(key, large.floor - floor, large.grown - ours)
            self._ledger.settle(
                small_key,
                small.floor + (split - ours) * ratio,
                small.grown + ours * ratio,
            )
        return split, floor


def _in_step(
    pool: model.Pool, account: model.Account | None, changes: list[str]
) -> model.Account:
    """Bring an account in step with its pool.

    As much of an announced write counts as done as can have been. If that
    doesn't come to what there is, the operator has set the pool, and all of
    its pages are the floor: what an operator writes is a number of pages, not
    how many to add to ours.
    """
    if account is None:
        return model.Account(pool.node, pool.size_kib, floor=pool.persistent)
    floor, grown = account.floor, account.grown
    was, to = account.announced_from, account.announced_to
    if was is not None and to is not None:
        low, high = min(was, to), max(was, to)
        done = min(max(pool.persistent, low), high) - was
        lost = max(0, -(grown + done))
        grown = max(0, grown + done)
        floor = max(0, floor - lost)
    if pool.persistent != floor + grown:
        changes.append(
            f'the pool of {pool.key} was set from {floor + grown} to '
            f'{pool.persistent} pages from outside, and will keep these'
        )
        floor, grown = pool.persistent, 0
    return model.Account(pool.node, pool.size_kib, floor, grown)
