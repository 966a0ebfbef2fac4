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
from typing import Any

import jsonschema

from nova_numa_hugepages.core import units
from tools.demo import scenario
from tools.demo import schema
from tools.demo import yamllines

# What can be told of a value in an error, before it gets too long.
_SHOWN_CHARACTERS = 40


def find(document: yamllines.Document) -> list[tuple[int, str]]:
    """Find what is wrong.

    :returns: (line, what was found and expected), by line; none if the
        document is a scenario
    """
    return sorted(set(_shape_problems(document))) or sorted(
        set(_meaning_problems(document))
    )


# First the shape: what JSON schema can tell.


# To JSON schema 4.0 is an integer, to everything that takes one it isn't.
_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        'integer',
        lambda _, value: (
            isinstance(value, int) and not isinstance(value, bool)
        ),
    ),
)


def _shape_problems(
    document: yamllines.Document,
) -> Iterator[tuple[int, str]]:
    validator = _Validator(schema.SCENARIO)
    for error in validator.iter_errors(document.data):
        yield from _explain(document, error)


def _explain(
    document: yamllines.Document,
    error: jsonschema.ValidationError,
) -> Iterator[tuple[int, str]]:
    path = tuple(error.absolute_path)
    where = _where(path)
    limit, found = error.validator_value, error.instance
    expected = {
        'type': lambda: f'expected {_types(limit)}',
        'enum': lambda: f'expected {" or ".join(map(str, limit))}',
        'minimum': lambda: f'expected {limit} or more',
        'maximum': lambda: f'expected {limit} or less',
        'pattern': lambda: f'expected {_pattern(limit)}',
        'minItems': lambda: f'expected {limit} items or more',
        'maxItems': lambda: f'expected {limit} items or fewer',
        'minProperties': lambda: f'expected {limit} entry or more',
        'maxProperties': lambda: f'expected {limit} entries or fewer',
    }
    if error.validator == 'additionalProperties':
        known = error.schema['properties']
        for key in found:
            if key not in known:
                yield (
                    _line(document, (*path, key)),
                    f'{where}found the key {key!r}, expected one of '
                    f'{", ".join(known)}',
                )
    elif error.validator == 'required':
        for key in limit:
            if key not in found:
                yield (
                    _line(document, path),
                    f'{where}found no {key!r}, expected it here',
                )
    elif 'propertyNames' in error.absolute_schema_path:
        yield (
            _line(document, (*path, found)),
            f'{where}found the key {found!r}, {expected["pattern"]()}',
        )
    else:
        tell = expected.get(str(error.validator))
        yield (
            _line(document, path),
            f'{where}found {_found(found)}, '
            + (tell() if tell else error.message),
        )


def _line(document: yamllines.Document, path: yamllines.Path) -> int:
    """Find the line of a path, or of what is nearest around it."""
    while path and path not in document.lines:
        path = path[:-1]
    return document.lines.get(path, 1)


def _where(path: yamllines.Path) -> str:
    text = ''
    for part in path:
        if isinstance(part, int):
            text += f'[{part}]'
        else:
            text += f'.{part}' if text else part
    return f'{text}: ' if text else ''


def _types(names: str | list[str]) -> str:
    words = {
        'object': 'a mapping',
        'array': 'a list',
        'string': 'text',
        'integer': 'an integer',
        'boolean': 'true or false',
    }
    return ' or '.join(
        words[name] for name in ([names] if isinstance(names, str) else names)
    )


def _pattern(pattern: str) -> str:
    if pattern == schema.PAGE_SIZE:
        return 'a page size such as 2MiB or 1GiB'
    return 'up to 40 letters, digits, dots, dashes and underscores'


def _found(value: Any) -> str:
    if isinstance(value, dict):
        return 'a mapping'
    if isinstance(value, list):
        return f'a list of {len(value)}'
    if value is None:
        return 'nothing'
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    if len(text) > _SHOWN_CHARACTERS:
        text = f'{text[:_SHOWN_CHARACTERS]}…'
    return text


# Then the meaning: what has to agree with something else in the file.


def _meaning_problems(
    document: yamllines.Document,
) -> Iterator[tuple[int, str]]:
    data = document.data
    for name in data['hosts']:
        yield from _host_problems(document, name)
    total = sum(guest.get('count', 1) for guest in data['guests'])
    if total > schema.MAX_GUESTS:
        yield (
            _line(document, ('guests',)),
            f'guests: found {total} guests, expected {schema.MAX_GUESTS} or '
            'fewer',
        )
    names: dict[str, int] = {}
    for index, guest in enumerate(data['guests']):
        path = ('guests', index)
        if guest['flavor'] not in data['flavors']:
            yield (
                _line(document, (*path, 'flavor')),
                f'{_where(path)}found the flavor {guest["flavor"]!r}, '
                f'expected one of {", ".join(data["flavors"])}',
            )
        line = _line(document, (*path, 'name'))
        first = names.setdefault(guest['name'], line)
        if first != line:
            yield (
                line,
                f'{_where(path)}found the name {guest["name"]!r} '
                f'again, expected another one than in line {first}',
            )


def _host_problems(
    document: yamllines.Document,
    name: str,
) -> Iterator[tuple[int, str]]:
    host = document.data['hosts'][name]
    path: yamllines.Path = ('hosts', name)
    count = host['nodes']

    lists: list[tuple[str, ...]] = [
        (key,) for key in ('cores', 'shared_cores', 'memory_gib')
    ]
    lists += [
        (key, size)
        for key in ('pages', 'reserved')
        for size in host.get(key, {})
    ]
    wrong = False
    for keys in [*lists, ('sockets',), ('distances',)]:
        value: Any = host
        for key in keys:
            value = value.get(key)
        if isinstance(value, list) and len(value) != count:
            wrong = True
            yield (
                _line(document, (*path, *keys)),
                f'{_where((*path, *keys))}found a list of {len(value)}, '
                f'expected one value for each of the {count} nodes',
            )
    for i, row in enumerate(host.get('distances', ())):
        where = (*path, 'distances', i)
        if len(row) != count:
            yield (
                _line(document, where),
                f'{_where(where)}found {len(row)} distances, expected one '
                f'to each of the {count} nodes',
            )
        elif i < count and row[i] != 10:
            yield (
                _line(document, where),
                f'{_where(where)}found {row[i]} as the distance of node '
                f'{i} to itself, expected 10',
            )
    if wrong:
        return
    for i in range(count):
        yield from _node_problems(document, name, i)


def _node_problems(
    document: yamllines.Document,
    name: str,
    index: int,
) -> Iterator[tuple[int, str]]:
    path = ('hosts', name)
    node = scenario.build_node(document.data['hosts'][name], index)
    if node.shared_cores > node.cores:
        yield (
            _line(document, (*path, 'shared_cores')),
            f'{_where((*path, "shared_cores"))}found {node.shared_cores} '
            f'for node {index}, expected its {node.cores} cores or fewer',
        )
    huge_mib = (
        sum(size * count for size, count in node.pages.items())
        // units.KIB_PER_MIB
    )
    if huge_mib > node.memory_mib:
        yield (
            _line(document, (*path, 'pages')),
            f'{_where((*path, "pages"))}found {huge_mib} MiB of pages for '
            f'node {index}, expected its {node.memory_mib} MiB or less',
        )
    for size, count in node.reserved.items():
        if count > node.pages.get(size, 0):
            yield (
                _line(document, (*path, 'reserved')),
                f'{_where((*path, "reserved"))}found {count} pages of '
                f'{units.format_kib(size)} for node {index}, expected its '
                f'{node.pages.get(size, 0)} or fewer',
            )
