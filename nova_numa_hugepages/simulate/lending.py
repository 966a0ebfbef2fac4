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

"""What lending the idle memory of elastic instances brings, and costs.

A fleet is filled with what its hosts offer then; after that its instances live
for a week, and the policy of the compute service gives and takes memory.
"""

from __future__ import annotations

import collections
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import random
from typing import Final
from typing import NamedTuple

from nova import objects
from nova.scheduler import host_manager

from nova_numa_hugepages import elastic_spec
from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.hugepages import elastic
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.sample import MemoryInside
from nova_numa_hugepages.simulate import results
from nova_numa_hugepages.simulate import scenario

RATIOS: Final = (1.0, 1.1, 1.25, 1.5)

_STEP_S: Final = 30
_HOUR_S: Final = 3600
_DAY_S: Final = 24 * _HOUR_S
WEEK_S: Final = 7 * _DAY_S
# Use goes up and down by so much while an instance is idle, of its memory.
_IDLE_VARIES: Final = 0.05


class HostPool(NamedTuple):
    """The name of a pool: the pages of one size of a node of a host."""

    host: str
    node: int
    size_kib: int


class LentCell(NamedTuple):
    """An elastic guest cell. All counts are pages.

    :ivar block: the steps in which it can change
    """

    pool: HostPool
    base: int
    ceiling: int
    block: int


