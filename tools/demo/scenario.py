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


"""The hosts, flavors and guests of a demo."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import re
from typing import Any

from tools.demo import yamllines

_KIB = {'KiB': 1, 'MiB': 1024, 'GiB': 1024 * 1024}


@dataclasses.dataclass(frozen=True)
class Node:
    """A NUMA node of a host; pages by page size in KiB."""

    cores: int
    threads: int
    shared_cores: int
    memory_mib: int
    pages: Mapping[int, int]
    reserved: Mapping[int, int]
    socket: int | None


@dataclasses.dataclass(frozen=True)
class Host:
    """A host of the demo."""

    name: str
    nodes: tuple[Node, ...]
    distances: tuple[tuple[int, ...], ...] | None
    runs_us: bool


@dataclasses.dataclass(frozen=True)
class Flavor:
    """A flavor, and the line of the file that names it."""

    name: str
    vcpus: int
    memory_mib: int
    extra_specs: dict[str, str]
    line: int


@dataclasses.dataclass(frozen=True)
class Guest:
    """A guest, or several alike that are asked for in one request.

    :ivar refused: whether it is meant to find no host
    :ivar compare: whether to show what stock Nova decides for it
    """

    name: str
    flavor: str
    count: int
    refused: bool
    compare: bool
    note: str
    line: int


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What a demo shows."""

    file: str
    hosts: tuple[Host, ...]
    flavors: tuple[Flavor, ...]
    guests: tuple[Guest, ...]


def build(file: str, document: yamllines.Document) -> Scenario:
    """Make a scenario of a document in which no problem was found."""
    data = document.data

    def line(*path: str | int) -> int:
        return document.lines[path]

    return Scenario(
        file=file,
        hosts=tuple(
            Host(
                name=name,
                nodes=tuple(build_node(host, i) for i in range(host['nodes'])),
                distances=(
                    tuple(map(tuple, host['distances']))
                    if 'distances' in host
                    else None
                ),
                runs_us=host.get('compute', 'ours') == 'ours',
            )
            for name, host in data['hosts'].items()
        ),
        flavors=tuple(
            Flavor(
                name=name,
                vcpus=flavor['vcpus'],
                memory_mib=flavor['memory_mib'],
                extra_specs={
                    key: _spec(value)
                    for key, value in flavor.get('extra_specs', {}).items()
                },
                line=line('flavors', name),
            )
            for name, flavor in data['flavors'].items()
        ),
        guests=tuple(
            Guest(
                name=guest['name'],
                flavor=guest['flavor'],
                count=guest.get('count', 1),
                refused=guest.get('expect') == 'refused',
                compare=guest.get('compare', False),
                note=guest.get('note', ''),
                line=line('guests', index),
            )
            for index, guest in enumerate(data['guests'])
        ),
    )


def build_node(host: dict[str, Any], index: int) -> Node:
    """Make a node of the mapping that describes its host."""

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
        threads=host.get('threads', 2),
        shared_cores=pick(host.get('shared_cores', 0)),
        memory_mib=pick(host['memory_gib']) * 1024,
        pages=pages('pages'),
        reserved=pages('reserved'),
        socket=pick(host['sockets']) if 'sockets' in host else None,
    )


def _size_kib(size: str) -> int:
    match = re.match(r'(\d+) ?(\w+)', size)
    assert match is not None, size
    return int(match[1]) * _KIB[match[2]]


def _spec(value: str | int | bool) -> str:
    """Write an extra spec as Nova has it, which knows text only."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
