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

"""What is wrong with the shape of a document: what JSON schema can tell."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import math
from typing import Any

import jsonschema

from nova_numa_hugepages.yamlfile import lines

# What can be told of a value in an error, before it gets too long.
_SHOWN_CHARACTERS = 40

_WORDS = {
    'object': 'a mapping',
    'array': 'a list',
    'string': 'text',
    'integer': 'an integer',
    'number': 'a number',
    'boolean': 'true or false',
}


def integer(least: int, most: int) -> dict[str, Any]:
    """Make the schema of an integer from ``least`` to ``most``."""
    return {'type': 'integer', 'minimum': least, 'maximum': most}


def positive(most: int) -> dict[str, Any]:
    """Make the schema of a number above 0 and up to ``most``."""
    return {'type': 'number', 'exclusiveMinimum': 0, 'maximum': most}


def one_or_list(
    one: Mapping[str, Any], each: Mapping[str, Any], most: int
) -> dict[str, Any]:
    """Make the schema of a value, or of a list of 1 to ``most`` values.

    :param one: the schema of a value that is no list
    :param each: the schema of each value of a list
    """
    return {
        'if': {'type': 'array'},
        'then': {'items': each, 'minItems': 1, 'maxItems': most},
        'else': one,
    }


def _is_integer(_: object, value: object) -> bool:
    # To JSON schema 4.0 is an integer, to everything that takes one it isn't.
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(checker: object, value: object) -> bool:
    # Infinity and what is not a number pass every comparison or none.
    return _is_integer(checker, value) or (
        isinstance(value, float) and math.isfinite(value)
    )


_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {'integer': _is_integer, 'number': _is_number}
    ),
)


def find(
    document: lines.Document,
    schema: Mapping[str, Any],
    patterns: Mapping[str, str],
    meaning: Callable[[lines.Document], Iterator[tuple[int, str]]],
) -> list[tuple[int, str]]:
    """Find what is wrong with a document.

    :param patterns: as for `problems`
    :param meaning: finds what doesn't agree with something else in a document
        whose shape is right
    :returns: (line, what was found and expected), by line
    """
    return sorted(set(problems(document, schema, patterns))) or sorted(
        set(meaning(document))
    )


def problems(
    document: lines.Document,
    schema: Mapping[str, Any],
    patterns: Mapping[str, str],
) -> Iterator[tuple[int, str]]:
    """Find where a document is not as a schema has it.

    :param patterns: for each pattern of the schema, in words what it takes
    :returns: (line, what was found and expected), in no order; the same one
        may come more than once
    """
    validator = _Validator(schema)
    for error in validator.iter_errors(document.data):
        yield from _explain(document, error, patterns)


def _explain(
    document: lines.Document,
    error: jsonschema.ValidationError,
    patterns: Mapping[str, str],
) -> Iterator[tuple[int, str]]:
    path = tuple(error.absolute_path)
    where = lines.where(path)
    limit: Any = error.validator_value
    found: Any = error.instance
    schema: Any = error.schema
    expected = {
        'type': lambda: f'expected {_types(limit)}',
        'enum': lambda: f'expected {" or ".join(map(str, limit))}',
        'minimum': lambda: f'expected {limit} or more',
        'maximum': lambda: f'expected {limit} or less',
        'exclusiveMinimum': lambda: f'expected more than {limit}',
        'pattern': lambda: f'expected {patterns[limit]}',
        'minItems': lambda: f'expected {limit} items or more',
        'maxItems': lambda: f'expected {limit} items or fewer',
        'minProperties': lambda: f'expected {limit} entry or more',
        'maxProperties': lambda: f'expected {limit} entries or fewer',
    }
    if error.validator == 'additionalProperties':
        known = schema['properties']
        for key in found:
            if key not in known:
                yield (
                    document.line((*path, key)),
                    f'{where}found the key {key!r}, expected one of '
                    f'{", ".join(known)}',
                )
    elif error.validator == 'required':
        for key in limit:
            if key not in found:
                yield (
                    document.line(path),
                    f'{where}found no {key!r}, expected it here',
                )
    elif 'propertyNames' in error.absolute_schema_path:
        yield (
            document.line((*path, found)),
            f'{where}found the key {found!r}, {expected["pattern"]()}',
        )
    else:
        tell = expected.get(str(error.validator))
        yield (
            document.line(path),
            f'{where}found {show(found)}, '
            + (tell() if tell else error.message),
        )


def _types(names: str | list[str]) -> str:
    return ' or '.join(
        _WORDS[name] for name in ([names] if isinstance(names, str) else names)
    )


def show(value: Any) -> str:
    """Write a value of a document for an error, shortened if it is long."""
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
