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

"""What a plan needs of this machine, and what of that is missing."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import os
import shutil
from typing import NamedTuple

from nova_numa_hugepages import exception
from nova_numa_hugepages.core import units
from nova_numa_hugepages.experiment import loads
from nova_numa_hugepages.experiment import probe
from nova_numa_hugepages.experiment import surroundings
from nova_numa_hugepages.experiment.plan import Arm
from nova_numa_hugepages.experiment.plan import IDLE
from nova_numa_hugepages.experiment.plan import Plan
from nova_numa_hugepages.experiment.plan import THP
from nova_numa_hugepages.experiment.workload import Workload
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import nodes

# Beside the memory of a workload.
_SPARE_MIB = 64
# What allocates by malloc takes a few more pages than it needs.
_MORE_PAGES = 1.3


class NotHere(exception.NUMAHugepagesError):
    """The plan can't be carried out on this machine.

    :ivar problems: one sentence or more for each
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__('\n'.join(problems))
        self.problems = tuple(problems)


class Place(NamedTuple):
    """Where arms run.

    :ivar cpus: one of each core that this process may use, of one NUMA node
    :ivar near: that node
    :ivar far: the one with memory that is farthest from it
    """

    cpus: Sequence[int]
    near: int
    far: int

    def order(self, turn: int) -> list[int]:
        """Return the CPUs in the order in which arms have them.

        By two turns all are moved on, as one may be slower than another, and
        in the second of them the first two have changed places.

        :param turn: how many pairs came before
        """
        first = turn // 2 * 2 % max(1, len(self.cpus))
        found = [*self.cpus[first:], *self.cpus[:first]]
        if turn % 2:
            found[:2] = found[1::-1]
        return found

    def cpus_of(self, arms: Sequence[Arm], turn: int) -> dict[Arm, int]:
        """Return the CPU of each arm, if they run at the same time.

        :param turn: how many pairs came before
        """
        by_name = sorted(arms, key=lambda arm: arm.name)
        return dict(zip(by_name, self.order(turn), strict=False))

    def node(self, arm: Arm) -> int:
        """Return the node that an arm has its memory on."""
        return self.far if arm.far else self.near


def choose(fs: hostfs.HostFS) -> Place:
    """Choose the node with most CPUs that this process may use.

    :raises exception.KernelError: if nodes can't be read
    """
    found = nodes.read_nodes(fs)
    allowed = os.sched_getaffinity(0)
    near = max(
        found.values(), key=lambda node: (len(node.cpus & allowed), -node.id)
    )
    memory = nodes.memory(fs)
    far = max(
        (node for node in found if memory[node].total_kib),
        key=lambda node: (near.distances[node], -node),
    )
    return Place(_one_a_core(fs, near.cpus & allowed), near.id, far)


def _one_a_core(fs: hostfs.HostFS, cpus: frozenset[int]) -> list[int]:
    """Return one CPU of each core: its threads share what is measured."""
    left, chosen = set(cpus), []
    while left:
        cpu = min(left)
        path = (
            fs.sys
            / f'devices/system/cpu/cpu{cpu}/topology/thread_siblings_list'
        )
        siblings = {cpu}
        with contextlib.suppress(OSError):
            siblings |= hostfs.parse_set(path.read_text())
        left -= siblings
        chosen.append(cpu)
    return chosen


def check(
    fs: hostfs.HostFS,
    plan: Plan,
    workloads: Sequence[Workload],
    place: Place,
    *,
    memory_mib: int,
    pools: hugetlb.Hugetlb,
    allocate: bool,
    programs: Mapping[str, str] | None = None,
    problems: Sequence[str] = (),
) -> dict[model.PoolKey, int]:
    """Check that a plan can be carried out here.

    :param memory_mib: of an arm, at most
    :param allocate: whether huge pages that are missing will be allocated
    :param programs: what else it takes, and the Debian package of each
    :param problems: what else is in the way
    :returns: the huge pages that it takes, by pool
    :raises NotHere: if it can't
    """
    transparent = surroundings.read(fs)['transparent_huge_pages']
    found = [
        *_missing(plan, workloads, place, transparent, programs or {}),
        *problems,
    ]
    if found:
        raise NotHere(found)
    wanted = _pages(plan, place, memory_mib)
    found += _missing_pages(pools, wanted, allocate=allocate)
    found += _missing_memory(fs, plan, place, memory_mib)
    if found:
        raise NotHere(found)
    return wanted


