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

"""The state of a host as rows, one for each pool.

Nodes without pools have a row each, too, without values of a pool.
"""

from __future__ import annotations

from collections.abc import Sequence
import json
from typing import Any

from cliff import columns

from nova_numa_hugepages.cmd.host.inspect.collect import HostInspection
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hostfs

# In the order in which they are shown. Scripts use them: a name keeps its
# meaning, and new ones come at the end.
COLUMNS = (
    'node',
    'size_kib',
    'total',
    'free',
    'held',
    'promised',
    'available',
    'reserved',
    'floor',
    'grown',
    'surplus',
    'others',
    'allocatable',
    'unusable_permille',
    'guests',
    'cpus',
    'distances',
    'memory_kib',
    'memory_free_kib',
)

# Columns that a table has room for.
SHORT = (
    'node',
    'size_kib',
    'total',
    'free',
    'held',
    'available',
    'floor',
    'grown',
    'others',
    'allocatable',
    'unusable_permille',
)

# Columns without a value where the processes of the host are not known.
_OF_PROCESSES = ('promised', 'available', 'others')

# Purposes of pages that a guest runs on. Those that are kept in case its
# resize is reverted are others, and none of them are in use.
USING = (None, model.Purpose.GUEST, model.Purpose.INCOMING)


class Counts(columns.FormattableColumn[dict[str, int]]):
    """Numbers by name; for a person on one line."""

    def human_readable(self) -> str:
        return ', '.join(
            f'{name}: {count}' for name, count in self._value.items()
        )


class Guests(columns.FormattableColumn[list[dict[str, Any]]]):
    """Pages that guests hold and have; for a person on a line each."""

    def human_readable(self) -> str:
        return '\n'.join(_guest_line(guest) for guest in self._value)


def rows(host: HostInspection) -> list[tuple[Any, ...]]:
    """List the pools by node and page size.

    :returns: one value for each of `COLUMNS`, None where it is not known
    """
    snapshot = host.snapshot
    keys: list[tuple[int, int | None]] = list(snapshot.pools)
    with_pools = {node for node, _ in keys}
    keys += [(node, None) for node in snapshot.nodes if node not in with_pools]
    keys.sort(key=lambda key: (key[0], key[1] or 0))
    return [tuple(_row(host, *key).values()) for key in keys]


def _row(
    host: HostInspection, node: int, size_kib: int | None
) -> dict[str, Any]:
    """Make a row, with its values in the order of `COLUMNS`."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row.update(node=node, size_kib=size_kib)
    if node in host.snapshot.nodes:
        topology = host.snapshot.nodes[node]
        row['cpus'] = hostfs.format_ids(topology.cpus)
        row['distances'] = Counts(
            {str(other): far for other, far in topology.distances.items()}
        )
    if node in host.snapshot.memory:
        row['memory_kib'] = host.snapshot.memory[node].total_kib
        row['memory_free_kib'] = host.snapshot.memory[node].free_kib
    if size_kib is None:
        return row
    key = model.PoolKey(node, size_kib)
    pool = host.snapshot.pools[key]
    usage = pool.usage
    row.update(
        total=usage.pool.total,
        free=usage.pool.free,
        surplus=usage.pool.surplus,
        reserved=usage.reserved,
        others=Counts(dict(host.others.get(key, {}))),
        allocatable=pool.allocatable,
        unusable_permille=pool.unusable_permille,
        guests=Guests(_guests(host, key)),
    )
    if host.ledger is not None:
        row.update(
            held=sum(hold.pages for hold in pool.holds),
            promised=usage.promised,
            available=usage.available,
            floor=pool.account.floor,
            grown=pool.account.grown,
        )
    if not host.processes_known:
        row.update(dict.fromkeys(_OF_PROCESSES))
    return row


def _guests(host: HostInspection, key: model.PoolKey) -> list[dict[str, Any]]:
    """List the guests that hold pages of a pool or have some, by purpose."""
    holds: dict[tuple[str, model.Purpose | None], list[model.Hold]] = {}
    for hold in host.snapshot.pools[key].holds:
        holds.setdefault((hold.holder, hold.purpose), []).append(hold)
    using = {uuid for uuid, purpose in holds if purpose in USING}
    for uuid, counts in host.in_place.items():
        if uuid not in using and (counts or {}).get(key):
            holds[uuid, None] = []
    return [
        _guest(host, key, uuid, purpose, of)
        for (uuid, purpose), of in sorted(
            holds.items(), key=lambda item: (item[0][0], item[0][1] or '')
        )
    ]


def _guest(
    host: HostInspection,
    key: model.PoolKey,
    uuid: str,
    purpose: model.Purpose | None,
    holds: Sequence[model.Hold],
) -> dict[str, Any]:
    process = host.snapshot.guests.get(uuid)
    counts = host.in_place.get(uuid, {}) if purpose in USING else None
    with_ledger = host.ledger is not None
    return {
        'uuid': uuid,
        'name': process.name if process else None,
        'pid': process.pid if process else None,
        'purpose': str(purpose) if purpose else None,
        'state': str(holds[0].state) if holds else None,
        'cells': [hold.cell for hold in holds],
        'held': sum(hold.pages for hold in holds) if with_ledger else None,
        'grown': sum(hold.grown for hold in holds) if with_ledger else None,
        'since': min((hold.since for hold in holds), default=None),
        'has': None
        if counts is None or not host.processes_known
        else counts.get(key, 0),
        'base': sum(hold.at_boot for hold in holds) if with_ledger else None,
        'ceiling': sum(hold.at_most for hold in holds)
        if with_ledger
        else None,
    }


def _guest_line(guest: dict[str, Any]) -> str:
    parts = [guest['name'] or guest['uuid']]
    if guest['held']:
        parts.append(f'{guest["held"]} held')
    if guest['has']:
        parts.append(f'{guest["has"]} in use')
    return ', '.join(parts)


def in_words(values: Sequence[Any]) -> list[Any]:
    """Write unknown values as a dash, for a person."""
    return ['-' if value is None else value for value in values]


def in_cells(values: Sequence[Any]) -> list[Any]:
    """Write values of more than one number as JSON, for a program.

    For the formats that have one text for each value. Without blanks, which
    are between the values of one of them.
    """
    return [
        json.dumps(value.machine_readable(), separators=(',', ':'))
        if isinstance(value, columns.FormattableColumn)
        else value
        for value in values
    ]
