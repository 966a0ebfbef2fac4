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

"""Traces: the guests that came and went on some day, in a CSV file.

A header names the columns ``time``, ``flavor`` and ``lifetime``, in any order
and among others; then there is a row for each guest::

    time,flavor,lifetime
    2026-03-02T08:00:00Z,small,86400
    2026-03-02T08:01:30Z,large,

``time`` is in seconds, or a time as in ISO 8601 (in UTC unless it says
otherwise), in all rows alike. ``lifetime`` is in seconds; a guest without one
stays.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator
import csv
import datetime
import io
import math
import operator
import pathlib
import reprlib

from nova_numa_hugepages.simulate import scenario
from nova_numa_hugepages.yamlfile import document

COLUMNS = ('time', 'flavor', 'lifetime')

# A file of another kind may be wrong in every line.
MAX_PROBLEMS = 20

_ISO = 'a time as in ISO 8601'
_SECONDS = 'seconds'


def read(
    path: pathlib.Path, flavors: Collection[str]
) -> tuple[scenario.TraceEntry, ...]:
    """Read a trace.

    :param flavors: the names of the flavors that guests may have
    :returns: the guests in order of time; those of the same time in the order
        of the file. Times begin with 0.
    :raises: `document.UnreadableError` if the file can't be read;
        `document.FileError` with what is wrong in it, of many problems the
        first ones
    """
    problems: list[document.Problem] = []
    entries = list(_entries(document.read_text(path), flavors, problems))
    if problems:
        raise document.FileError(str(path), problems)
    entries.sort(key=operator.attrgetter('at'))
    begin = entries[0].at
    return tuple(
        scenario.TraceEntry(entry.at - begin, entry.flavor, entry.lifetime)
        for entry in entries
    )


class _MistakeError(Exception):
    """A mistake in a row; the text says what was found and expected."""


def _entries(
    text: str, flavors: Collection[str], problems: list[document.Problem]
) -> Iterator[scenario.TraceEntry]:
    """Read all rows, those with problems left out."""
    rows = _rows(text, problems)
    line, header = next(rows, (1, []))
    names = [name.strip() for name in header]
    if not names and not problems:
        problems.append((1, f'found nothing, expected {",".join(COLUMNS)}'))
    for column in COLUMNS:
        if names and names.count(column) != 1:
            text = (
                f'found the columns {reprlib.repr(",".join(names))}, '
                f'expected {column!r} once among them'
            )
            problems.append((line, text))
    if problems:
        return
    # How the first time is written, and in which line.
    first: tuple[str, int] | None = None
    count = 0
    for count, (line, row) in enumerate(rows, 1):
        if count > scenario.MAX_ARRIVALS:
            text = (
                'found more instances, expected '
                f'{scenario.MAX_ARRIVALS} or fewer'
            )
            problems.append((line, text))
            return
        try:
            if len(row) != len(names):
                raise _MistakeError(
                    f'found {len(row)} values, expected {len(names)} as in '
                    'the header'
                )
            values = dict(zip(names, map(str.strip, row), strict=True))
            kind, at = _time(values['time'])
            first = first or (kind, line)
            if kind != first[0]:
                raise _MistakeError(
                    f'time: found {reprlib.repr(values["time"])}, expected '
                    f'{first[0]} as in line {first[1]}'
                )
            yield scenario.TraceEntry(
                at,
                _flavor(values['flavor'], flavors),
                _lifetime(values['lifetime']),
            )
        except _MistakeError as mistake:
            if len(problems) == MAX_PROBLEMS:
                problems.append((None, 'there are more problems'))
                return
            problems.append((line, str(mistake)))
    if not count and not problems:
        problems.append((line, 'found no row below the header, expected some'))


def _rows(
    text: str, problems: list[document.Problem]
) -> Iterator[tuple[int, list[str]]]:
    """Split the text into rows, each with its line, without empty ones."""
    reader = csv.reader(io.StringIO(text, newline=''), strict=True)
    # A row may have several lines.
    line = 1
    try:
        for row in reader:
            if row:
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        problems.append((line, f'not CSV: {error}'))


def _time(text: str) -> tuple[str, float]:
    """Read a time, and how it is written."""
    at = _number('time', text)
    if at is not None:
        return _SECONDS, at
    at = _moment(text)
    if at is None:
        raise _MistakeError(
            f'time: found {reprlib.repr(text)}, expected {_SECONDS} or {_ISO}'
        )
    return _ISO, at


def _flavor(text: str, flavors: Collection[str]) -> str:
    if text not in flavors:
        raise _MistakeError(
            f'flavor: found {reprlib.repr(text)}, expected one of '
            f'{", ".join(flavors)}'
        )
    return text


def _lifetime(text: str) -> float | None:
    seconds = _number('lifetime', text) if text else None
    if text and seconds is None:
        raise _MistakeError(
            f'lifetime: found {reprlib.repr(text)}, expected {_SECONDS}, or '
            'nothing if the instance stays'
        )
    return seconds


def _number(column: str, text: str) -> float | None:
    """Read a number, None if it is none.

    :raises: `_MistakeError` if it is negative or not finite
    """
    try:
        number = float(text)
    except ValueError:
        return None
    if not 0 <= number < math.inf:
        raise _MistakeError(
            f'{column}: found {reprlib.repr(text)}, expected a finite number '
            'of 0 or more'
        )
    return number


def _moment(text: str) -> float | None:
    """Read a time as in ISO 8601, in seconds since 1970."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return moment.timestamp()
