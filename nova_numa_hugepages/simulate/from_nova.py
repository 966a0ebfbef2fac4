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
from collections.abc import Sequence
import dataclasses
import json
import logging
from typing import Any

from nova import conf as nova_conf
from nova import context as nova_context
from nova import objects
from nova.compute import vm_states
from nova.db.main import api as db
from nova.db.main import models

from nova_numa_hugepages import exception
from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.nova_fit import translate
from nova_numa_hugepages.simulate import flavorcheck
from nova_numa_hugepages.simulate import host_hardware
from nova_numa_hugepages.simulate import scenario

LOG = logging.getLogger(__name__)

# Of many hosts with the same trouble, so many are named.
_NAMED_HOSTS = 5


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
    for cell in cells:
        # No host is there, and guests that found none.
        if cell.is_cell0():
            continue
        LOG.debug('Reading the cell %s', cell.name)
        try:
            with nova_context.target_cell(context, cell) as cell_context:
                rows.extend(db.compute_node_get_all(cell_context))
                instances.update(_instances(cell_context))
        except Exception as error:
            raise CloudError(
                f'the database of the cell {cell.name or cell.uuid} cannot '
                f'be read: {_first_line(error)}'
            ) from error
    return _host_types(rows), _flavors(flavors, instances)


def _first_line(error: Exception) -> str:
    # Errors of SQLAlchemy have the statement and advice in further lines.
    return (str(error) or type(error).__name__).splitlines()[0]


@db.pick_context_manager_reader
def _instances(context: nova_context.RequestContext) -> Iterable[int]:
    """Return the ids of the flavors of all instances of a cell.

    Only what is needed is read, as there may be a hundred thousand of them.
    """
    rows = context.session.query(
        models.Instance.instance_type_id,
        models.Instance.vm_state,
        models.Instance.hidden,
    ).filter_by(deleted=0)
    # A hidden one is shown in another cell, from or to which it is moved.
    return [
        flavor_id
        for flavor_id, state, hidden in rows.all()
        if state != vm_states.SOFT_DELETED and not hidden
    ]


# Hosts.


def _host_types(
    rows: Sequence[dict[str, Any]],
) -> tuple[scenario.HostType, ...]:
    notes: dict[str, list[str]] = defaultdict(list)
    types: dict[str, tuple[scenario.HostType, list[str]]] = {}
    for name, host, host_notes in sorted(
        map(_host, rows), key=lambda found: found[0]
    ):
        for note in host_notes:
            notes[note].append(name)
        if host is not None:
            # The nodes hold dictionaries, which have no hash; these are
            # ordered by page size.
            types.setdefault(repr(host), (host, []))[1].append(name)
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
        )
        for number, (host, names) in enumerate(types.values(), 1)
    )


def _first_of(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f'{names[0]} and {len(names) - 1} more'


def _some(names: Sequence[str]) -> str:
    shown = ', '.join(names[:_NAMED_HOSTS])
    rest = len(names) - _NAMED_HOSTS
    return f'{shown} and {rest} more' if rest > 0 else shown


def _host(
    row: dict[str, Any],
) -> tuple[str, scenario.HostType | None, list[str]]:
    """Read a row of the compute nodes.

    :returns: the name, the host as a type of its own and without a name, None
        if it can't be simulated, and what to warn of
    """
    name = row['host'] or row['hypervisor_hostname'] or row['uuid']
    if not row['numa_topology']:
        return name, None, ['it reports no NUMA nodes and is left out']
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
            name,
            None,
            [f'its NUMA nodes cannot be read ({reason}); it is left out'],
        )
    found = host_hardware.read(topology)
    notes.extend(found.notes)
    if not found.nodes:
        return name, None, ['it has no CPU for instances and is left out']
    host = scenario.HostType(
        name='',
        count=1,
        nodes=found.nodes,
        distances=found.distances,
        runs_us=known is not None,
        cpu_ratio=_ratio(row, 'cpu_allocation_ratio'),
        ram_ratio=_ratio(row, 'ram_allocation_ratio'),
    )
    return name, host, notes


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
