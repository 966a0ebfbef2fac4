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

"""A cloud with many hosts that are partly in use.

Two hosts have a compute service, one with two nodes and one with four. The
others are copies of what these two have written: service, compute node and
host mapping in Nova's databases; provider, inventory and traits in Placement.
The scheduler reads nothing else of a host. 200 services in one process take
two minutes to start, and their threads half of a CPU while nothing is asked
of them, which would be measured with the rest.
"""

from __future__ import annotations

# Has to come before anything else of Nova.
from tests.fixtures import cloud  # isort: skip

from collections.abc import Callable
from collections.abc import Sequence
import random
from typing import Any

from nova import context
from nova import objects
from nova.scheduler import manager
from nova.virt import hardware as nova_hardware
from oslo_utils import uuidutils

from benchmarks import fleet
from tests.fixtures.cloud import embedded

USED = 0.5
GUEST_CELLS = (1, 2, 4)

# Where the two sides differ.
STOCK_FILTER = 'NUMATopologyFilter'
OUR_FILTER = 'NUMAHugepagesFilter'
OUR_WEIGHER = 'NUMAHugepagesWeigher'

_SEED = 200

# Those that are Nova's default, without its filter for NUMA cells.
_FILTERS = (
    'ComputeFilter',
    'ComputeCapabilitiesFilter',
    'ImagePropertiesFilter',
    'ServerGroupAntiAffinityFilter',
    'ServerGroupAffinityFilter',
)

_NODE = cloud.NodeSpec(
    cores=16,
    threads=2,
    memory_mib=131072,
    pages={fleet.MEDIUM_KIB: 24576, fleet.LARGE_KIB: 48},
)

# A guest that is there already has so many cores of a node, with both
# threads, and so much of its memory; four of them fill a node.
_GUEST_CORES = 4
_GUEST_MIB = 24576
_GUESTS_A_NODE = 4

# The flavors of the cloud, which the weigher goes by: cells, and vCPUs of each
# of them. Those with 8 vCPUs a cell are asked for.
_VCPUS_A_CELL = 8
_MIB_A_VCPU = 1024
_FLAVORS = (
    (1, 2),
    (1, 4),
    (1, _VCPUS_A_CELL),
    (1, 16),
    (2, 4),
    (2, _VCPUS_A_CELL),
    (2, 12),
    (4, 2),
    (4, 4),
    (4, _VCPUS_A_CELL),
)

# Of Placement's API, with several consumers in one request.
_MICROVERSION = '1.28'

# Of a compute node, what is another host's own.
_OWN = {
    'id',
    'uuid',
    'host',
    'hypervisor_hostname',
    'service_id',
    'created_at',
    'updated_at',
    'deleted_at',
}


