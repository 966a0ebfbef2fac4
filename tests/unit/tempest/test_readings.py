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

"""The parsers of the Tempest plugin."""

import dataclasses

import pytest

from nova_numa_hugepages.tempest import server_spec
from nova_numa_hugepages.tempest.readings import domain
from nova_numa_hugepages.tempest.readings import host_show
from nova_numa_hugepages.tempest.readings import kernel
from nova_numa_hugepages.tempest.readings import topology

GUEST = '0d6d6c1e-52ba-4d0b-9d2c-6b0c6a6f7c21'
MIB_2 = 2048
GIB_1 = 1048576


@dataclasses.dataclass
class Options:
    """The options of ``tempest.conf`` that describe a server."""

    cell_vcpus: int = 2
    cell_memory_mib: int = 128
    page_size_kib: int = MIB_2
    dedicated_cpus: bool = True


def test_server_of_the_options():
    made = server_spec.ServerSpec.of(
        Options(), cells=2, specs={'numa_hugepages:max_distance': '12'}
    )

    assert (made.vcpus, made.memory_mib, made.cell_pages) == (4, 256, 64)
    assert made.resources == {'PCPU': 4, 'MEMORY_MB': 256}
    assert made.extra_specs == {
        'hw:numa_nodes': '2',
        'hw:mem_page_size': '2048',
        'hw:cpu_policy': 'dedicated',
        'numa_hugepages:max_distance': '12',
    }


def test_server_with_shared_cpus():
    made = server_spec.ServerSpec.of(Options(dedicated_cpus=False))

    assert made.resources == {'VCPU': 2, 'MEMORY_MB': 128}
    assert 'hw:cpu_policy' not in made.extra_specs


def test_cells_are_made_of_whole_pages():
    with pytest.raises(ValueError, match='128 MiB are not a number of pages'):
        server_spec.ServerSpec.of(Options(page_size_kib=GIB_1))


def test_topology_of_two_cells():
    read = topology.read(
        {
            'nodes': [
                {
                    'vcpu_set': [0, 1],
                    'siblings': [[0, 1]],
                    'memory_mb': 128,
                    'host_node': 3,
                    'cpu_pinning': {'0': 13, '1': 12},
                },
                {
                    'vcpu_set': [2],
                    'siblings': [],
                    'memory_mb': 256,
                    'host_node': 1,
                    'cpu_pinning': {},
                },
            ],
            'pagesize_kb': 2048,
        }
    )

    assert read == topology.Topology(
        (
            topology.Cell(3, 128, frozenset({0, 1}), {0: 13, 1: 12}),
            topology.Cell(1, 256, frozenset({2}), {}),
        ),
        2048,
    )
    assert read.host_nodes == (3, 1)
    assert read.pins == {0: 13, 1: 12}


def test_topology_for_a_user_who_may_not_see_the_host():
    with pytest.raises(KeyError, match='host_node'):
        topology.read(
            {'nodes': [{'vcpu_set': [0], 'memory_mb': 1}], 'pagesize_kb': None}
        )


NUMA_MAPS = """\
55d0c8a00000 default file=/usr/bin/qemu-system-x86_64 mapped=9 N0=9 \
kernelpagesize_kB=4
7f1000000000 bind:1 file=/dev/hugepages/libvirt/qemu/1/ram-node0 huge \
dirty=60 N1=60 kernelpagesize_kB=2048
7f1008000000 bind:1 file=/dev/hugepages/libvirt/qemu/1/ram-node0 huge \
dirty=4 N1=4 kernelpagesize_kB=2048
7f2000000000 bind:3 file=/memfd:ram\\040(deleted) huge dirty=64 N2=1 N3=63 \
kernelpagesize_kB=2048
7f3000000000 default huge anon=1 dirty=1 N0=1 kernelpagesize_kB=1048576
7f4000000000 default file=/tmp/huge mapped=1 N0=1 kernelpagesize_kB=4
7f5000000000 bind:2 file=/dev/hugepages/untouched huge kernelpagesize_kB=2048
7ffd00000000 default stack anon=3 dirty=3 N0=3 kernelpagesize_kB=4
"""


def test_huge_pages_of_a_process_by_node_and_size():
    assert kernel.huge_pages(NUMA_MAPS) == {
        (1, MIB_2): 64,
        (2, MIB_2): 1,
        (3, MIB_2): 63,
        (0, GIB_1): 1,
    }


def test_huge_pages_of_no_size():
    with pytest.raises(ValueError, match='no page size in numa_maps'):
        kernel.huge_pages('7f1000000000 bind:1 huge N1=60\n')


def counters(node, size_kib, **counts):
    folder = f'/sys/devices/system/node/node{node}/hugepages'
    return '\n'.join(
        f'{folder}/hugepages-{size_kib}kB/{name}_hugepages:{count}'
        for name, count in counts.items()
    )


