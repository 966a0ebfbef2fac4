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


"""Instances booted through the API, with our filter and fit."""

from __future__ import annotations

import logging
from typing import Any

import fixtures
from lxml import etree
from nova.virt import hardware as nova_hardware
import pytest

from tests.fixtures import cloud as embedded
from tests.functional import conftest

MIB_2 = 2048
GIB_1 = 1024 * 1024

# Nodes 0 and 2 are near each other, and so are 1 and 3. Nova's own order of
# cells would take 0 and 1 of an empty host.
CROSSED = (
    (10, 21, 12, 21),
    (21, 10, 21, 12),
    (12, 21, 10, 21),
    (21, 12, 21, 10),
)

HOSTS = (
    embedded.HostSpec(
        'crossed',
        (
            embedded.NodeSpec(
                cores=4,
                memory_mib=8192,
                pages={MIB_2: 2048, GIB_1: 1},
                reserved={MIB_2: 1024},
            ),
        )
        * 4,
        distances=CROSSED,
    ),
    embedded.HostSpec(
        'one-small-node', (embedded.NodeSpec(cores=1, memory_mib=2048),)
    ),
)

TWO_CELLS = {
    'hw:cpu_policy': 'dedicated',
    'hw:mem_page_size': '2MB',
    'hw:numa_nodes': '2',
}


def test_guest_gets_its_cpus_and_pages_in_the_nearest_nodes(
    cloud: embedded.EmbeddedCloud, boot: conftest.Boot
) -> None:
    # Given an empty host whose near nodes are not neighbours by number,
    # when a guest of two cells is booted,
    [server] = boot(vcpus=4, ram_mib=2048, specs=TWO_CELLS)

    # then it runs there, on two near nodes,
    assert server['status'] == 'ACTIVE'
    assert server['OS-EXT-SRV-ATTR:host'] == 'crossed'
    guest = cloud.instance(server['id']).numa_topology
    nodes = [cell.id for cell in guest.cells]
    assert CROSSED[nodes[0]][nodes[1]] == 12
    # each cell with its CPUs and pages in the node that it names,
    host = {cell.id: cell for cell in cloud.topology('crossed').cells}
    for cell in guest.cells:
        pins = set(cell.cpu_pinning.values())
        assert len(pins) == 2
        assert host[cell.id].pinned_cpus == pins
        assert pins <= host[cell.id].pcpuset
        assert cell.pagesize == MIB_2
    # the pages counted there and nowhere else,
    assert {
        cell_id: {p.size_kb: p.used for p in cell.mempages}
        for cell_id, cell in host.items()
    } == {
        cell_id: {4: 0, MIB_2: 512 if cell_id in nodes else 0, GIB_1: 0}
        for cell_id in host
    }
    # and the CPUs counted by Placement.
    assert cloud.usages('crossed')['PCPU'] == 4


def test_domain_is_pinned_as_planned(
    cloud: embedded.EmbeddedCloud, boot: conftest.Boot
) -> None:
    # Given an empty host, when a guest of two cells is booted,
    [server] = boot(vcpus=4, ram_mib=2048, specs=TWO_CELLS)

    # then libvirt has the same as Nova's database.
    guest = cloud.instance(server['id']).numa_topology
    domain = etree.fromstring(cloud.domain_xml(server['id']))
    pins = {
        int(pin.get('vcpu')): int(pin.get('cpuset'))
        for pin in domain.findall('./cputune/vcpupin')
    }
    planned: dict[int, int] = {}
    for cell in guest.cells:
        planned.update(cell.cpu_pinning)
    assert pins == planned
    memory_nodes = {
        int(node.get('cellid')): int(node.get('nodeset'))
        for node in domain.findall('./numatune/memnode')
    }
    assert memory_nodes == {
        index: cell.id for index, cell in enumerate(guest.cells)
    }
    sizes = {
        page.get('size')
        for page in domain.findall('./memoryBacking/hugepages/page')
    }
    assert sizes == {str(MIB_2)}


def test_scheduler_and_claim_make_the_same_plan(
    cloud: embedded.EmbeddedCloud, boot: conftest.Boot
) -> None:
    # Given a record of what the fit answers to whom,
    plans: list[Any] = []
    fit = nova_hardware.numa_fit_instance_to_host

    def record(*args: Any, **kwargs: Any) -> Any:
        plan = fit(*args, **kwargs)
        plans.append(
            [
                (c.id, c.pagesize, c.cpu_pinning, c.cpuset_reserved)
                for c in plan.cells
            ]
        )
        return plan

    with fixtures.MonkeyPatch(
        'nova.virt.hardware.numa_fit_instance_to_host', record
    ):
        # when a guest is booted,
        [server] = boot(vcpus=4, ram_mib=2048, specs=TWO_CELLS)

    # then the scheduler, when it consumes the host, and the claim on the
    # compute have asked, and both have got the same plan.
    assert server['status'] == 'ACTIVE'
    scheduler_plan, claim_plan = plans
    assert scheduler_plan == claim_plan


def test_reserved_pages_are_left_alone(boot: conftest.Boot) -> None:
    # Given nodes with 2048 pages of 2 MiB of which 1024 are reserved,
    # when guests ask for 1024 and for 1025 pages on a node,
    specs = {'hw:cpu_policy': 'dedicated', 'hw:mem_page_size': '2MB'}
    [fits] = boot(vcpus=1, ram_mib=2048, specs=specs)
    [too_big] = boot(vcpus=1, ram_mib=2050, specs=specs)

    # then only the first one finds a host.
    assert (fits['status'], too_big['status']) == ('ACTIVE', 'ERROR')


@pytest.mark.parametrize('policy', ['prefer', 'require'])
def test_deleted_guest_leaves_nothing(
    cloud: embedded.EmbeddedCloud, boot: conftest.Boot, policy: str
) -> None:
    # Given a guest that runs,
    [server] = boot(
        vcpus=4,
        ram_mib=2048,
        specs={**TWO_CELLS, 'hw:cpu_thread_policy': policy},
    )
    assert server['status'] == 'ACTIVE'
    assert cloud.in_use() != []

    # when it is deleted,
    cloud.api.delete(server['id'])

    # then nothing is in use, on the hosts or in Placement.
    assert cloud.wait_until_empty() == []


def test_stats_have_the_distances_for_the_scheduler(
    cloud: embedded.EmbeddedCloud,
    caplog: pytest.LogCaptureFixture,
    boot: conftest.Boot,
) -> None:
    # Given a compute that reports its distances,
    assert (
        '"distances":[10,21,12,21]' in cloud.stats('crossed')['numa_hugepages']
    )

    # when a guest may have its cells no farther apart than any two nodes are,
    caplog.set_level(logging.INFO)
    [server] = boot(
        vcpus=2,
        ram_mib=2048,
        specs={**TWO_CELLS, 'numa_hugepages:max_distance': '11'},
    )

    # then the filter knows it.
    assert server['status'] == 'ERROR'
    assert (
        'fitting NUMA nodes are farther apart than 11 (nearest: 12)'
        in caplog.text
    )
