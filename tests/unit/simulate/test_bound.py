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


"""Tests of the bound on what any policy can place."""

import itertools
import random
import statistics

import pytest

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.capacity import cell_room
from nova_numa_hugepages.simulate import bound
from nova_numa_hugepages.simulate import cell_kinds
from tests.unit.core import builders as values
from tests.unit.simulate.scenes import flavor
from tests.unit.simulate.scenes import host
from tests.unit.simulate.scenes import node
from tests.unit.simulate.scenes import pinned
from tests.unit.simulate.scenes import play

MIB_2 = values.MIB_2
GIB_1 = values.GIB_1
ANY = model.PageRequest.ANY
SEEDS = range(1, 8)


def huge_node(cores, gib, of_2_mib, of_1_gib):
    """Make a node of two threads a core; all amounts are in GiB."""
    return node(
        cores,
        gib * 1024,
        {MIB_2: of_2_mib * 512, GIB_1: of_1_gib},
        threads=2,
    )


# 100 hosts, and flavors of one, two and four cells.
FLEET = play(
    [
        host(*[huge_node(32, 160, 48, 64)] * 2, count=50),
        host(*[huge_node(16, 80, 24, 32)] * 4, count=50),
    ],
    [
        pinned(
            f'{cells}-{vcpus}',
            vcpus,
            gib * 1024,
            share,
            numa_nodes=cells,
            mem_page_size=size,
        )
        for cells, vcpus, gib, size, share in (
            (1, 4, 8, GIB_1, 0.25),
            (1, 8, 16, MIB_2, 0.20),
            (1, 16, 32, GIB_1, 0.15),
            (2, 16, 32, GIB_1, 0.15),
            (2, 32, 48, MIB_2, 0.10),
            (1, 24, 24, MIB_2, 0.10),
            (4, 64, 64, GIB_1, 0.05),
        )
    ],
)


def test_drawn_sequences_over_a_fleet():
    # given
    bounds = bound.Bound(FLEET)
    names = [one.name for one in FLEET.flavors]
    shares = [one.share for one in FLEET.flavors]
    vcpus = {one.name: one.vcpus for one in FLEET.flavors}
    drawn = [
        random.Random(seed).choices(names, shares, k=2500) for seed in SEEDS
    ]

    # when
    found = [bounds.sequence(sequence) for sequence in drawn]

    # then: the CPUs are what runs out
    by_cpus = [
        sum(
            total <= 12800 for total in itertools.accumulate(map(vcpus.get, s))
        )
        for s in drawn
    ]
    assert found == by_cpus
    assert statistics.median(found) == 795


def test_cells_that_do_not_fill_a_host_cell():
    # given: host cells of 8 CPUs, guest cells of 3; two fit, not 8/3
    scene = play([host(node(8), node(8))], [pinned('three', 3)])

    # then
    assert bound.Bound(scene).sequence(['three'] * 9) == 4


def test_two_kinds_that_only_fit_side_by_side():
    # given: in 8 CPUs one of 5 and one of 3, or two of 3
    scene = play(
        [host(node(8), count=6)], [pinned('five', 5), pinned('three', 3)]
    )

    # then: six host cells have one of each; a seventh of 3 has no room
    assert bound.Bound(scene).sequence(['five'] * 6 + ['three'] * 9) == 12
    assert bound.Bound(scene).sequence(['three'] * 20) == 12


def test_cells_of_a_guest_may_lie_on_different_hosts():
    # given: two hosts of one cell
    scene = play([host(node(4), count=2)], [pinned('two', 8, numa_nodes=2)])

    assert bound.Bound(scene).sequence(['two'] * 2) == 1


def test_guests_without_a_topology_take_nothing():
    scene = play([host(node(4))], [flavor('floats', 8), pinned('four', 4)])

    assert (
        bound.Bound(scene).sequence(['floats', 'four', 'floats', 'four']) == 3
    )


def test_guests_without_a_topology_have_no_bound():
    scene = play([host(node(4))], [flavor('floats', 8)])

    assert bound.Bound(scene).sequence(['floats'] * 5) == 5


def test_a_guest_that_fits_nowhere():
    scene = play([host(node(4))], [pinned('one', 1), pinned('nine', 9)])

    assert bound.Bound(scene).sequence(['one', 'nine', 'one']) == 1
    assert bound.Bound(scene).sequence(['nine']) == 0
    assert bound.Bound(scene).sequence([]) == 0


def test_a_flavor_that_is_not_in_the_scenario():
    with pytest.raises(KeyError):
        bound.Bound(play([host(node(4))], [])).sequence(['unknown'])


