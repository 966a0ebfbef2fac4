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

"""Tests of finding flavors that fit on no host of a fleet."""

from nova import objects

from nova_numa_hugepages.simulate import unplaceable
from tests.unit.simulate.scenes import flavor
from tests.unit.simulate.scenes import host
from tests.unit.simulate.scenes import node
from tests.unit.simulate.scenes import pinned
from tests.unit.simulate.scenes import play

objects.register_all()

PAGES = {2048: 1024}


def found(hosts, *flavors):
    return unplaceable.unplaceable(play(hosts, flavors))


def test_a_flavor_that_fits_on_one_type_is_none_of_them():
    small, large = host(node(2)), host(node(2), node(2), node(8))

    assert found([small, large], pinned('eight', 8), flavor('plain', 99)) == {}


def test_memory_in_parts_of_a_page():
    assert found(
        [host(node(4, pages=PAGES))],
        pinned('even', 1, 2048, mem_page_size='2MB'),
        pinned('odd', 1, 2049, mem_page_size='2MB'),
    ) == {
        'odd': 'host: guest NUMA node 0: memory of 2049 MiB is not a whole '
        'number of 2 MiB pages'
    }


def test_a_host_that_takes_it_only_while_others_are_off():
    # Two cells of which each node holds one.
    assert found(
        [host(node(2), node(2))],
        pinned('two', 4, numa_nodes=2),
        pinned('three', 6, 1536, numa_nodes=3),
    ).keys() == {'three'}


def test_nodes_that_are_too_far_apart():
    far = host(node(2), node(2), distances=((10, 31), (31, 10)))
    near = {'numa_hugepages:max_distance': '20'}
    two = pinned('two', 4, numa_nodes=2)
    two = two.__class__(
        two.name, two.vcpus, two.memory_mib, {**two.extra_specs, **near}
    )

    assert 'farther apart than 20 (nearest: 31)' in found([far], two)['two']
