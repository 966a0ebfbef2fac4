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

"""The memory of a host adds up, whatever guests come, by an account by hand.

Guests come one after the other to a host whose pools can grow, and take what
they were admitted for. None of them has touched its memory yet, so that the
host reports all that is in no pool as free. The account knows of each NUMA
node which pages exist, and what is on small ones. These may be overcommitted
by the ratio of the host, and no others.
"""

from __future__ import annotations

import dataclasses

import hypothesis
from hypothesis import strategies as st

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.capacity import consume
from nova_numa_hugepages.core.fit import fitter
from nova_numa_hugepages.core.fit import host_memory
from nova_numa_hugepages.core.rejection import Rejection
from tests.unit.core.builders import KIB_4
from tests.unit.core.builders import MIB_2
from tests.unit.core.dice import Dice
from tests.unit.core.dice import examples
from tests.unit.core.dice import Focus

MEMORY_MIB = 64
# Instead of 1 GiB, so that some fit.
MIB_16 = 16384
SIZES = (MIB_2, MIB_16)


@dataclasses.dataclass
class Account:
    """What is on a NUMA node, in MiB.

    :ivar exist: memory in pages, by size
    :ivar used: memory of guests in pages, by size
    :ivar small: memory of guests on small pages
    """

    exist: dict[int, int]
    used: dict[int, int]
    small: int = 0

    @property
    def outside(self) -> int:
        """Memory in no pool."""
        return MEMORY_MIB - sum(self.exist.values())

    def cell(self, number: int) -> model.HostCell:
        """Report the node to the scheduler."""
        pools = [model.PagePool(KIB_4, self.outside * 256, self.small * 256)]
        for size in SIZES:
            pages = (self.exist[size] + self.outside) * 1024 // size
            pools.append(
                model.PagePool(size, pages, self.used[size] * 1024 // size)
            )
        cpus = frozenset(range(number * 100, number * 100 + 90))
        return model.HostCell(
            id=number,
            shared_cpus=frozenset(c + 1000 for c in cpus),
            dedicated_cpus=cpus,
            memory_mib=MEMORY_MIB,
            memory_used_mib=self.small + sum(self.used.values()),
            pools=tuple(pools),
        )

    def allocatable(self) -> dict[int, int]:
        """Report how many pages could be allocated."""
        return {size: self.outside * 1024 // size for size in SIZES}

    def take(self, guest: model.GuestCell, size_kib: int) -> None:
        """Have a guest cell come."""
        if size_kib == KIB_4:
            self.small += guest.memory_mib
            return
        self.used[size_kib] += guest.memory_mib
        # What is missing is allocated.
        self.exist[size_kib] = max(self.exist[size_kib], self.used[size_kib])


def make_guest(dice: Dice) -> model.Request:
    """Draw a guest of one or two equal cells."""
    size = dice.pick([MIB_2, MIB_16, KIB_4, None])
    own = dice.chance(50)
    unit = 16 if size == MIB_16 else dice.pick([16, 2])
    memory_mib = unit * dice.number(1, 4)
    cells = [
        model.GuestCell(
            shared_vcpus=frozenset() if own else frozenset({number}),
            dedicated_vcpus=frozenset({number}) if own else frozenset(),
            memory_mib=memory_mib,
            page_size=size,
            cpu_policy=(
                model.CPUPolicy.DEDICATED if own else model.CPUPolicy.SHARED
            ),
        )
        for number in range(dice.number(1, 2))
    ]
    return model.Request(tuple(cells))


@examples(0.15)
@hypothesis.given(st.data())
def test_what_was_admitted_is_there(data: st.DataObject) -> None:
    dice = Dice(data.draw, Focus.ALL)
    limits = model.Limits(cpu_ratio=16.0, ram_ratio=dice.pick([1.0, 1.5, 1.1]))
    accounts = [
        Account(
            {MIB_2: 2 * dice.number(0, 6), MIB_16: 16 * dice.number(0, 2)},
            dict.fromkeys(SIZES, 0),
        )
        for _ in range(2)
    ]
    floating = 0
    for _ in range(dice.number(1, 8)):
        host = model.HostTopology(
            tuple(one.cell(n) for n, one in enumerate(accounts)),
            allocatable=tuple(one.allocatable() for one in accounts),
        )
        room = host_memory.room_mib(
            host,
            total_mib=2 * MEMORY_MIB,
            used_mib=floating
            + sum(one.small + sum(one.used.values()) for one in accounts),
            ram_ratio=limits.ram_ratio,
        )
        if dice.chance(25):
            memory_mib = dice.number(1, 40)
            if host_memory.miss(memory_mib, room) is None:
                floating += memory_mib
        else:
            admit(make_guest(dice), host, limits, room, accounts)

        for one in accounts:
            assert one.outside >= 0
            assert one.outside * limits.ram_ratio >= one.small - 1e-6
        outside = sum(one.outside for one in accounts)
        small = floating + sum(one.small for one in accounts)
        assert outside * limits.ram_ratio >= small - 1e-6


def admit(
    request: model.Request,
    host: model.HostTopology,
    limits: model.Limits,
    room: int | None,
    accounts: list[Account],
) -> None:
    """Have a guest come, if the filter admits it."""
    chooses = fitter.Fitter(request, model.Strategy())
    choice = chooses.choose(host, limits=limits)
    if isinstance(choice, Rejection):
        return
    needed = host_memory.needed_mib(
        request,
        host,
        choice.cells,
        choice.common_size_kib,
        ram_ratio=limits.ram_ratio,
    )
    if needed and host_memory.miss(needed, room):
        return
    for guest, cell in zip(request.cells, choice.cells, strict=True):
        accounts[cell.id].take(guest, guest.page_size or KIB_4)
    # As Nova accounts for it.
    after = consume.after_choice(chooses, choice)
    for number, cell in after.items():
        now = accounts[number].cell(number)
        assert [pool.used for pool in cell.pools] == [
            pool.used for pool in now.pools
        ]