def _missing(
    plan: Plan,
    workloads: Sequence[Workload],
    place: Place,
    transparent: str | None,
    programs: Mapping[str, str],
) -> Iterator[str]:
    """Find what is missing here for a plan, in sentences with a remedy.

    :param transparent: whether transparent huge pages are on, as the kernel
        says it
    :param programs: what else it takes, and the Debian package of each
    """
    programs = {**probe.PROGRAMS, **programs}
    for workload in workloads:
        programs.update(workload.programs)
    is_loaded = set(plan.loads) != {IDLE}
    if is_loaded:
        programs[loads.PROGRAM] = loads.PACKAGE
    absent = [name for name in programs if shutil.which(name) is None]
    if absent:
        packages = ' '.join(sorted({programs[name] for name in absent}))
        yield (
            f'Missing programs: {", ".join(absent)}. On Debian and Ubuntu: '
            f'apt-get install {packages}. Or leave out of the plan what needs '
            'them.'
        )
    if not place.cpus:
        yield 'This process may run on no CPU of a NUMA node.'
    if place.far == place.near and any(arm.far for arm in plan.arms):
        yield (
            'This machine has one NUMA node, so no memory is far. Leave out '
            'the arms with "memory: far".'
        )
    if is_loaded and len(place.cpus) < 2:
        yield (
            f'NUMA node {place.near} has one core, and a load needs another '
            'one. Leave out the loads.'
        )
    if transparent in (None, 'never') and any(
        arm.pages == THP for arm in plan.arms
    ):
        yield (
            'Transparent huge pages are off on this machine. Leave out the '
            'arms with "pages: thp", or write madvise to '
            '/sys/kernel/mm/transparent_hugepage/enabled.'
        )


def _missing_memory(
    fs: hostfs.HostFS, plan: Plan, place: Place, memory_mib: int
) -> Iterator[str]:
    """Find nodes that have too little memory, in sentences with a remedy."""
    memory = nodes.memory(fs)
    # Two arms, and what is kept in pages for one of them.
    needed_mib = 3 * (memory_mib + _SPARE_MIB)
    for node in sorted({place.node(arm) for arm in plan.arms}):
        has = memory[node]
        free_mib = (has.free_kib + has.reclaimable_kib) // 1024
        if free_mib < needed_mib:
            yield (
                f'It takes about {needed_mib} MiB of memory on NUMA node '
                f'{node}, and {free_mib} MiB are free. Give the workloads '
                'less (mib, rows, lines).'
            )


def _pages(
    plan: Plan, place: Place, memory_mib: int
) -> dict[model.PoolKey, int]:
    """Count the huge pages that two arms take at the same time.

    :returns: by pool
    """
    wanted: dict[model.PoolKey, int] = {}
    control = plan.control
    for arm in plan.arms:
        size = arm.page_kib
        if size is None:
            continue
        count = int(memory_mib * units.KIB_PER_MIB * _MORE_PAGES) // size + 2
        key = model.PoolKey(place.node(arm), size)
        # An arm is compared with control only.
        twice = arm is not control and (
            (control.page_kib, control.far) == (size, arm.far)
        )
        wanted[key] = max(wanted.get(key, 0), count * (2 if twice else 1))
    return wanted


def _missing_pages(
    pools: hugetlb.Hugetlb,
    wanted: Mapping[model.PoolKey, int],
    *,
    allocate: bool,
) -> Iterator[str]:
    """Find pools with too few pages, in sentences with a remedy.

    :param allocate: whether pages that are missing will be allocated
    """
    for key, count in wanted.items():
        size = units.format_kib(key.size_kib)
        if key.size_kib not in pools.sizes(key.node):
            yield (
                f'This machine has no huge pages of {size}. Leave out the '
                'arms with them.'
            )
            continue
        pool = pools.pool(key)
        if pool.free < count and not allocate:
            file = hugetlb.nr_file(pools.fs, key.node, key.size_kib)
            yield (
                f'It takes {count} free huge pages of {size} on NUMA node '
                f'{key.node}, and there are {pool.free}. Have them allocated '
                'as long as it runs (--allocate-pages, as root), or write '
                f'{pool.total + count - pool.free} to {file}.'
            )
