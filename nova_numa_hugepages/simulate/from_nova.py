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

"""The hosts and flavors of a cloud, read from Nova's databases.

Nothing is written. That is why compute nodes are not read as Nova's objects,
which write back what an older Nova has left out.
"""

from __future__ import annotations

from collections import Counter
from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from collections.abc import Set
import dataclasses
import json
import logging
import sys
from typing import Any

from nova import conf as nova_conf
from nova import context as nova_context
from nova import objects
from nova.compute import vm_states
from nova.db.main import api as db
from nova.db.main import models

from nova_numa_hugepages import exception
from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.core import model
from nova_numa_hugepages.core import units
from nova_numa_hugepages.nova_fit import translate
from nova_numa_hugepages.simulate import flavorcheck
from nova_numa_hugepages.simulate import scenario

LOG = logging.getLogger(__name__)

# Of many hosts with the same trouble, so many are named.
_NAMED_HOSTS = 5

# Pools up to this size are small pages: 4 KiB, or 16 or 64 KiB on some ARM
# and POWER machines, if they are the smallest of a cell.
_LARGEST_BASE_PAGE_KIB = 64

# A node's memory varies by what firmware and kernel keep for themselves.
_MEMORY_STEP_MIB = 64

# Nodes, and their distances.
Hardware = tuple[
    tuple[scenario.HostNode, ...], tuple[tuple[int, ...], ...] | None
]


class CloudError(exception.NUMAHugepagesError):
    """A cloud could not be read, or has nothing to simulate."""


def read(
    context: nova_context.RequestContext,
) -> tuple[tuple[scenario.HostType, ...], tuple[scenario.Flavor, ...]]:
    """Read the hosts and flavors of all cells.

    ``nova.conf.CONF`` has to be set up with the configuration of a service
    that knows the API database. What can't be simulated is left out, and
    logged as a warning.

    :param context: of an administrator
    :returns: the hosts, those of equal hardware together, and the flavors. A
        flavor's share is the number of its instances; those without any are
        left out, unless there are no instances at all.
    :raises: `CloudError` if a database does not answer, or if there is no
        host or no flavor
    """
    objects.register_all()
    try:
        cells = objects.CellMappingList.get_all(context)
        flavors = objects.FlavorList.get_all(context)
    except Exception as error:
        raise CloudError(
            f'the API database cannot be read: {_first_line(error)}'
        ) from error
    rows: list[dict[str, Any]] = []
    instances: Counter[int] = Counter()
    placed_mib: Counter[tuple[str, str]] = Counter()
    for cell in cells:
        # No host is there, and guests that found none.
        if cell.is_cell0():
            continue
        LOG.debug('Reading the cell %s', cell.name)
        try:
            with nova_context.target_cell(context, cell) as cell_context:
                rows.extend(db.compute_node_get_all(cell_context))
                for instance in _instances(cell_context):
                    placed_mib[instance.host, instance.node] += (
                        instance.memory_mb
                    )
                    if _counts(instance):
                        instances[instance.instance_type_id] += 1
        except Exception as error:
            raise CloudError(
                f'the database of the cell {cell.name or cell.uuid} cannot '
                f'be read: {_first_line(error)}'
            ) from error
    return _host_types(rows, placed_mib), _flavors(flavors, instances)


def _first_line(error: Exception) -> str:
    # Errors of SQLAlchemy have the statement and advice in further lines.
    return (str(error) or type(error).__name__).splitlines()[0]


@db.pick_context_manager_reader
def _instances(context: nova_context.RequestContext) -> Sequence[Any]:
    """Return the instances of a cell.

    Only what is needed is read, as there may be a hundred thousand of them.
    """
    rows: Sequence[Any] = (
        context.session.query(
            models.Instance.instance_type_id,
            models.Instance.vm_state,
            models.Instance.hidden,
            models.Instance.host,
            models.Instance.node,
            models.Instance.memory_mb,
        )
        .filter_by(deleted=0)
        .all()
    )
    return rows


