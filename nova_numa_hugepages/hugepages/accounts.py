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

"""The kernel's pools and what the ledger says of them, kept in step.

A pool's persistent pages are the floor and what we grew. Whatever else is
found there was done by the operator, or by a write of ours that was cut off.

Everything here that writes needs the host's lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.state.ledger import Ledger


@dataclasses.dataclass(frozen=True, slots=True)
class AccountsCheck:
    """The pools of a host at one time, with their accounts.

    :ivar pools: what the kernel says
    :ivar accounts: one account for each pool, in step with it
    :ivar changes: sentences on what was found different from the ledger
    :ivar rebooted: whether the host has started anew since
    """

    pools: Mapping[model.PoolKey, model.Pool]
    accounts: Mapping[model.PoolKey, model.Account]
    changes: Sequence[str] = ()
    rebooted: bool = False


class Accounts:
    """Reads and writes pools, and keeps account of it.

    :param kernel: the kernel's pools
    :param ledger: where the accounts are kept
    :param fs: where the kernel's files are
    """

    def __init__(
        self,
        kernel: hugetlb.Hugetlb,
        ledger: Ledger,
        fs: hostfs.HostFS,
    ) -> None:
        self._kernel = kernel
        self._ledger = ledger
        self._fs = fs

    def read(self) -> AccountsCheck:
        """Compare the pools with the ledger; changes neither. Needs no lock.

        :raises exception.KernelError: if the kernel's files can't be read
        :raises exception.LedgerError: if the ledger can't be read
        """
        last = self._ledger.boot_id
        return compare(
            self._kernel.pools(),
            self._ledger.accounts(),
            rebooted=last is not None and last != self._fs.boot_id(),
        )

    def refresh(self) -> AccountsCheck:
        """Bring the ledger in step with the pools. Idempotent.

        :raises exception.KernelError: if the kernel's files can't be read
        :raises exception.LedgerError: if the ledger can't be used
        """
        books = self.read()
        known = self._ledger.accounts()
        if books.accounts != known or books.rebooted:
            with self._ledger.transaction():
                if books.rebooted or known.keys() - books.accounts.keys():
                    self._ledger.forget_accounts()
                for account in books.accounts.values():
                    self._ledger.put_account(account)
        if self._ledger.boot_id != self._fs.boot_id():
            self._ledger.set_boot_id(self._fs.boot_id())
        return books

    def set_persistent(self, key: model.PoolKey, wanted: int) -> model.Pool:
        """Write how many pages a pool has, and see what came of it.

        The ledger learns of the write before it is made. What the pool gains
        is ours, and what it loses was.

        Pages that the kernel is to give up and doesn't, it counts as surplus,
        free ones as well, and never gives them up later. They are made
        persistent again, and stay ours.

        :param wanted: persistent pages; the kernel gives or takes as many of
            them as it can
        :returns: the pool after the write
        :raises exception.PoolsReadOnly: if pools can't be written here
        :raises exception.KernelError: if the kernel's files can't be used
        :raises exception.LedgerError: if the ledger can't be used; the pool
            may have changed then, and the next `refresh` finds out
        """
        before = self._kernel.pool(key)
        after = self._write(key, before, wanted)
        # Pages in use go when they are freed. Of the others all should.
        to_go = min(before.free, before.persistent - wanted)
        refused = to_go - max(0, before.total - after.total)
        if refused > 0:
            after = self._write(key, after, after.persistent + refused)
        return after

    def _write(
        self, key: model.PoolKey, before: model.Pool, wanted: int
    ) -> model.Pool:
        account = self._account(key)
        self._ledger.announce(key, before.persistent, wanted)
        self._kernel.set_persistent(key, wanted)
        after = self._kernel.pool(key)
        settled = _in_step(
            after,
            dataclasses.replace(
                account,
                announced_from=before.persistent,
                announced_to=wanted,
            ),
            [],
        )
        self._ledger.settle(key, settled.floor, settled.grown)
        return after

    def grown(self, key: model.PoolKey) -> int:
        """Tell how many persistent pages of a pool are ours."""
        account = self._ledger.account(key)
        return account.grown if account else 0

    def floor(self, key: model.PoolKey) -> int:
        """Tell how many persistent pages of a pool are the operator's."""
        return self._account(key).floor

    def set_floor(self, key: model.PoolKey, wanted: int) -> None:
        """Tell whose the pages of a pool are; the pool stays as it is.

        :param wanted: how many are the operator's; the rest is ours
        :raises exception.LedgerError: if the ledger can't be used
        """
        account = self._account(key)
        floor = min(wanted, account.floor + account.grown)
        self._ledger.put_account(
            dataclasses.replace(
                account,
                floor=floor,
                grown=account.floor + account.grown - floor,
            )
        )

    def demote(self, key: model.PoolKey, count: int) -> int:
        """Split idle pages of a pool into 2 MiB pages.

        What is ours of them stays ours in its new size, and what was there
        before us stays that. A process that is killed in between leaves all
        of it to the floor.

        :param key: the pool of the large pages
        :returns: how many pages were split
        :raises: as for `set_persistent`
        """
        small = model.PoolKey(key.node, hugetlb.DEMOTED_KIB)
        large_account, small_account = self._account(key), self._account(small)
        before = self._kernel.pool(key)
        self._kernel.demote(key, count)
        split = max(0, before.total - self._kernel.pool(key).total)
        ours = min(split, large_account.grown)
        ratio = key.size_kib // hugetlb.DEMOTED_KIB
        with self._ledger.transaction():
            self._ledger.put_account(
                dataclasses.replace(
                    large_account,
                    floor=max(0, large_account.floor - (split - ours)),
                    grown=large_account.grown - ours,
                )
            )
            self._ledger.put_account(
                dataclasses.replace(
                    small_account,
                    floor=small_account.floor + (split - ours) * ratio,
                    grown=small_account.grown + ours * ratio,
                )
            )
        return split

    def _account(self, key: model.PoolKey) -> model.Account:
        account = self._ledger.account(key)
        if account is None:
            raise exception.NUMAHugepagesError(
                f'the ledger has no account of the pool of {key}'
            )
        return account