def test_pools_of_the_kernel():
    read = kernel.pools(
        '\n'.join(
            [
                counters(0, MIB_2, free=3, nr=67, surplus=1),
                counters(10, GIB_1, free=0, nr=0, surplus=0, nr_overcommit=5),
            ]
        )
    )

    assert read == {
        (0, MIB_2): kernel.Pool(total=67, free=3, surplus=1),
        (10, GIB_1): kernel.Pool(total=0, free=0, surplus=0),
    }
    assert read[0, MIB_2].used == 64


def test_pool_with_a_missing_counter():
    with pytest.raises(ValueError, match="no counter 'surplus'"):
        kernel.pools(counters(0, MIB_2, free=3, nr=67))


DOMAIN = """\
<domain type='kvm' id='7'>
  <memoryBacking><hugepages>{pages}</hugepages></memoryBacking>
  <cputune>
    <vcpupin vcpu='0' cpuset='12'/>
    <vcpupin vcpu='1' cpuset='4-6,^5'/>
    <emulatorpin cpuset='4,12'/>
  </cputune>
  <numatune>
    <memory mode='strict' nodeset='1,3'/>
    <memnode cellid='0' mode='strict' nodeset='3'/>
    <memnode cellid='1' mode='preferred' nodeset='1'/>
  </numatune>
  <cpu><numa>
    <cell id='0' cpus='0' memory='131072' unit='KiB'>
      <distances><sibling id='0' value='10'/><sibling id='1' value='21'/>
      </distances>
    </cell>
    <cell id='1' cpus='1' memory='131072' unit='KiB'/>
  </numa></cpu>
</domain>
"""


@pytest.mark.parametrize(
    ('pages', 'sizes_kib'),
    [
        pytest.param('', {}, id='small-pages'),
        pytest.param(
            "<page size='2048' unit='KiB' nodeset='0-1'/>",
            {0: MIB_2, 1: MIB_2},
            id='one-size',
        ),
        pytest.param(
            "<page size='2' unit='M' nodeset='1'/>", {1: MIB_2}, id='one-cell'
        ),
        pytest.param(
            "<page size='1' unit='GiB'/><page size='2048' nodeset='1'/>",
            {0: GIB_1, 1: MIB_2},
            id='all-others',
        ),
    ],
)
def test_domain(pages, sizes_kib):
    assert domain.read(DOMAIN.format(pages=pages)) == domain.Domain(
        nodes={0: frozenset({3}), 1: frozenset({1})},
        modes={0: 'strict', 1: 'preferred'},
        page_sizes_kib=sizes_kib,
        pins={0: frozenset({12}), 1: frozenset({4, 6})},
        distances={0: {0: 10, 1: 21}},
    )


def test_domain_with_a_page_size_in_miles():
    with pytest.raises(ValueError, match='miles'):
        domain.read(DOMAIN.format(pages="<page size='2' unit='miles'/>"))


# As printed by the command, without the columns that tests don't ask for.
HOST_SHOW = """\
[{"node": 0, "size_kib": 2048, "total": 96, "free": 32, "held": 64,
  "promised": 0, "available": 30, "reserved": 2, "floor": 32, "grown": 64,
  "guests": [{"uuid": "0d6d6c1e-52ba-4d0b-9d2c-6b0c6a6f7c21",
    "name": "instance-1", "pid": 4711, "purpose": "guest", "state": "taken",
    "cells": [0], "held": 64, "grown": 64, "since": 1770000000, "has": 64}],
  "distances": {"0": 10, "1": 21}},
 {"node": 1, "size_kib": null, "total": null, "free": null, "held": null,
  "promised": null, "available": null, "reserved": null, "floor": null,
  "grown": null, "guests": null, "distances": {"0": 21, "1": 10}}]
"""


def test_host_show():
    hold = host_show.HoldRow('guest', 'taken', (0,), 64, 64)

    read = host_show.read(HOST_SHOW)

    assert read == host_show.HostShow(
        {
            (0, MIB_2): host_show.PoolRow(
                total=96,
                free=32,
                held=64,
                available=30,
                floor=32,
                grown=64,
                reserved=2,
                holds={GUEST: (hold,)},
            )
        },
        {0: {0: 10, 1: 21}, 1: {0: 21, 1: 10}},
    )
    assert read.guests == {GUEST}
    assert read.holds(GUEST) == {(0, MIB_2): (hold,)}
    assert read.holds('another uuid') == {}


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        pytest.param('"held": 64,\n', '"held": null,\n', 'root', id='user'),
        pytest.param('"floor"', '"ceiling"', "no 'floor'", id='column'),
        pytest.param('[{"node"', '{"node"', 'Extra data', id='no-json'),
    ],
)
def test_host_show_that_is_incomplete(old, new, message):
    with pytest.raises(ValueError, match=message):
        host_show.read(HOST_SHOW.replace(old, new, 1))