def _counts(instance: Any) -> bool:
    """Check whether an instance is one that is asked for."""
    # A hidden one is shown in another cell, from or to which it is moved.
    return instance.vm_state != vm_states.SOFT_DELETED and not instance.hidden


# Hosts.


def _host_types(
    rows: Sequence[dict[str, Any]],
    placed_mib: Mapping[tuple[str, str], int],
) -> tuple[scenario.HostType, ...]:
    """Return the hosts, those of equal hardware together.

    :param placed_mib: memory of the instances on each host and node
    """
    notes: dict[str, list[str]] = defaultdict(list)
    types: dict[str, tuple[scenario.HostType, list[str]]] = {}
    reserved_mib: dict[str, int] = {}
    for row in sorted(rows, key=_name):
        name = _name(row)
        host, host_notes = _host(row)
        for note in host_notes:
            notes[note].append(name)
        if host is not None:
            # The nodes hold dictionaries, which have no hash; these are
            # ordered by page size.
            kind = repr(host)
            types.setdefault(kind, (host, []))[1].append(name)
            # An instance that moves is counted on two hosts in Nova.
            reserved_mib[kind] = min(
                reserved_mib.get(kind, sys.maxsize),
                _reserved_mib(row, placed_mib),
            )
    for note, names in notes.items():
        LOG.warning(
            '%(hosts)s: %(note)s', {'hosts': _some(names), 'note': note}
        )
    if not types:
        raise CloudError(
            f'there are {len(rows)} compute nodes, and none of them reports '
            'NUMA nodes to simulate'
        )
    return tuple(
        dataclasses.replace(
            host,
            name=f'type{number} ({_first_of(names)})',
            count=len(names),
            reserved_memory_mib=reserved_mib[kind],
        )
        for number, (kind, (host, names)) in enumerate(types.items(), 1)
    )


