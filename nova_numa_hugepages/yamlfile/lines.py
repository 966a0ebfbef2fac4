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

"""YAML with the line of every key and value, for errors that can be found."""

from __future__ import annotations

from typing import Any
from typing import NamedTuple

import yaml

Path = tuple[str | int, ...]

# Python writes no longer integers in decimal digits.
_MAX_DIGITS = 4300

# What PyYAML raises, beside errors that tell of values, for a text that is no
# value of the type that its tag names, as in ``!!bool maybe``.
_NO_SUCH_VALUE = (ArithmeticError, AttributeError, LookupError)


class Document(NamedTuple):
    """What a YAML file holds.

    :ivar data: mappings, lists, strings, integers, floats, booleans and None
    :ivar lines: path of keys and indexes to the line, from 1, where the key
        (in a list: the item) stands
    """

    data: Any
    lines: dict[Path, int]

    def line(self, path: Path) -> int:
        """Find the line of a path, or of what is nearest around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def where(path: Path) -> str:
    """Write a path as the begin of an error.

    :returns: for example ``hosts.duo.cores[1]: ``; nothing for the document
        itself
    """
    text = ''
    for part in path:
        if isinstance(part, int):
            text += f'[{part}]'
        else:
            text += f'.{part}' if text else part
    return f'{text}: ' if text else ''


class YAMLError(Exception):
    """The text is not the YAML that is understood here.

    :ivar line: where, from 1; None if it is about the whole file
    """

    def __init__(self, line: int | None, message: str) -> None:
        super().__init__(message)
        self.line = line


def load(text: str) -> Document:
    """Read one YAML document.

    Keys must be strings and unlike, and nothing may be referred to by an
    alias.

    :raises: `YAMLError`
    """
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                mark = event.start_mark
                raise YAMLError(
                    mark.line + 1 if mark else None,
                    f'found the alias *{event.anchor}, expected the value '
                    'itself',
                )
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            lines: dict[Path, int] = {}
            data = None if root is None else _build(loader, root, (), lines)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        parts = [part for part in (error.context, error.problem) if part]
        raise YAMLError(
            mark.line + 1 if mark else None, 'not YAML: ' + ', '.join(parts)
        ) from error
    except yaml.reader.ReaderError as error:
        line = text.count('\n', 0, error.position) + 1
        raise YAMLError(
            line,
            f'not YAML: found the character {error.character!r}, which '
            'is not allowed',
        ) from error
    except RecursionError as error:
        raise YAMLError(None, 'not YAML: nested too deeply') from error
    return Document(data, lines)


def _build(
    loader: yaml.SafeLoader,
    node: yaml.Node,
    path: Path,
    lines: dict[Path, int],
) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [
            _build(loader, item, (*path, index), lines)
            for index, item in enumerate(node.value)
        ]
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = _scalar(loader, key_node)
            if isinstance(key, int) and not isinstance(key, bool):
                key = str(key)
            if not isinstance(key, str):
                kind = 'a list' if isinstance(key, list) else repr(key)
                raise YAMLError(line, f'found {kind} as a key, expected text')
            if key in result:
                raise YAMLError(
                    line,
                    f'found {key!r} twice, first in line '
                    f'{lines[(*path, key)]}',
                )
            lines[(*path, key)] = line
            result[key] = _build(loader, value_node, (*path, key), lines)
        return result
    return _scalar(loader, node)


def _scalar(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    line = node.start_mark.line + 1
    try:
        value = loader.construct_object(node, deep=True)
    except (ValueError, TypeError) as error:
        # For example a date that is none.
        raise YAMLError(line, f'not YAML: {error}') from error
    except _NO_SUCH_VALUE as error:
        tag = node.tag.rpartition(':')[2]
        raise YAMLError(
            line, f'not YAML: found {node.value!r}, which is no !!{tag}'
        ) from error
    # Neither of these could be written into an error.
    if isinstance(value, int) and abs(value) >= 10**_MAX_DIGITS:
        raise YAMLError(
            line, f'not YAML: found an integer of over {_MAX_DIGITS} digits'
        )
    if isinstance(value, str) and any(
        '\ud800' <= c <= '\udfff' for c in value
    ):
        raise YAMLError(
            line, f'not YAML: found {value!r}, which is half a character'
        )
    return value
