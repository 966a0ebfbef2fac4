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

"""Tests of what is said of that which a simulation does not judge."""

from nova import objects

from nova_numa_hugepages.simulate import scenario
from nova_numa_hugepages.simulate import unjudged
from tests.unit.simulate import running
from tests.unit.simulate.running import run
from tests.unit.simulate.scenes import flavor
from tests.unit.simulate.scenes import host
from tests.unit.simulate.scenes import node
from tests.unit.simulate.scenes import pinned
from tests.unit.simulate.scenes import play
from tests.unit.simulate.simulated import OURS

objects.register_all()


def asks(name, **specs):
    return scenario.Flavor(
        name,
        1,
        512,
        {key.replace('__', ':'): value for key, value in specs.items()},
    )


def test_what_flavors_ask_for_is_counted():
    assert unjudged.describe(
        [
            asks('card', pci_passthrough__alias='card:1'),
            asks(
                'both',
                pci_passthrough__alias='card:2',
                trait__CUSTOM_FAST='required',
                trait__CUSTOM_OLD='forbidden',
            ),
            asks('group', resources_1__VGPU='1', trait_1__HW_GPU='required'),
            asks('fpga', accel__device_profile='fpga'),
            asks('zone', aggregate_instance_extra_specs__ssd='true'),
        ]
    ) == (
        'Flavors ask for what is not judged: PCI devices (2 flavors), '
        'accelerators (1 flavor), aggregates (1 flavor), resources of '
        'Placement (1 flavor), traits (2 flavors).'
    )


def test_what_is_judged_is_not_named():
    assert (
        unjudged.describe(
            [
                pinned('plain', 2, numa_nodes=1),
                asks('own', resources__PCPU='1', resources__MEMORY_MB='512'),
                asks('threads', trait__HW_CPU_HYPERTHREADING='required'),
            ]
        )
        == ''
    )


def test_resources_that_no_host_has_refuse_nobody():
    with running.nova():
        found = run(
            play(
                [host(node(4, 2048, shared_cores=4))],
                [asks('card', resources__VGPU='1')],
            ),
            OURS,
        )

    assert found.placed == 4


def test_memory_that_is_reserved_is_for_nobody():
    machine = host(node(8, 4096, shared_cores=8), reserved_memory_mib=1024)

    with running.nova():
        found = run(play([machine], [flavor('floats', 1, 1024)]), OURS)

    assert found.placed == 3
    assert scenario.holds([machine], [flavor('floats', 1, 1024)]) == 3


def test_guests_find_nodes_that_have_cpus_and_memory():
    machine = host(node(4, 0), node(0, 4096), node(2, 4096, {2048: 1024}))

    with running.nova():
        found = run(
            play([machine], [pinned('one', 1, 512, mem_page_size='2MB')]),
            OURS,
        )

    assert found.placed == 2
