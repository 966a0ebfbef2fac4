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


"""Several servers in one request."""

from __future__ import annotations

from tests.fixtures import cloud as embedded
from tests.functional import conftest

MIB_2 = 2048
GIB_1 = 1024 * 1024

# Room for one guest of 4 GiB on pages of 1 GiB, and for more on 2 MiB.
HOSTS = (
    embedded.HostSpec(
        'both-sizes',
        (
            embedded.NodeSpec(
                cores=6, memory_mib=20480, pages={MIB_2: 4096, GIB_1: 5}
            ),
        ),
    ),
)


def test_each_server_has_its_own_cpus(
    cloud: embedded.EmbeddedCloud, boot: conftest.Boot
) -> None:
    # Given one host of 12 CPUs, when three guests of 4 are asked for at once,
    servers = boot(
        vcpus=4, ram_mib=1024, specs={'hw:cpu_policy': 'dedicated'}, count=3
    )

    # then all run, and no CPU belongs to two of them.
    assert [s['status'] for s in servers] == ['ACTIVE'] * 3
    pins = [
        cpu
        for server in servers
        for cell in cloud.instance(server['id']).numa_topology.cells
        for cpu in cell.cpu_pinning.values()
    ]
    assert sorted(pins) == list(range(12))
    [host] = cloud.topology('both-sizes').cells
    assert host.pinned_cpus == set(range(12))


def test_each_server_chooses_its_own_page_size(
    cloud: embedded.EmbeddedCloud, boot: conftest.Boot
) -> None:
    # Given pages of 1 GiB for one guest and of 2 MiB for two,
    # when three guests that want large pages are asked for at once,
    servers = boot(
        vcpus=1,
        ram_mib=4096,
        specs={'hw:cpu_policy': 'dedicated', 'hw:mem_page_size': 'large'},
        count=3,
    )

    # then the first one has the largest pages, and the others do not inherit
    # its choice.
    assert [s['status'] for s in servers] == ['ACTIVE'] * 3
    sizes = [
        cell.pagesize
        for server in servers
        for cell in cloud.instance(server['id']).numa_topology.cells
    ]
    assert sorted(sizes) == [MIB_2, MIB_2, GIB_1]
    [host] = cloud.topology('both-sizes').cells
    assert {p.size_kb: p.used for p in host.mempages} == {
        4: 0,
        MIB_2: 4096,
        GIB_1: 4,
    }


def test_all_or_none(
    cloud: embedded.EmbeddedCloud, boot: conftest.Boot
) -> None:
    # Given one host of 12 CPUs, when four guests of 4 are asked for at once,
    servers = boot(
        vcpus=4, ram_mib=1024, specs={'hw:cpu_policy': 'dedicated'}, count=4
    )

    # then none runs, and nothing stays claimed for those that would fit.
    assert [s['status'] for s in servers] == ['ERROR'] * 4
    assert cloud.wait_until_empty() == []
