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

"""What lending brings: elastic instances on the pool of one node, for a week.

The policy is the real one; the guests are made up. Each uses 30 % of its
ceiling; in office hours a third of them is busy at a time, for one to three
hours, at night one in twenty, and a busy one uses 60 to 95 %. A pool holds so
many that their ceilings are the lending ratio times its pages.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Final

from nova_numa_hugepages.hugepages import elastic
from nova_numa_hugepages.hugepages.sample import MemoryInside

RATIOS: Final = (1.0, 1.1, 1.25, 1.5)
# On 2 MiB pages: 16 GiB, of which half is the base.
CEILING: Final = 8192
BASE: Final = CEILING // 2
BLOCK: Final = 64
PAGE_KIB: Final = 2048
# How many instances fit without lending.
INSTANCES: Final = 40

_STEP_S: Final = 30
_DAY_S: Final = 86400
_WEEK_S: Final = 7 * _DAY_S
_IDLE: Final = 0.3
_MARKS: Final = elastic.Marks()


@dataclasses.dataclass(slots=True)
class _Guest:
    """A guest.

    :ivar pages: what it has
    :ivar busy_until_s: until when it is busy, and with how much
    :ivar waits_since_s: since when it wants more than there is, None if it
        doesn't
    """

    pages: int = BASE
    use: float = _IDLE
    busy_until_s: int = 0
    waits_since_s: int | None = None
    track: elastic.Track = dataclasses.field(default_factory=elastic.Track)

    def live(self, now: int, dice: random.Random) -> None:
        """Become busy, or idle."""
        if now < self.busy_until_s:
            return
        self.use = _IDLE + dice.uniform(-0.05, 0.05)
        office = 8 <= now % _DAY_S // 3600 < 18 and now // _DAY_S % 7 < 5
        # Of the time a third is busy, and at night a twentieth.
        busy, mean_s = (1 / 3 if office else 1 / 20), 2 * 3600
        if dice.random() < _STEP_S * busy / (1 - busy) / mean_s:
            self.use = dice.uniform(0.6, 0.95)
            self.busy_until_s = now + int(dice.uniform(1, 3) * 3600)


@dataclasses.dataclass(frozen=True, slots=True)
class LendingResult:
    """What a ratio has come to.

    :ivar instances: how many there were
    :ivar waits: how often one wanted more than there was
    :ivar median_wait_min: how long that took
    :ivar longest_wait_min: at most
    :ivar waiting_share: the share of the time of all instances
    :ivar most_lent_gib: the largest regret
    """

    ratio: float
    instances: int
    waits: int
    median_wait_min: float
    longest_wait_min: float
    waiting_share: float
    most_lent_gib: float


def measure(ratio: float, seed: int = 1) -> LendingResult:
    """Let a week go by."""
    dice = random.Random(seed)
    pool = INSTANCES * CEILING
    guests = [_Guest() for _ in range(int(INSTANCES * ratio))]
    waits: list[float] = []
    most_lent = 0
    for now in range(0, _WEEK_S, _STEP_S):
        free = pool - sum(guest.pages for guest in guests)
        idle = sum(CEILING - guest.pages for guest in guests)
        most_lent = max(most_lent, idle - free)
        for guest in guests:
            guest.live(now, dice)
            used = guest.use * CEILING
            wanted = _decide(guest, used, now)
            if wanted > guest.pages and wanted - guest.pages > free:
                if guest.waits_since_s is None:
                    guest.waits_since_s = now
                # As little as is of use.
                wanted = guest.pages + (BLOCK if free >= BLOCK else 0)
            elif guest.waits_since_s is not None:
                waits.append((now - guest.waits_since_s) / 60)
                guest.waits_since_s = None
            if wanted != guest.pages:
                free -= wanted - guest.pages
                guest.pages = wanted
                guest.track.changed = now
    waits += [
        (_WEEK_S - guest.waits_since_s) / 60
        for guest in guests
        if guest.waits_since_s is not None
    ]
    waits.sort()
    return LendingResult(
        ratio,
        len(guests),
        len(waits),
        waits[len(waits) // 2] if waits else 0.0,
        waits[-1] if waits else 0.0,
        sum(waits) * 60 / (_WEEK_S * len(guests)),
        most_lent * PAGE_KIB / (1 << 20),
    )


def _decide(guest: _Guest, used: float, now: int) -> int:
    """Return the pages that a guest should have."""
    available = guest.pages * PAGE_KIB
    said = MemoryInside(
        available,
        max(0, available - int(used * PAGE_KIB)),
        *(None,) * 5,
        updated=now,
        age_s=0.0,
    )
    cell = elastic.Cell(
        0, BASE, guest.pages, guest.pages, CEILING, BLOCK, PAGE_KIB
    )
    decision = elastic.decide([cell], said, guest.track, _MARKS, now)
    return guest.pages if decision is None else decision.pages[0]
