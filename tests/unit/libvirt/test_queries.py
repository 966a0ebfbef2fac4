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

"""Queries to libvirt and Nova."""

import types

from nova import exception as nova_exception
from nova import objects
from nova.compute import claims
from nova.virt import hardware as nova_hardware
import pytest

from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.libvirt import queries
from nova_numa_hugepages.nova_fit import numa_fit
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import pinned_cell
from tests.unit.nova_builders import devices
from tests.unit.nova_builders import guest
from tests.unit.nova_builders import limits
from tests.unit.nova_builders import topology
from tests.unit.nova_builders import UUID


@pytest.fixture(autouse=True)
def stock_nova():
    yield
    numa_fit.uninstall()


def service(stats):
    """Return what the compute service gives to the driver."""
    pci_tracker = None if stats is None else types.SimpleNamespace(stats=stats)
    tracker = types.SimpleNamespace(pci_tracker=pci_tracker)
    return types.SimpleNamespace(_compute=types.SimpleNamespace(rt=tracker))


def test_devices_that_the_service_does_not_know_yet():
    assert queries.claim_devices(service(None)) is None
    assert queries.claim_devices(None) is None


def test_scheduler_and_claim_keep_away_from_the_same_devices():
    # given: devices in the cell that would be taken, and a guest without
    host_topology = topology(host_cell(0), host_cell(1))
    stats = devices(host_topology, {0: 1})
    compute = service(stats)
    asked = guest(pinned_cell(1))
    numa_fit.install(host_devices=lambda: queries.claim_devices(compute))

    # when: the scheduler fits it, and then the claim of this Nova
    planned = nova_hardware.numa_fit_instance_to_host(
        host_topology, asked, None, pci_requests=[], pci_stats=stats
    )
    claim = claims.Claim.__new__(claims.Claim)
    claim.tracker = compute._compute.rt
    claim.instance = types.SimpleNamespace(numa_topology=asked)
    claim._pci_requests = objects.InstancePCIRequests(requests=[])
    why = claim._test_numa_topology(
        objects.ComputeNode(numa_topology=host_topology._to_json()), None
    )

    # then
    assert why is None
    assert [cell.id for cell in planned.cells] == [1]
    assert [cell.id for cell in claim.claimed_numa_topology.cells] == [1]


def of_node(cpu, ram):
    """Return the compute service of a host with these ratios."""
    node = objects.ComputeNode(
        cpu_allocation_ratio=cpu, ram_allocation_ratio=ram
    )
    tracker = types.SimpleNamespace(compute_nodes={'node': node})
    return types.SimpleNamespace(_compute=types.SimpleNamespace(rt=tracker))


def test_limits_that_the_service_does_not_know_yet():
    tracker = types.SimpleNamespace(compute_nodes={})
    compute = types.SimpleNamespace(_compute=types.SimpleNamespace(rt=tracker))

    assert queries.claim_limits(compute) is None
    assert queries.claim_limits(None) is None


CROWDED = (
    host_cell(0, cores=0, shared_cores=4, shared_used=3, memory_mib=8192),
    host_cell(1, cores=0, shared_cores=16, shared_used=8, memory_mib=8192),
)


@pytest.mark.parametrize(
    ('cells', 'asked', 'cpu', 'ram'),
    [
        (CROWDED, floating_cell(4), 1.0, 16.0),
        (
            (
                host_cell(
                    cores=0,
                    shared_cores=4,
                    memory_mib=4096,
                    memory_used_mib=1024,
                ),
                host_cell(
                    1,
                    cores=0,
                    shared_cores=4,
                    shared_used=1,
                    memory_mib=16384,
                ),
            ),
            floating_cell(2, 2048),
            16.0,
            0.5,
        ),
    ],
    ids=['vCPUs', 'memory'],
)
def test_a_claim_without_limits_comes_to_the_scheduler_s_plan(
    cells, asked, cpu, ram
):
    # given: a host cell that is preferred, and has too little by the ratios
    host_topology = topology(*cells)
    compute = of_node(cpu, ram)
    numa_fit.install(host_limits=lambda: queries.claim_limits(compute))

    planned, claimed = (
        nova_hardware.numa_fit_instance_to_host(
            host_topology, guest(asked), None, limits=given
        )
        for given in (limits(cpu, ram), None)
    )

    assert [cell.id for cell in planned.cells] == [1]
    assert [cell.id for cell in claimed.cells] == [1]


def test_a_guest_that_an_administrator_sends_in_spite_of_the_ratios():
    compute = of_node(0.1, 0.1)
    numa_fit.install(host_limits=lambda: queries.claim_limits(compute))

    placed = nova_hardware.numa_fit_instance_to_host(
        topology(*CROWDED), guest(floating_cell(4)), None
    )

    assert len(placed.cells) == 1


def test_all_reservations_are_kept_if_libvirt_does_not_answer(caplog):
    class Broken:
        def list_guests(self, only_running):
            raise nova_exception.HypervisorUnavailable()

        def get_guest(self, instance):
            raise nova_exception.InternalError('broken')

    assert queries.defined_domains(Broken()) is None
    assert queries.is_defined(Broken(), None) is True
    assert 'keeping all reservations' in caplog.text


def test_distances_of_another_host(monkeypatch, caplog):
    nodes = {
        'good': {host_stats.STATS_KEY: host_stats.HostStats(
            distances={0: (10, 21), 1: (21, 10)}
        ).dump()},
        'stock': {},
        'broken': {host_stats.STATS_KEY: '{'},
    }  # fmt: skip

    def find(context, host):
        if host not in nodes:
            raise nova_exception.ComputeHostNotFound(host=host)
        return types.SimpleNamespace(stats=nodes[host])

    def ask(host, host_cells):
        instance = objects.Instance(uuid=UUID)
        return queries.destination_distances(None, instance, host, host_cells)

    monkeypatch.setattr(
        objects.ComputeNode, 'get_first_node_by_host_for_old_compat', find
    )

    assert ask('good', [1, 0]) == [[10, 21], [21, 10]]
    for host in ('stock', 'broken', 'missing'):
        assert ask(host, [0, 1]) is None
        assert host in caplog.text
