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


"""Tell in words where guests went and why."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import itertools
from typing import Any

from nova_numa_hugepages.core import units
from tools.demo import scenario
from tools.demo import verdicts


@dataclasses.dataclass(frozen=True)
class Placed:
    """A guest that runs.

    :ivar letter: what it is drawn as
    :ivar topology: its ``InstanceNUMATopology``, None if it floats
    """

    name: str
    letter: str
    server_id: str
    host: str
    topology: Any

    def cpus(self) -> set[int]:
        """Give the host CPUs that nobody else may use."""
        if self.topology is None:
            return set()
        cpus: set[int] = set()
        for cell in self.topology.cells:
            cpus.update((cell.cpu_pinning or {}).values())
            cpus.update(_emulator_cpus(cell))
        return cpus

    def nodes(self) -> list[int]:
        """Give the host cells of its cells, in their order."""
        if self.topology is None:
            return []
        return [cell.id for cell in self.topology.cells]


def count(number: int, what: str) -> str:
    """Write a number of things."""
    return f'{number} {what}{"" if number == 1 else "s"}'


def request(flavor: scenario.Flavor, guests: int) -> str:
    """Tell what is asked for."""
    specs = ', '.join(
        f'{key}={value}' for key, value in flavor.extra_specs.items()
    )
    return (
        f'{f"{guests} times " if guests > 1 else ""}flavor {flavor.name}: '
        f'{flavor.vcpus} vCPUs, {flavor.memory_mib} MiB'
        f'{", " + specs if specs else ""}'
    )


def placement(placed: Placed, host: scenario.Host) -> list[str]:
    """Tell where a guest went: a line, and one for each of its cells."""
    if placed.topology is None:
        return [
            f'{placed.name} [{placed.letter}] is on {host.name}, '
            'it floats over all nodes'
        ]
    lines = [
        f'{placed.name} [{placed.letter}] is on {host.name}'
        + _distance(placed.nodes(), host.distances)
    ]
    for index, cell in enumerate(placed.topology.cells):
        parts = []
        if cell.cpu_pinning:
            parts.append(
                'vCPUs '
                + ' '.join(
                    f'{vcpu}>{cpu}'
                    for vcpu, cpu in sorted(cell.cpu_pinning.items())
                )
            )
        if cell.cpuset:
            parts.append(f'{len(cell.cpuset)} floating vCPUs')
        if emulator := _emulator_cpus(cell):
            parts.append(f'emulator on CPU {_ranges(emulator)}')
        parts.append(_memory(cell))
        lines.append(
            f'  guest cell {index} on node {cell.id}: {", ".join(parts)}'
        )
    return lines


def decision(
    found: verdicts.Verdicts, hosts: Sequence[str], taken: Sequence[str]
) -> list[str]:
    """Tell how many hosts were left after each step, and why.

    :param hosts: all hosts
    :param taken: the hosts that the guests went to
    """
    if not found.offered:
        return [
            'Placement and the other filters leave none of '
            + count(len(hosts), 'host')
        ]

    def names(chosen: Sequence[str]) -> str:
        return ', '.join(host for host in hosts if host in chosen)

    lines = []
    if len(found.offered) < len(hosts):
        lines.append(
            f'Placement and the other filters leave {len(found.offered)} of '
            f'{len(hosts)} hosts: {names(found.offered)}'
        )
    lines.extend(found.reasons)
    if len(found.accepted) > 1:
        lines.append(
            f'fits on {names(found.accepted)}; the weighers take '
            f'{names(taken)}'
        )
    elif found.accepted:
        lines.append(f'fits on {names(found.accepted)} only')
    return lines


def comparison(found: verdicts.Verdicts) -> list[tuple[str, str, str, bool]]:
    """Put stock Nova's verdicts beside ours.

    :returns: for each host (name, stock Nova's verdict, ours, whether stock
        Nova's is another one or flawed)
    """
    rows = []
    for host, stock in (found.stock or {}).items():
        ours = 'accepts' if host in found.accepted else 'rejects'
        rows.append((host, stock, ours, stock != ours))
    return rows


def distances(host: scenario.Host) -> str:
    """Tell the distances of a host in a few words."""
    text = count(len(host.nodes), 'node')
    if host.distances is not None and len(host.nodes) > 1:
        values = sorted(set(itertools.chain(*host.distances)))
        text += f', distances {"/".join(map(str, values))}'
    return text if host.runs_us else f'{text}, stock compute'


def _distance(
    nodes: Sequence[int], matrix: Sequence[Sequence[int]] | None
) -> str:
    pairs = list(itertools.combinations(nodes, 2))
    if not pairs:
        return ''
    if matrix is None:
        return ', distances unknown'
    lengths = [matrix[one][other] for one, other in pairs]
    if len(lengths) == 1:
        return f', distance {lengths[0]}'
    return f', distances {sum(lengths)} in sum, {max(lengths)} at most'


def _memory(cell: Any) -> str:
    if not cell.pagesize:
        return f'{cell.memory} MiB in small pages'
    pages = units.pages_for(cell.memory, cell.pagesize)
    return f'{pages} pages of {units.format_kib(cell.pagesize)}'


def _emulator_cpus(cell: Any) -> set[int]:
    if 'cpuset_reserved' not in cell:
        return set()
    return set(cell.cpuset_reserved or ())


def _ranges(cpus: Iterable[int]) -> str:
    return ','.join(map(str, sorted(cpus)))