@pytest.mark.parametrize(
    ('nodes', 'asked', 'most'),
    [
        # Pages that the operator holds back are not for guests.
        (
            [node(8, 8192, {GIB_1: 6}, reserved={GIB_1: 1})],
            pinned('giant', 1, 1024, mem_page_size=GIB_1),
            5,
        ),
        # 2 GiB are in no pool.
        ([node(8, 8192, {GIB_1: 6})], pinned('small', 1, 512), 4),
        (
            [node(8, 8192, {GIB_1: 6})],
            pinned('named', 1, 512, mem_page_size='small'),
            4,
        ),
        # Of either size: five on giant pages, and on 1 GiB of huge ones one.
        (
            [node(8, 8192, {MIB_2: 512, GIB_1: 5})],
            pinned('large', 1, 1024, mem_page_size='large'),
            6,
        ),
        # The same, and two on small ones.
        (
            [node(9, 8192, {MIB_2: 512, GIB_1: 5})],
            pinned('any', 1, 1024, mem_page_size='any'),
            8,
        ),
        # Not in whole giant pages.
        (
            [node(8, 8192, {MIB_2: 768, GIB_1: 5})],
            pinned('odd', 1, 1536, mem_page_size='large'),
            1,
        ),
        ([node(8)], pinned('none', 1, mem_page_size=GIB_1), 0),
        # On a host cell without small pages they are of the next size.
        ([node(8, 4096, {GIB_1: 4})], pinned('next', 1), 4),
        # More pages than memory leave none of them, and no fewer than none.
        ([node(8, 1024, {GIB_1: 4})], pinned('next', 1), 4),
        # Placement leaves out hosts with thread siblings.
        (
            [node(8, threads=2)],
            pinned('alone', 2, cpu_thread_policy='isolate'),
            0,
        ),
        (
            [node(8, threads=2, shared_cores=1)],
            flavor(
                'mixed',
                3,
                cpu_policy='mixed',
                cpu_dedicated_mask='1-2',
                cpu_thread_policy='isolate',
            ),
            0,
        ),
        # Without siblings each CPU is a core.
        ([node(8)], pinned('alone', 2, cpu_thread_policy='isolate'), 4),
        # And one for the emulator.
        (
            [node(8)],
            pinned(
                'emulated',
                2,
                cpu_thread_policy='isolate',
                emulator_threads_policy='isolate',
            ),
            2,
        ),
        (
            [node(8, threads=2)],
            pinned('emulator', 3, emulator_threads_policy='isolate'),
            4,
        ),
        # Two threads of a core, and one of another.
        (
            [node(8, threads=2)],
            pinned('siblings', 3, cpu_thread_policy='require'),
            4,
        ),
        # Threads of three cores, where there is room for a whole one.
        (
            [node(3, threads=4)],
            pinned('siblings', 3, cpu_thread_policy='require'),
            4,
        ),
        ([node(8)], pinned('siblings', 2, cpu_thread_policy='require'), 0),
        # Two CPUs are shared, by four vCPUs in all.
        (
            [node(8, shared_cores=2)],
            flavor('shares', 2, numa_nodes=1),
            2,
        ),
        ([node(8, shared_cores=2)], flavor('wide', 3, numa_nodes=1), 0),
        # 4 GiB of memory, times 1.5.
        (
            [node(8, 4096, shared_cores=8)],
            flavor('memory', 1, 2048, numa_nodes=1),
            3,
        ),
        (
            [node(8, 4096, shared_cores=8)],
            flavor('huge', 1, 5120, numa_nodes=1),
            0,
        ),
        # A vCPU that floats and two that are pinned.
        (
            [node(10, shared_cores=2)],
            flavor('mixed', 3, cpu_policy='mixed', cpu_dedicated_mask='1-2'),
            4,
        ),
    ],
)
def test_what_fits_in_a_host_cell(nodes, asked, most):
    # given
    scene = play([host(*nodes, cpu_ratio=2.0, ram_ratio=1.5)], [asked])

    # then
    assert bound.Bound(scene).sequence([asked.name] * 20) == most


def test_guests_that_isolate_their_threads_only_count_hosts_without_any():
    # given: 8 CPUs with thread siblings and 4 without
    scene = play(
        [host(node(4, threads=2)), host(node(4))],
        [pinned('alone', 1, cpu_thread_policy='isolate'), pinned('one', 1)],
    )

    # then: a guest that doesn't care leaves the place to those that do
    assert bound.Bound(scene).sequence(['alone'] * 9) == 4
    assert bound.Bound(scene).sequence(['one'] * 8 + ['alone'] * 9) == 12


def test_a_thread_that_require_leaves_over_is_used():
    # given: a core of two threads, and one thread of another
    scene = play(
        [host(node(2, threads=2))],
        [pinned('one', 1), pinned('three', 3, cpu_thread_policy='require')],
    )

    assert bound.Bound(scene).sequence(['three', 'one', 'one']) == 2


def test_kinds_of_guest_cells_are_reported_apart():
    # given: three cells, of which two ask for the same
    asked = pinned(
        'uneven',
        8,
        8192,
        **{
            'numa_nodes': 3,
            'numa_cpus.0': '0-3',
            'numa_mem.0': 4096,
            'numa_cpus.1': '4-5',
            'numa_mem.1': 2048,
            'numa_cpus.2': '6-7',
            'numa_mem.2': 2048,
        },
        mem_page_size='any',
    )

    # when
    cells = cell_kinds.guest_cells(asked)

    # then
    assert cells == {
        cell_room.need(values.pinned_cell(vcpus, memory_mib, ANY), 0): count
        for vcpus, memory_mib, count in ((4, 4096, 1), (2, 2048, 2))
    }
