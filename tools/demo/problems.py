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


"""What is wrong with a scenario file, and in which line."""

from __future__ import annotations

from collections.abc import Iterator

from nova_numa_hugepages.yamlfile import host_format
from nova_numa_hugepages.yamlfile import lines
from nova_numa_hugepages.yamlfile import shape
from tools.demo import schema


def find(document: lines.Document) -> list[tuple[int, str]]:
    """Find what is wrong.

    :returns: (line, what was found and expected), by line; none if the
        document is a scenario
    """
    return shape.find(
        document, schema.SCENARIO, schema.PATTERNS, _meaning_problems
    )


def _meaning_problems(
    document: lines.Document,
) -> Iterator[tuple[int, str]]:
    """Find what does not agree with something else in the file."""
    data = document.data
    for name in data['hosts']:
        yield from host_format.problems(document, ('hosts', name))
    total = sum(guest.get('count', 1) for guest in data['guests'])
    if total > schema.MAX_GUESTS:
        yield (
            document.line(('guests',)),
            f'guests: found {total} guests, expected {schema.MAX_GUESTS} or '
            'fewer',
        )
    names: dict[str, int] = {}
    for index, guest in enumerate(data['guests']):
        path = ('guests', index)
        if guest['flavor'] not in data['flavors']:
            yield (
                document.line((*path, 'flavor')),
                f'{lines.where(path)}found the flavor {guest["flavor"]!r}, '
                f'expected one of {", ".join(data["flavors"])}',
            )
        line = document.line((*path, 'name'))
        first = names.setdefault(guest['name'], line)
        if first != line:
            yield (
                line,
                f'{lines.where(path)}found the name {guest["name"]!r} '
                f'again, expected another one than in line {first}',
            )
