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

"""The output of ``nova-numa-hugepages host show -f json``."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import json
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class HoldRow:
    """The pages of a pool that are held for an instance, and those it has.

    :ivar purpose: ``guest``, ``incoming`` or ``resize``; None if nothing is
        held
    :ivar state: ``held`` or ``taken``; None if nothing is held
    :ivar has: None if that is not known
    """

    purpose: str | None
    state: str | None
    cells: tuple[int, ...]
    held: int
    has: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class PoolRow:
    """A pool, as the driver accounts it, in pages.

    :ivar holds: by uuid of the instance
    """

    total: int
    free: int
    held: int
    available: int
    floor: int
    grown: int
    reserved: int
    holds: Mapping[str, tuple[HoldRow, ...]]


@dataclasses.dataclass(frozen=True, slots=True)
class HostShow:
    """The pools of a host and the distances of its nodes.

    :ivar pools: by node and page size in KiB
    :ivar distances: from each node to each node
    """

    pools: Mapping[tuple[int, int], PoolRow]
    distances: Mapping[int, Mapping[int, int]]

    @property
    def guests(self) -> frozenset[str]:
        """Uuids of instances that pages are held for, or that have pages."""
        return frozenset(
            uuid for pool in self.pools.values() for uuid in pool.holds
        )

    def holds(self, uuid: str) -> dict[tuple[int, int], tuple[HoldRow, ...]]:
        """Get the pages of an instance; pools without any are left out."""
        return {
            key: pool.holds[uuid]
            for key, pool in self.pools.items()
            if uuid in pool.holds
        }


def read(text: str) -> HostShow:
    """Read the output of the command.

    :raises ValueError: if it is not JSON, a column is missing, or the command
        couldn't read the ledger
    """
    pools: dict[tuple[int, int], PoolRow] = {}
    distances: dict[int, dict[int, int]] = {}
    try:
        for row in json.loads(text):
            distances[row['node']] = {
                int(node): far
                for node, far in (row['distances'] or {}).items()
            }
            if row['size_kib'] is not None:
                pools[row['node'], row['size_kib']] = _pool(row)
    except KeyError as error:
        raise ValueError(f'host show prints no {error}') from None
    return HostShow(pools, distances)


def _pool(row: Mapping[str, Any]) -> PoolRow:
    if row['held'] is None:
        raise ValueError(
            'host show does not know what is held: it found no ledger, or was '
            'not run as root'
        )
    holds: dict[str, list[HoldRow]] = {}
    for guest in row['guests']:
        holds.setdefault(guest['uuid'], []).append(
            HoldRow(
                guest['purpose'],
                guest['state'],
                tuple(guest['cells']),
                guest['held'],
                guest['has'],
            )
        )
    return PoolRow(
        row['total'],
        row['free'],
        row['held'],
        row['available'],
        row['floor'],
        row['grown'],
        row['reserved'],
        {uuid: tuple(of) for uuid, of in holds.items()},
    )