def compare(
    pools: Mapping[model.PoolKey, model.Pool],
    known: Mapping[model.PoolKey, model.Account],
    *,
    rebooted: bool = False,
) -> AccountsCheck:
    """Compare pools with what the ledger says of them.

    :param known: the accounts of the ledger; of a pool without one all pages
        belong to the floor
    :param rebooted: whether the host has started anew since they were written
    """
    changes: list[str] = []
    if rebooted:
        changes.append(
            'the host has started anew, so its pools are as the kernel '
            'command line and the operator set them up'
        )
        known = {}
    accounts = {
        key: _in_step(pool, known.get(key), changes)
        for key, pool in pools.items()
    }
    return AccountsCheck(pools, accounts, tuple(changes), rebooted)


def _in_step(
    pool: model.Pool, account: model.Account | None, changes: list[str]
) -> model.Account:
    """Bring an account in step with its pool.

    1. A write that was announced: what it can have done, it has done.
    2. Pages that appeared are the operator's, and belong to the floor.
    3. Pages that vanished were taken by the operator: ours go first.
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
    difference = pool.persistent - floor - grown
    if difference > 0:
        floor += difference
        changes.append(
            f'{difference} pages of {pool.key} were added by someone else; '
            f'the pool is kept at {floor} pages or more'
        )
    elif difference < 0:
        ours = min(grown, -difference)
        grown -= ours
        floor += difference + ours
        changes.append(
            f'{-difference} pages of {pool.key} were taken away by someone '
            'else'
        )
    return model.Account(pool.node, pool.size_kib, floor, grown)
