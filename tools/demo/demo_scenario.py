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


"""The hosts, flavors and guests of a demo, and the files that name them."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import pathlib
from typing import Any

from nova_numa_hugepages.simulate import scenario_file
from nova_numa_hugepages.simulate.scenario import HostType
from nova_numa_hugepages.yamlfile import document
from nova_numa_hugepages.yamlfile import formats
from nova_numa_hugepages.yamlfile import validation
from nova_numa_hugepages.yamlfile.validation import Finding

# As many as there are letters to draw them with.
MAX_GUESTS = 52

_NAME = validation.text(
    r'^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$',
    'a name of up to 40 letters, digits, dots, dashes and underscores',
)

_GUEST = validation.mapping(
    {
        'name': _NAME,
        'flavor': {'type': 'string'},
        'count': validation.integer(1, 20),
        'expect': {'enum': ['placed', 'refused']},
        'compare': {'type': 'boolean'},
        'note': {'type': 'string'},
    },
    required=('name', 'flavor'),
)

_SCENARIO = validation.mapping(
    {
        'hosts': validation.named(
            formats.host_schema(), _NAME, maxProperties=16
        ),
        'flavors': validation.named(
            formats.flavor_schema(), {'type': 'string'}
        ),
        'guests': {
            'type': 'array',
            'minItems': 1,
            'maxItems': MAX_GUESTS,
            'items': _GUEST,
        },
    },
    required=('hosts', 'flavors', 'guests'),
)


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
    """A guest, or several equal ones of one request.

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
    """The hosts, flavors and guests that a demo shows."""

    file: str
    hosts: tuple[HostType, ...]
    flavors: tuple[DemoFlavor, ...]
    guests: tuple[DemoGuest, ...]


def read(path: pathlib.Path) -> DemoScenario:
    """Read a scenario file.

    :raises: `document.FileError`, with every problem that was found
    """
    found = document.read(path, _SCENARIO, _contradictions)
    data = found.data
    return DemoScenario(
        file=str(path),
        hosts=tuple(
            scenario_file.host_type(name, host)
            for name, host in data['hosts'].items()
        ),
        flavors=tuple(
            DemoFlavor(
                name=name,
                vcpus=flavor['vcpus'],
                memory_mib=flavor['memory_mib'],
                extra_specs=formats.extra_specs(flavor),
                line=found.line(('flavors', name)),
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
                line=found.line(('guests', index)),
            )
            for index, guest in enumerate(data['guests'])
        ),
    )


def _contradictions(data: Any) -> Iterator[Finding]:
    """Find contradictions in a scenario that matches the schema."""
    for name, host in data['hosts'].items():
        yield from formats.host_contradictions(host, ('hosts', name))
    total = sum(guest.get('count', 1) for guest in data['guests'])
    if total > MAX_GUESTS:
        yield (
            ('guests',),
            f'found {total} guests, expected {MAX_GUESTS} or fewer',
        )
    first: dict[str, int] = {}
    for index, guest in enumerate(data['guests']):
        if guest['flavor'] not in data['flavors']:
            yield (
                ('guests', index, 'flavor'),
                f'unknown flavor {guest["flavor"]!r}, expected one of '
                f'{", ".join(data["flavors"])}',
            )
        if first.setdefault(guest['name'], index) != index:
            yield (
                ('guests', index, 'name'),
                f'found {guest["name"]!r} again, which is the name of '
                f'guests[{first[guest["name"]]}]',
            )
