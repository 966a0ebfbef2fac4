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

import dataclasses

from nova_numa_hugepages.yamlfile import flavors
from nova_numa_hugepages.yamlfile import hosts
from nova_numa_hugepages.yamlfile import lines


@dataclasses.dataclass(frozen=True)
class Host:
    """A host of the demo."""

    name: str
    nodes: tuple[hosts.Node, ...]
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


def build(file: str, document: lines.Document) -> Scenario:
    """Make a scenario of a document in which no problem was found."""
    data = document.data

    def line(*path: str | int) -> int:
        return document.lines[path]

    return Scenario(
        file=file,
        hosts=tuple(
            Host(
                name=name,
                nodes=hosts.build_nodes(host),
                distances=hosts.distances(host),
                runs_us=hosts.runs_us(host),
            )
            for name, host in data['hosts'].items()
        ),
        flavors=tuple(
            Flavor(
                name=name,
                vcpus=flavor['vcpus'],
                memory_mib=flavor['memory_mib'],
                extra_specs=flavors.extra_specs(flavor),
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
