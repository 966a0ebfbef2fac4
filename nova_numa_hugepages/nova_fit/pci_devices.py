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

"""PCI devices near host cells, as Nova's ``PciDeviceStats`` knows them."""

from __future__ import annotations

from collections.abc import Sequence
import copy
from typing import Any
from typing import NamedTuple

from nova.objects import fields
from nova.pci import stats as pci_stats

_Needs = tuple[dict[int, int], int]


class _Cell(NamedTuple):
    """A host cell, or that of a guest cell, as ``PciDeviceStats`` reads it."""

    id: int
    socket: int | None = None


class _Sockets(NamedTuple):
    cells: tuple[_Cell, ...]


class PciDevices:
    """Implements `nova_numa_hugepages.core.model.Devices`.

    Whether a set of host cells will do is asked of Nova itself, once for each
    set that differs in host cells with devices that match. Nova copies the
    statistics each time; it gets a copy without the host's topology and
    without the devices, which makes that cheap.

    :param stats: the statistics of the host; not changed
    :param requests: the PCI requests of the guest, may be empty
    :param provider_mapping: request group to resource providers of an
        allocation candidate; None after the scheduler has chosen one
    """

    def __init__(
        self,
        stats: pci_stats.PciDeviceStats,
        requests: Sequence[Any] | None,
        provider_mapping: dict[str, list[str]] | None,
    ) -> None:
        self._stats = stats
        self._requests = list(requests or ())
        self._mapping = provider_mapping
        self._counts: dict[int, int] = {}
        for pool in stats.pools:
            node = pool['numa_node']
            self._counts[node] = self._counts.get(node, 0) + pool['count']
        self._answers: dict[tuple[frozenset[int], ...], bool] = {}
        self._view: pci_stats.PciDeviceStats | None = None

    def count(self, cell_id: int) -> int:
        """Count the free devices of a host cell, of whatever kind."""
        return self._counts.get(cell_id, 0)

    def supports(self, cell_ids: frozenset[int]) -> bool:
        """Check whether all requested devices can go with these host cells."""
        # Nova's answer depends on nothing else.
        key = (
            cell_ids.intersection(self._counts),
            self._sockets_of(cell_ids),
        )
        if key not in self._answers:
            if self._view is None:
                self._view = self._light_copy()
            self._answers[key] = self._view.support_requests(
                self._requests,
                self._mapping,
                [_Cell(cell_id) for cell_id in sorted(cell_ids)],
            )
        return self._answers[key]

    def needs(self) -> list[_Needs]:
        """List what any supported set of host cells has to provide.

        Requests that the same pools match share them, so their counts are
        added up. How requests for different pools get along is left to
        `supports`.
        """
        shared: dict[tuple[tuple[int, ...], str], int] = {}
        for request in self._requests:
            key = (self._matching(request), self._policy(request))
            shared[key] = shared.get(key, 0) + request.count
        return [
            self._need(pools, policy, count)
            for (pools, policy), count in shared.items()
        ]

    def _need(self, pools: tuple[int, ...], policy: str, count: int) -> _Needs:
        near: dict[int, int] = {}
        anywhere = 0
        affinity = fields.PCINUMAAffinityPolicy
        for index in pools:
            pool = self._stats.pools[index]
            node = pool['numa_node']
            if policy == affinity.PREFERRED:
                anywhere += pool['count']
            elif node is not None:
                near[node] = near.get(node, 0) + pool['count']
            elif policy == affinity.LEGACY:
                anywhere += pool['count']
        if policy == affinity.SOCKET:
            near = self._by_socket(near)
        return near, count - anywhere

    def _by_socket(self, near: dict[int, int]) -> dict[int, int]:
        """Let each host cell provide what its socket has."""
        sockets = {cell.id: cell.socket for cell in self._host_cells()}
        if None in sockets.values():
            return near
        totals: dict[int | None, int] = {}
        for node, count in near.items():
            socket = sockets.get(node)
            totals[socket] = totals.get(socket, 0) + count
        return {
            cell_id: totals.get(socket, 0)
            for cell_id, socket in sockets.items()
        }

    def _matching(self, request: Any) -> tuple[int, ...]:
        """List the pools that Nova would take devices from for a request.

        That is, what its filters leave that don't look at host cells.
        """
        stats = self._stats
        rp_uuids = stats._get_rp_uuids_for_request(self._mapping, request)
        pools = stats._filter_pools_for_spec(stats.pools, request)
        pools = stats._filter_pools_for_unrequested_pfs(pools, request)
        pools = stats._filter_pools_for_unrequested_vdpa_devices(
            pools, request
        )
        pools = stats._filter_pools_for_unrequested_remote_managed_devices(
            pools, request
        )
        pools = stats._filter_pools_based_on_placement_allocation(
            pools, request, rp_uuids
        )
        pools = stats._filter_pools_for_live_migratable_devices(pools, request)
        left = {id(pool) for pool in pools}
        return tuple(
            index for index, pool in enumerate(stats.pools) if id(pool) in left
        )

    @staticmethod
    def _policy(request: Any) -> str:
        legacy: str = fields.PCINUMAAffinityPolicy.LEGACY
        if 'numa_policy' not in request:
            return legacy
        return request.numa_policy or legacy

    def _host_cells(self) -> tuple[_Cell, ...]:
        topology = self._stats.numa_topology
        if topology is None or 'cells' not in topology:
            return ()
        return tuple(
            _Cell(cell.id, cell.socket if 'socket' in cell else None)
            for cell in topology.cells
        )

    def _sockets_of(self, cell_ids: frozenset[int]) -> frozenset[int]:
        if not any(
            self._policy(request) == fields.PCINUMAAffinityPolicy.SOCKET
            for request in self._requests
        ):
            return frozenset()
        return frozenset(
            cell.socket
            for cell in self._host_cells()
            if cell.id in cell_ids and cell.socket is not None
        )

    def _light_copy(self) -> pci_stats.PciDeviceStats:
        view = copy.copy(self._stats)
        view.pools = [
            {key: value for key, value in pool.items() if key != 'devices'}
            for pool in self._stats.pools
        ]
        view.numa_topology = _Sockets(self._host_cells())
        view.dev_filter = None
        return view
