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

"""The hardware of a real host, as the simplified nodes of a simulation.

What is used of it is left out. CPUs are renumbered: a node of a simulation
has its shared cores first. CPUs that the operator gives to no guest are no
CPUs of a simulation. Memory is rounded down, as hosts of one delivery differ
by some pages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from collections.abc import Sequence
from collections.abc import Set
from typing import NamedTuple

from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.core import model
from nova_numa_hugepages.core import units
from nova_numa_hugepages.simulate import scenario

# Pools up to this size are small pages: 4 KiB, or 16 or 64 KiB on some ARM
# and POWER machines, if they are the smallest of a cell.
_LARGEST_BASE_PAGE_KIB = 64

# A node's memory varies by what firmware and kernel keep for themselves.
MEMORY_STEP_MIB = 64


class Hardware(NamedTuple):
    """The hardware of a host.

    :ivar nodes: those that have CPUs for guests
    :ivar distances: their distances, None if they are not known
    :ivar notes: what the nodes can't tell, each a sentence without its
        subject, the host
    """

    nodes: tuple[scenario.HostNode, ...]
    distances: tuple[tuple[int, ...], ...] | None
    notes: tuple[str, ...]


def read(topology: model.HostTopology) -> Hardware:
    """Read the hardware of a host.

    :param topology: with what is used of it, which does not matter
    """
    notes: list[str] = []
    kept = []
    for place, cell in enumerate(topology.cells):
        if cell.shared_cpus or cell.dedicated_cpus:
            kept.append(place)
        else:
            notes.append(
                f'its node {cell.id} has no CPU for instances and is left out'
            )
    cells = [topology.cells[place] for place in kept]
    sockets = _sockets(cells)
    return Hardware(
        nodes=tuple(
            _node(cell, socket, notes)
            for cell, socket in zip(cells, sockets, strict=True)
        ),
        distances=_distances(topology, kept, notes),
        notes=tuple(notes),
    )


def _sockets(cells: Sequence[model.HostCell]) -> list[int | None]:
    """Number the sockets of the cells from 0, or none of them."""
    numbers: dict[int, int] = {}
    sockets: list[int | None] = []
    for cell in cells:
        if cell.socket is None:
            return [None] * len(cells)
        sockets.append(numbers.setdefault(cell.socket, len(numbers)))
    return sockets


def _distances(
    topology: model.HostTopology, kept: Sequence[int], notes: list[str]
) -> tuple[tuple[int, ...], ...] | None:
    if topology.distances is None:
        return None
    rows = tuple(tuple(topology.distances[i][j] for j in kept) for i in kept)
    if any(row[i] != host_stats.MIN_DISTANCE for i, row in enumerate(rows)):
        notes.append(
            'a node of it is said to be farther than '
            f'{host_stats.MIN_DISTANCE} from itself; its distances are '
            'left out'
        )
        return None
    return rows


def _node(
    cell: model.HostCell, socket: int | None, notes: list[str]
) -> scenario.HostNode:
    cores, threads, shared_cores = _cores(cell, notes)
    pages, reserved, small_reserved_kib = _pages(cell.pools)
    # What the operator holds back of small pages no guest can have.
    memory_mib = cell.memory_mib - -(-small_reserved_kib // units.KIB_PER_MIB)
    huge_kib = sum(size * count for size, count in pages.items())
    return scenario.HostNode(
        cores=cores,
        threads=threads,
        shared_cores=shared_cores,
        memory_mib=max(
            memory_mib // MEMORY_STEP_MIB * MEMORY_STEP_MIB,
            -(-huge_kib // units.KIB_PER_MIB),
            1,
        ),
        pages=pages,
        reserved=reserved,
        socket=socket,
    )


def _cores(cell: model.HostCell, notes: list[str]) -> tuple[int, int, int]:
    """Count the cores of a cell, the threads of one, and the shared cores."""
    shared, dedicated = cell.shared_cpus, cell.dedicated_cpus
    if shared & dedicated:
        # Nova does so where the operator sets neither kind of CPU.
        notes.append(
            f'its node {cell.id} has CPUs for vCPUs that float and for '
            'pinned ones alike; they are taken as CPUs for pinned ones'
        )
        shared = shared - dedicated
    cores = _split(cell.siblings, shared | dedicated)
    sizes = Counter(len(core) for core in cores)
    # The most usual one; of equally usual ones the larger.
    threads = max(sizes, key=lambda size: (sizes[size], size))
    if len(sizes) == 1 and all(
        core <= shared or core <= dedicated for core in cores
    ):
        return len(cores), threads, sum(core <= shared for core in cores)
    # A shared core too many rather than none for the vCPUs that float, and
    # never a dedicated one too many.
    shared_cores = -(-len(shared) // threads)
    own_cores = len(dedicated) // threads
    count = max(shared_cores + own_cores, 1)
    notes.append(
        f'the CPUs of its node {cell.id} do not make whole cores of equally '
        f'many threads; it is taken to have {count} of {threads} threads, '
        f'{shared_cores} of them shared'
    )
    return count, threads, shared_cores


def _split(
    siblings: Iterable[Set[int]], cpus: Set[int]
) -> list[frozenset[int]]:
    """Split the CPUs into cores; one without siblings is one itself."""
    cores: list[frozenset[int]] = []
    rest = set(cpus)
    for group in siblings:
        core = frozenset(group & rest)
        if core:
            cores.append(core)
            rest -= core
    return cores + [frozenset([cpu]) for cpu in sorted(rest)]


def _pages(
    pools: Sequence[model.PagePool],
) -> tuple[dict[int, int], dict[int, int], int]:
    """Read the huge pages, those held back, and the KiB of small ones."""
    pages: dict[int, int] = {}
    reserved: dict[int, int] = {}
    small_reserved_kib = 0
    for place, pool in enumerate(sorted(pools)):
        if place == 0 and pool.size_kib <= _LARGEST_BASE_PAGE_KIB:
            small_reserved_kib = pool.reserved * pool.size_kib
        elif pool.total:
            pages[pool.size_kib] = pool.total
            if pool.reserved:
                reserved[pool.size_kib] = min(pool.reserved, pool.total)
    return pages, reserved, small_reserved_kib
