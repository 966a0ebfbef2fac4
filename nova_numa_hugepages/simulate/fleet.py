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


"""Hosts and requests as a scheduler has them: Nova's own objects."""

from __future__ import annotations

from collections.abc import Iterator

from nova import objects
from nova.pci import stats as pci_stats
from nova.scheduler import host_manager
from nova.virt import hardware as nova_hardware
from oslo_utils import uuidutils

from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.simulate import scenario


def hosts(
    types: tuple[scenario.HostType, ...],
) -> Iterator[host_manager.HostState]:
    """Return the states that a scheduler keeps of the empty hosts of a fleet.

    :returns: one type after the other, as Nova lists hosts in the order in
        which they came
    """
    for kind in types:
        for number in range(kind.count):
            yield _host_state(kind, f'{kind.name}-{number + 1}')


def _host_state(kind: scenario.HostType, name: str) -> host_manager.HostState:
    topology = host_topology(kind)
    state = host_manager.HostState(name, name, None)
    state.uuid = uuidutils.generate_uuid()
    state.numa_topology = topology
    state.stats = {}
    if kind.runs_us:
        rows = kind.distances or ()
        state.stats[host_stats.STATS_KEY] = host_stats.HostStats(
            distances=dict(enumerate(rows))
        ).dump()
    state.cpu_allocation_ratio = kind.cpu_ratio
    state.ram_allocation_ratio = kind.ram_ratio
    state.disk_allocation_ratio = 1.0
    state.total_usable_ram_mb = sum(node.memory_mib for node in kind.nodes)
    state.free_ram_mb = state.total_usable_ram_mb - kind.reserved_memory_mib
    state.vcpus_total = sum(
        len(cell.cpuset | cell.pcpuset) for cell in topology.cells
    )
    state.pci_stats = pci_stats.PciDeviceStats(
        topology, stats=objects.PciDevicePoolList(objects=[])
    )
    state.hypervisor_type = 'QEMU'
    state.hypervisor_version = 1
    return state


def host_topology(kind: scenario.HostType) -> objects.NUMATopology:
    """Return the topology of an empty host.

    CPUs are numbered node by node, the threads of a core one after the other.
    """
    cells = []
    first = 0
    for number, node in enumerate(kind.nodes):
        siblings = [
            set(range(core, core + node.threads))
            for core in range(
                first, first + node.cores * node.threads, node.threads
            )
        ]
        first += node.cores * node.threads
        cell = objects.NUMACell(
            id=number,
            cpuset=set().union(*siblings[: node.shared_cores]),
            pcpuset=set().union(*siblings[node.shared_cores :]),
            pinned_cpus=set(),
            siblings=siblings,
            memory=node.memory_mib,
            memory_usage=0,
            cpu_usage=0,
            mempages=[
                objects.NUMAPagesTopology(
                    size_kb=size,
                    total=count,
                    used=0,
                    reserved=node.reserved.get(size, 0),
                )
                for size, count in node.pools.items()
            ],
            network_metadata=objects.NetworkMetadata(
                physnets=set(), tunneled=False
            ),
        )
        cell.socket = node.socket
        cells.append(cell)
    return objects.NUMATopology(cells=cells)


def nova_flavor(flavor: scenario.Flavor) -> objects.Flavor:
    """Return a flavor as Nova has it."""
    return objects.Flavor(
        id=1,
        flavorid=flavor.name,
        name=flavor.name,
        vcpus=flavor.vcpus,
        memory_mb=flavor.memory_mib,
        root_gb=0,
        ephemeral_gb=0,
        swap=0,
        rxtx_factor=1.0,
        extra_specs=dict(flavor.extra_specs),
    )


def request(
    flavor: objects.Flavor,
) -> objects.RequestSpec:
    """Return the request for a guest, as the scheduler gets it."""
    image = objects.ImageMeta(
        id=uuidutils.generate_uuid(),
        min_disk=0,
        min_ram=0,
        properties=objects.ImageMetaProps(),
    )
    return objects.RequestSpec(
        flavor=flavor,
        image=image,
        instance_uuid=uuidutils.generate_uuid(),
        project_id='simulated',
        user_id='simulated',
        num_instances=1,
        availability_zone=None,
        numa_topology=nova_hardware.numa_get_constraints(flavor, image),
        pci_requests=objects.InstancePCIRequests(requests=[]),
        network_metadata=objects.NetworkMetadata(
            physnets=set(), tunneled=False
        ),
        ignore_hosts=None,
        force_hosts=None,
        force_nodes=None,
        requested_destination=None,
        retry=None,
        limits=objects.SchedulerLimits(),
        instance_group=None,
        scheduler_hints={},
        requested_resources=[],
        security_groups=objects.SecurityGroupList(objects=[]),
        request_level_params=objects.RequestLevelParams(),
    )
