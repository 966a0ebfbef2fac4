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


"""Short ways to write Nova's objects down.

CPUs are numbered as in ``tests.unit.core.builders``: those of host cell 0 from
0 on, those of cell 1 from 100 on, core by core.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator
import contextlib
import json
from typing import Any

from nova import conf as nova_conf
from nova import objects
from nova.objects import numa
from nova.pci import stats as pci_stats
from nova.scheduler import host_manager

from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.core import model
from nova_numa_hugepages.nova_fit import numa_fit
from tests.unit.core import builders as values

objects.register_all()

CONF = nova_conf.CONF
KIB_4 = values.KIB_4
MIB_2 = values.MIB_2
GIB_1 = values.GIB_1
SMALL = int(model.PageRequest.SMALL)
LARGE = int(model.PageRequest.LARGE)
ANY = int(model.PageRequest.ANY)

UUID = '5a3a7e8e-6f0e-4b6c-9f2f-0d0c2f2d9a11'
CARD = {'vendor_id': '8086', 'product_id': '10c9'}


@contextlib.contextmanager
def option(name: str, value: Any, group: str | None = None) -> Iterator[None]:
    """Let an option of Nova have a value for a while."""
    CONF.set_override(name, value, group=group)
    try:
        yield
    finally:
        CONF.clear_override(name, group=group)


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Let our fit be in place of Nova's for a while."""
    numa_fit.install()
    try:
        yield
    finally:
        numa_fit.uninstall()


def network(
    physnets: Collection[str] = (), tunneled: bool = False
) -> objects.NetworkMetadata:
    return objects.NetworkMetadata(physnets=set(physnets), tunneled=tunneled)


def numa_cell(cell: model.HostCell) -> numa.NUMACell:
    """Write a host cell as Nova does."""
    return objects.NUMACell(
        id=cell.id,
        cpuset=set(cell.shared_cpus),
        pcpuset=set(cell.dedicated_cpus),
        memory=cell.memory_mib,
        cpu_usage=cell.shared_used,
        memory_usage=cell.memory_used_mib,
        pinned_cpus=set(cell.pinned_cpus),
        siblings=[set(siblings) for siblings in cell.siblings],
        mempages=[
            objects.NUMAPagesTopology(
                size_kb=pool.size_kib,
                total=pool.total,
                used=pool.used,
                reserved=pool.reserved,
            )
            for pool in cell.pools
        ],
        network_metadata=network(cell.physnets, cell.tunneled),
        socket=cell.socket,
    )


def topology(*cells: model.HostCell) -> numa.NUMATopology:
    """Write the cells of a host as Nova does."""
    return objects.NUMATopology(cells=[numa_cell(cell) for cell in cells])


def guest(
    *cells: model.GuestCell, emulator_isolated: bool = False
) -> objects.InstanceNUMATopology:
    """Write the cells of a guest as Nova does."""
    return objects.InstanceNUMATopology(
        cells=[
            objects.InstanceNUMACell(
                id=number,
                cpuset=set(cell.shared_vcpus),
                pcpuset=set(cell.dedicated_vcpus),
                memory=cell.memory_mib,
                pagesize=(
                    None if cell.page_size is None else int(cell.page_size)
                ),
                cpu_policy=(
                    None
                    if cell.cpu_policy is model.CPUPolicy.SHARED
                    else str(cell.cpu_policy)
                ),
                cpu_thread_policy=(
                    None
                    if cell.thread_policy is model.ThreadPolicy.PREFER
                    else str(cell.thread_policy)
                ),
            )
            for number, cell in enumerate(cells)
        ],
        emulator_threads_policy='isolate' if emulator_isolated else None,
    )


def limits(
    cpu: float = 1.0,
    ram: float = 1.0,
    networks: objects.NetworkMetadata | None = None,
) -> numa.NUMATopologyLimits:
    found = objects.NUMATopologyLimits(
        cpu_allocation_ratio=cpu, ram_allocation_ratio=ram
    )
    if networks:
        found.network_metadata = networks
    return found


def devices(
    host_topology: numa.NUMATopology | None,
    by_cell: dict[int | None, int],
    **tags: Any,
) -> pci_stats.PciDeviceStats:
    """Make the statistics of a host with cards.

    :param by_cell: cards by host cell, None for those that are near none
    """
    return pci_stats.PciDeviceStats(
        host_topology,
        stats=objects.PciDevicePoolList(
            objects=[
                objects.PciDevicePool(
                    numa_node=number,
                    count=count,
                    tags={'dev_type': 'type-PCI', **tags},
                    **CARD,
                )
                for number, count in by_cell.items()
            ]
        ),
    )


