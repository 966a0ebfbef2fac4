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

"""The stats of a compute host: what Nova's own accounts do not have.

They reach the scheduler as JSON in the compute node's stats, under
`STATS_KEY`::

    {"version": 1,
     "cells": {"0": {"distances": [10, 21],
                     "pages": {"2048": {"free": 512, "allocatable": 128,
                                        "unusable_permille": 20}}}},
     "waiting": {"6d3a…": 1024}}

``distances`` are in the order of the host's cells (the ACPI SLIT, as in
``/sys/devices/system/node/node*/distance``); ``free`` counts pages that no
guest holds or was promised, ``allocatable`` pages that could still be made,
and ``unusable_permille`` how much of the free memory is in pieces too small
for such a page, out of 1000. ``waiting`` names elastic instances that need
more memory, in MiB, than there is for them. All but the version may be
missing, and keys that are not known are ignored, so that an older reader gets
along with a newer writer of the same version.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
from typing import Any

STATS_KEY = 'numa_hugepages'
VERSION = 1

# The range of the ACPI SLIT; 255 means "no connection".
MIN_DISTANCE = 10
MAX_DISTANCE = 255

# How long the value may be, in characters. The stats of a host are read for
# each request.
MAX_LENGTH = 16384

# What is counted of each page size.
_COUNTS = ('free', 'allocatable', 'unusable_permille', 'lendable')

_Matrix = tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class HostStats:
    """The stats of one host.

    :ivar distances: host cell id to the distances to all host cells
    :ivar free: host cell id to page size in KiB to free pages
    :ivar allocatable: host cell id to page size in KiB to pages that could
        still be made
    :ivar unusable_permille: host cell id to page size in KiB to the share of
        the free memory, out of 1000, that is in pieces too small for it
    :ivar lendable: host cell id to page size in KiB to pages of the total that
        don't exist: elastic instances count as having them, and don't
    :ivar waiting: elastic instances, by uuid, that need more memory, in MiB,
        than there is
    """

    distances: Mapping[int, tuple[int, ...]] = dataclasses.field(
        default_factory=dict
    )
    free: Mapping[int, Mapping[int, int]] = dataclasses.field(
        default_factory=dict
    )
    allocatable: Mapping[int, dict[int, int]] = dataclasses.field(
        default_factory=dict
    )
    unusable_permille: Mapping[int, Mapping[int, int]] = dataclasses.field(
        default_factory=dict
    )
    lendable: Mapping[int, Mapping[int, int]] = dataclasses.field(
        default_factory=dict
    )
    waiting: Mapping[str, int] = dataclasses.field(default_factory=dict)
    # Computed once, since the same stats come with each request.
    _matrices: dict[tuple[int, ...], _Matrix | None] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def distance_matrix(self, cell_ids: Sequence[int]) -> _Matrix | None:
        """Order the distances like a host's cells.

        Firmware reports the two directions of a pair separately; both count
        by the larger one, so that the matrix is symmetric.

        :param cell_ids: the ids of all host cells in Nova's order
        :returns: None if the distances of a cell are not known, or are not
            as many as there are cells
        """
        ids = tuple(cell_ids)
        if ids not in self._matrices:
            rows = [self.distances.get(cell_id, ()) for cell_id in ids]
            known = all(len(row) == len(ids) for row in rows)
            self._matrices[ids] = (
                tuple(
                    tuple(max(row[j], rows[j][i]) for j in range(len(ids)))
                    for i, row in enumerate(rows)
                )
                if known
                else None
            )
        return self._matrices[ids]

    def dump(self) -> str:
        """Write them as a value for the compute node's stats.

        :returns: JSON, the same for the same stats
        """
        cells: dict[str, dict[str, Any]] = {}
        for cell_id, row in self.distances.items():
            cells.setdefault(str(cell_id), {})['distances'] = list(row)
        for name in _COUNTS:
            for cell_id, sizes in getattr(self, name).items():
                pages = cells.setdefault(str(cell_id), {}).setdefault(
                    'pages', {}
                )
                for size_kib, count in sizes.items():
                    pages.setdefault(str(size_kib), {})[name] = count
        document: dict[str, Any] = {'version': VERSION, 'cells': cells}
        if self.waiting:
            document['waiting'] = dict(self.waiting)
        return json.dumps(
            document,
            sort_keys=True,
            separators=(',', ':'),
        )

    def bounded(self, length: int = MAX_LENGTH) -> HostStats:
        """Leave out what makes the value too long.

        The least important goes first: how fragmented the memory is, then
        who waits, the free pages, and the distances. The allocatable pages
        stay: without them all of the totals would count as pages that exist.

        :param length: how long the value may be
        :returns: these stats, or as much of them as possible
        """
        shorter = self
        for name in ('unusable_permille', 'waiting', 'free', 'distances'):
            if len(shorter.dump()) <= length:
                break
            shorter = dataclasses.replace(shorter, **{name: {}})
        return shorter


def parse(value: str) -> HostStats:
    """Read the stats of a host.

    :raises ValueError: if the value is not what `HostStats.dump` writes, or
        of a newer version
    """
    try:
        document = json.loads(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f'not JSON: {error}') from error
    if not isinstance(document, dict):
        raise ValueError(f'expected an object, found {_short(document)}')
    version = _integer(document.get('version'), 'version')
    if not 1 <= version <= VERSION:
        raise ValueError(
            f'version {version} is not known here (up to {VERSION} is); '
            'upgrade this service to the version of the compute'
        )
    distances: dict[int, tuple[int, ...]] = {}
    found: dict[str, dict[int, dict[int, int]]] = {n: {} for n in _COUNTS}
    for key, cell in _object(document.get('cells', {}), 'cells').items():
        cell_id = _number(key, 'cells')
        where = f'cells.{key}'
        entry = _object(cell, where)
        if 'distances' in entry:
            distances[cell_id] = _distances(entry['distances'], where)
        for size, counts in _object(
            entry.get('pages', {}), f'{where}.pages'
        ).items():
            size_kib = _number(size, f'{where}.pages')
            inner = f'{where}.pages.{size}'
            for name, into in found.items():
                if name in _object(counts, inner):
                    count = _count(counts[name], f'{inner}.{name}')
                    into.setdefault(cell_id, {})[size_kib] = count
    waiting = {
        uuid: _count(mib, f'waiting.{_short(uuid)}')
        for uuid, mib in _object(
            document.get('waiting', {}), 'waiting'
        ).items()
    }
    return HostStats(distances, **found, waiting=waiting)


def _distances(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise ValueError(
            f'{where}.distances: expected a list, found {_short(value)}'
        )
    row = tuple(_integer(item, f'{where}.distances') for item in value)
    for item in row:
        if not MIN_DISTANCE <= item <= MAX_DISTANCE:
            raise ValueError(
                f'{where}.distances: {item} is not from {MIN_DISTANCE} to '
                f'{MAX_DISTANCE}'
            )
    return row


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f'{where}: expected an object, found {_short(value)}')
    return value


def _integer(value: Any, where: str) -> int:
    # JSON's true and false are integers to Python.
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(
            f'{where}: expected an integer, found {_short(value)}'
        )
    return value


def _count(value: Any, where: str) -> int:
    count = _integer(value, where)
    if count < 0:
        raise ValueError(f'{where}: {count} is below 0')
    return count


def _number(key: str, where: str) -> int:
    if not (key.isascii() and key.isdigit() and len(key) < 20):
        raise ValueError(f'{where}: expected a number, found {_short(key)}')
    return int(key)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f'{text[:37]}...'
