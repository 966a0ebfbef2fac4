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

"""The hardware of real hosts, as nodes of a simulation."""

from __future__ import annotations

from collections.abc import Set
from typing import Any
from typing import NamedTuple

import pytest

from nova_numa_hugepages.core import model
from nova_numa_hugepages.simulate import from_nova
from nova_numa_hugepages.simulate import scenario

MIB_2 = 2048
GIB_1 = 1024 * 1024


def cell(cell_id: int = 0, **values: Any) -> model.HostCell:
    """A cell of two cores of two threads, all dedicated, and 1 GiB."""
    return model.HostCell(
        **{
            'id': cell_id,
            'dedicated_cpus': {0, 1, 2, 3},
            'siblings': [{0, 2}, {1, 3}],
            'memory_mib': 1024,
            'pools': (model.PagePool(4, 262144),),
            **values,
        }
    )


def node(**values: Any) -> scenario.HostNode:
    """What `cell` is read as."""
    return scenario.HostNode(
        **{
            'cores': 2,
            'threads': 2,
            'shared_cores': 0,
            'memory_mib': 1024,
            'pages': {},
            'reserved': {},
            'socket': None,
            **values,
        }
    )


class Hardware(NamedTuple):
    nodes: tuple[scenario.HostNode, ...]
    distances: tuple[tuple[int, ...], ...] | None
    notes: tuple[str, ...]


def read(*cells: model.HostCell, **values: Any) -> Hardware:
    notes: list[str] = []
    nodes, distances = from_nova.read_hardware(
        model.HostTopology(cells, **values), notes
    )
    return Hardware(nodes, distances, tuple(notes))


def test_used_host_is_read_as_an_empty_one() -> None:
    # Given a host with guests on it,
    used = cell(
        shared_cpus={8, 9},
        siblings=[{0, 2}, {1, 3}, {8, 9}],
        pinned_cpus={0, 2},
        memory_mib=4096,
        memory_used_mib=1024,
        shared_used=3,
        pools=(
            model.PagePool(4, 262144, used=7),
            model.PagePool(MIB_2, 1024, used=512, reserved=24),
            model.PagePool(GIB_1, 1),
        ),
        socket=36,
    )

    # when its hardware is read,
    found = read(used)

    # then it is all there, with the shared cores as the first ones.
    assert found == Hardware(
        nodes=(
            node(
                cores=3,
                shared_cores=1,
                memory_mib=4096,
                pages={MIB_2: 1024, GIB_1: 1},
                reserved={MIB_2: 24},
                socket=0,
            ),
        ),
        distances=None,
        notes=(),
    )


def test_nodes_keep_their_distances_and_sockets() -> None:
    # Given a host of two sockets, the second of them with two nodes,
    distances = ((10, 21, 21), (21, 10, 12), (21, 12, 10))

    # when its hardware is read,
    found = read(
        cell(0, socket=4),
        cell(1, socket=0),
        cell(2, socket=0),
        distances=distances,
    )

    # then the sockets are numbered from 0.
    assert found == Hardware(
        nodes=(node(socket=0), node(socket=1), node(socket=1)),
        distances=distances,
        notes=(),
    )


def test_nodes_without_cpus_or_memory_are_kept() -> None:
    # Given a host with a node of memory only, and one of CPUs only,
    found = read(
        cell(0),
        cell(1, dedicated_cpus=set(), siblings=[]),
        cell(2, memory_mib=0, pools=(model.PagePool(4, 0),)),
        distances=((10, 14, 21), (14, 10, 24), (21, 24, 10)),
    )

    # when its hardware is read, then they are there.
    assert found == Hardware(
        nodes=(
            node(),
            node(cores=0, threads=1, shared_cores=0),
            node(memory_mib=0, pages={}, reserved={}),
        ),
        distances=((10, 14, 21), (14, 10, 24), (21, 24, 10)),
        notes=(),
    )


def test_host_without_any_cpu() -> None:
    found = read(cell(0, dedicated_cpus=set(), siblings=[]))

    assert found == Hardware(nodes=(), distances=None, notes=())


