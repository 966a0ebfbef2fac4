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

"""Pools, pages and reservations as values.

Every count is in pages unless its name says otherwise, and a page size is in
KiB; ``node`` is the number that the kernel gives a NUMA node, which is also
the id of the host cell in Nova.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import enum
from typing import NamedTuple

from nova_numa_hugepages.core import units


class PoolKey(NamedTuple):
    """The name of a pool: the huge pages of one size on one node."""

    node: int
    size_kib: int

    def __str__(self) -> str:
        return f'{units.format_kib(self.size_kib)} on NUMA node {self.node}'


class Pool(NamedTuple):
    """The counters of a pool, as the kernel gives them.

    :ivar total: all pages, surplus ones included (``nr_hugepages``)
    :ivar free: pages that no process has (``free_hugepages``); some of them
        may be promised
    :ivar surplus: pages above the persistent ones, which vanish when they are
        freed (``surplus_hugepages``)
    """

    node: int
    size_kib: int
    total: int
    free: int
    surplus: int = 0

    @property
    def key(self) -> PoolKey:
        """The name of the pool."""
        return PoolKey(self.node, self.size_kib)

    @property
    def persistent(self) -> int:
        """Pages that stay when they are freed; the number that is written."""
        return self.total - self.surplus

    @property
    def in_use(self) -> int:
        """Pages that a process has."""
        return self.total - self.free


class PageNeed(NamedTuple):
    """The huge pages that one guest cell needs.

    :ivar cell: the number of the guest cell
    :ivar base: pages that an elastic cell always has; 0 for any other cell
    :ivar ceiling: pages that an elastic cell may come to have; 0 for any other
    """

    cell: int
    node: int
    size_kib: int
    pages: int
    base: int = 0
    ceiling: int = 0

    @property
    def key(self) -> PoolKey:
        """The pool that the pages come from."""
        return PoolKey(self.node, self.size_kib)

    @property
    def idle(self) -> int:
        """Pages that an elastic cell may have later."""
        return max(0, self.ceiling - self.pages)


class Purpose(enum.StrEnum):
    """The purpose that pages are held for."""

    GUEST = 'guest'
    """A guest that is here."""
    INCOMING = 'incoming'
    """A guest whose live migration to this host is under way."""
    RESIZE = 'resize'
    """A guest that was resized or migrated away, until that is confirmed."""


class State(enum.StrEnum):
    """Whether a guest has its pages."""

    HELD = 'held'
    """Promised; the guest has not been found running yet."""
    TAKEN = 'taken'
    """The guest has run on them. While it is off they are promised to it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Hold:
    """Pages that are promised to one guest cell: a row of the ledger.

    :ivar holder: the uuid of the instance
    :ivar cell: the number of the guest cell
    :ivar pages: what the cell may use now
    :ivar grown: how many of the pages were made for this hold
    :ivar since: seconds since the epoch
    :ivar base: as for `PageNeed`
    :ivar ceiling: as for `PageNeed`
    """

    holder: str
    purpose: Purpose
    cell: int
    node: int
    size_kib: int
    pages: int
    grown: int = 0
    state: State = State.HELD
    since: float = 0.0
    base: int = 0
    ceiling: int = 0

    @property
    def key(self) -> PoolKey:
        """The pool that the pages are in."""
        return PoolKey(self.node, self.size_kib)

    @property
    def need(self) -> PageNeed:
        """The need that the pages are held for."""
        return PageNeed(
            self.cell,
            self.node,
            self.size_kib,
            self.pages,
            self.base,
            self.ceiling,
        )

    @property
    def idle(self) -> int:
        """Pages that an elastic cell may have later."""
        return self.need.idle

    @property
    def at_boot(self) -> int:
        """Pages that the guest takes when it starts."""
        return self.base if self.ceiling else self.pages

    @property
    def at_most(self) -> int:
        """Pages that the guest may come to have."""
        return self.pages + self.idle


class Size(NamedTuple):
    """The size of an elastic guest cell, and how it came to it.

    :ivar wanted_kib: what an operator wants it to have; None if its use
        decides
    :ivar changed: when its size last changed, in seconds since the epoch
    :ivar why: a sentence on why it did
    """

    wanted_kib: int | None
    changed: float
    why: str


class Wait(NamedTuple):
    """An elastic guest cell that needs pages which aren't there.

    :ivar holder: the uuid of the instance
    :ivar kib: how much more it needs
    :ivar since: seconds since the epoch
    """

    holder: str
    cell: int
    kib: int
    since: float


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """The account of a pool in the ledger.

    A write to the pool is announced before it is made. A process that is
    killed in between leaves the announcement, from which the next one finds
    out how much of the write was done.

    :ivar floor: persistent pages that were there before us, or that the
        operator set since; we never remove them
    :ivar grown: persistent pages that we added
    :ivar announced_from: persistent pages before the write that is announced,
        None if none is
    :ivar announced_to: persistent pages that the write asks for
    """

    node: int
    size_kib: int
    floor: int
    grown: int = 0
    announced_from: int | None = None
    announced_to: int | None = None

    @property
    def key(self) -> PoolKey:
        """The pool."""
        return PoolKey(self.node, self.size_kib)


def by_pool(parts: Iterable[Hold | PageNeed]) -> dict[PoolKey, int]:
    """Add up pages by pool."""
    return added_up((part.key, part.pages) for part in parts)


def added_up(counts: Iterable[tuple[PoolKey, int]]) -> dict[PoolKey, int]:
    """Add up counts of the same pool."""
    found: dict[PoolKey, int] = {}
    for key, count in counts:
        found[key] = found.get(key, 0) + count
    return found


def at_boot_by_pool(holds: Iterable[Hold]) -> dict[PoolKey, int]:
    """Add up the pages that guests take when they start, by pool."""
    return added_up((hold.key, hold.at_boot) for hold in holds)


def idle_by_pool(parts: Iterable[Hold | PageNeed]) -> dict[PoolKey, int]:
    """Add up the pages that elastic cells may have later, by pool."""
    return added_up((part.key, part.idle) for part in parts if part.idle)


def lendable(idle: int, total: int, ratio: float) -> int:
    """Return how many pages of a pool may be lent.

    :param idle: pages that elastic cells may have later
    :param total: pages of the pool
    :param ratio: how far the pages may be promised, 1.0 for not at all
    """
    return min(idle, int(total * (ratio - 1)))


def pooled_kib(pools: Iterable[Pool], node: int) -> int:
    """Add up the memory of a node that is in pools, in KiB."""
    return sum(
        pool.total * pool.size_kib for pool in pools if pool.node == node
    )


def total_kib(counts: Iterable[tuple[PoolKey, int]]) -> int:
    """Add up the memory of pages of pools, in KiB."""
    return sum(key.size_kib * pages for key, pages in counts)


def above_zero(counts: Mapping[PoolKey, int]) -> dict[PoolKey, int]:
    """Keep the counts that are above zero."""
    return {key: count for key, count in counts.items() if count > 0}


def in_words(counts: Mapping[PoolKey, int]) -> str:
    """Format counts of pages by pool."""
    return (
        ', '.join(
            f'{count} pages of {key}' for key, count in sorted(counts.items())
        )
        or 'no huge pages'
    )