def _first_of(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f'{names[0]} and {len(names) - 1} more'


def _some(names: Sequence[str]) -> str:
    shown = ', '.join(names[:_NAMED_HOSTS])
    rest = len(names) - _NAMED_HOSTS
    return f'{shown} and {rest} more' if rest > 0 else shown


def _name(row: dict[str, Any]) -> str:
    name: str = row['host'] or row['hypervisor_hostname'] or row['uuid']
    return name


def _reserved_mib(
    row: dict[str, Any], placed_mib: Mapping[tuple[str, str], int]
) -> int:
    """Find what ``reserved_host_memory_mb`` is on a host.

    Nova counts it among the memory in use.
    """
    used = row['memory_mb_used'] or 0
    return max(
        0, used - placed_mib.get((row['host'], row['hypervisor_hostname']), 0)
    )


def _host(
    row: dict[str, Any],
) -> tuple[scenario.HostType | None, list[str]]:
    """Read a row of the compute nodes.

    :returns: the host as a type of its own and without a name, None if it
        can't be simulated, and what to warn of
    """
    if not row['numa_topology']:
        return None, ['it reports no NUMA nodes and is left out']
    notes: list[str] = []
    known = _facts(row, notes)
    try:
        topology = translate.host_topology(
            objects.NUMATopology.obj_from_db_obj(row['numa_topology']),
            known,
            networks=False,
        )
    except Exception as error:
        # An object of a Nova that is newer, or much older.
        reason = _first_line(error)
        return (
            None,
            [f'its NUMA nodes cannot be read ({reason}); it is left out'],
        )
    nodes, distances = read_hardware(topology, notes)
    if not nodes:
        return None, ['it has no CPU for instances and is left out']
    host = scenario.HostType(
        name='',
        count=1,
        nodes=nodes,
        distances=distances,
        runs_us=known is not None,
        cpu_ratio=_ratio(row, 'cpu_allocation_ratio'),
        ram_ratio=_ratio(row, 'ram_allocation_ratio'),
    )
    return host, notes


def _facts(
    row: dict[str, Any], notes: list[str]
) -> host_stats.HostStats | None:
    """Read what our driver reports, None if the host runs the stock one."""
    try:
        stats = json.loads(row['stats'] or '{}')
    except ValueError:
        stats = {}
    value = (
        stats.get(host_stats.STATS_KEY) if isinstance(stats, dict) else None
    )
    if value is None:
        return None
    try:
        return host_stats.parse(value)
    except ValueError as error:
        notes.append(f'{exception.InvalidStats(str(error))}')
        return host_stats.HostStats()


def _ratio(row: dict[str, Any], name: str) -> float:
    # As Nova reads what an older compute has left out.
    conf = nova_conf.CONF
    return float(
        row[name] or getattr(conf, name) or getattr(conf, f'initial_{name}')
    )


# The hardware of a host, as the simplified nodes of a simulation.


def read_hardware(topology: model.HostTopology, notes: list[str]) -> Hardware:
    """Read the hardware of a host.

    What is used of it does not matter. CPUs are renumbered: a node of a
    simulation has its shared cores first. CPUs that the operator gives to no
    guest are no CPUs of a simulation. Memory is rounded down, as hosts of one
    delivery differ by some pages.

    :param notes: takes what the nodes can't tell, each a sentence without its
        subject, the host
    :returns: the nodes, none if no node has CPUs for guests, and their
        distances, None if they are not known
    """
    cells = topology.cells
    if not any(cell.shared_cpus or cell.dedicated_cpus for cell in cells):
        return (), None
    sockets = _sockets(cells)
    nodes = tuple(
        _node(cell, socket, notes)
        for cell, socket in zip(cells, sockets, strict=True)
    )
    return nodes, _distances(topology, notes)


def _sockets(cells: Sequence[model.HostCell]) -> list[int | None]:
    """Number the sockets of the cells from 0, or none of them."""
    numbers: dict[int, int] = {}
    sockets: list[int | None] = []
    for cell in cells:
        if cell.socket is None:
            return [None] * len(cells)
        sockets.append(numbers.setdefault(cell.socket, len(numbers)))
    return sockets


def _distances(
    topology: model.HostTopology, notes: list[str]
) -> tuple[tuple[int, ...], ...] | None:
    if topology.distances is None:
        return None
    rows = tuple(map(tuple, topology.distances))
    if any(row[i] != host_stats.MIN_DISTANCE for i, row in enumerate(rows)):
        notes.append(
            'a node of it is said to be farther than '
            f'{host_stats.MIN_DISTANCE} from itself; its distances are '
            'left out'
        )
        return None
    return rows


def _node(
    cell: model.HostCell, socket: int | None, notes: list[str]
) -> scenario.HostNode:
    cores, threads, shared_cores = _cores(cell, notes)
    pages, reserved, small_reserved_kib = _pages(cell.pools)
    # What the operator holds back of small pages no guest can have.
    memory_mib = cell.memory_mib - -(-small_reserved_kib // units.KIB_PER_MIB)
    huge_kib = sum(size * count for size, count in pages.items())
    return scenario.HostNode(
        cores=cores,
        threads=threads,
        shared_cores=shared_cores,
        memory_mib=max(
            memory_mib // _MEMORY_STEP_MIB * _MEMORY_STEP_MIB,
            -(-huge_kib // units.KIB_PER_MIB),
            min(memory_mib, 1),
        ),
        pages=pages,
        reserved=reserved,
        socket=socket,
    )


def _cores(cell: model.HostCell, notes: list[str]) -> tuple[int, int, int]:
    """Count the cores of a cell, the threads of one, and the shared cores."""
    shared, dedicated = cell.shared_cpus, cell.dedicated_cpus
    if not (shared or dedicated):
        return 0, 1, 0
    if shared & dedicated:
        # Nova does so where the operator sets neither kind of CPU.
        notes.append(
            f'its node {cell.id} has CPUs for vCPUs that float and for '
            'pinned ones alike; they are taken as CPUs for pinned ones'
        )
        shared = shared - dedicated
    cores = _split(cell.siblings, shared | dedicated)
    sizes = Counter(len(core) for core in cores)
    # The most usual one; of equally usual ones the larger.
    threads = max(sizes, key=lambda size: (sizes[size], size))
    if len(sizes) == 1 and all(
        core <= shared or core <= dedicated for core in cores
    ):
        return len(cores), threads, sum(core <= shared for core in cores)
    # A shared core too many rather than none for the vCPUs that float, and
    # never a dedicated one too many.
    shared_cores = -(-len(shared) // threads)
    own_cores = len(dedicated) // threads
    count = max(shared_cores + own_cores, 1)
    notes.append(
        f'the CPUs of its node {cell.id} do not make whole cores of equally '
        f'many threads; it is taken to have {count} of {threads} threads, '
        f'{shared_cores} of them shared'
    )
    return count, threads, shared_cores


def _split(
    siblings: Iterable[Set[int]], cpus: Set[int]
) -> list[frozenset[int]]:
    """Split the CPUs into cores; one without siblings is one itself."""
    cores: list[frozenset[int]] = []
    rest = set(cpus)
    for group in siblings:
        core = frozenset(group & rest)
        if core:
            cores.append(core)
            rest -= core
    return cores + [frozenset([cpu]) for cpu in sorted(rest)]


def _pages(
    pools: Sequence[model.PagePool],
) -> tuple[dict[int, int], dict[int, int], int]:
    """Read the huge pages, those held back, and the KiB of small ones."""
    pages: dict[int, int] = {}
    reserved: dict[int, int] = {}
    small_reserved_kib = 0
    for place, pool in enumerate(sorted(pools)):
        if place == 0 and pool.size_kib <= _LARGEST_BASE_PAGE_KIB:
            small_reserved_kib = pool.reserved * pool.size_kib
        elif pool.total:
            pages[pool.size_kib] = pool.total
            if pool.reserved:
                reserved[pool.size_kib] = min(pool.reserved, pool.total)
    return pages, reserved, small_reserved_kib


# Flavors.


def _flavors(
    flavors: Iterable[Any], instances: Counter[int]
) -> tuple[scenario.Flavor, ...]:
    """Return the flavors, with the numbers of their instances as shares.

    :param flavors: Nova's
    :param instances: instances by flavor id
    """
    enabled = {f.id: f for f in flavors if not f.disabled}
    gone = sum(count for key, count in instances.items() if key not in enabled)
    if gone:
        LOG.warning(
            '%d instances are of flavors that are deleted or disabled. They '
            'do not count.',
            gone,
        )
    counted = {key: instances[key] for key in enabled if instances[key]}
    shares = counted or dict.fromkeys(enabled, 1)
    found = tuple(
        _usable(
            scenario.Flavor(
                name=enabled[key].name,
                vcpus=enabled[key].vcpus,
                memory_mib=enabled[key].memory_mb,
                extra_specs=dict(enabled[key].extra_specs),
                share=float(shares[key]),
            )
            for key in sorted(shares, key=lambda key: enabled[key].name)
        )
    )
    if not found:
        raise CloudError('there is no flavor to simulate')
    return found


def _usable(
    flavors: Iterable[scenario.Flavor],
) -> Iterator[scenario.Flavor]:
    for flavor in flavors:
        refused = flavorcheck.problems(flavor)
        if not refused:
            yield flavor
        for name, reason in refused:
            LOG.warning(
                'The flavor %(flavor)s is left out, as Nova refuses its '
                '%(spec)s: %(reason)s',
                {
                    'flavor': flavor.name,
                    'spec': name or 'extra specs',
                    'reason': reason,
                },
            )
