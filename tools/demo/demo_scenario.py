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

from nova_numa_hugepages.yamlfile import flavor_format
from nova_numa_hugepages.yamlfile import host_format
from nova_numa_hugepages.yamlfile import lines


@dataclasses.dataclass(frozen=True)
class DemoHost:
    """A host of the demo."""

    name: str
    nodes: tuple[host_format.HostNode, ...]
    distances: tuple[tuple[int, ...], ...] | None
    runs_us: bool


@dataclasses.dataclass(frozen=True)
class DemoFlavor:
    """A flavor, and the line of the file that names it."""

    name: str
    vcpus: int
    memory_mib: int
    extra_specs: dict[str, str]
    line: int


@dataclasses.dataclass(frozen=True)
class DemoGuest:
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
class DemoScenario:
    """What a demo shows."""

    file: str
    hosts: tuple[DemoHost, ...]
    flavors: tuple[DemoFlavor, ...]
    guests: tuple[DemoGuest, ...]


def build(file: str, document: lines.Document) -> DemoScenario:
    """Make a scenario of a document in which no problem was found."""
    data = document.data

    def line(*path: str | int) -> int:
        return document.lines[path]

    return DemoScenario(
        file=file,
        hosts=tuple(
            DemoHost(
                name=name,
                nodes=host_format.build_nodes(host),
                distances=host_format.distances(host),
                runs_us=host_format.runs_us(host),
            )
            for name, host in data['hosts'].items()
        ),
        flavors=tuple(
            DemoFlavor(
                name=name,
                vcpus=flavor['vcpus'],
                memory_mib=flavor['memory_mib'],
                extra_specs=flavor_format.extra_specs(flavor),
                line=line('flavors', name),
            )
            for name, flavor in data['flavors'].items()
        ),
        guests=tuple(
            DemoGuest(
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
