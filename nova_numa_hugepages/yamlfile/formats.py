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

"""Descriptions of hosts and flavors."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import re
from typing import Any

from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.core import units
from nova_numa_hugepages.yamlfile import validation
from nova_numa_hugepages.yamlfile.validation import Finding
from nova_numa_hugepages.yamlfile.validation import Path

MIB_PER_GIB = 1024
# The size of the pages in no pool of huge pages.
BASE_PAGE_KIB = 4

_PAGE_SIZE = validation.text(
    r'^[1-9][0-9]{0,6} ?(KiB|MiB|GiB)$', 'a page size such as 2MiB or 1GiB'
)
_KIB = {'KiB': 1, 'MiB': 1024, 'GiB': 1024 * 1024}

# Either one value for all nodes, or a list with one for each.
_PER_NODE = ('cores', 'threads', 'shared_cores', 'memory_gib', 'memory_mib')


@dataclasses.dataclass(frozen=True)
class HostNode:
    """A NUMA node of a described host; pages by page size in KiB.

    :ivar threads: threads of a core
    :ivar shared_cores: cores, the first ones, whose CPUs are shared
    :ivar memory_mib: its memory, huge pages included
    :ivar pages: huge pages; the rest of the memory is in small pages
    :ivar reserved: pages that the operator reserves for other uses
    :ivar socket: the socket that it is part of, None if unknown
    """

    cores: int
    threads: int
    shared_cores: int
    memory_mib: int
    pages: Mapping[int, int]
    reserved: Mapping[int, int]
    socket: int | None

    @property
    def huge_kib(self) -> int:
        """The memory in huge pages."""
        return sum(size * count for size, count in self.pages.items())

    @property
    def pools(self) -> dict[int, int]:
        """All pages by size in KiB, the small ones first."""
        small_kib = self.memory_mib * units.KIB_PER_MIB - self.huge_kib
        return {
            BASE_PAGE_KIB: max(0, small_kib // BASE_PAGE_KIB),
            **dict(sorted(self.pages.items())),
        }


def host_schema(
    *,
    nodes: int = 16,
    cores: int = 128,
    required: Sequence[str] = ('nodes', 'cores', 'memory_gib'),
    **more: Any,
) -> dict[str, Any]:
    """Return the JSON schema of a host.

    :param nodes: the most nodes of a host
    :param cores: the most cores of a node
    :param more: the schemas of further keys, or of these in another form
    """

    def per_node(least: int, most: int) -> dict[str, Any]:
        return validation.one_or_list(validation.integer(least, most), nodes)

    pages = {
        'type': 'object',
        'propertyNames': _PAGE_SIZE,
        'additionalProperties': per_node(0, 1 << 24),
    }
    distance = validation.integer(
        host_stats.MIN_DISTANCE, host_stats.MAX_DISTANCE
    )
    return validation.mapping(
        {
            'nodes': validation.integer(1, nodes),
            'cores': per_node(0, cores),
            'threads': validation.integer(1, 8),
            'shared_cores': per_node(0, cores),
            'memory_gib': per_node(0, 1 << 14),
            'pages': pages,
            'reserved': pages,
            'sockets': {
                'type': 'array',
                'items': validation.integer(0, nodes - 1),
            },
            'distances': {
                'type': 'array',
                'items': {'type': 'array', 'items': distance},
            },
            'compute': {'enum': ['ours', 'stock']},
            **more,
        },
        required,
    )


def build_nodes(host: Mapping[str, Any]) -> tuple[HostNode, ...]:
    """Return the nodes of a valid description."""
    return tuple(_build_node(host, i) for i in range(host['nodes']))


def _build_node(host: Mapping[str, Any], index: int) -> HostNode:
    def pick(value: Any) -> Any:
        return value[index] if isinstance(value, list) else value

    def pages(key: str) -> dict[int, int]:
        return {
            page_kib(size): pick(count)
            for size, count in host.get(key, {}).items()
            if pick(count)
        }

    return HostNode(
        cores=pick(host['cores']),
        threads=pick(host.get('threads', 2)),
        shared_cores=pick(host.get('shared_cores', 0)),
        memory_mib=(
            pick(host['memory_mib'])
            if 'memory_mib' in host
            else pick(host['memory_gib']) * MIB_PER_GIB
        ),
        pages=pages('pages'),
        reserved=pages('reserved'),
        socket=pick(host['sockets']) if 'sockets' in host else None,
    )


def page_kib(size: str) -> int:
    """Return a page size in KiB.

    :param size: as a schema allows it, for example ``2MiB``
    """
    match = re.match(r'(\d+) ?(\w+)', size)
    assert match is not None, size
    return int(match[1]) * _KIB[match[2]]


def host_contradictions(
    host: Mapping[str, Any], path: Path
) -> Iterator[Finding]:
    """Find contradictions in a description that matches the schema.

    :param path: the path of the description in its document
    """
    findings = [*_sizes(host), *_lengths(host)]
    if not findings:
        for index, node in enumerate(build_nodes(host)):
            findings += _node(index, node)
    for place, text in (*findings, *_distances(host)):
        yield (*path, *place), text


def _sizes(host: Mapping[str, Any]) -> Iterator[Finding]:
    """Find sizes that no kernel has, and those that are given twice."""
    for key in ('pages', 'reserved'):
        seen: dict[int, str] = {}
        for size in host.get(key, {}):
            size_kib = page_kib(size)
            first = seen.setdefault(size_kib, size)
            if first != size:
                yield (
                    (key, size),
                    f'the same page size as {first}, expected each one once',
                )
            elif size_kib <= BASE_PAGE_KIB:
                yield (
                    (key, size),
                    f'expected a size above the {BASE_PAGE_KIB} KiB of small '
                    'pages',
                )
            elif size_kib & (size_kib - 1):
                yield (
                    (key, size),
                    'expected a size that is a power of two, such as 2MiB or '
                    '1GiB',
                )


def _lengths(host: Mapping[str, Any]) -> Iterator[Finding]:
    """Find lists without exactly one value for each node."""
    values: list[tuple[Path, Any]] = [
        ((key,), host.get(key)) for key in (*_PER_NODE, 'sockets', 'distances')
    ]
    values += [
        ((key, size), pages)
        for key in ('pages', 'reserved')
        for size, pages in host.get(key, {}).items()
    ]
    for path, value in values:
        if isinstance(value, list) and len(value) != host['nodes']:
            yield (
                path,
                f'found a list of {len(value)}, expected one value for each '
                f'of the {host["nodes"]} nodes',
            )


def _distances(host: Mapping[str, Any]) -> Iterator[Finding]:
    count = host['nodes']
    for index, row in enumerate(host.get('distances', ())):
        if len(row) != count:
            yield (
                ('distances', index),
                f'found {len(row)} distances, expected one to each of the '
                f'{count} nodes',
            )
        elif index < count and row[index] != host_stats.MIN_DISTANCE:
            yield (
                ('distances', index),
                f'found {row[index]} as the distance of node {index} to '
                f'itself, expected {host_stats.MIN_DISTANCE}',
            )


def _node(index: int, node: HostNode) -> Iterator[Finding]:
    """Find what exceeds the cores, the memory or the pages of a node."""
    if node.shared_cores > node.cores:
        yield (
            ('shared_cores',),
            f'found {node.shared_cores} for node {index}, expected its '
            f'{node.cores} cores or fewer',
        )
    huge_mib = -(-node.huge_kib // units.KIB_PER_MIB)
    if huge_mib > node.memory_mib:
        yield (
            ('pages',),
            f'found {huge_mib} MiB of pages for node {index}, expected its '
            f'{node.memory_mib} MiB or less',
        )
    for size, count in node.reserved.items():
        if count > node.pages.get(size, 0):
            yield (
                ('reserved',),
                f'found {count} pages of {units.format_kib(size)} for node '
                f'{index}, expected its {node.pages.get(size, 0)} or fewer',
            )


def flavor_schema(**more: Any) -> dict[str, Any]:
    """Return the JSON schema of a flavor.

    :param more: the schemas of further keys
    """
    return validation.mapping(
        {
            'vcpus': validation.integer(1, 1024),
            'memory_mib': validation.integer(1, 1 << 24),
            'extra_specs': {
                'type': 'object',
                'propertyNames': {'type': 'string'},
                'additionalProperties': {
                    'type': ['string', 'integer', 'boolean']
                },
            },
            **more,
        },
        required=('vcpus', 'memory_mib'),
    )


def extra_specs(flavor: Mapping[str, Any]) -> dict[str, str]:
    """Return the extra specs of a description as text, as Nova has them."""
    return {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in flavor.get('extra_specs', {}).items()
    }
