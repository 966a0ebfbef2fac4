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
    reader = _Reader(document.read_text(path), flavors)
    entries = sorted(reader.entries(), key=operator.attrgetter('at'))
    if reader.problems:
        raise document.FileError(str(path), reader.problems)
    begin = entries[0].at
    return tuple(
        scenario.TraceEntry(entry.at - begin, entry.flavor, entry.lifetime)
        for entry in entries
    )


class _MistakeError(Exception):
    """A mistake in a row; the text says what was found and expected."""


class _Reader:
    """One pass over a trace.

    :ivar problems: what was found to be wrong
    """

    def __init__(self, text: str, flavors: Collection[str]) -> None:
        self._text = text
        self._flavors = flavors
        self._line = 1
        # The kind of the first time, and its line.
        self._kind: tuple[str, int] | None = None
        self.problems: list[document.Problem] = []

    def entries(self) -> Iterator[scenario.TraceEntry]:
        """Read all rows, those with problems left out."""
        rows = self._rows()
        header = next(rows, None)
        if header is None:
            if not self.problems:
                self._add(f'found nothing, expected {",".join(COLUMNS)}')
            return
        names = [name.strip() for name in header]
        for column in COLUMNS:
            if names.count(column) != 1:
                self._add(
                    f'found the columns {reprlib.repr(",".join(names))}, '
                    f'expected {column!r} once among them'
                )
        if self.problems:
            return
        places = [names.index(column) for column in COLUMNS]
        count = 0
        for row in rows:
            count += 1
            if count > scenario.MAX_ARRIVALS:
                self._add(
                    'found more instances, expected '
                    f'{scenario.MAX_ARRIVALS} or fewer'
                )
                return
            try:
                if len(row) != len(names):
                    raise _MistakeError(
                        f'found {len(row)} values, expected {len(names)} as '
                        'in the header'
                    )
                yield self._entry(*(row[place].strip() for place in places))
            except _MistakeError as mistake:
                if len(self.problems) == MAX_PROBLEMS:
                    self.problems.append((None, 'there are more problems'))
                    return
                self._add(str(mistake))
        if not count and not self.problems:
            self._add('found no row below the header, expected some')

    def _rows(self) -> Iterator[list[str]]:
        """Split the text, without empty lines."""
        reader = csv.reader(io.StringIO(self._text, newline=''), strict=True)
        while True:
            # A row may have several lines.
            begin = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                self._line = begin
                self._add(f'not CSV: {error}')
                return
            if row:
                self._line = begin
                yield row

    def _entry(
        self, time: str, flavor: str, lifetime: str
    ) -> scenario.TraceEntry:
        at = self._time(time)
        if flavor not in self._flavors:
            raise _MistakeError(
                f'flavor: found {reprlib.repr(flavor)}, expected one of '
                f'{", ".join(self._flavors)}'
            )
        if not lifetime:
            return scenario.TraceEntry(at, flavor, None)
        seconds = _number('lifetime', lifetime)
        if seconds is None:
            raise _MistakeError(
                f'lifetime: found {reprlib.repr(lifetime)}, expected '
                f'{_SECONDS}, or nothing if the instance stays'
            )
        return scenario.TraceEntry(at, flavor, seconds)

    def _time(self, text: str) -> float:
        kind, at = _SECONDS, _number('time', text)
        if at is None:
            kind, at = _ISO, _moment(text)
        if at is None:
            raise _MistakeError(
                f'time: found {reprlib.repr(text)}, expected {_SECONDS} or '
                f'{_ISO}'
            )
        first, line = self._kind = self._kind or (kind, self._line)
        if kind != first:
            raise _MistakeError(
                f'time: found {reprlib.repr(text)}, expected {first} as in '
                f'line {line}'
            )
        return at

    def _add(self, text: str) -> None:
        self.problems.append((self._line, text))


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