def card(
    count: int = 1, policy: str | None = None, **spec: str
) -> objects.InstancePCIRequest:
    """Ask for cards."""
    return objects.InstancePCIRequest(
        count=count,
        spec=[{**CARD, **spec}],
        numa_policy=policy,
        request_id=UUID,
        # Without it the request counts as one of a port.
        alias_name='card',
    )


def stats(
    distances: dict[int, list[int]] | None = None,
    allocatable: dict[int, dict[int, int]] | None = None,
) -> dict[str, str]:
    """Make the stats of a compute that runs this package."""
    known = host_stats.HostStats(
        distances={
            number: tuple(row) for number, row in (distances or {}).items()
        },
        allocatable=allocatable or {},
    )
    return {host_stats.STATS_KEY: known.dump()}


def host_state(
    name: str,
    host_topology: numa.NUMATopology | None,
    *,
    reported: dict[str, str] | None = None,
    cpu_ratio: float | None = 1.0,
    ram_ratio: float | None = 1.0,
    memory_mib: int | None = None,
    used_mib: int = 0,
    cards: dict[int | None, int] | None = None,
    mappings: Collection[dict[str, list[str]]] = ({},),
) -> host_manager.HostState:
    """Make what the scheduler knows of a host.

    :param reported: its stats; those of a compute that runs this package, but
        reports no facts, if None
    :param memory_mib: all memory; the sum of its cells if None
    :param used_mib: memory of all guests and of the operator's reserve
    :param mappings: of its allocation candidates
    """
    state = host_manager.HostState(name, name, None)
    if memory_mib is None:
        memory_mib = sum(
            cell.memory
            for cell in (host_topology.cells if host_topology else [])
        )
    state.numa_topology = host_topology
    state.stats = stats() if reported is None else reported
    state.cpu_allocation_ratio = cpu_ratio
    state.ram_allocation_ratio = ram_ratio
    state.total_usable_ram_mb = memory_mib
    state.free_ram_mb = memory_mib - used_mib
    state.pci_stats = devices(host_topology, cards or {})
    state.allocation_candidates = [
        {'mappings': mapping} for mapping in mappings
    ]
    return state


def spec(
    instance_topology: objects.InstanceNUMATopology | None,
    *,
    memory_mib: int | None = None,
    extra_specs: dict[str, str] | None = None,
    properties: dict[str, str] | None = None,
    networks: objects.NetworkMetadata | None = None,
    cards: Collection[objects.InstancePCIRequest] = (),
    hints: dict[str, list[str]] | None = None,
) -> objects.RequestSpec:
    """Make a request of the scheduler."""
    cells = instance_topology.cells if instance_topology else []
    if memory_mib is None:
        memory_mib = sum(cell.memory for cell in cells)
    found = objects.RequestSpec(
        instance_uuid=UUID,
        project_id='demo',
        flavor=objects.Flavor(
            vcpus=sum(map(len, cells)),
            memory_mb=memory_mib,
            root_gb=0,
            ephemeral_gb=0,
            extra_specs=extra_specs or {},
        ),
        image=objects.ImageMeta(
            properties=objects.ImageMetaProps.from_dict(properties or {})
        ),
        numa_topology=instance_topology,
        pci_requests=objects.InstancePCIRequests(requests=list(cards)),
        scheduler_hints=hints or {},
        num_instances=1,
    )
    if networks:
        found.network_metadata = networks
    return found


def primitive(obj: Any) -> str:
    """Write an object down in full, to compare it."""
    return json.dumps(obj.obj_to_primitive(), sort_keys=True, default=sorted)


def pinning(cell: objects.InstanceNUMACell) -> dict[int, int]:
    """Tell the host CPU of each pinned vCPU."""
    return dict(cell.cpu_pinning or {})


def placed(
    found: objects.InstanceNUMATopology,
) -> list[tuple[int, int | None, dict[int, int]]]:
    """Tell host cell, page size and pinning of each guest cell."""
    assert found is not None
    return [(cell.id, cell.pagesize, pinning(cell)) for cell in found.cells]


def works(
    host_topology: numa.NUMATopology,
    found: objects.InstanceNUMATopology | None,
    consume: Any,
) -> bool:
    """Tell whether a plan can be accounted and is what it says.

    :param consume: Nova's ``numa_usage_from_instance_numa``
    """
    if found is None:
        return False
    cells = {cell.id: cell for cell in host_topology.cells}
    if len({cell.id for cell in found.cells}) < len(found.cells):
        return False
    for cell in found.cells:
        pins = pinning(cell)
        if set(pins) != set(cell.pcpuset):
            return False
        if len(set(pins.values())) < len(pins):
            return False
        if not set(pins.values()) <= cells[cell.id].pcpuset:
            return False
    try:
        consume(host_topology, found)
    except Exception:
        return False
    return True
