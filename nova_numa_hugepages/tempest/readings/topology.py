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

"""The answer to ``GET /servers/{id}/topology`` for administrators.

Its reference is "Show Server Topology" in Nova's API reference, from
microversion 2.78 on.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """A guest cell of a server.

    :ivar host_node: the NUMA node of the host that it is on; below 0 if it is
        on none
    :ivar pins: CPU of the host by vCPU; empty if the CPUs are shared
    """

    host_node: int
    memory_mib: int
    vcpus: frozenset[int]
    pins: Mapping[int, int]


@dataclasses.dataclass(frozen=True, slots=True)
class Topology:
    """The cells of a server, by number, and the page size of its memory.

    :ivar page_size_kib: None if it has none of its own
    """

    cells: tuple[Cell, ...]
    page_size_kib: int | None

    @property
    def host_nodes(self) -> tuple[int, ...]:
        """Host nodes in the order of the cells."""
        return tuple(cell.host_node for cell in self.cells)

    @property
    def pins(self) -> dict[int, int]:
        """CPU of the host by vCPU, of all cells."""
        return {
            vcpu: cpu for cell in self.cells for vcpu, cpu in cell.pins.items()
        }


def read(answer: Mapping[str, Any]) -> Topology:
    """Read the body of the answer.

    :raises KeyError: if a field is missing that administrators see
    """
    return Topology(
        tuple(_cell(node) for node in answer['nodes']), answer['pagesize_kb']
    )


def _cell(node: Mapping[str, Any]) -> Cell:
    return Cell(
        node['host_node'],
        node['memory_mb'],
        frozenset(node['vcpu_set']),
        {int(vcpu): cpu for vcpu, cpu in node['cpu_pinning'].items()},
    )
