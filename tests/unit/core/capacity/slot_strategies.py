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


"""Hosts and kinds of guests whose slots are counted, for the property tests.

The guests are small for their host, so that it holds several of them.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from hypothesis import strategies as st

from nova_numa_hugepages.core.capacity import consume
from nova_numa_hugepages.core.capacity.counter import Counter
from nova_numa_hugepages.core.capacity.guest_kinds import guest_kind
from nova_numa_hugepages.core.fit import fitter
from nova_numa_hugepages.core.model import CPUPolicy
from nova_numa_hugepages.core.model import GuestCell
from nova_numa_hugepages.core.model import HostCell
from nova_numa_hugepages.core.model import HostTopology
from nova_numa_hugepages.core.model import Limits
from nova_numa_hugepages.core.model import Plan
from nova_numa_hugepages.core.model import Request
from nova_numa_hugepages.core.model import Strategy
from nova_numa_hugepages.core.rejection import Rejection
from tests.unit.core.dice import Dice
from tests.unit.core.dice import Focus
from tests.unit.core.host_strategies import DISTANCES
from tests.unit.core.host_strategies import draw_host
from tests.unit.core.strategies import likely_cpu_policy
from tests.unit.core.strategies import likely_thread_policy
from tests.unit.core.strategies import page_wish
from tests.unit.core.strategies import RATIOS


@dataclasses.dataclass(frozen=True)
class Count:
    """What slots are counted of.

    :ivar farthest: what ``max_distance`` allows, None if anything
    """

    request: Request
    host: HostTopology
    limits: Limits
    strategy: Strategy
    farthest: int | None = None

    def slots(self) -> int:
        """Count the slots."""
        kind = guest_kind(self.request, self.farthest)
        counter = Counter([kind], self.strategy)
        (slots,) = counter.slots(counter.measure(self.host, self.limits))
        return slots

    def fit(self) -> Plan | Rejection:
        """Fit one guest, wherever its host cells are."""
        return fitter.fit(
            self.request,
            self.host,
            limits=self.limits,
            strategy=self.strategy,
        )

    def after(self, plan: Plan) -> Count:
        """Let a guest come to the host."""
        cells = consume.after_plan(self.request, plan, self.host)
        return dataclasses.replace(self, host=with_cells(self.host, cells))

    def fill(self) -> int:
        """Fit one guest after the other until none fits any more."""
        count = 0
        found = self.fit()
        while isinstance(found, Plan):
            count += 1
            assert count < 1000
            self = self.after(found)
            found = self.fit()
        return count


def with_cells(
    host: HostTopology, cells: Mapping[int, HostCell]
) -> HostTopology:
    """Replace some of the cells of a host."""
    return dataclasses.replace(
        host, cells=tuple(cells.get(cell.id, cell) for cell in host.cells)
    )


def _guest_cell(
    dice: Dice, model: HostCell, *, first: int = 0, like: GuestCell | None
) -> GuestCell:
    """Draw a small guest cell.

    :param model: a host cell that it can probably be on
    :param first: number of its first vCPU
    :param like: a cell of the same guest, which has the same policies
    """
    page_size, size_kib = page_wish(dice, model)
    if like is None:
        cpu_policy = likely_cpu_policy(dice, model)
        thread_policy = likely_thread_policy(dice, model)
    else:
        cpu_policy, thread_policy = like.cpu_policy, like.thread_policy
        if dice.chance(70):
            page_size = like.page_size
    shared = dedicated = 0
    if cpu_policy is not CPUPolicy.DEDICATED:
        shared = dice.number(1, 2)
    if cpu_policy is not CPUPolicy.SHARED:
        dedicated = dice.pick((1, 2, 1, 3))
    if cpu_policy is CPUPolicy.MIXED and dice.chance(20):
        # A cell of a mixed guest can be without either kind.
        shared, dedicated = dice.pick(((0, dedicated), (shared, 0)))
    step = max(1, size_kib // 1024)
    vcpus = range(first, first + shared + dedicated)
    return GuestCell(
        frozenset(vcpus[:shared]),
        frozenset(vcpus[shared:]),
        dice.pick((1, 1, 2)) * step,
        page_size,
        cpu_policy,
        thread_policy,
    )


def _moved(cell: GuestCell, first: int) -> GuestCell:
    """Number the vCPUs of a guest cell from another one on."""
    return dataclasses.replace(
        cell,
        shared_vcpus=frozenset(vcpu + first for vcpu in cell.shared_vcpus),
        dedicated_vcpus=frozenset(
            vcpu + first for vcpu in cell.dedicated_vcpus
        ),
    )


def _request(dice: Dice, host: HostTopology, most_cells: int) -> Request:
    """Draw a guest of small cells, most of them alike."""
    one = _guest_cell(dice, dice.pick(host.cells), like=None)
    cells = [one]
    alike = dice.chance(60)
    most = min(most_cells, len(host.cells))
    for number in range(1, dice.number(1, most)):
        first = number * 8
        cells.append(
            _moved(one, first)
            if alike
            else _guest_cell(
                dice, dice.pick(host.cells), first=first, like=one
            )
        )
    return Request(tuple(cells), emulator_isolated=dice.chance(25))


def draw_limits(dice: Dice) -> Limits:
    if dice.chance(40):
        return Limits()
    return Limits(dice.pick(RATIOS), dice.pick(RATIOS))


@st.composite
def counts(draw: Any, focus: Focus = Focus.ALL, most_cells: int = 3) -> Count:
    """Draw a host and a kind of guest.

    :param focus: what the cases are about; the rest of the host is kept plain
    :param most_cells: guest cells
    """
    dice = Dice(draw, focus)
    host = draw_host(dice)
    farthest = None
    if host.distances is not None and dice.chance(50):
        farthest = dice.pick((10, *DISTANCES))
    return Count(
        _request(dice, host, most_cells),
        host,
        draw_limits(dice),
        Strategy(
            pack=dice.chance(50), account_small_pages=not dice.chance(30)
        ),
        farthest,
    )


def _freed(dice: Dice, cell: HostCell) -> HostCell:
    """Draw what guests give back to a host cell."""
    pools = []
    back_mib = 0
    for pool in cell.pools:
        step = max(1, 1024 // pool.size_kib)
        used = dice.number(0, pool.used // step) * step
        back_mib += (pool.used - used) * pool.size_kib // 1024
        reserved = dice.number(0, pool.reserved)
        pools.append(pool._replace(used=used, reserved=reserved))
    if not pools:
        back_mib = dice.number(0, cell.memory_used_mib)
    return cell._replace(
        pools=tuple(pools),
        memory_used_mib=max(0, cell.memory_used_mib - back_mib),
        pinned_cpus=cell.pinned_cpus - dice.some(sorted(cell.pinned_cpus)),
        shared_used=dice.number(0, cell.shared_used),
    )


def _grown(dice: Dice, cell: HostCell) -> HostCell:
    """Draw memory that a host cell gets, on pages of one of its sizes."""
    more_mib = dice.number(1, 2) * 4
    pools = list(cell.pools)
    if pools:
        index = dice.number(0, len(pools) - 1)
        pool = pools[index]
        pages = more_mib * 1024 // pool.size_kib
        pools[index] = pool._replace(total=pool.total + pages)
    return cell._replace(
        memory_mib=cell.memory_mib + more_mib, pools=tuple(pools)
    )


@st.composite
def pairs(draw: Any, focus: Focus = Focus.ALL) -> tuple[Count, Count]:
    """Draw a host and a kind of guest, and the same with more free."""
    count = draw(counts(focus))
    dice = Dice(draw, focus)
    cells = {}
    for cell in count.host.cells:
        change = dice.number(0, 3)
        if change & 1:
            cell = _freed(dice, cell)
        if change & 2:
            cell = _grown(dice, cell)
        cells[cell.id] = cell
    limits = count.limits
    if dice.chance(50):
        limits = Limits(
            limits.cpu_ratio + dice.pick((0.0, 0.1, 1.0)),
            limits.ram_ratio + dice.pick((0.0, 0.1, 1.0)),
        )
    return count, dataclasses.replace(
        count, host=with_cells(count.host, cells), limits=limits
    )
