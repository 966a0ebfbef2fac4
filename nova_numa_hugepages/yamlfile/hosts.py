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

"""The description of a host: its nodes, their cores, memory and pages."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import re
from typing import Any

from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.core import units
from nova_numa_hugepages.yamlfile import lines
from nova_numa_hugepages.yamlfile import shape

REQUIRED = ('nodes', 'cores', 'memory_gib')

MIB_PER_GIB = 1024
# The memory that is in no pool of huge pages is in pages of this size.
BASE_PAGE_KIB = 4

_PAGE_SIZE = r'^[1-9][0-9]{0,6} ?(KiB|MiB|GiB)$'
_KIB = {'KiB': 1, 'MiB': 1024, 'GiB': 1024 * 1024}

# The patterns of the schemas, in words.
PATTERNS = {_PAGE_SIZE: 'a page size such as 2MiB or 1GiB'}

# Of what a node has there may be one value for all nodes, or a list.
_OF_NODES = ('cores', 'threads', 'shared_cores', 'memory_gib', 'memory_mib')


@dataclasses.dataclass(frozen=True)
class Node:
    """A NUMA node of a host; pages by page size in KiB.

    :ivar cores: its cores
    :ivar threads: threads of a core
    :ivar shared_cores: cores, the first ones, whose CPUs are shared
    :ivar memory_mib: its memory, huge pages included
    :ivar pages: huge pages; the rest of the memory is in small pages
    :ivar reserved: pages that the operator holds back from guests
    :ivar socket: the socket that it is part of, None if unknown
    """

    cores: int
    threads: int
    shared_cores: int
    memory_mib: int
    pages: Mapping[int, int]
    reserved: Mapping[int, int]
    socket: int | None


def properties(*, nodes: int = 16, cores: int = 128) -> dict[str, Any]:
    """Make the schemas of what describes a host, by key.

    :param nodes: the most nodes of a host
    :param cores: the most cores of a node
    """

    def of_nodes(schema: dict[str, Any]) -> dict[str, Any]:
        return shape.one_or_list(schema, schema, nodes)

    pages = {
        'type': 'object',
        'propertyNames': {'pattern': _PAGE_SIZE},
        'additionalProperties': of_nodes(shape.integer(0, 1 << 24)),
    }
    return {
        'nodes': shape.integer(1, nodes),
        'cores': of_nodes(shape.integer(1, cores)),
        'threads': shape.integer(1, 8),
        'shared_cores': of_nodes(shape.integer(0, cores)),
        'memory_gib': of_nodes(shape.integer(1, 1 << 14)),
        'pages': pages,
        'reserved': pages,
        'sockets': {'type': 'array', 'items': shape.integer(0, nodes - 1)},
        'distances': {
            'type': 'array',
            'items': {
                'type': 'array',
                'items': shape.integer(
                    host_stats.MIN_DISTANCE, host_stats.MAX_DISTANCE
                ),
            },
        },
        'compute': {'enum': ['ours', 'stock']},
    }


# What a description without problems says.


def build_nodes(host: Mapping[str, Any]) -> tuple[Node, ...]:
    """Make the nodes of the mapping that describes their host."""
    return tuple(_build_node(host, i) for i in range(host['nodes']))


def distances(host: Mapping[str, Any]) -> tuple[tuple[int, ...], ...] | None:
    """Read the rows of node distances, None if there are none."""
    if 'distances' not in host:
        return None
    return tuple(map(tuple, host['distances']))


def runs_us(host: Mapping[str, Any]) -> bool:
    """Tell whether the host's compute runs our fit."""
    return bool(host.get('compute', 'ours') == 'ours')


