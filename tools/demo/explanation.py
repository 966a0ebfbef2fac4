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


"""Explanations of where guests went and why."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools
from typing import Any

from nova_numa_hugepages.core import units
from nova_numa_hugepages.scheduler import score
from nova_numa_hugepages.simulate.scenario import HostType
from tools.demo import demo_scenario
from tools.demo import verdicts
from tools.demo import weighing

# The rule of the weigher.
WEIGHER = (
    'Where a guest fits on several hosts, our weigher takes the one on which '
    'it costs least of what is scarce: the room for guests of these flavors, '
    'which counts the more the less there is of it.'
)

# Where each guest of a request is, by its name; None if it was refused.
Taken = Mapping[str, str | None]

# Hosts that are named beside the one that was taken.
_OTHERS = 2

_MOST_DECIMALS = 6


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
        """Return the host CPUs that no other guest may use."""
        if self.topology is None:
            return set()
        cpus: set[int] = set()
        for cell in self.topology.cells:
            cpus.update((cell.cpu_pinning or {}).values())
            cpus.update(_emulator_cpus(cell))
        return cpus

    def nodes(self) -> list[int]:
        """Return the host cells of its cells, in their order."""
        if self.topology is None:
            return []
        return [cell.id for cell in self.topology.cells]


def count(number: int, what: str) -> str:
    """Return a number with its noun."""
    return f'{number} {what}{"" if number == 1 else "s"}'


def request(flavor: demo_scenario.DemoFlavor, guests: int) -> str:
    """Return what is asked for."""
    specs = ', '.join(
        f'{key}={value}' for key, value in flavor.extra_specs.items()
    )
    return (
        f'{f"{guests} times " if guests > 1 else ""}flavor {flavor.name}: '
        f'{flavor.vcpus} vCPUs, {flavor.memory_mib} MiB'
        f'{", " + specs if specs else ""}'
    )


def placement(placed: Placed, host: HostType) -> list[str]:
    """Return where a guest went: a line, and one for each of its cells."""
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
    found: verdicts.Verdicts, hosts: Sequence[str], taken: Taken
) -> list[str]:
    """Return how many hosts were left after each step, and why.

    :param hosts: all hosts
    """
    if not found.offered:
        return [
            'Placement and the other filters leave none of '
            + count(len(hosts), 'host')
        ]

    def names(chosen: Collection[str | None]) -> str:
        return ', '.join(host for host in hosts if host in chosen)

    lines = []
    if len(found.offered) < len(hosts):
        lines.append(
            f'Placement and the other filters leave {len(found.offered)} of '
            f'{len(hosts)} hosts: {names(found.offered)}'
        )
    lines.extend(line for number, line in found.reasons if number == 0)
    if len(found.accepted) > 1:
        line = f'fits on {names(found.accepted)}'
        if any(taken.values()):
            line += f'; the weighers take {names(taken.values())}'
        lines.append(line)
    elif found.accepted:
        lines.append(f'fits on {names(found.accepted)} only')
    return lines + costs(found, taken)


def costs(found: verdicts.Verdicts, taken: Taken) -> list[str]:
    """Return why hosts were the best ones for guests.

    :returns: a line for each guest for which there was a choice, but not for
        one that went where the guest before it did; before it why guests
        after the first one lost hosts
    """
    lines: list[str] = []
    before = None
    for number, ((name, host), weighed) in enumerate(
        zip(taken.items(), found.weighed, strict=False)
    ):
        who = f'{name}: ' if len(taken) > 1 else ''
        if number:
            lines.extend(
                who + line for guest, line in found.reasons if guest == number
            )
        chosen = len(weighed.scores) > 1 and host in weighed.scores
        if host is not None and chosen and host != before:
            lines.append(who + _costs(weighed, host))
        before = host
    return lines


def _costs(found: weighing.Weighed, taken: str) -> str:
    """Return the costs of the host that was taken, and of the next ones."""
    scores = found.scores
    others = sorted(
        (host for host in scores if host != taken), key=scores.__getitem__
    )
    named = [taken, *others[:_OTHERS]]
    first, *rest = _percents([scores[host].cost for host in named])
    parts = [
        f'{taken} {"holds" if found.floats else "costs"} {first} of what is '
        'scarce',
        *(
            f'{host} {percent}'
            for host, percent in zip(others, rest, strict=False)
        ),
    ]
    return ', '.join(parts) + _tie(scores[taken], scores[others[0]])


def _tie(own: score.Score, other: score.Score) -> str:
    """Return what decided between two hosts of equal cost."""
    if own.cost != other.cost:
        return ''
    if own.grow_kib != other.grow_kib:
        return '; it has to allocate fewer pages'
    if own.imbalance != other.imbalance:
        return '; its nodes stay in the better balance'
    return "; Nova's weighers decide"


def _percents(shares: Sequence[float]) -> list[str]:
    """Write shares so that those that differ look different."""
    texts: list[str] = []
    for decimals in range(_MOST_DECIMALS + 1):
        texts = [
            f'{100 * share:.{decimals}f} %' if share else '0 %'
            for share in shares
        ]
        if len(set(texts)) == len(set(shares)) and all(
            float(text[:-2]) or not share
            for text, share in zip(texts, shares, strict=True)
        ):
            break
    return texts


def comparison(found: verdicts.Verdicts) -> list[tuple[str, str, str, bool]]:
    """Return the verdicts of stock Nova's filter beside ours.

    :returns: for each host (name, stock Nova's verdict, ours, whether stock
        Nova's is another one or flawed)
    """
    rows = []
    for host, stock in (found.stock or {}).items():
        ours = verdicts.ACCEPTS if host in found.accepted else verdicts.REJECTS
        rows.append((host, stock, ours, stock != ours))
    return rows


def stock_choice(
    found: verdicts.Verdicts, taken: Taken, *, agrees: bool
) -> str:
    """Return where stock Nova would have gone.

    :param agrees: whether its filter says the same as ours of all hosts
    """
    choice = found.stock_choice
    first, host = next(iter(taken.items()))
    if choice is None:
        if agrees:
            return "stock Nova's filter accepts none either"
        return 'stock Nova would refuse it'
    if agrees and len(found.accepted) == 1:
        return 'stock Nova accepts the same host'
    takes = choice if choice != host else f'{choice} as well'
    if len(taken) > 1:
        takes += f', for {first}'
    if agrees:
        return f'stock Nova accepts the same hosts; its weighers take {takes}'
    return f'stock Nova would take {takes}'


def distances(host: HostType) -> str:
    """Return the distances of a host in a few words."""
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
