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

"""Kinds of host cells and guest cells: what they offer and what they take.

For a bound it doesn't matter which guest cell is on which host, only how many
of each kind fit together in one host cell. Rows of integers say what fits:
each that the sum of what the guest cells take is at most what there is.

Each row holds for every packing that stock Nova's fit or ours may come to, so
where they differ it is the rule of the more lenient one. Neither is asked
about hosts that Placement leaves out: those with thread siblings, by a guest
that isolates its threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math

from nova import objects

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core import units
from nova_numa_hugepages.core.capacity import cell_room
from nova_numa_hugepages.core.capacity import guest_kinds
from nova_numa_hugepages.nova_fit import translate
from nova_numa_hugepages.simulate import fleet
from nova_numa_hugepages.simulate import scenario

# Products with a ratio that are whole numbers but for their last bits.
_EPSILON = 1e-9


@dataclasses.dataclass(frozen=True)
class Knapsack:
    """The numbers of guest cells that fit together in a host cell.

    A guest cell that may be on pages of several sizes has a choice for each.

    :ivar choices: for each choice, the index of its kind of guest cell
    :ivar rows: for each row, what one guest cell of each choice takes
    :ivar capacities: for each row, what there is
    """

    choices: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    capacities: tuple[int, ...]

    def most(self, choice: int) -> int:
        """Return how many guest cells of one choice fit without others."""
        return min(
            capacity // row[choice]
            for row, capacity in zip(self.rows, self.capacities, strict=True)
            if row[choice]
        )


def guest_cells(flavor: scenario.Flavor) -> dict[cell_room.CellNeed, int]:
    """Count the guest cells of a flavor by what they take.

    :returns: nothing without a NUMA topology
    :raises: what Nova raises for a flavor that it refuses
    """
    objects.register_all()
    topology = fleet.request(fleet.nova_flavor(flavor)).numa_topology
    if topology is None:
        return {}
    return dict(guest_kinds.guest_kind(translate.request(topology)).needs)


def knapsack(
    host: scenario.HostType,
    node: scenario.HostNode,
    guests: Sequence[cell_room.CellNeed],
) -> Knapsack:
    """Return which guest cells fit together in an empty host cell.

    :param node: the host cell
    :param guests: what guest cells take
    :returns: without choices for kinds that don't fit even alone
    """
    shared_cpus = node.shared_cores * node.threads
    pools = _pools(node)
    capacities = {
        'cpus': (node.cores - node.shared_cores) * node.threads,
        'cores': node.cores - node.shared_cores,
        'shared': math.floor(shared_cpus * host.cpu_ratio + _EPSILON),
        'ram': math.floor(node.memory_mib * host.ram_ratio + _EPSILON),
        **{f'pages {size}': pages for size, pages in pools.items()},
    }
    choices = []
    takes: list[Mapping[str, int]] = []
    for index, guest in enumerate(guests):
        if not _fits_alone(guest, node):
            continue
        for size in _sizes(guest, pools):
            taken = _cpus(guest, node) | _memory(guest, size)
            if all(taken[row] <= capacities[row] for row in taken):
                choices.append(index)
                takes.append(taken)
    rows = []
    limits = []
    for name, capacity in capacities.items():
        row = [taken.get(name, 0) for taken in takes]
        # Small numbers, for a solver that counts in floats.
        divisor = math.gcd(*row)
        if divisor:
            rows.append(tuple(amount // divisor for amount in row))
            limits.append(capacity // divisor)
    return Knapsack(tuple(choices), tuple(rows), tuple(limits))


def _pools(node: scenario.HostNode) -> dict[int, int]:
    """Return the pages for guests by size in KiB, the small ones first."""
    return {
        size: pages - node.reserved.get(size, 0)
        for size, pages in node.pools.items()
    }


def _fits_alone(guest: cell_room.CellNeed, node: scenario.HostNode) -> bool:
    """Check the rules that concern a guest cell by itself."""
    if guest.shared > node.shared_cores * node.threads:
        return False
    if (
        guest.thread_policy is model.ThreadPolicy.REQUIRE
        and guest.vcpus
        and node.threads == 1
    ):
        return False
    if (
        guest.thread_policy is model.ThreadPolicy.ISOLATE
        and guest.cpu_policy is not model.CPUPolicy.SHARED
        and node.threads > 1
    ):
        # Nova asks Placement to leave out hosts with thread siblings
        # (``_translate_pinning_policies`` in ``nova.scheduler.utils``), which
        # is before any fit, stock or ours.
        return False
    # What isn't accounted never overcommits against itself.
    return _accounted(guest) or guest.memory <= max(
        size * pages for size, pages in _pools(node).items()
    )


def _accounted(guest: cell_room.CellNeed) -> bool:
    """Return whether the pages that a guest cell takes have to be free.

    Without a wish for pages, vCPUs that float share memory that is not theirs
    alone, up to the host's ratio.
    """
    return (
        guest.page_size is not None
        or guest.cpu_policy is not model.CPUPolicy.SHARED
    )


def _sizes(guest: cell_room.CellNeed, pools: Mapping[int, int]) -> list[int]:
    """List the page sizes in KiB that a guest cell may be on."""
    small, *huge = pools
    # On a host cell without small pages Nova takes the next size for them.
    smallest = small if pools[small] or not huge else huge[0]
    match guest.page_size:
        case None | model.PageRequest.SMALL:
            sizes = [smallest]
        case model.PageRequest.LARGE:
            sizes = huge
        case model.PageRequest.ANY:
            sizes = sorted({smallest, *huge})
        case _:
            sizes = [size for size in pools if size == guest.page_size]
    return [size for size in sizes if guest.memory % size == 0]


def _cpus(
    guest: cell_room.CellNeed, node: scenario.HostNode
) -> dict[str, int]:
    """Return what a guest cell takes of the CPUs.

    Under ``isolate`` a CPU is a core, as there is no place on host cells whose
    cores have several. Under ``require`` no two guest cells have a thread each
    of a core of two threads; of larger cores they may, which takes nothing but
    the threads then. A thread that is left over goes to guest cells without a
    thread policy.
    """
    cores = 0
    if guest.thread_policy is model.ThreadPolicy.REQUIRE and node.threads == 2:
        cores = -(-guest.vcpus // 2)
    return {
        'cpus': guest.cpus,
        'cores': cores,
        'shared': guest.shared,
    }


def _memory(guest: cell_room.CellNeed, size_kib: int) -> dict[str, int]:
    """Return the memory that a guest cell takes on pages of a size."""
    taken = {}
    if guest.cpu_policy is not model.CPUPolicy.DEDICATED:
        taken['ram'] = guest.memory // units.KIB_PER_MIB
    if _accounted(guest):
        taken[f'pages {size_kib}'] = guest.memory // size_kib
    return taken
