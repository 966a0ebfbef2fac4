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


"""Hosts for the property tests, some of them with the oddities of real ones.

Page sizes are a few MiB, so that cells hold few pages and an off-by-one
shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from nova_numa_hugepages.core import model
from tests.unit.core.dice import Dice
from tests.unit.core.dice import Focus

PAGE_SIZES_KIB = (4, 1024, 2048, 4096)
PHYSNETS = ('physnet0', 'physnet1')
DISTANCES = (20, 21, 31, 12)
CELL_IDS = (
    (0, 1, 2, 3, 4),
    (4, 3, 2, 1, 0),
    (7, 0, 12, 3, 5),
    (100, 8, 9, 64, 1),
)


def _cpus(dice: Dice, first_cpu: int, threads: int) -> dict[str, Any]:
    """Draw the CPUs of a host cell, from `first_cpu` on."""
    if not dice.about(Focus.CPUS):
        cpus = range(first_cpu, first_cpu + 4)
        dedicated = frozenset(cpus[:3])
        return {
            'dedicated_cpus': dedicated,
            'shared_cpus': frozenset(cpus[2:]),
            'pinned_cpus': frozenset(cpus[: dice.number(0, 1)]),
            'siblings': tuple(frozenset({cpu}) for cpu in cpus),
        }
    if dice.chance(6):  # a node of memory only
        return {}
    count = dice.number(1, max(2, 6 // threads))
    siblings = [
        frozenset(range(first, first + threads))
        for first in range(first_cpu, first_cpu + count * threads, threads)
    ]
    cpus = sorted(frozenset().union(*siblings))
    layout = dice.number(0, 9)
    if layout <= 3:
        dedicated = frozenset(cpus)
        shared = frozenset()
    elif layout <= 5:  # whole cores here and there
        whole = dice.number(0, count)
        dedicated = frozenset().union(*siblings[:whole])
        shared = frozenset(cpus) - dedicated
    elif layout == 6:  # cores that are shared by halves
        dedicated = dice.some(cpus)
        shared = frozenset(cpus) - dedicated
    elif layout == 7:  # cores with CPUs that belong to neither
        dedicated = dice.some(cpus)
        shared = dice.some(cpus) - dedicated
    elif layout == 8:  # [DEFAULT] vcpu_pin_set: both at once
        dedicated = shared = frozenset(cpus)
    else:
        dedicated = frozenset()
        shared = frozenset(cpus)
    pinned: frozenset[int] = frozenset()
    use = dice.number(0, 3)
    if use == 1:
        pinned = frozenset({dice.pick(cpus)}) & dedicated
    elif use == 2:
        pinned = dice.some(cpus) & dedicated
    elif use == 3:
        pinned = dice.some(cpus)  # also CPUs that were dedicated before
    known = dice.number(0, 19)
    if known == 19:
        siblings = []
    elif known == 18:
        siblings = siblings[1:]
    elif known == 17:
        missing = dice.some(cpus)
        siblings = [core - missing for core in siblings]
    elif known >= 13:  # as libvirt's driver: only the host's CPUs
        siblings = [core & (dedicated | shared) for core in siblings]
        siblings = [core for core in siblings if core]
    return {
        'dedicated_cpus': dedicated,
        'shared_cpus': shared,
        'pinned_cpus': pinned,
        'siblings': tuple(siblings),
        'shared_used': dice.pick((0, len(shared) // 2, len(shared), 1)),
    }


def _pools(
    dice: Dice, sizes: Sequence[int], memory_mib: int
) -> tuple[model.PagePool, ...]:
    """Draw the pages of a host cell.

    :param sizes: page sizes in KiB, in ascending order
    """
    pools = []
    rest_kib = memory_mib * 1024
    # Nova reports as smallest pages what is in no other pool. Where pools
    # can grow, it reports several times the same memory.
    overlap = dice.chance(40)
    for size_kib in reversed(sizes):
        most = (memory_mib * 1024 if overlap else rest_kib) // size_kib
        if (size_kib == sizes[0] and not dice.chance(20)) or (
            overlap and dice.chance(50)
        ):
            total = most
        else:
            total = dice.number(0, most)
        rest_kib = max(0, rest_kib - total * size_kib)
        step = max(1, 1024 // size_kib)  # used in steps of a MiB
        used = min(total, dice.number(0, total // step // 2) * step)
        reserved = dice.pick((0, 0, 0, 1, step))
        pools.append(model.PagePool(size_kib, total, used, reserved))
    return tuple(reversed(pools))


def _memory(dice: Dice, sizes: Sequence[int]) -> dict[str, Any]:
    """Draw the memory of a host cell, with pages of `sizes` in KiB."""
    if not dice.about(Focus.MEMORY):
        return {
            'memory_mib': 16,
            'memory_used_mib': dice.number(0, 2),
            'pools': (model.PagePool(4, 2048), model.PagePool(2048, 4)),
        }
    odd = dice.number(0, 19)
    if odd == 19:  # a node of CPUs only
        return {'pools': tuple(model.PagePool(size, 0) for size in sizes)}
    memory_mib = dice.number(4, 16)
    if odd == 18:
        sizes = ()
    elif odd == 17:
        sizes = sizes[1:]
    pools = _pools(dice, sizes, memory_mib)
    used_mib = sum(pool.used * pool.size_kib for pool in pools) // 1024
    if dice.chance(25) or not pools:
        # Guests without a topology, or pages that were never accounted.
        used_mib = max(0, used_mib + dice.number(-2, memory_mib // 2))
    return {
        'memory_mib': memory_mib,
        'memory_used_mib': used_mib,
        'pools': pools,
    }


def _distances(dice: Dice, count: int) -> tuple[tuple[int, ...], ...] | None:
    """Draw distances for `count` host cells, None for unknown ones."""
    known = dice.number(0, 4) if dice.about(Focus.PLACES) else 0
    if known < 2 or count == 1:
        return None
    rows = [[10] * count for _ in range(count)]
    for one in range(count):
        for other in range(one):
            rows[one][other] = rows[other][one] = dice.pick(DISTANCES)
    return tuple(map(tuple, rows))


@st.composite
def hosts(draw: Any, focus: Focus = Focus.ALL) -> model.HostTopology:
    """Draw a host of one to five cells."""
    return draw_host(Dice(draw, focus))


def draw_host(dice: Dice) -> model.HostTopology:
    count = dice.pick((2, 3, 4, 5, 1, 4))
    ids = dice.pick(CELL_IDS)
    threads = dice.pick((2, 1, 2, 4))
    sizes = sorted(dice.some(PAGE_SIZES_KIB) | {dice.pick(PAGE_SIZES_KIB)})
    same_sizes = dice.chance(75)
    networks = dice.about(Focus.PLACES) and dice.chance(30)
    cells = []
    allocatable: list[dict[int, int]] = []
    for number in range(count):
        if number and not same_sizes:
            sizes = sorted(dice.some(PAGE_SIZES_KIB) | {sizes[-1]})
        near = dice.some((*PHYSNETS, '')) if networks else frozenset()
        cell = model.HostCell(
            id=ids[number],
            **_cpus(dice, number * 8, threads),
            **_memory(dice, sizes),
            physnets=near - {''},
            tunneled='' in near,
        )
        cells.append(cell)
        allocatable.append({})
    if dice.about(Focus.MEMORY) and dice.chance(50):
        for number, cell in enumerate(cells):
            for pool in cell.pools[dice.number(0, 1) :]:
                pages = dice.number(0, pool.total + 1)
                allocatable[number][pool.size_kib] = pages
    else:
        allocatable = []
    return model.HostTopology(
        tuple(cells), _distances(dice, count), tuple(allocatable)
    )
