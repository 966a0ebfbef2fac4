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


"""Guests for the property tests, most of them near the edge of their host.

A guest is drawn for a host: each guest cell aims at a host cell and asks for
about the most that the rules allow there, a step less or a step more. Sizes
are small, so that trying all assignments is quick.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

from hypothesis import strategies as st

from nova_numa_hugepages.core.model import CPUPolicy
from nova_numa_hugepages.core.model import GuestCell
from nova_numa_hugepages.core.model import HostCell
from nova_numa_hugepages.core.model import HostTopology
from nova_numa_hugepages.core.model import Limits
from nova_numa_hugepages.core.model import PageRequest
from nova_numa_hugepages.core.model import Request
from nova_numa_hugepages.core.model import Strategy
from nova_numa_hugepages.core.model import ThreadPolicy
from tests.unit.core import oracle_rules as rules
from tests.unit.core.dice import Dice
from tests.unit.core.dice import Focus
from tests.unit.core.host_strategies import draw_host
from tests.unit.core.host_strategies import PHYSNETS

RATIOS = (1.0, 1.5, 2.0, 16.0, 1.1, 1.15, 0.7, 0.5)


@dataclasses.dataclass(frozen=True)
class DeviceTable:
    """Free devices by host cell, and what sets of cells can have them.

    :ivar counts: free devices by cell id
    :ivar demands: conditions that a set has to meet, known in advance
    :ivar refused: sets that are refused for reasons that are not given
    """

    counts: dict[int, int]
    demands: tuple[tuple[dict[int, int], int], ...] = ()
    refused: frozenset[frozenset[int]] = frozenset()

    def count(self, cell_id: int) -> int:
        return self.counts.get(cell_id, 0)

    def needs(self) -> Sequence[tuple[dict[int, int], int]]:
        return self.demands

    def supports(self, cell_ids: frozenset[int]) -> bool:
        return cell_ids not in self.refused and all(
            sum(offers.get(cell_id, 0) for cell_id in cell_ids) >= needed
            for offers, needed in self.demands
        )


@dataclasses.dataclass(frozen=True)
class Case:
    """The arguments of one fit."""

    request: Request
    host: HostTopology
    limits: Limits | None = None
    strategy: Strategy = dataclasses.field(default_factory=Strategy)
    devices: DeviceTable | None = None


@dataclasses.dataclass
class _Wish:
    """What all cells of a guest have in common, mostly.

    :ivar size_kib: the page size that LARGE or ANY is meant to end on
    :ivar spoiled: whether cells may ask for more than there is
    """

    page_size: int | None
    size_kib: int
    cpu_policy: CPUPolicy
    thread_policy: ThreadPolicy
    spoiled: bool


def _fits(
    guest: GuestCell,
    case: Case,
    target: int,
    wish: _Wish,
    emulator: int,
) -> bool:
    """Check whether a guest cell fits on the host cell that it aims at."""
    cell = case.host.cells[target]
    return (
        rules.pages_fit(guest, cell, wish.size_kib)
        and rules.cpus_fit(guest, cell, emulator)
        and rules.threads_fit(guest, cell, emulator)
        and rules.limits_fit(guest, cell, case.limits)
        and rules.small_pages_fit(
            guest,
            cell,
            wish.size_kib,
            rules.existing_kib(case.host, target),
            case.limits,
            case.strategy,
        )
        and rules.sizes_fit_together(
            guest,
            case.host,
            target,
            wish.size_kib,
            case.limits,
            case.strategy,
        )
    )


def _least(wish: _Wish) -> GuestCell:
    """Make the smallest guest cell of a kind."""
    pinned = int(wish.cpu_policy is not CPUPolicy.SHARED)
    floating = int(wish.cpu_policy is not CPUPolicy.DEDICATED)
    return GuestCell(
        frozenset(range(floating)),
        frozenset(range(floating, floating + pinned)),
        max(1, wish.size_kib // 1024),
        wish.page_size,
        wish.cpu_policy,
        wish.thread_policy,
    )


def _near(dice: Dice, edge: int, step: int, wish: _Wish) -> int:
    """Draw an amount near the most that fits, at least one step."""
    where = dice.number(0, 9)
    if where <= 4 or edge <= step:
        amount = edge
    elif where <= 6:
        amount = edge - step
    elif where == 7:
        amount = step
    else:
        amount = dice.number(1, edge // step) * step
    if wish.spoiled and dice.chance(50):
        amount = edge + dice.pick((step, 1))
    return max(step, amount)


def page_wish(dice: Dice, cell: HostCell) -> tuple[int | None, int]:
    """Draw a wish for pages that a host cell can probably grant.

    :returns: the wish, and the size in KiB that it is meant to end on
    """
    sizes = [pool.size_kib for pool in cell.pools] or [4]
    size_kib = dice.pick(sizes)
    kind = dice.number(0, 19)
    if kind <= 4:
        return None, sizes[0]
    if kind <= 8:
        return size_kib, size_kib
    if kind <= 12:
        return PageRequest.ANY, size_kib
    if kind <= 16:
        if len(sizes) > 1:
            return PageRequest.LARGE, dice.pick(sizes[1:])
        return PageRequest.LARGE, size_kib
    if kind <= 18:
        return PageRequest.SMALL, sizes[0]
    return 8192, 8192


def likely_cpu_policy(dice: Dice, cell: HostCell) -> CPUPolicy:
    """Draw a CPU policy that a host cell can probably grant."""
    policy = dice.pick(
        (CPUPolicy.DEDICATED, CPUPolicy.SHARED, CPUPolicy.MIXED)
    )
    if dice.chance(10):
        return policy
    if not cell.shared_cpus:
        return CPUPolicy.DEDICATED
    return policy if cell.free_cpus else CPUPolicy.SHARED


def likely_thread_policy(dice: Dice, cell: HostCell) -> ThreadPolicy:
    """Draw a thread policy that a host cell can probably grant."""
    policy = dice.pick(tuple(ThreadPolicy))
    if dice.chance(10):
        return policy
    widest = max(
        (len(core & cell.free_cpus) for core in cell.siblings), default=1
    )
    if policy is ThreadPolicy.REQUIRE and widest < 2:
        return ThreadPolicy.PREFER
    if policy is ThreadPolicy.ISOLATE and not any(
        core <= cell.free_cpus for core in cell.siblings
    ):
        return ThreadPolicy.PREFER
    return policy


def _guest_cell(
    dice: Dice, case: Case, target: int, wish: _Wish, first: int, emulator: int
) -> GuestCell:
    """Draw a guest cell for a host cell.

    :param target: index of the host cell
    :param first: number of its first vCPU
    :param emulator: host CPUs more for the emulator
    """
    cell = case.host.cells[target]

    def guest(floating: int, pinned: int, memory_mib: int) -> GuestCell:
        vcpus = range(first, first + floating + pinned)
        return GuestCell(
            frozenset(vcpus[:floating]),
            frozenset(vcpus[floating:]),
            memory_mib,
            wish.page_size,
            wish.cpu_policy,
            wish.thread_policy,
        )

    def most(fits: Any, highest: int, step: int) -> int:
        return next(
            (count for count in range(highest, 0, -step) if fits(count)), 0
        )

    pinned = floating = 0
    if wish.cpu_policy is not CPUPolicy.SHARED:
        edge = most(
            lambda count: (
                rules.cpus_fit(guest(0, count, 0), cell, emulator)
                and rules.threads_fit(guest(0, count, 0), cell, emulator)
            ),
            len(cell.free_cpus),
            1,
        )
        pinned = _near(dice, edge, 1, wish)
    if wish.cpu_policy is not CPUPolicy.DEDICATED:
        edge = most(
            lambda count: rules.limits_fit(
                guest(count, 0, 0), cell, case.limits
            ),
            len(cell.shared_cpus),
            1,
        )
        floating = _near(dice, edge, 1, wish)
        if wish.cpu_policy is CPUPolicy.MIXED and dice.chance(30):
            # A cell of a mixed guest can be without either kind.
            pinned, floating = dice.pick(((0, floating), (pinned, 0)))
    step = max(1, wish.size_kib // 1024)
    edge = most(
        lambda count: _fits(
            guest(floating, pinned, count), case, target, wish, emulator
        ),
        cell.memory_mib,
        1,
    )
    drawn = guest(floating, pinned, _near(dice, edge, step, wish))
    if dice.chance(50):  # vCPUs are not always in the order of their kind
        turned = {
            vcpu: first + (vcpu - first + 1) % (floating + pinned)
            for vcpu in (*drawn.shared_vcpus, *drawn.dedicated_vcpus)
        }
        drawn = dataclasses.replace(
            drawn,
            shared_vcpus=frozenset(
                turned[vcpu] for vcpu in drawn.shared_vcpus
            ),
            dedicated_vcpus=frozenset(
                turned[vcpu] for vcpu in drawn.dedicated_vcpus
            ),
        )
    return drawn


def _request(dice: Dice, case: Case) -> Request:
    """Draw a guest that nearly fits."""
    host = case.host
    model = dice.pick(host.cells)
    wish = _Wish(
        *page_wish(dice, model),
        likely_cpu_policy(dice, model),
        likely_thread_policy(dice, model),
        dice.chance(25),
    )
    # Aim at host cells that can have some guest cell like this, mostly.
    anywhere = dice.chance(15)
    places = [
        index
        for index in range(len(host.cells))
        if anywhere or _fits(_least(wish), case, index, wish, 0)
    ] or [host.cells.index(model)]
    count = min(dice.pick((1, 2, 3, 4, 2, 3)), len(places))
    targets = [
        places.pop(dice.number(0, len(places) - 1)) for _ in range(count)
    ]
    if dice.chance(2):  # more guest cells than places, or than host cells
        targets += targets[:1]
    isolated = dice.about(Focus.CPUS) and dice.chance(30)
    same = dice.chance(80)
    cells: list[GuestCell] = []
    vcpus = 0
    for number, target in enumerate(targets):
        if number and not same:
            cell = host.cells[target]
            wish.page_size, size_kib = page_wish(dice, cell)
            if wish.page_size not in (PageRequest.LARGE, PageRequest.ANY):
                wish.size_kib = size_kib
            if dice.chance(50):
                wish.thread_policy = likely_thread_policy(dice, cell)
            if dice.chance(30):
                wish.cpu_policy = likely_cpu_policy(dice, cell)
        cells.append(
            _guest_cell(
                dice, case, target, wish, vcpus, int(isolated and not number)
            )
        )
        vcpus += len(cells[-1].shared_vcpus | cells[-1].dedicated_vcpus)
    networks: frozenset[str] = frozenset()
    if any(cell.physnets or cell.tunneled for cell in host.cells):
        networks = dice.some((*PHYSNETS, ''))
    return Request(
        cells=tuple(cells),
        emulator_isolated=isolated,
        physnets=networks - {''},
        tunneled='' in networks,
    )


def _devices(dice: Dice, host: HostTopology) -> DeviceTable:
    """Draw the devices of a host."""
    ids = [cell.id for cell in host.cells]
    counts = {cell_id: dice.number(0, 2) for cell_id in ids}
    demands = []
    for _ in range(dice.number(0, 2)):
        offers = {cell_id: dice.number(0, 1) for cell_id in ids}
        demands.append((offers, dice.number(0, 2)))
    refused: frozenset[frozenset[int]] = frozenset()
    if dice.chance(30):
        sets = [
            frozenset(
                cell_id
                for place, cell_id in enumerate(ids)
                if bits >> place & 1
            )
            for bits in range(1 << len(ids))
        ]
        refused = dice.some(sets)
    return DeviceTable(counts, tuple(demands), refused)


@st.composite
def cases(draw: Any, focus: Focus = Focus.ALL) -> Case:
    """Draw the arguments of one fit.

    :param focus: what the cases are about; the rest is kept plain
    """
    dice = Dice(draw, focus)
    limits = None
    if dice.chance(60):
        limits = Limits(dice.pick(RATIOS), dice.pick(RATIOS))
    strategy = Strategy(
        pack=dice.chance(50), account_small_pages=not dice.chance(30)
    )
    empty = Case(Request(()), draw_host(dice), limits, strategy)
    request = _request(dice, empty)
    devices = None
    if dice.about(Focus.PLACES) and dice.chance(50):
        devices = _devices(dice, empty.host)
        request = dataclasses.replace(
            request, asks_devices=not dice.chance(30)
        )
    return dataclasses.replace(empty, request=request, devices=devices)