def test_distances_that_are_none() -> None:
    # Given a node that is far from itself, when the hardware is read,
    found = read(cell(), distances=((11,),))

    # then there are no distances.
    assert found == Hardware(
        nodes=(node(),),
        distances=None,
        notes=(
            'a node of it is said to be farther than 10 from itself; its '
            'distances are left out',
        ),
    )


@pytest.mark.parametrize(
    ('shared', 'dedicated', 'siblings', 'cores', 'note'),
    [
        pytest.param(
            set(), {0, 1, 2}, [], (3, 1, 0), None, id='no-hyperthreads'
        ),
        pytest.param(
            {0, 1, 2, 3},
            set(),
            [{0, 2}, {1, 3}],
            (2, 2, 2),
            None,
            id='all-shared',
        ),
        pytest.param(
            {0, 1},
            {0, 1},
            [{0, 1}],
            (1, 2, 0),
            'its node 0 has CPUs for vCPUs that float and for pinned ones '
            'alike; they are taken as CPUs for pinned ones',
            id='for-both',
        ),
        pytest.param(
            {0},
            {1, 2, 3, 4, 5},
            [{0, 1}, {2, 3}, {4, 5}],
            (3, 2, 1),
            'the CPUs of its node 0 do not make whole cores of equally many '
            'threads; it is taken to have 3 of 2 threads, 1 of them shared',
            id='core-of-both-kinds',
        ),
        pytest.param(
            set(),
            {1, 2, 3, 4, 5},
            [{1}, {2, 3}, {4, 5}],
            (2, 2, 0),
            'the CPUs of its node 0 do not make whole cores of equally many '
            'threads; it is taken to have 2 of 2 threads, 0 of them shared',
            id='half-a-core-for-the-host',
        ),
        pytest.param(
            set(),
            {0, 1, 2, 3, 4, 5, 6, 7},
            [{0, 1}, {2, 3}, {4}, {5}, {6}, {7}],
            (8, 1, 0),
            'the CPUs of its node 0 do not make whole cores of equally many '
            'threads; it is taken to have 8 of 1 threads, 0 of them shared',
            id='cores-of-two-kinds',
        ),
    ],
)
def test_cores(
    shared: Set[int],
    dedicated: Set[int],
    siblings: list[Set[int]],
    cores: tuple[int, int, int],
    note: str | None,
) -> None:
    # Given a host with these CPUs, when its hardware is read,
    found = read(
        cell(shared_cpus=shared, dedicated_cpus=dedicated, siblings=siblings)
    )

    # then it has so many cores, threads and shared cores.
    [only] = found.nodes
    assert (only.cores, only.threads, only.shared_cores) == cores
    assert found.notes == (() if note is None else (note,))


@pytest.mark.parametrize(
    ('memory_mib', 'pools', 'expected'),
    [
        pytest.param(
            1023,
            (model.PagePool(4, 261888),),
            (960, {}, {}),
            id='rounded-down',
        ),
        pytest.param(
            1030,
            (model.PagePool(4, 0), model.PagePool(MIB_2, 515)),
            (1030, {MIB_2: 515}, {}),
            id='but-not-below-its-pages',
        ),
        pytest.param(
            1024,
            (model.PagePool(4, 262144, reserved=16385),),
            (896, {}, {}),
            id='small-pages-held-back',
        ),
        pytest.param(
            1024,
            (
                model.PagePool(64, 16384),
                model.PagePool(MIB_2, 1, reserved=2),
                model.PagePool(GIB_1, 0, reserved=1),
            ),
            (1024, {MIB_2: 1}, {MIB_2: 1}),
            id='more-held-back-than-there-are',
        ),
        pytest.param(1024, (), (1024, {}, {}), id='no-pools'),
    ],
)
def test_memory(
    memory_mib: int,
    pools: tuple[model.PagePool, ...],
    expected: tuple[int, dict[int, int], dict[int, int]],
) -> None:
    # Given a host with this memory, when its hardware is read,
    found = read(cell(memory_mib=memory_mib, pools=pools))

    # then it has so much, and these huge pages.
    [only] = found.nodes
    assert (only.memory_mib, only.pages, only.reserved) == expected