class Crowd(cloud.EmbeddedCloud):
    """A cloud of which about half is in use, with flavors.

    Filters and weighers of both sides are loaded.

    :param count: its hosts, two at least; each second one has four nodes
    """

    def __init__(self, count: int) -> None:
        self._specs = [_spec(number) for number in range(count)]
        super().__init__(
            self._specs[:2],
            numa_weigher=True,
            options={
                # No service reports that the copies are up.
                (None, 'service_down_time'): 86400,
                ('filter_scheduler', 'available_filters'): [
                    'nova.scheduler.filters.all_filters',
                    embedded.OUR_FILTER,
                ],
                ('filter_scheduler', 'enabled_filters'): [
                    *_FILTERS,
                    STOCK_FILTER,
                    OUR_FILTER,
                ],
            },
        )

    @property
    def scheduler(self) -> manager.SchedulerManager:
        return self._scheduler

    def _setUp(self) -> None:
        super()._setUp()
        dice = random.Random(_SEED)
        for first, source in enumerate(self._specs[:2]):
            self._copy(source, self._specs[first + 2 :: 2])
        for spec in self._specs:
            self._fill(spec, dice)
        for cells, vcpus in _FLAVORS:
            self.api.create_flavor(
                _flavor(cells, vcpus),
                vcpus=cells * vcpus,
                ram_mib=cells * vcpus * _MIB_A_VCPU,
                extra_specs={
                    'hw:numa_nodes': str(cells),
                    'hw:cpu_policy': 'dedicated',
                    'hw:mem_page_size': str(fleet.MEDIUM_KIB),
                },
            )

    def _copy(
        self, source: cloud.HostSpec, targets: Sequence[cloud.HostSpec]
    ) -> None:
        """Write of hosts what their computes would, had they any."""
        with self._in_cell() as cell:
            node = _node(cell, source)
            given = {
                name: getattr(node, name)
                for name in objects.ComputeNode.fields
                if name in node and name not in _OWN
            }
            for target in targets:
                service = objects.Service(
                    cell,
                    host=target.name,
                    binary='nova-compute',
                    topic='compute',
                    report_count=0,
                )
                service.create()
                objects.ComputeNode(
                    cell,
                    uuid=target.uuid(),
                    host=target.name,
                    hypervisor_hostname=target.name,
                    service_id=service.id,
                    **given,
                ).create()
        parts = {
            part: self.placement.get(
                f'/resource_providers/{source.uuid()}/{part}',
                version=_MICROVERSION,
            ).body
            for part in ('inventories', 'traits')
        }
        for target in targets:
            objects.HostMapping(
                context.get_admin_context(),
                host=target.name,
                cell_mapping=self._cell,
            ).create()
            self._send(
                self.placement.post,
                '/resource_providers',
                {'name': target.name, 'uuid': target.uuid()},
            )
            for generation, (part, body) in enumerate(parts.items()):
                self._send(
                    self.placement.put,
                    f'/resource_providers/{target.uuid()}/{part}',
                    {**body, 'resource_provider_generation': generation},
                )

    def _fill(self, spec: cloud.HostSpec, dice: random.Random) -> None:
        """Write guests into a host's topology and into Placement."""
        guests = []
        with self._in_cell() as cell_context:
            node = _node(cell_context, spec)
            topology = objects.NUMATopology.obj_from_db_obj(node.numa_topology)
            for cell in topology.cells:
                guests += _occupy(cell, dice)
            node.numa_topology = topology._to_json()
            node.memory_mb_used += len(guests) * _GUEST_MIB
            node.free_ram_mb -= len(guests) * _GUEST_MIB
            node.vcpus_used += len(guests) * _GUEST_CORES * _NODE.threads
            node.running_vms = len(guests)
            node.stats = {**node.stats, 'num_instances': str(len(guests))}
            node.save()
        if guests:
            resources = {
                'PCPU': _GUEST_CORES * _NODE.threads,
                'MEMORY_MB': _GUEST_MIB,
            }
            self._send(
                self.placement.post,
                '/allocations',
                {
                    guest: {
                        'allocations': {spec.uuid(): {'resources': resources}},
                        'project_id': 'others',
                        'user_id': 'others',
                        'consumer_generation': None,
                    }
                    for guest in guests
                },
            )
        instances = objects.InstanceList(
            objects=[objects.Instance(uuid=guest) for guest in guests]
        )
        # The first call from a host with one guest or none is taken for an
        # incomplete one, and Nova would ask the database in each request.
        for _ in range(2):
            self.scheduler.host_manager.update_instance_info(
                context.get_admin_context(), spec.name, instances
            )

    @staticmethod
    def _send(method: Callable[..., Any], url: str, body: Any) -> None:
        answer = method(url, body, version=_MICROVERSION)
        if answer.status >= 300:
            raise RuntimeError(f'{url}: {answer.status}, {answer.body}')


def _spec(number: int) -> cloud.HostSpec:
    kind = fleet.HostShape(4 if number % 2 else 2)
    return cloud.HostSpec(
        f'host-{number}',
        (_NODE,) * kind.cells,
        distances=tuple(kind.distances().values()),
    )


def _node(
    cell: context.RequestContext, spec: cloud.HostSpec
) -> objects.ComputeNode:
    return objects.ComputeNode.get_first_node_by_host_for_old_compat(
        cell, spec.name
    )


def _occupy(cell: objects.NUMACell, dice: random.Random) -> list[str]:
    """Place guests on a node, about half of those that it can take.

    :returns: their UUIDs
    """
    wanted = round(dice.gauss(USED, 0.25) * _GUESTS_A_NODE)
    guests = [
        uuidutils.generate_uuid()
        for _ in range(min(_GUESTS_A_NODE, max(0, wanted)))
    ]
    taken = dice.sample(
        sorted(cell.siblings, key=min), len(guests) * _GUEST_CORES
    )
    cell.pinned_cpus = set().union(*taken)
    cell.memory_usage = len(guests) * _GUEST_MIB
    pools = [pool for pool in cell.mempages if pool.size_kb > fleet.SMALL_KIB]
    for _ in guests:
        pool = dice.choice([pool for pool in pools if _room(pool)])
        pool.used += _GUEST_MIB * 1024 // pool.size_kb
    return guests


def _room(pool: objects.NUMAPagesTopology) -> bool:
    return (pool.total - pool.used) * pool.size_kb >= _GUEST_MIB * 1024


def _flavor(cells: int, vcpus: int) -> str:
    return f'{cells} cells of {vcpus} vCPUs'


def request(admin: context.RequestContext, cells: int) -> objects.RequestSpec:
    """Make the request for a guest as the API does.

    :param cells: of the guest, one of `GUEST_CELLS`
    """
    flavor = objects.Flavor.get_by_name(admin, _flavor(cells, _VCPUS_A_CELL))
    image = objects.ImageMeta.from_dict({'properties': {}})
    return objects.RequestSpec.from_components(
        admin,
        uuidutils.generate_uuid(),
        image,
        flavor,
        nova_hardware.numa_get_constraints(flavor, image),
        objects.InstancePCIRequests(requests=[]),
        filter_properties={},
        instance_group=None,
        availability_zone=None,
        security_groups=objects.SecurityGroupList(objects=[]),
        project_id='benchmark',
        user_id='benchmark',
    )
