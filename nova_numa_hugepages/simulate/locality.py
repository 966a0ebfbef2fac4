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

"""How far the memory and the CPUs of instances lie apart."""

from __future__ import annotations

import bisect
import collections
from collections.abc import Mapping
from collections.abc import Sequence
import itertools
from typing import Final
from typing import NamedTuple

from nova import objects

from nova_numa_hugepages.simulate import results
from nova_numa_hugepages.simulate import scenario

# What the kernel takes where the firmware tells no distances.
_LOCAL: Final = 10
_REMOTE: Final = 20


class _Host(NamedTuple):
    """A type of host.

    :ivar distances: between its nodes
    :ivar sockets: of each node
    :ivar floating: where the CPU and the memory of an access lie, of an
        instance that floats: how likely each distance is
    """

    distances: Sequence[Sequence[int]]
    sockets: Sequence[int]
    floating: Mapping[int, float]


class Placements:
    """The instances that were placed, and how far they are apart.

    :param latency_ns: how long an access takes, by distance
    """

    def __init__(self, latency_ns: Mapping[int, float]) -> None:
        self._latency_ns = sorted(latency_ns.items())
        self._hosts: dict[str, _Host] = {}
        self._count = 0
        self._memory_mib = 0
        self._remote_mib = 0.0
        self._latency_mib_ns = 0.0
        self._over_sockets = 0
        # Of those with several cells.
        self._apart: dict[float, int] = collections.Counter()

    def add(
        self,
        kind: scenario.HostType,
        flavor: objects.Flavor,
        topology: objects.InstanceNUMATopology | None,
    ) -> None:
        """Count an instance.

        :param kind: its host
        """
        if kind.name not in self._hosts:
            self._hosts[kind.name] = _host(kind)
        host = self._hosts[kind.name]
        self._count += 1
        self._memory_mib += flavor.memory_mb
        if topology is None:
            distances = host.floating
            self._remote_mib += flavor.memory_mb * (
                1 - distances.get(_LOCAL, 0.0)
            )
        else:
            cells = topology.cells
            distances = _accesses(host, cells)
            nodes = [cell.id for cell in cells]
            if len({host.sockets[node] for node in nodes}) > 1:
                self._over_sockets += 1
            if len(nodes) > 1:
                pairs = [*itertools.combinations(nodes, 2)]
                apart = sum(
                    host.distances[one][other] for one, other in pairs
                ) / len(pairs)
                self._apart[apart] += 1
        if self._latency_ns:
            self._latency_mib_ns += flavor.memory_mb * sum(
                share * self._latency(distance)
                for distance, share in distances.items()
            )

    def _latency(self, distance: int) -> float:
        """Return how long an access takes, between what is known of it."""
        known = [one for one, _ in self._latency_ns]
        at = bisect.bisect_left(known, distance)
        if at == len(known):
            return self._latency_ns[-1][1]
        if known[at] == distance or not at:
            return self._latency_ns[at][1]
        (low, low_ns), (high, high_ns) = self._latency_ns[at - 1 : at + 1]
        return low_ns + (high_ns - low_ns) * (distance - low) / (high - low)

    def result(self) -> results.Locality | None:
        """Return what it comes to; None if nothing was placed."""
        if not self._count:
            return None
        several = sum(self._apart.values())
        return results.Locality(
            distance=sum(apart * count for apart, count in self._apart.items())
            / several
            if several
            else None,
            distance_p95=_percentile(self._apart, 0.95) if several else None,
            over_sockets_share=self._over_sockets / self._count,
            remote_share=self._remote_mib / self._memory_mib,
            latency_ns=self._latency_mib_ns / self._memory_mib
            if self._latency_ns
            else None,
        )


def _host(kind: scenario.HostType) -> _Host:
    count = len(kind.nodes)
    distances = kind.distances or [
        [_LOCAL if one == other else _REMOTE for other in range(count)]
        for one in range(count)
    ]
    cpus = [node.cores * node.threads for node in kind.nodes]
    memory = [node.memory_mib for node in kind.nodes]
    floating: dict[int, float] = collections.defaultdict(float)
    for one, other in itertools.product(range(count), repeat=2):
        floating[distances[one][other]] += (
            cpus[one] / sum(cpus) * memory[other] / sum(memory)
        )
    return _Host(
        distances,
        [
            number if node.socket is None else node.socket
            for number, node in enumerate(kind.nodes)
        ],
        floating,
    )


def _accesses(
    host: _Host, cells: Sequence[objects.InstanceNUMACell]
) -> Mapping[int, float]:
    """Return how likely each distance is, from any vCPU to any memory."""
    cpus = [len(cell.cpuset | cell.pcpuset) for cell in cells]
    memory = [cell.memory for cell in cells]
    found: dict[int, float] = collections.defaultdict(float)
    for (one, vcpus), (other, mib) in itertools.product(
        zip(cells, cpus, strict=True), zip(cells, memory, strict=True)
    ):
        share = vcpus / sum(cpus) * mib / sum(memory)
        found[host.distances[one.id][other.id]] += share
    return found


def _percentile(counts: Mapping[float, int], share: float) -> float:
    """Return the least value that this share of all is not above."""
    left = share * sum(counts.values())
    for value in sorted(counts):
        left -= counts[value]
        if left <= 1e-9:
            return value
    raise AssertionError('no share is above 1')
