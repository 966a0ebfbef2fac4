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


"""No packing is better than the bound, which is that of its program."""

import collections
from collections.abc import Iterator
from collections.abc import Sequence
import itertools

from hypothesis import given
from hypothesis import strategies as st
from nova import exception as nova_exception
from nova import objects
from nova.virt import hardware
from scipy import optimize

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.capacity import cell_room
from nova_numa_hugepages.nova_fit import numa_fit as our_hardware
from nova_numa_hugepages.simulate import bound
from nova_numa_hugepages.simulate import cell_kinds
from nova_numa_hugepages.simulate import scenario
from tests.unit import nova_builders
from tests.unit.core import builders as values
from tests.unit.core.dice import examples
from tests.unit.simulate.scenes import flavor
from tests.unit.simulate.scenes import host
from tests.unit.simulate.scenes import node
from tests.unit.simulate.scenes import pinned
from tests.unit.simulate.scenes import play

MIB_2 = values.MIB_2
GIB_1 = values.GIB_1


def numa_topology(machine: scenario.HostType) -> objects.NUMATopology:
    """Make what an empty host reports."""
    cells = []
    for number, one in enumerate(machine.nodes):
        pooled = sum(size * pages for size, pages in one.pages.items())
        small_kib = one.memory_mib * 1024 - pooled
        pools = [
            model.PagePool(size, pages, 0, one.reserved.get(size, 0))
            for size, pages in {4: small_kib // 4, **one.pages}.items()
        ]
        cell = values.host_cell(
            number,
            cores=one.cores,
            threads=one.threads,
            pools=tuple(pools),
            memory_mib=one.memory_mib,
        )
        shared = set(
            range(number * 100, number * 100 + one.shared_cores * one.threads)
        )
        cells.append(
            cell._replace(
                shared_cpus=shared,
                dedicated_cpus=cell.dedicated_cpus - shared,
            )
        )
    return nova_builders.topology(*cells)


def placements(
    machine: objects.NUMATopology,
    asked: objects.InstanceNUMATopology,
    limits: objects.NUMATopologyLimits,
) -> Iterator[objects.NUMATopology]:
    """Let Nova's fit and ours place a guest in every way on a host.

    :returns: for each way, what the host reports afterwards
    """
    for chosen in itertools.permutations(machine.cells, len(asked.cells)):
        guest = fitted(chosen, asked.obj_clone(), limits)
        if guest:
            yield hardware.numa_usage_from_instance_numa(machine, guest)
        guest = our_hardware.numa_fit_instance_to_host(
            objects.NUMATopology(cells=list(chosen)), asked, {}, limits
        )
        if guest:
            yield hardware.numa_usage_from_instance_numa(machine, guest)


def fitted(
    chosen: Sequence[objects.NUMACell],
    guest: objects.InstanceNUMATopology,
    limits: objects.NUMATopologyLimits,
) -> objects.InstanceNUMATopology | None:
    """Fit each guest cell on its host cell with Nova's fit.

    Without what Nova remembers from one pair of cells to the next, which
    makes it accept what doesn't fit.
    """
    for number, host_cell in enumerate(chosen):
        emulator = int(guest.emulator_threads_isolated and not number)
        try:
            cell = hardware._numa_fit_instance_cell(
                host_cell, guest.cells[number], limits, emulator
            )
        except nova_exception.MemoryPageSizeNotSupported:
            return None
        if cell is None:
            return None
    return guest


def state(machine: objects.NUMATopology) -> tuple[object, ...]:
    """Tell what of a host is used."""
    return tuple(
        (
            cell.cpu_usage,
            cell.memory_usage,
            tuple(sorted(cell.pinned_cpus)),
            tuple(pool.used for pool in cell.mempages),
        )
        for cell in machine.cells
    )


def most_placed(scene: scenario.Scenario, sequence: Sequence[str]) -> int:
    """Try all ways to place the guests of a sequence, one after the other.

    On the hosts that Placement proposes, as far as that is about threads.
    """
    asked = {
        one.name: hardware.numa_get_constraints(
            objects.Flavor(
                vcpus=one.vcpus,
                memory_mb=one.memory_mib,
                extra_specs=dict(one.extra_specs),
            ),
            objects.ImageMeta.from_dict({'properties': {}}),
        )
        for one in scene.flavors
    }
    limits = [
        nova_builders.limits(machine.cpu_ratio, machine.ram_ratio)
        for machine in scene.hosts
    ]
    empty = [numa_topology(machine) for machine in scene.hosts]
    alone = {
        one.name
        for one in scene.flavors
        if one.extra_specs.get('hw:cpu_thread_policy') == 'isolate'
    }
    fleets = [empty]
    for placed, name in enumerate(sequence):
        following = {}
        for fleet in fleets:
            for number, machine in enumerate(fleet):
                if name in alone and empty[number].has_threads:
                    # Placement leaves it out.
                    continue
                for after in placements(machine, asked[name], limits[number]):
                    fleet_after = [*fleet]
                    fleet_after[number] = after
                    key = tuple(map(state, fleet_after))
                    following[key] = fleet_after
        if not following:
            return placed
        fleets = list(following.values())
    return len(sequence)


@st.composite
def nodes(draw):
    pages = draw(
        st.sampled_from(
            [{MIB_2: 512}, {GIB_1: 2}, {MIB_2: 1024, GIB_1: 1}, {}]
        )
    )
    pooled = sum(size * number for size, number in pages.items()) // 1024
    return node(
        draw(st.integers(3, 5)),
        pooled + draw(st.sampled_from([1024, 2048, 3072])),
        pages,
        threads=draw(st.sampled_from([2, 1, 3])),
        shared_cores=draw(st.sampled_from([0, 1, 2])),
        reserved=draw(st.sampled_from([{}, {GIB_1: 1}, {4: 65536}])),
    )


@st.composite
def flavors(draw, name):
    cells = draw(st.sampled_from([1, 1, 2]))
    per_cell = draw(st.integers(1, 3))
    specs = {'numa_nodes': cells}
    size = draw(st.sampled_from([None, 'any', 'large', 'small', MIB_2, GIB_1]))
    if size is not None:
        specs['mem_page_size'] = size
    policy = draw(
        st.sampled_from(['dedicated', 'dedicated', 'shared', 'mixed'])
    )
    specs['cpu_policy'] = policy
    if policy == 'mixed':
        per_cell = max(per_cell, 2)
        # The first vCPU of each guest cell.
        first = range(0, per_cell * cells, per_cell)
        specs['cpu_dedicated_mask'] = ','.join(map(str, first))
    if policy != 'shared':
        threads = draw(st.sampled_from([None, 'require', 'isolate']))
        if threads:
            specs['cpu_thread_policy'] = threads
        if draw(st.booleans()):
            specs['emulator_threads_policy'] = 'isolate'
    memory = draw(st.sampled_from([512, 1024, 1024, 1536]))
    return flavor(name, per_cell * cells, memory * cells, **specs)


@st.composite
def scenes(draw):
    hosts = [
        host(
            *draw(st.lists(nodes(), min_size=1, max_size=2)),
            cpu_ratio=draw(st.sampled_from([1.0, 1.5, 2.0])),
            ram_ratio=draw(st.sampled_from([1.0, 1.5])),
        )
        for _ in range(draw(st.integers(1, 2)))
    ]
    return play(hosts, [draw(flavors(name)) for name in 'ab'])


@examples(0.05)
@given(scenes(), st.lists(st.sampled_from('ab'), min_size=1, max_size=5))
def test_no_packing_of_a_sequence_exceeds_the_bound(scene, sequence):
    placed = most_placed(scene, sequence)

    assert placed <= bound.Bound(scene).sequence(sequence)


@examples(0.1)
@given(
    capacities=st.lists(st.integers(0, 12), min_size=2, max_size=3),
    takes=st.lists(
        st.lists(st.integers(0, 5), min_size=3, max_size=3),
        min_size=1,
        max_size=3,
    ),
)
def test_the_bound_is_that_of_all_configurations(capacities, takes):
    """Compare with the program over all configurations, listed one by one."""
    # given: guest cells of so many CPUs, MiB in small pages and giant pages
    hosts = [
        host(node(capacity + 1, 1024 * (2 + capacity), {GIB_1: 1}))
        for capacity in capacities
    ]
    asked = [
        pinned(
            str(number),
            1 + cpus,
            1024,
            1 + share,
            mem_page_size=('small', GIB_1, 'any')[pages % 3],
        )
        for number, (cpus, pages, share) in enumerate(takes)
    ]
    scene = play(hosts, asked)

    names = [one.name for one in asked for _ in range(1 + takes[0][2])] * 4

    # when
    most = bound.Bound(scene).sequence(names)

    # then: these fit, and with the next one no more
    assert listed(scene, names[:most]) >= 1 - 1e-5
    if most < len(names):
        assert listed(scene, names[: most + 1]) < 1


def listed(scene: scenario.Scenario, names: Sequence[str]) -> float:
    """Solve the linear program over all configurations.

    :returns: how many times the fleet holds the guests
    """
    if not names:
        return 1.0
    kinds: collections.Counter = collections.Counter()
    for one in scene.flavors:
        for kind, count in cell_kinds.guest_cells(one).items():
            kinds[kind] += count * names.count(one.name)
    columns = [
        (number, found)
        for number, machine in enumerate(scene.hosts)
        for found in configurations(machine.nodes[0], list(kinds))
    ]
    rows = [
        [-found[index] for _, found in columns] + [kinds[kind]]
        for index, kind in enumerate(kinds)
    ]
    rows += [
        [float(number == here) for here, _ in columns] + [0.0]
        for number in range(len(scene.hosts))
    ]
    solved = optimize.linprog(
        [0.0] * len(columns) + [-1.0],
        A_ub=rows,
        b_ub=[0.0] * len(kinds) + [1.0] * len(scene.hosts),
    )
    return -solved.fun


def configurations(
    one: scenario.HostNode, kinds: Sequence[cell_room.CellNeed]
) -> set[tuple[int, ...]]:
    """List what fits in a node, by trying to add one guest cell at a time.

    All guest cells have 1 GiB.
    """
    giant = one.pages[GIB_1]
    start = (one.cores, one.memory_mib // 1024 - giant, giant)
    found = {((0,) * len(kinds), start)}
    waiting = list(found)
    while waiting:
        counts, (cpus, small, pages) = waiting.pop()
        for index, kind in enumerate(kinds):
            left = [(cpus - kind.cpus, small - 1, pages)]
            if kind.page_size == GIB_1:
                left = [(cpus - kind.cpus, small, pages - 1)]
            elif kind.page_size == model.PageRequest.ANY:
                left.append((cpus - kind.cpus, small, pages - 1))
            for rest in left:
                more = tuple(
                    count + (index == here)
                    for here, count in enumerate(counts)
                )
                if min(rest) >= 0 and (more, rest) not in found:
                    found.add((more, rest))
                    waiting.append((more, rest))
    return {counts for counts, _ in found}
