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

"""YAML documents that know the line of every key and value."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import pathlib
import reprlib
import sysconfig
import textwrap
from typing import Any
import warnings

import ruamel.yaml
from ruamel.yaml import composer
from ruamel.yaml import constructor
from ruamel.yaml import error as yaml_errors
from ruamel.yaml import events
from ruamel.yaml import nodes
from ruamel.yaml import reader

from nova_numa_hugepages import exception
from nova_numa_hugepages.yamlfile import validation
from nova_numa_hugepages.yamlfile.validation import Finding
from nova_numa_hugepages.yamlfile.validation import Path

# The longest message of the parser, which may quote a value in full.
_MESSAGE_CHARACTERS = 200

# Lists and mappings in each other; the files that are read need 5.
_MAX_DEPTH = 50

_TAG = 'tag:yaml.org,2002:'
_BOOLEAN = f'{_TAG}bool'
_TEXT = f'{_TAG}str'
_NUMBERS = (f'{_TAG}int', f'{_TAG}float')
_CONSTRUCTORS: Any = {
    None: constructor.SafeConstructor.construct_undefined,
    **{
        tag: constructor.SafeConstructor.yaml_constructors[tag]
        for tag in (
            _BOOLEAN,
            _TEXT,
            f'{_TAG}float',
            f'{_TAG}int',
            f'{_TAG}null',
            f'{_TAG}timestamp',
        )
    },
    # These know their lines.
    **{
        tag: constructor.RoundTripConstructor.yaml_constructors[tag]
        for tag in (f'{_TAG}map', f'{_TAG}seq')
    },
}

# Raised, beside errors with a line, for a value that does not fit its tag.
_BAD_VALUE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)


# The line from 1, None if it is about the whole file, and what is wrong.
Problem = tuple[int | None, str]


class FileError(exception.NUMAHugepagesError):
    """A file is invalid.

    Its text has a line ``file:line: problem`` for each problem.

    :ivar file: the file, as it was named
    :ivar problems: ordered by line
    """

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        super().__init__(
            '\n'.join(
                f'{file}: {text}' if line is None else f'{file}:{line}: {text}'
                for line, text in problems
            )
        )
        self.file = file
        self.problems = tuple(problems)


class UnreadableError(FileError):
    """A file cannot be read at all.

    :ivar reason: the error of the system
    """

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(file, [(None, f'cannot read it: {reason}')])
        self.reason = reason


class _Composer(composer.Composer):
    """A composer that refuses what needs too much memory or stack.

    A few aliases can stand for millions.
    """

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.parser.peek_event()
        problem = ''
        if isinstance(event, events.AliasEvent):
            problem = (
                f'found the alias *{event.anchor}, expected the value itself'
            )
        elif self._depth == _MAX_DEPTH:
            problem = 'nested too deeply'
        if problem:
            raise composer.ComposerError(None, None, problem, event.start_mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Constructor(constructor.RoundTripConstructor):
    """A constructor of plain values, which locates every error."""

    yaml_constructors = _CONSTRUCTORS

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        if isinstance(node, nodes.MappingNode):
            _check_keys(node)
        elif node.tag == _BOOLEAN and node.value in ('y', 'Y', 'n', 'N'):
            # OpenStack reads YAML with PyYAML, to which these are text.
            node.tag = _TEXT
        elif node.tag in _NUMBERS and ':' in node.value:
            # A time, or a typing mistake, but no number to the base 60.
            node.tag = _TEXT
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int | str):
                # Python refuses to write an integer of thousands of digits,
                # and half a character.
                str(value).encode()
            return value
        except _BAD_VALUE as error:
            found = reprlib.repr(node.value)
            raise constructor.ConstructorError(
                None, None, f'bad value {found}: {error}', node.start_mark
            ) from error


def _check_keys(node: nodes.MappingNode) -> None:
    """Check that the keys of a mapping are different texts."""
    seen: dict[str, Any] = {}
    for key, _ in node.value:
        problem = ''
        if not isinstance(key, nodes.ScalarNode):
            kind = 'list' if isinstance(key, nodes.SequenceNode) else 'mapping'
            problem = f'found a {kind} as a key, expected text'
        elif node.flow_style and not key.style and key.value.endswith(':'):
            problem = f"found {key.value!r}, expected a space after the ':'"
        else:
            # A flavor may be named 42 or no.
            key.tag = _TEXT
            first = seen.setdefault(key.value, key)
            if first is not key:
                problem = (
                    f'found {key.value!r} twice, first in line '
                    f'{first.start_mark.line + 1}'
                )
        if problem:
            raise constructor.ConstructorError(
                None, None, problem, key.start_mark
            )


@dataclasses.dataclass(frozen=True)
class Document:
    """A YAML document.

    :ivar file: the name of its file
    :ivar data: mappings, lists and values
    """

    file: str
    data: Any

    def line(self, path: Path) -> int:
        """Return the line of a path, or of the nearest part around it."""
        value = self.data
        line = value.lc.line if hasattr(value, 'lc') else 0
        for part in path:
            try:
                line = value.lc.data[part][0]
                value = value[part]
            except (AttributeError, LookupError, TypeError):
                break
        return int(line) + 1

    def error(self, findings: Iterable[Finding]) -> FileError:
        """Make the error that reports findings, ordered by line."""
        return FileError(
            self.file,
            sorted(
                (self.line(path), f'{_where(path)}{text}')
                for path, text in findings
            ),
        )


def _where(path: Path) -> str:
    """Write a path, for example ``hosts.duo.cores[1]: ``."""
    text = ''.join(
        f'[{part}]'
        if isinstance(part, int)
        else f'.{part if str(part).isprintable() else repr(part)}'
        for part in path
    )
    return f'{text.removeprefix(".")}: ' if text else ''


def read(
    path: pathlib.Path,
    schema: Mapping[str, Any],
    check: Callable[[Any], Iterator[Finding]],
) -> Document:
    """Read a file and validate it.

    :param schema: the JSON schema of the document
    :param check: finds contradictions in data that match the schema
    :raises FileError: with all problems that were found
    """
    document = Document(str(path), _load(path))
    findings = list(validation.find(document.data, schema))
    if findings := findings or list(check(document.data)):
        raise document.error(findings)
    return document


def read_text(path: pathlib.Path) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    :returns: the text with its line ends as they are
    :raises UnreadableError: if the file cannot be read
    :raises FileError: if it is not UTF-8
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        # ValueError: a name with a NUL.
        reason = getattr(error, 'strerror', None) or str(error)
        raise UnreadableError(str(path), reason) from error
    try:
        return content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = content.count(b'\n', 0, error.start) + 1
        raise FileError(
            str(path), [(line, 'not UTF-8: save the file as UTF-8 text')]
        ) from error


def installed(name: str) -> str:
    """Read a file that comes with the package.

    :raises UnreadableError: if it isn't installed
    """
    folder = pathlib.Path('nova-numa-hugepages')
    # In the sources, or where pip puts data.
    path = pathlib.Path(__file__).parents[2] / 'etc' / folder / name
    if not path.exists():
        path = (
            pathlib.Path(sysconfig.get_path('data'), 'share') / folder / name
        )
    return read_text(path)


def _load(path: pathlib.Path) -> Any:
    text = read_text(path)
    parser = ruamel.yaml.YAML(pure=True)
    parser.Composer = _Composer
    parser.Constructor = _Constructor
    # As OpenStack reads it: in 1.2 "yes" would be text.
    parser.version = (1, 1)
    line: int | None = None
    try:
        with warnings.catch_warnings():
            # Floats such as 1e3 are accepted without a word.
            warnings.simplefilter('ignore')
            return parser.load(text)
    except yaml_errors.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        parts = [part for part in (error.context, error.problem) if part]
        reason = textwrap.shorten(', '.join(parts), _MESSAGE_CHARACTERS)
        if mark is not None:
            line = mark.line + 1
            reason += f' (column {mark.column + 1})'
        cause: Exception = error
    except reader.ReaderError as error:
        line = text.count('\n', 0, error.position) + 1
        reason = f'character {chr(error.character)!r} is not allowed'
        cause = error
    raise FileError(str(path), [(line, f'not YAML: {reason}')]) from cause
