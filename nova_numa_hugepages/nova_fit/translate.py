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

"""The only translator of Nova's objects into the values of ``core`` and back.

A scheduler reads the topologies of all hosts for each request, which has to
be fast. Each attribute of a versioned object is a property that asks first
whether the field is set; reading the values where the properties keep them
takes a tenth of the time. Should oslo.versionedobjects keep them elsewhere
one day, which is tried once at import, they are read through the properties.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from collections.abc import Set
import functools
from typing import Any

from nova import objects
from nova.objects import instance_numa
from nova.objects import network_metadata as network_objects
from nova.objects import numa

from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.core import model
from nova_numa_hugepages.nova_fit import attributes

_NO_CPUS: frozenset[int] = frozenset()
_NO_NAMES: frozenset[str] = frozenset()

# The constructors of named tuples without their arguments by name, which
# take half of the time.
_new_cell = functools.partial(tuple.__new__, model.HostCell)
_new_pool = functools.partial(tuple.__new__, model.PagePool)

# On a host cell that names no page sizes Nova counts no pages, but looks for
# the smallest size when a guest names none, and fails. So the guest gets the
# usual one.
_UNNAMED_PAGE_SIZE_KIB = 4


def read_through_properties(obj: Any) -> dict[str, Any]:
    return {
        f'_obj_{name}': getattr(obj, name)
        for name in obj.fields
        if obj.obj_attr_is_set(name)
    }


def choose_reader() -> Callable[[Any], dict[str, Any]]:
    probe = numa.NUMAPagesTopology(size_kb=4, total=1)
    known = {'_obj_size_kb': 4, '_obj_total': 1}
    if known.items() <= vars(probe).items() and '_obj_used' not in vars(probe):
        return vars
    return read_through_properties


values_of = choose_reader()


def host_topology(
    topology: numa.NUMATopology,
    stats: host_stats.HostStats | None = None,
    *,
    networks: bool = True,
) -> model.HostTopology:
    """Read a host's topology.

    Fields that an older Nova did not have are taken as empty. Before Nova
    knew ``pcpuset``, guests were pinned to the CPUs of ``cpuset``.

    :param stats: those that came with it, see `stats_of`
    :param networks: whether to read which networks are near, too
    """
    cells = tuple([_host_cell(cell, networks) for cell in topology.cells])
    if stats is None:
        return model.HostTopology(cells)
    if stats.lendable:
        cells = tuple(
            [
                _without_lent(cell, stats.lendable.get(cell.id))
                for cell in cells
            ]
        )
    ids = [cell.id for cell in cells]
    return model.HostTopology(
        cells,
        stats.distance_matrix(ids),
        tuple(
            [stats.allocatable.get(cell_id, model.NO_PAGES) for cell_id in ids]
        )
        if stats.allocatable
        else (),
    )


def _host_cell(cell: numa.NUMACell, networks: bool) -> model.HostCell:
    values = values_of(cell)
    physnets: Set[str] = _NO_NAMES
    tunneled = False
    if networks and '_obj_network_metadata' in values:
        physnets, tunneled = _networks(values['_obj_network_metadata'])
    try:
        return _new_cell(
            (
                values['_obj_id'],
                values['_obj_cpuset'],
                values['_obj_pcpuset'],
                values['_obj_pinned_cpus'],
                values['_obj_siblings'],
                values['_obj_memory'],
                values['_obj_memory_usage'],
                values['_obj_cpu_usage'],
                _Pools(values['_obj_mempages']),
                values['_obj_socket'],
                physnets,
                tunneled,
            )
        )
    except KeyError:
        get = values.get
        shared = get('_obj_cpuset', _NO_CPUS)
        return model.HostCell(
            id=values['_obj_id'],
            shared_cpus=shared,
            dedicated_cpus=get('_obj_pcpuset', shared),
            pinned_cpus=get('_obj_pinned_cpus', _NO_CPUS),
            siblings=get('_obj_siblings', ()),
            memory_mib=get('_obj_memory', 0),
            memory_used_mib=get('_obj_memory_usage', 0),
            shared_used=get('_obj_cpu_usage', 0),
            pools=_Pools(get('_obj_mempages', ())),
            socket=get('_obj_socket'),
            physnets=physnets,
            tunneled=tunneled,
        )


def _without_lent(
    cell: model.HostCell, lendable: Mapping[int, int] | None
) -> model.HostCell:
    """Return a host cell with the pages that really exist.

    What may be lent is in the total, as Nova counts elastic instances by all
    that they may have. Taken off there and of what is used, as many pages are
    free, and no more memory is in use than there is.
    """
    if not lendable:
        return cell
    return cell._replace(
        pools=tuple(
            pool._replace(
                total=max(0, pool.total - lendable.get(pool.size_kib, 0)),
                used=max(0, pool.used - lendable.get(pool.size_kib, 0)),
            )
            for pool in cell.pools
        )
    )


class _Pools(Sequence[model.PagePool]):
    """The page pools of a host cell, read when they are first looked at.

    Most host cells are only put in order, for which their pools don't matter.
    """

    __slots__ = ('_mempages', '_pools')

    def __init__(self, mempages: Sequence[numa.NUMAPagesTopology]) -> None:
        self._mempages = mempages
        self._pools: tuple[model.PagePool, ...] | None = None

    def _read(self) -> tuple[model.PagePool, ...]:
        if self._pools is None:
            self._pools = tuple(sorted(map(_pool, self._mempages)))
        return self._pools

    def __len__(self) -> int:
        return len(self._mempages)

    def __iter__(self) -> Iterator[model.PagePool]:
        return iter(self._read())

    def __getitem__(self, index: Any) -> Any:
        return self._read()[index]

    def __eq__(self, other: object) -> bool:
        return self._read() == (
            other._read() if isinstance(other, _Pools) else other
        )

    def __hash__(self) -> int:
        return hash(self._read())

    def __repr__(self) -> str:
        return repr(self._read())


def _pool(pages: numa.NUMAPagesTopology) -> model.PagePool:
    values = values_of(pages)
    try:
        return _new_pool(
            (
                values['_obj_size_kb'],
                values['_obj_total'],
                values['_obj_used'],
                values['_obj_reserved'],
            )
        )
    except KeyError:
        return model.PagePool(
            size_kib=values.get('_obj_size_kb', 0),
            total=values.get('_obj_total', 0),
            used=values.get('_obj_used', 0),
            reserved=values.get('_obj_reserved', 0),
        )


def request(
    topology: instance_numa.InstanceNUMATopology,
    *,
    network_metadata: network_objects.NetworkMetadata | None = None,
    asks_devices: bool = False,
) -> model.Request:
    """Read what a guest asks for.

    A topology that `instance_topology` made is read as it was asked for, not
    with the page sizes that it got: the scheduler hands the topology of a
    request's first server on to its second.

    :param network_metadata: the networks that the guest is connected to
    :param asks_devices: whether it asks for PCI devices
    """
    physnets, tunneled = _networks(network_metadata)
    return model.Request(
        cells=tuple(
            _guest_cell(cell, size)
            for cell, size in zip(
                topology.cells, _asked_page_sizes(topology), strict=True
            )
        ),
        emulator_isolated=topology.emulator_threads_isolated,
        physnets=frozenset(physnets),
        tunneled=tunneled,
        asks_devices=asks_devices,
    )


def _networks(
    metadata: network_objects.NetworkMetadata | None,
) -> tuple[Set[str], bool]:
    """Read physical networks, and whether there are tunneled ones."""
    values = values_of(metadata) if metadata else {}
    return (
        values.get('_obj_physnets', _NO_NAMES),
        bool(values.get('_obj_tunneled', False)),
    )


def _guest_cell(
    cell: instance_numa.InstanceNUMACell, page_size: int | None
) -> model.GuestCell:
    policy = model.CPUPolicy(cell.cpu_policy or model.CPUPolicy.SHARED)
    shared, dedicated = _cpusets(cell, policy)
    return model.GuestCell(
        shared_vcpus=shared,
        dedicated_vcpus=dedicated,
        memory_mib=cell.memory,
        page_size=page_size or None,
        cpu_policy=policy,
        thread_policy=model.ThreadPolicy(
            cell.cpu_thread_policy or model.ThreadPolicy.PREFER
        ),
    )


def _cpusets(
    cell: instance_numa.InstanceNUMACell, policy: str | None
) -> tuple[frozenset[int], frozenset[int]]:
    """Get the shared and the dedicated CPUs of a guest cell.

    Before Nova knew ``pcpuset``, dedicated ones were in ``cpuset``, too.
    """
    shared = frozenset(cell.cpuset)
    dedicated = frozenset(cell.pcpuset if 'pcpuset' in cell else ())
    if policy == model.CPUPolicy.DEDICATED:
        return _NO_CPUS, shared | dedicated
    return shared, dedicated


def limits(nova_limits: numa.NUMATopologyLimits) -> model.Limits:
    """Read the overcommit ratios; one that is not set counts as 1."""

    def ratio(name: str) -> float:
        return getattr(nova_limits, name) if name in nova_limits else 1.0

    return model.Limits(
        ratio('cpu_allocation_ratio'), ratio('ram_allocation_ratio')
    )


def instance_topology(
    asked: instance_numa.InstanceNUMATopology,
    plan: model.Plan,
    host: numa.NUMATopology,
) -> instance_numa.InstanceNUMATopology:
    """Write a plan as Nova's fit does.

    :param asked: the topology that was asked for; left as it is
    :param host: the host that the plan is for
    :returns: a new topology whose cells carry the ids of host cells
    """
    unnamed = {
        cell.id
        for cell in host.cells
        if 'mempages' not in cell or not cell.mempages
    }
    cells = []
    for guest, planned in zip(asked.cells, plan.cells, strict=True):
        cell = guest.obj_clone()
        cell.id = planned.host_cell
        shared, dedicated = _cpusets(guest, guest.cpu_policy)
        cell.cpuset, cell.pcpuset = set(shared), set(dedicated)
        cell.pagesize = planned.page_size_kib
        if cell.pagesize is None and cell.id in unnamed:
            cell.pagesize = _UNNAMED_PAGE_SIZE_KIB
        cell.cpu_pinning = dict(planned.pinning) or None
        cell.cpuset_reserved = set(planned.emulator_cpus) or None
        cells.append(cell)
    topology = instance_numa.InstanceNUMATopology(
        cells=cells,
        emulator_threads_policy=(
            asked.emulator_threads_policy
            if 'emulator_threads_policy' in asked
            else None
        ),
    )
    setattr(topology, attributes.ASKED_PAGE_SIZES, _asked_page_sizes(asked))
    return topology


def _asked_page_sizes(
    topology: instance_numa.InstanceNUMATopology,
) -> list[int | None]:
    return getattr(topology, attributes.ASKED_PAGE_SIZES, None) or [
        cell.pagesize if 'pagesize' in cell else None
        for cell in topology.cells
    ]


def remember_stats(
    topology: numa.NUMATopology, stats: host_stats.HostStats | None
) -> None:
    """Let the stats of a host go with its topology.

    Nova's fit takes no stats, but gets the topology object that the filter
    has read.

    :param stats: None if the host runs the stock driver
    """
    setattr(topology, attributes.HOST_STATS, stats)


def stats_of(topology: numa.NUMATopology) -> host_stats.HostStats | None:
    """Get the stats that `remember_stats` left with a topology."""
    return getattr(topology, attributes.HOST_STATS, None)


def runs_stock(topology: numa.NUMATopology) -> bool:
    """Check whether the filter found the stock driver on the host."""
    return getattr(topology, attributes.HOST_STATS, topology) is None


def instance_uuid(request: objects.base.NovaObject) -> str | None:
    """Get the instance of a request or a topology, None if it names none."""
    return request.instance_uuid if 'instance_uuid' in request else None


def extra_specs(flavor: objects.Flavor) -> Mapping[str, str]:
    """Get the extra specs of a flavor, empty if they were not loaded."""
    return flavor.extra_specs if 'extra_specs' in flavor else {}
