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

import dataclasses
import random

from nova import objects
from nova.objects import fields
from nova.objects import pci_device_pool
from nova.pci import stats as pci_stats
from nova.scheduler import host_manager
from oslo_utils import uuidutils

from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.simulate import fleet
from nova_numa_hugepages.simulate import scenario

SMALL_KIB, MEDIUM_KIB, LARGE_KIB = 4, 2048, 1024 * 1024

# As a two-socket machine with sub-NUMA clustering reports it: in a socket,
# and across.
_LOCAL, _NEAR, _FAR = 10, 12, 21


@dataclasses.dataclass(frozen=True)
class HostShape:
    """A machine.

    :ivar cells: its NUMA nodes
    :ivar cores: cores of each node, two threads each
    :ivar memory_gib: memory of each node
    """

    cells: int
    cores: int = 16
    memory_gib: int = 128

    def distances(self) -> dict[int, tuple[int, ...]]:
        half = max(1, self.cells // 2)
        return {
            one: tuple(
                _LOCAL
                if one == other
                else _NEAR
                if one // half == other // half
                else _FAR
                for other in range(self.cells)
            )
            for one in range(self.cells)
        }


def topology(
    kind: HostShape, used: float, dice: random.Random
) -> objects.NUMATopology:
    """Make a host of which a share is in use.

    :param used: the share of cores and pages that guests have, from 0 to 1;
        it is spread unevenly over the cells
    """
    cells = []
    threads = kind.cores * 2
    for number in range(kind.cells):
        first = number * threads
        siblings = [{cpu, cpu + 1} for cpu in range(first, first + threads, 2)]
        share = min(1.0, max(0.0, dice.gauss(used, 0.25)))
        busy = dice.sample(siblings, round(share * kind.cores))
        pools = []
        for size, part in (
            (SMALL_KIB, 0.25),
            (MEDIUM_KIB, 0.375),
            (LARGE_KIB, 0.375),
        ):
            total = int(kind.memory_gib * 1024 * 1024 * part) // size
            pools.append(
                objects.NUMAPagesTopology(
                    size_kb=size,
                    total=total,
                    used=int(total * share),
                    reserved=0,
                )
            )
        cells.append(
            objects.NUMACell(
                id=number,
                socket=number * 2 // max(2, kind.cells),
                cpuset=set(),
                pcpuset=set(range(first, first + threads)),
                pinned_cpus=set().union(*busy),
                siblings=siblings,
                memory=kind.memory_gib * 1024,
                memory_usage=int(kind.memory_gib * 1024 * share),
                cpu_usage=0,
                mempages=pools,
                network_metadata=objects.NetworkMetadata(
                    physnets=set(), tunneled=False
                ),
            )
        )
    return objects.NUMATopology(cells=cells)


def host_state(
    number: int,
    kind: HostShape,
    numa: objects.NUMATopology,
    *,
    ours: bool,
    devices: dict[int | None, int] | None = None,
) -> host_manager.HostState:
    """Make the state that the scheduler keeps of a host.

    :param ours: whether its compute runs our driver, and so reports facts
    :param devices: free PCI devices by NUMA node
    """
    state = host_manager.HostState(
        f'host{number}', f'node{number}', uuidutils.generate_uuid()
    )
    state.uuid = uuidutils.generate_uuid()
    state.numa_topology = numa
    state.stats = (
        {host_stats.STATS_KEY: host_stats.HostStats(kind.distances()).dump()}
        if ours
        else {}
    )
    state.cpu_allocation_ratio = 1.0
    state.ram_allocation_ratio = 1.0
    state.total_usable_ram_mb = sum(cell.memory for cell in numa.cells)
    used = sum(cell.memory_usage for cell in numa.cells)
    state.free_ram_mb = state.total_usable_ram_mb - used
    pools = objects.PciDevicePoolList(
        objects=[
            pci_device_pool.PciDevicePool(
                product_id='1520',
                vendor_id='8086',
                numa_node=node,
                tags={'dev_type': 'type-PCI', 'address': f'0000:{bus:02x}:00'},
                count=count,
            )
            for bus, (node, count) in enumerate((devices or {}).items())
        ]
    )
    state.pci_stats = pci_stats.PciDeviceStats(numa, stats=pools)
    return state


def request(
    cells: int,
    vcpus: int,
    memory_mib: int,
    *,
    devices: int = 0,
    **extra: str,
) -> objects.RequestSpec:
    """Make the request for a server, as the scheduler gets it.

    :param devices: PCI devices, required to be near
    :param extra: extra specs of the flavor without the ``hw:``
    """
    specs = {
        'hw:numa_nodes': str(cells),
        'hw:cpu_policy': 'dedicated',
        'hw:mem_page_size': str(MEDIUM_KIB),
        **{f'hw:{name}': value for name, value in extra.items()},
    }
    spec = fleet.request(
        fleet.nova_flavor(scenario.Flavor('guest', vcpus, memory_mib, specs))
    )
    if devices:
        spec.pci_requests.requests = [
            objects.InstancePCIRequest(
                count=devices,
                spec=[{'vendor_id': '8086', 'product_id': '1520'}],
                numa_policy=fields.PCINUMAAffinityPolicy.REQUIRED,
                request_id=uuidutils.generate_uuid(),
            )
        ]
    return spec
