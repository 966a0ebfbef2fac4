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
import dataclasses

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.state.ledger import Ledger


@dataclasses.dataclass(frozen=True, slots=True)
class PoolUsage:
    """The use of a pool.

    :ivar pool: the counters of the kernel
    :ivar promised: free pages that holders have a right to; pages that a
        running guest has returned for now are among them
    :ivar starting: those of them whose holder is taking them right now
    :ivar ours: pages in use that belong to a hold
    :ivar reserved: pages that the operator holds back from guests
    :ivar floor: pages that are the operator's
    :ivar leaked: pages in use that guests have left which have ended
    :ivar awaited: free pages that some process other than a holder has
        reserved in the kernel and not touched yet. The kernel doesn't say on
        which node they will be, so they count on each, among the pages that
        weren't allocated for guests.
    :ivar owed: those of them that can be on no other node
    """

    pool: model.Pool
    promised: int = 0
    starting: int = 0
    ours: int = 0
    reserved: int = 0
    floor: int = 0
    leaked: int = 0
    awaited: int = 0
    owed: int = 0

    @property
    def occupied(self) -> int:
        """Pages that processes without a hold use."""
        return max(0, self.pool.in_use - self.ours)

    @property
    def held_back(self) -> int:
        """Free pages that are kept from guests.

        What others use comes out of what the operator reserved, unless it is
        leaked. Pages that aren't the operator's are not allocated to be kept
        from guests.
        """
        reserved = min(self.reserved, self.floor)
        used = max(0, self.occupied - self.leaked)
        return max(0, reserved - used, self.awaited)

    @property
    def overdue(self) -> int:
        """Pages that are promised and missing, as others have them."""
        needed = self.promised - self.starting + self.owed
        return max(0, min(self.promised, needed - self.pool.free))

    @property
    def available(self) -> int:
        """Free pages that can be promised; below 0 if too many are."""
        return self.pool.free - self.promised - self.held_back

    def __str__(self) -> str:
        parts = [f'{self.pool.total} there, {self.pool.free} free']
        if self.promised:
            parts.append(f'{self.promised} promised to other instances')
        if self.held_back:
            parts.append(f'{self.held_back} held back')
        if self.occupied:
            parts.append(f'{self.occupied} used by others')
        return ', '.join(parts)


class UsageReader:
    """Reads the use of the pools of a host.

    :param read_maps: reads the ``numa_maps`` of a process
    :param ledger: whose the pages are
    :param reserved: pages that the operator holds back from guests
    """

    def __init__(
        self,
        kernel: hugetlb.Hugetlb,
        read_maps: processes.MapsReader,
        ledger: Ledger,
        reserved: Mapping[model.PoolKey, int],
    ) -> None:
        self._kernel = kernel
        self._read_maps = read_maps
        self._ledger = ledger
        self._reserved = reserved

    def read(
        self,
        holds: Collection[model.Hold],
        without: tuple[str, model.Purpose] | None = None,
        *,
        running: Mapping[str, processes.GuestProcess] | None = None,
    ) -> dict[model.PoolKey, PoolUsage]:
        """Read the use of each pool.

        :param holds: all holds of the ledger
        :param without: a holder and a purpose whose holds don't count
        :param running: the guests that were just found running
        :raises exception.KernelError: if the kernel's files can't be read
        """
        promised: dict[model.PoolKey, int] = collections.Counter()
        ours: dict[model.PoolKey, int] = collections.Counter()
        starting: dict[model.PoolKey, int] = collections.Counter()
        maps: dict[str, _StartingGuest] = {}
        taken: dict[model.PoolKey, list[processes.GuestProcess]] = {}
        # Processes come first and pools last: a page that a starting guest
        # takes in between then counts twice, rather than not at all. So does
        # one that it has reserved.
        if running is None:
            running = processes.running(self._kernel.fs)
        awaited = self._kernel.reserved()
        for hold in holds:
            key = hold.key
            process = running.get(hold.holder)
            if hold.purpose is model.Purpose.RESIZE or process is None:
                has = 0
            elif hold.state is model.State.TAKEN:
                has = hold.pages
                taken.setdefault(key, []).append(process)
            else:
                if hold.holder not in maps:
                    maps[hold.holder] = _StartingGuest(self._maps(process))
                has, reserved = maps[hold.holder].take(key, hold.pages)
                starting[key] += hold.pages - has
                if key.size_kib in awaited:
                    awaited[key.size_kib] -= reserved
            ours[key] += has
            if (hold.holder, hold.purpose) != without:
                promised[key] += hold.pages - has
        pools = self._kernel.pools()
        accounts = self._ledger.accounts()
        leaks = self._ledger.leaks()
        # A guest that has taken its pages may return some through its balloon,
        # and takes them again whenever it likes.
        returned = {
            key: max(0, ours[key] - pool.in_use) for key, pool in pools.items()
        }
        for key, count in returned.items():
            # Or it was still starting when the service did.
            for process in taken.get(key, ()) if count else ():
                free_kib = processes.untouched_kib(
                    self._maps(process), key.size_kib
                )
                awaited[key.size_kib] -= min(count, free_kib // key.size_kib)
        # What is left of each pool for those that await pages.
        spare = {
            key: max(0, pool.free - promised[key] - returned[key])
            for key, pool in pools.items()
        }
        found = {}
        for key, pool in pools.items():
            # Without an account all of its pages are the operator's.
            account = accounts.get(key)
            floor, grown = pool.total, 0
            if account is not None:
                floor, grown = account.floor, account.grown
            await_some = max(0, awaited.get(key.size_kib, 0))
            elsewhere = sum(
                pages
                for other, pages in spare.items()
                if other.size_kib == key.size_kib and other != key
            )
            owed = max(0, await_some - elsewhere)
            found[key] = PoolUsage(
                pool,
                promised[key] + returned[key],
                starting[key],
                ours[key] - returned[key],
                self._reserved.get(key, 0),
                floor,
                leaks.get(key, 0),
                max(owed, min(pool.free - grown, await_some)),
                owed,
            )
        return found

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

    def _maps(self, process: processes.GuestProcess) -> str:
        """Read where the huge pages of a guest are that is taking them.

        If that can't be read, those that it has count twice: as promised, and
        as used by others. That lasts until it has started, and is logged then.
        """
        try:
            return self._read_maps(process.pid)
        except (exception.KernelError, ProcessLookupError):
            return ''


class _StartingGuest:
    """The pages of a guest that is taking them.

    :param maps: as `processes.huge_maps` reads it
    """

    def __init__(self, maps: str) -> None:
        self._maps = maps
        self._pages = processes.pages_of(maps)
        self._reserved: dict[int, int] = {}

    def take(self, key: model.PoolKey, held: int) -> tuple[int, int]:
        """Take the pages of one of its holds out of what it has.

        :param held: how many pages it holds
        :returns: how many of these it has, and for how many of the others the
            kernel keeps a page. It maps one cell after the other, and touches
            each before it maps the next one.
        """
        left = self._pages.get(key, 0)
        has = min(held, left)
        self._pages[key] = left - has
        size_kib = key.size_kib
        if size_kib not in self._reserved:
            self._reserved[size_kib] = (
                processes.untouched_kib(self._maps, size_kib) // size_kib
            )
        reserved = min(held - has, self._reserved[size_kib])
        self._reserved[size_kib] -= reserved
        return has, reserved