def _build_node(host: Mapping[str, Any], index: int) -> Node:
    def pick(value: Any) -> Any:
        return value[index] if isinstance(value, list) else value

    def pages(key: str) -> dict[int, int]:
        return {
            _size_kib(size): pick(count)
            for size, count in host.get(key, {}).items()
            if pick(count)
        }

    return Node(
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


def _size_kib(size: str) -> int:
    match = re.match(r'(\d+) ?(\w+)', size)
    assert match is not None, size
    return int(match[1]) * _KIB[match[2]]


# What is wrong with one: what has to agree with something else in it.


def problems(
    document: lines.Document, path: lines.Path
) -> Iterator[tuple[int, str]]:
    """Find what is wrong with a host whose shape is right.

    :param path: where in the document the host is
    :returns: (line, what was found and expected)
    """
    host: Any = document.data
    for key in path:
        host = host[key]
    wrong = [
        *_sizes(document, path, host),
        *_lengths(document, path, host),
    ]
    yield from wrong
    yield from _distances(document, path, host)
    if not wrong:
        for i, node in enumerate(build_nodes(host)):
            yield from _node(document, path, i, node)


def _sizes(
    document: lines.Document, path: lines.Path, host: Mapping[str, Any]
) -> Iterator[tuple[int, str]]:
    """Find page sizes that are none, or the same in other words."""
    for key in ('pages', 'reserved'):
        seen: dict[int, str] = {}
        for size in host.get(key, {}):
            line = document.line((*path, key, size))
            where = lines.where((*path, key))
            size_kib = _size_kib(size)
            first = seen.setdefault(size_kib, size)
            if first != size:
                yield (
                    line,
                    f'{where}found {size}, which is {first} again, expected '
                    'each page size once',
                )
            elif size_kib <= BASE_PAGE_KIB:
                yield (
                    line,
                    f'{where}found {size}, expected a size above the '
                    f'{BASE_PAGE_KIB} KiB of small pages',
                )


def _lengths(
    document: lines.Document, path: lines.Path, host: Mapping[str, Any]
) -> Iterator[tuple[int, str]]:
    """Find lists that have not one value for each node."""
    count = host['nodes']
    places: list[tuple[str, ...]] = [(key,) for key in _OF_NODES]
    places += [
        (key, size)
        for key in ('pages', 'reserved')
        for size in host.get(key, {})
    ]
    for keys in [*places, ('sockets',), ('distances',)]:
        value: Any = host
        for key in keys:
            value = value.get(key)
        if isinstance(value, list) and len(value) != count:
            yield (
                document.line((*path, *keys)),
                f'{lines.where((*path, *keys))}found a list of {len(value)}, '
                f'expected one value for each of the {count} nodes',
            )


def _distances(
    document: lines.Document, path: lines.Path, host: Mapping[str, Any]
) -> Iterator[tuple[int, str]]:
    count = host['nodes']
    for i, row in enumerate(host.get('distances', ())):
        place = (*path, 'distances', i)
        if len(row) != count:
            yield (
                document.line(place),
                f'{lines.where(place)}found {len(row)} distances, expected '
                f'one to each of the {count} nodes',
            )
        elif i < count and row[i] != host_stats.MIN_DISTANCE:
            yield (
                document.line(place),
                f'{lines.where(place)}found {row[i]} as the distance of node '
                f'{i} to itself, expected {host_stats.MIN_DISTANCE}',
            )


def _node(
    document: lines.Document, path: lines.Path, index: int, node: Node
) -> Iterator[tuple[int, str]]:
    """Find what a node can't hold."""
    if node.shared_cores > node.cores:
        yield (
            document.line((*path, 'shared_cores')),
            f'{lines.where((*path, "shared_cores"))}found '
            f'{node.shared_cores} for node {index}, expected its '
            f'{node.cores} cores or fewer',
        )
    huge_mib = (
        sum(size * count for size, count in node.pages.items())
        // units.KIB_PER_MIB
    )
    if huge_mib > node.memory_mib:
        yield (
            document.line((*path, 'pages')),
            f'{lines.where((*path, "pages"))}found {huge_mib} MiB of pages '
            f'for node {index}, expected its {node.memory_mib} MiB or less',
        )
    for size, count in node.reserved.items():
        if count > node.pages.get(size, 0):
            yield (
                document.line((*path, 'reserved')),
                f'{lines.where((*path, "reserved"))}found {count} pages of '
                f'{units.format_kib(size)} for node {index}, expected its '
                f'{node.pages.get(size, 0)} or fewer',
            )
