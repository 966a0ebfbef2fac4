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

"""What is seen of a host as rows, one for each pool.

Nodes without pools have a row each, too, in which all of the pool is unknown.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence
import json
from typing import Any

from cliff import columns

from nova_numa_hugepages.cmd.host.inspect import collect
from nova_numa_hugepages.hugepages import model

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

# Those that a table has room for.
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


# What a guest runs on. The pages that are kept for its coming back from a
# resize are others, and none of them are in use.
USING = (None, model.Purpose.GUEST, model.Purpose.INCOMING)


class Counts(columns.FormattableColumn[dict[str, int]]):
    """Numbers by name; for a person on one line."""

    def human_readable(self) -> str:
        return ', '.join(
            f'{name}: {count}' for name, count in self._value.items()
        )


class Guests(columns.FormattableColumn[list[dict[str, Any]]]):
    """What guests hold and have of a pool; for a person on a line each."""

    def human_readable(self) -> str:
        return '\n'.join(_guest_line(guest) for guest in self._value)


def rows(seen: collect.Seen) -> list[tuple[Any, ...]]:
    """List what was seen, by node and page size.

    :returns: one value for each of `COLUMNS`, None where it isn't known
    """
    keys: list[tuple[int, int | None]] = list(seen.view.pools)
    having = {node for node, _ in keys}
    keys += [(node, None) for node in seen.view.nodes if node not in having]
    keys.sort(key=lambda key: (key[0], key[1] or 0))
    found = []
    for node, size_kib in keys:
        row = _row(seen, node, size_kib)
        found.append(
            tuple(
                row[name] if seen.knows(name, node) else None
                for name in COLUMNS
            )
        )
    return found


def number_list(numbers: Collection[int]) -> str:
    """Write numbers as the kernel does, for example ``0-3,8``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][-1] == number - 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ','.join('-'.join(map(str, part)) for part in parts)


def _row(
    seen: collect.Seen, node: int, size_kib: int | None
) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row.update(node=node, size_kib=size_kib)
    if node in seen.view.nodes:
        facts = seen.view.nodes[node]
        row['cpus'] = number_list(facts.cpus)
        row['distances'] = Counts(
            {str(other): far for other, far in facts.distances.items()}
        )
    if node in seen.view.memory:
        row['memory_kib'] = seen.view.memory[node].total_kib
        row['memory_free_kib'] = seen.view.memory[node].free_kib
    if size_kib is None:
        return row
    key = model.PoolKey(node, size_kib)
    view = seen.view.pools[key]
    standing = view.usage
    row.update(
        total=standing.pool.total,
        free=standing.pool.free,
        surplus=standing.pool.surplus,
        reserved=standing.reserved,
        others=Counts(dict(seen.others.get(key, {}))),
        allocatable=view.allocatable,
        unusable_permille=view.unusable_permille,
        guests=Guests(_guests(seen, key)),
    )
    if seen.ledger is not None:
        row.update(
            held=sum(hold.pages for hold in view.holds),
            promised=standing.promised,
            available=standing.available,
            floor=view.account.floor,
            grown=view.account.grown,
        )
    return row


def _guests(seen: collect.Seen, key: model.PoolKey) -> list[dict[str, Any]]:
    """List who holds pages of a pool or has some, each purpose by itself."""
    holds: dict[tuple[str, model.Purpose | None], list[model.Hold]] = {}
    for hold in seen.view.pools[key].holds:
        holds.setdefault((hold.holder, hold.purpose), []).append(hold)
    using = {uuid for uuid, purpose in holds if purpose in USING}
    for uuid, counts in seen.has.items():
        if uuid not in using and (counts or {}).get(key):
            holds[uuid, None] = []
    return [
        _guest(seen, key, uuid, purpose, of)
        for (uuid, purpose), of in sorted(
            holds.items(), key=lambda item: (item[0][0], item[0][1] or '')
        )
    ]


def _guest(
    seen: collect.Seen,
    key: model.PoolKey,
    uuid: str,
    purpose: model.Purpose | None,
    holds: Sequence[model.Hold],
) -> dict[str, Any]:
    process = seen.view.guests.get(uuid)
    counts = seen.has.get(uuid, {}) if purpose in USING else None
    known = seen.ledger is not None
    return {
        'uuid': uuid,
        'name': process.name if process else None,
        'pid': process.pid if process else None,
        'purpose': str(purpose) if purpose else None,
        'state': str(holds[0].state) if holds else None,
        'cells': [hold.cell for hold in holds],
        'held': sum(hold.pages for hold in holds) if known else None,
        'grown': sum(hold.grown for hold in holds) if known else None,
        'since': min((hold.since for hold in holds), default=None),
        'has': None
        if counts is None or not seen.knows('has')
        else counts.get(key, 0),
    }


def _guest_line(guest: dict[str, Any]) -> str:
    parts = [guest['name'] or guest['uuid']]
    if guest['held']:
        parts.append(f'{guest["held"]} held')
    if guest['has']:
        parts.append(f'{guest["has"]} in use')
    return ', '.join(parts)


def in_words(values: Sequence[Any]) -> list[Any]:
    """Write what isn't known as a dash, for a person."""
    return ['-' if value is None else value for value in values]


def in_cells(values: Sequence[Any]) -> list[Any]:
    """Write what is more than one value as JSON, for a program.

    For the formats that have a text for each value, and nothing for what
    isn't known.
    """
    return [
        json.dumps(value.machine_readable())
        if isinstance(value, columns.FormattableColumn)
        else value
        for value in values
    ]
