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

"""JSON schemas for YAML files, and where a document does not match one."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import math
import reprlib
from typing import Any

import jsonschema

# Keys and indexes that lead to a value.
Path = tuple[str | int, ...]

# A path and what is wrong there.
Finding = tuple[Path, str]


# What the schemas are written in.
DIALECT: str = jsonschema.Draft202012Validator.META_SCHEMA['$id']


def integer(least: int, most: int) -> dict[str, Any]:
    """Return the schema of an integer from ``least`` to ``most``."""
    return {'type': 'integer', 'minimum': least, 'maximum': most}


def positive(most: int) -> dict[str, Any]:
    """Return the schema of a number above 0 and up to ``most``."""
    return {'type': 'number', 'exclusiveMinimum': 0, 'maximum': most}


def text(pattern: str, description: str) -> dict[str, Any]:
    """Return the schema of text.

    :param description: the pattern in words, for errors
    """
    return {'type': 'string', 'pattern': pattern, 'description': description}


def one_or_list(
    each: Mapping[str, Any],
    most: int,
    one: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the schema of a value, or of a list of 1 to ``most`` values.

    :param each: the schema of each value of a list
    :param one: the schema of a value that is not a list, if it differs
    """
    return {
        'if': {'type': 'array'},
        'then': {'items': each, 'minItems': 1, 'maxItems': most},
        'else': one or each,
    }


def two(each: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a list of two values.

    :param each: the schema of each
    """
    return {'type': 'array', 'items': each, 'minItems': 2, 'maxItems': 2}


def number(least: float, most: float) -> dict[str, Any]:
    """Return the schema of a number from ``least`` to ``most``."""
    return {'type': 'number', 'minimum': least, 'maximum': most}


def mapping(
    properties: Mapping[str, Any], required: Sequence[str]
) -> dict[str, Any]:
    """Return the schema of a mapping with known keys."""
    return {
        'type': 'object',
        'required': list(required),
        'additionalProperties': False,
        'properties': dict(properties),
    }


def named(
    each: Mapping[str, Any], name: Mapping[str, Any], **limits: int
) -> dict[str, Any]:
    """Return the schema of a mapping whose keys are names.

    :param each: the schema of each value
    :param name: the schema of each key
    """
    return {
        'type': 'object',
        'minProperties': 1,
        'propertyNames': name,
        'additionalProperties': each,
        **limits,
    }


def _is_number(_: object, value: object) -> bool:
    # Any comparison with NaN is false, so that no limit would refuse it.
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


# In draft 4 the number 2.0 is not an integer, nor is it to range().
_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft4Validator.TYPE_CHECKER.redefine(
        'number', _is_number
    ),
)


def find(data: Any, schema: Mapping[str, Any]) -> Iterator[Finding]:
    """Find where data do not match a schema."""
    for error in _Validator(schema).iter_errors(data):
        yield from _explain(error)


def _explain(error: jsonschema.ValidationError) -> Iterator[Finding]:
    path = tuple(error.absolute_path)
    found: Any = error.instance
    rule: Any = error.schema
    if error.validator == 'additionalProperties':
        known = rule['properties']
        for key in found:
            if key not in known:
                yield (
                    (*path, key),
                    f'unknown key, expected one of {", ".join(known)}',
                )
        return
    if 'propertyNames' in error.absolute_schema_path:
        path = (*path, found)
    # Of a mapping where a number belongs, the beginning is enough.
    shown = reprlib.repr(found)
    if found is None:
        shown = 'an empty value'
    elif isinstance(found, bool):
        shown = str(found).lower()
    if 'description' in rule:
        yield path, f'{shown} is not {rule["description"]}'
    else:
        yield path, error.message.replace(repr(found), shown, 1)