class LentPages:
    """What the hosts of a fleet offer while elastic instances come.

    :param ratio: as the option ``elastic_lend_ratio``
    :ivar guests: the elastic cells of those that are there
    :ivar pages: of each pool, without those of other instances
    """

    def __init__(
        self, ratio: float, hosts: Iterable[host_manager.HostState]
    ) -> None:
        self._ratio = ratio
        self._idle: dict[HostPool, int] = collections.Counter()
        self._stats: dict[str, host_stats.HostStats] = {}
        self._totals: dict[HostPool, int] = {}
        for host in hosts:
            if value := host.stats.get(host_stats.STATS_KEY):
                self._stats[host.host] = host_stats.parse(value)
            for cell in host.numa_topology.cells:
                for pages in cell.mempages:
                    pool = HostPool(host.host, cell.id, pages.size_kb)
                    self._totals[pool] = pages.total
        self.guests: list[tuple[LentCell, ...]] = []
        self.pages = dict(self._totals)

    def add(
        self,
        host: host_manager.HostState,
        flavor: objects.Flavor,
        topology: objects.InstanceNUMATopology | None,
    ) -> int:
        """Count an instance that was placed on a host.

        :param host: its totals and stats are changed
        :returns: how much more memory the host offers, in MiB
        """
        cells = topology.cells if topology else []
        placed = [
            (
                HostPool(host.host, cell.id, cell.pagesize),
                cell.memory * 1024 // cell.pagesize,
            )
            for cell in cells
            if cell.pagesize
        ]
        # Computes with Nova's own driver have nothing elastic.
        sizes = host.host in self._stats and elastic_spec.check(
            flavor.extra_specs,
            {},
            [(cell.memory, cell.pagesize or 0) for cell in cells],
        )
        if not sizes:
            for pool, count in placed:
                self.pages[pool] -= count
            return 0
        boot_mib = sum(size.base for size in sizes)
        guest = []
        for (pool, count), size in zip(placed, sizes, strict=True):
            base = size.base * 1024 // pool.size_kib
            block_mib = elastic_spec.block_mib(boot_mib, pool.size_kib)
            self._idle[pool] += count - base
            guest.append(
                LentCell(pool, base, count, block_mib * 1024 // pool.size_kib)
            )
        self.guests.append(
            tuple(cell for cell in guest if cell.base < cell.ceiling)
        )
        for cell in guest:
            if cell.base == cell.ceiling:
                self.pages[cell.pool] -= cell.ceiling
        return self._offer(host)

    def _offer(self, host: host_manager.HostState) -> int:
        """Change what a host offers, as its driver does."""
        more_kib = 0
        lendable: dict[int, dict[int, int]] = {}
        for cell in host.numa_topology.cells:
            for pages in cell.mempages:
                pool = HostPool(host.host, cell.id, pages.size_kb)
                total = self._totals[pool]
                lent = model.lendable(self._idle[pool], total, self._ratio)
                more_kib += (total + lent - pages.total) * pages.size_kb
                pages.total = total + lent
                if lent:
                    lendable.setdefault(cell.id, {})[pages.size_kb] = lent
        host.stats[host_stats.STATS_KEY] = dataclasses.replace(
            self._stats[host.host], lendable=lendable
        ).dump()
        return more_kib // 1024


@dataclasses.dataclass(slots=True)
class _Guest:
    """An instance that lives.

    :ivar pages: what its cells have
    :ivar use: how much of its memory its programs use, from 0 to 1
    :ivar busy_until_s: until when it is busy, and with how much
    :ivar waits_since_s: since when it needs more than there is, None if it
        doesn't
    :ivar short_until_s: until when it isn't given more, as there was nothing
    :ivar short_wait_s: how long that was
    """

    cells: tuple[LentCell, ...]
    pages: list[int]
    use: float
    busy_until_s: int = 0
    waits_since_s: int | None = None
    short_until_s: float = 0.0
    short_wait_s: float = 0.0
    track: elastic.Track = dataclasses.field(default_factory=elastic.Track)

    def live(self, use: scenario.Use, now: int, dice: random.Random) -> None:
        """Become busy, or idle."""
        if now < self.busy_until_s:
            return
        self.use = use.idle_percent / 100 + dice.uniform(
            -_IDLE_VARIES, _IDLE_VARIES
        )
        first, last = use.office_hours
        office = (
            first <= now % _DAY_S / _HOUR_S < last and now // _DAY_S % 7 < 5
        )
        share = (
            use.office_busy_percent if office else use.other_busy_percent
        ) / 100
        mean_s = sum(use.busy_hours) / 2 * _HOUR_S
        # So often that this share of the time is busy.
        if dice.random() * (1 - share) * mean_s < _STEP_S * share:
            least, most = use.busy_percent
            self.use = dice.uniform(least, most) / 100
            self.busy_until_s = now + int(
                dice.uniform(*use.busy_hours) * _HOUR_S
            )

    def wanted(
        self, marks: elastic.Marks, now: int, pressed: Collection[int]
    ) -> Mapping[int, int]:
        """Return what its cells should have, if that isn't what they have.

        :param pressed: cells that give back at once what they don't need
        """
        has_kib = sum(
            pages * cell.pool.size_kib
            for pages, cell in zip(self.pages, self.cells, strict=True)
        )
        all_kib = sum(cell.ceiling * cell.pool.size_kib for cell in self.cells)
        usable_kib = max(0, has_kib - int(self.use * all_kib))
        share = 100 * usable_kib / has_kib
        if share >= marks.grow_percent and (
            share <= marks.shrink_percent
            or all(
                pages == cell.base
                for pages, cell in zip(self.pages, self.cells, strict=True)
            )
        ):
            # As it would be decided, in less time.
            self.track.roomy_since = None
            return {}
        decision = elastic.decide(
            [
                elastic.Cell(
                    number,
                    cell.base,
                    pages,
                    pages,
                    cell.ceiling,
                    cell.block,
                    cell.pool.size_kib,
                )
                for number, (pages, cell) in enumerate(
                    zip(self.pages, self.cells, strict=True)
                )
            ],
            MemoryInside(
                has_kib,
                usable_kib,
                *(None,) * 5,
                updated=now,
                age_s=0.0,
            ),
            self.track,
            marks,
            now,
            pressed,
        )
        return {} if decision is None else decision.pages


def live(
    pages: Mapping[HostPool, int],
    guests: Sequence[tuple[LentCell, ...]],
    use: scenario.Use,
    seed: int,
    marks: elastic.Marks,
) -> results.Week:
    """Let a week go by.

    :param pages: of each pool, for these guests
    :param guests: the elastic cells of each instance
    :param marks: when they grow and shrink
    """
    dice = random.Random(seed)
    living = [
        _Guest(cells, [cell.base for cell in cells], use.idle_percent / 100)
        for cells in guests
        if cells
    ]
    free = dict(pages)
    idle: dict[HostPool, int] = collections.Counter()
    for guest in living:
        for cell in guest.cells:
            free[cell.pool] -= cell.base
            idle[cell.pool] += cell.ceiling - cell.base
    waits_s: list[int] = []
    short: set[HostPool] = set()
    most_lent_kib = 0
    for now in range(0, WEEK_S, _STEP_S):
        most_lent_kib = max(
            most_lent_kib,
            sum(
                max(0, count - free[pool]) * pool.size_kib
                for pool, count in idle.items()
            ),
        )
        were_short, short = short, set()
        for guest in living:
            guest.live(use, now, dice)
            pressed = {
                number
                for number, cell in enumerate(guest.cells)
                if cell.pool in were_short
            }
            wanted = guest.wanted(marks, now, pressed)
            missing = _change(guest, wanted, free, idle, now)
            short |= missing
            if missing and guest.waits_since_s is None:
                guest.waits_since_s = now
            elif not missing and guest.waits_since_s is not None:
                waits_s.append(now - guest.waits_since_s)
                guest.waits_since_s = None
    waits_s += [
        WEEK_S - guest.waits_since_s
        for guest in living
        if guest.waits_since_s is not None
    ]
    waits_s.sort()
    return results.Week(
        instances=len(living),
        waits=len(waits_s),
        median_wait_s=waits_s[len(waits_s) // 2] if waits_s else 0,
        longest_wait_s=waits_s[-1] if waits_s else 0,
        waiting_share=sum(waits_s) / (WEEK_S * max(1, len(living))),
        most_lent_mib=most_lent_kib // 1024,
    )


def _change(
    guest: _Guest,
    wanted: Mapping[int, int],
    free: dict[HostPool, int],
    idle: dict[HostPool, int],
    now: int,
) -> set[HostPool]:
    """Give an instance what it wants, or as little as is of use.

    As the compute service does: all of it or a block of one cell, or nothing
    for a while.

    :param free: pages by pool; changed
    :param idle: pages that instances may have later, by pool; changed
    :returns: the pools that have too few
    """

    def give(number: int, count: int) -> None:
        pool = guest.cells[number].pool
        guest.pages[number] += count
        free[pool] -= count
        idle[pool] -= count
        guest.track.change(number, now)

    more = {}
    for number, count in wanted.items():
        change = count - guest.pages[number]
        if change > 0:
            more[number] = change
        else:
            give(number, change)
    asked: dict[HostPool, int] = collections.Counter()
    for number, change in more.items():
        asked[guest.cells[number].pool] += change
    if now < guest.short_until_s:
        return set(asked)
    short = {pool for pool, count in asked.items() if count > free[pool]}
    if short:
        able = [
            number
            for number in more
            if free[guest.cells[number].pool] >= guest.cells[number].block
        ]
        more = {number: guest.cells[number].block for number in able[:1]}
    for number, change in more.items():
        give(number, change)
    if short and not more:
        guest.short_wait_s = elastic.longer_wait(guest.short_wait_s)
        guest.short_until_s = now + guest.short_wait_s
        return set(asked)
    guest.short_wait_s = 0.0
    return short
