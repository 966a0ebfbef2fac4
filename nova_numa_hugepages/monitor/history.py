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

"""What a host was like: minutes of a day, hours of sixty days, in SQLite.

A row has all series of one minute or hour, compressed. Rows are dropped by
their number, not by their age, so that a clock that jumps loses none.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import json
import os
import pathlib
import shutil
import sqlite3
import tempfile
import threading
import time
from typing import Any
from typing import NamedTuple
import zlib

from oslo_log import log as logging

from nova_numa_hugepages.monitor.labels import Subject

LOG = logging.getLogger(__name__)

MINUTE_S = 60
HOUR_S = 3600
_ROWS = {MINUTE_S: 24 * 60, HOUR_S: 60 * 24}
"""How many rows of each length are kept."""

MOST_BYTES = 64 * 1024 * 1024
"""How large the file may get."""

# What is written as well while a transaction is under way.
_LOG_BYTES = 4 * 1024 * 1024
_PAGE_BYTES = 4096
_MOST_PAGES = (MOST_BYTES - 2 * _LOG_BYTES) // _PAGE_BYTES

# What a row takes beside its data, at most.
_SPARE_PAGES = 8

# "NNHH". Other programs see by it that the file isn't theirs.
APPLICATION_ID = 0x4E4E4848
VERSION = 1

# Of a database: its beginning, how long that is, and where it has the number
# of the program that it belongs to.
_MAGIC = b'SQLite format 3\0'
_HEAD = 100
_APPLICATION = slice(68, 72)

# How long another one that has it is waited for.
_TIMEOUT_S = 2.0

_LARGEST_ROW = 16 * 1024 * 1024


class Series(NamedTuple):
    """What a number is of; empty where it doesn't matter.

    :ivar name: what it counts, for example ``pool_free_pages``
    :ivar resource: the uuid of an instance, or the name of a kind of them
    :ivar node: the number of a NUMA node
    :ivar page_size: for example ``2MiB``
    """

    name: str
    resource: str = ''
    node: str = ''
    page_size: str = ''

    @property
    def subject(self) -> Subject:
        """What it is about."""
        return Subject(*self[1:])


class Point(NamedTuple):
    """What a number was in a minute or an hour.

    :ivar time: its beginning, in seconds since the epoch
    :ivar low: the least
    :ivar mean: the average of what was seen
    :ivar high: the most
    """

    time: float
    low: float
    mean: float
    high: float


# By series: the least, the sum and the most of what was seen, and how often.
_Sums = dict[Series, tuple[float, float, float, int]]


class History:
    """The history of a host.

    Its methods raise nothing if the file can't be used.

    :param path: its file; in memory only if None
    :param clock: seconds since the epoch
    """

    def __init__(
        self,
        path: pathlib.Path | None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._clock = clock
        self._unusable = ''
        self._unread = ''
        self._unwritten = ''
        self._closed = False
        # The page is made in other threads.
        self._lock = threading.RLock()
        self._database = self._open()
        self._sums: _Sums = {}
        self._minute: int | None = None

    @property
    def problem(self) -> str:
        """Why nothing is kept; empty if it is."""
        return self._unusable or self._unwritten or self._unread

    def close(self) -> None:
        """Write what is there of the last minute, and close the file."""
        with self._lock:
            self._end_minute()
            self._closed = True
            self._database.close()

    def load(self, path: pathlib.Path) -> None:
        """Take over what a file has, which stays as it is.

        Another monitor may be using it.
        """
        with self._lock, tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder) / 'history'
            try:
                for suffix in ('', '-wal'):
                    source = path.with_name(path.name + suffix)
                    if source.exists():
                        shutil.copy(source, f'{copy}{suffix}')
                _check(copy)
                with contextlib.closing(sqlite3.connect(copy)) as found:
                    found.execute('SELECT 1 FROM rows, kept LIMIT 1')
                    found.backup(self._database)
            except _ERRORS as error:
                self._unusable = f'the history {path} cannot be read: {error}'

    def add(self, when: float, values: Mapping[Series, float]) -> None:
        """Add what was seen.

        A series that is missing was not looked at.

        :param when: in seconds since the epoch
        """
        minute = int(when) // MINUTE_S * MINUTE_S
        if minute != self._minute:
            self._end_minute()
            self._minute = minute
        for series, value in values.items():
            low, total, high, count = self._sums.get(
                series, (value, 0.0, value, 0)
            )
            self._sums[series] = (
                min(low, value),
                total + value,
                max(high, value),
                count + 1,
            )

    def minutes(
        self, wanted: Callable[[Series], bool], since: float
    ) -> dict[Series, list[Point]]:
        """Read the minutes of some series, the oldest first.

        :param since: in seconds since the epoch
        """
        return self._read(MINUTE_S, wanted, since)

    def hours(
        self, wanted: Callable[[Series], bool], since: float
    ) -> dict[Series, list[Point]]:
        """Read the hours of some series, the oldest first."""
        return self._read(HOUR_S, wanted, since)

    def kept(self, name: str) -> Any:
        """Get what was kept under a name, None if nothing was."""
        value = None
        with self._guarded('_unread'):
            for (data,) in self._database.execute(
                'SELECT data FROM kept WHERE name = ?', (name,)
            ):
                value = _unpack(data)
        return value

    def keep(self, name: str, value: Any) -> None:
        """Keep something, which JSON can write, under a name."""
        with self._guarded('_unwritten'):
            self._database.execute(
                'INSERT OR REPLACE INTO kept VALUES (?, ?)',
                (name, _pack(value)),
            )

    def _read(
        self, length_s: int, wanted: Callable[[Series], bool], since: float
    ) -> dict[Series, list[Point]]:
        found: dict[Series, list[Point]] = {}
        with self._guarded('_unread'):
            rows = self._database.execute(
                'SELECT time, data FROM rows '
                'WHERE length_s = ? AND time BETWEEN ? AND ? ORDER BY time',
                (length_s, since, self._clock()),
            )
            for when, data in rows:
                for *names, low, mean, high in _unpack(data):
                    series = Series(*names)
                    if wanted(series):
                        found.setdefault(series, []).append(
                            Point(when, low, mean, high)
                        )
        return found

    def _end_minute(self) -> None:
        minute, sums = self._minute, self._sums
        self._minute, self._sums = None, {}
        if minute is None or not sums:
            return
        self._begin_again()
        with self._guarded('_unwritten'):
            self._write(
                MINUTE_S,
                minute,
                {
                    series: Point(minute, low, total / count, high)
                    for series, (low, total, high, count) in sums.items()
                },
            )
            hour = minute // HOUR_S * HOUR_S
            self._write(HOUR_S, hour, self._hour(hour))

    def _hour(self, hour: int) -> dict[Series, Point]:
        """Sum up the minutes of an hour."""
        found: dict[Series, list[Point]] = {}
        for (data,) in self._database.execute(
            'SELECT data FROM rows WHERE length_s = ? AND time BETWEEN ? '
            'AND ?',
            (MINUTE_S, hour, hour + HOUR_S - 1),
        ):
            for *names, low, mean, high in _unpack(data):
                found.setdefault(Series(*names), []).append(
                    Point(hour, low, mean, high)
                )
        return {
            series: Point(
                hour,
                min(point.low for point in points),
                sum(point.mean for point in points) / len(points),
                max(point.high for point in points),
            )
            for series, points in found.items()
        }

    def _write(
        self, length_s: int, when: int, points: Mapping[Series, Point]
    ) -> None:
        data = _pack(
            [
                [*series, *(round(value, 3) for value in point[1:])]
                for series, point in points.items()
            ]
        )
        self._drop(length_s, _ROWS[length_s])
        insert = 'INSERT OR REPLACE INTO rows VALUES (?, ?, ?)'
        row = length_s, when, data
        try:
            self._database.execute(insert, row)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL or (
                self._pages() + len(data) // _PAGE_BYTES + _SPARE_PAGES
                < _MOST_PAGES
            ):
                # It is the disk that is full.
                raise
            # Leaks need hours more than minutes.
            for some_s in _ROWS:
                self._drop(some_s, self._count(some_s) * 3 // 4)
                with contextlib.suppress(sqlite3.OperationalError):
                    self._database.execute(insert, row)
                    return
            self._database.execute(insert, row)

    def _count(self, length_s: int) -> int:
        (count,) = self._database.execute(
            'SELECT count(*) FROM rows WHERE length_s = ?', (length_s,)
        ).fetchone()
        return int(count)

    def _pages(self) -> int:
        (count,) = self._database.execute('PRAGMA page_count').fetchone()
        return int(count)

    def _drop(self, length_s: int, most: int) -> None:
        """Drop the rows that were written first, so that there is room."""
        self._database.execute(
            'DELETE FROM rows WHERE length_s = ?1 AND rowid IN ('
            'SELECT rowid FROM rows WHERE length_s = ?1 '
            'ORDER BY rowid DESC LIMIT -1 OFFSET ?2)',
            (length_s, max(0, most - 1)),
        )

    @contextlib.contextmanager
    def _guarded(self, where: str) -> Iterator[None]:
        """Note why something can't be read or kept.

        :param where: the attribute for that
        """
        with self._lock:
            try:
                yield
            except _ERRORS as error:
                if self._closed:
                    return
                setattr(self, where, f'the history {self._path}: {error}')
                if _is_damage(error) and self._path is not None:
                    self._database.close()
                    self._database = self._set_aside(self._path, str(error))
            else:
                setattr(self, where, '')

    def _begin_again(self) -> None:
        """Create the file again if it was removed while it was open."""
        path = self._path
        if path is None or self._unusable or path.exists():
            return
        with self._lock:
            LOG.warning(
                'The history %s was removed while it was in use. Another one '
                'is begun.',
                path,
            )
            self._database.close()
            self._database = self._open()

    def _open(self) -> sqlite3.Connection:
        if self._path is None:
            return _connect(None)
        try:
            return _connect(self._path)
        except _ERRORS as error:
            if _is_damage(error):
                return self._set_aside(self._path, str(error))
            return self._in_memory(self._path, str(error))

    def _in_memory(self, path: pathlib.Path, why: str) -> sqlite3.Connection:
        self._unusable = (
            f'the history {path} cannot be used: {why}; until the monitor is '
            'restarted, what it sees is kept in memory only'
        )
        return _connect(None)

    def _set_aside(self, path: pathlib.Path, why: str) -> sqlite3.Connection:
        """Rename a file that is damaged, and begin another one."""
        aside = path.with_name(f'{path.name}.damaged-{self._clock():.0f}')
        earlier = {*path.parent.glob(f'{path.name}.damaged-*')} - {aside}
        try:
            path.rename(aside)
            # Only the last one is of use, and each may be large.
            for other in earlier:
                other.unlink()
            for suffix in ('-wal', '-shm'):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            database = _connect(path)
        except _ERRORS as error:
            return self._in_memory(
                path, f'it is damaged ({why}), and not replaced: {error}'
            )
        LOG.warning(
            'The history %(path)s is damaged (%(why)s). It was renamed to '
            '%(aside)s, and another one was begun.',
            {'path': path, 'why': why, 'aside': aside},
        )
        return database


class _Refused(Exception):
    """A file that isn't ours to change."""


class _Damaged(Exception):
    """A file of ours that SQLite can't make sense of."""


_ERRORS = (
    sqlite3.Error,
    OSError,
    ValueError,
    TypeError,
    zlib.error,
    _Refused,
    _Damaged,
)


def _connect(path: pathlib.Path | None) -> sqlite3.Connection:
    if path is not None:
        _check(path)
    database = sqlite3.connect(
        ':memory:' if path is None else path,
        isolation_level=None,
        check_same_thread=False,
        timeout=_TIMEOUT_S,
    )
    try:
        _prepare(database)
    except BaseException:
        database.close()
        raise
    return database


def _check(path: pathlib.Path) -> None:
    """Check that a file is a history, or that there is none yet.

    The format: "The Database Header" in https://www.sqlite.org/fileformat.html
    """
    if not path.parent.is_dir():
        raise _Refused(f'{path.parent} is no folder')
    if not path.exists():
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise _Refused(f'this user may not write to {path.parent}')
        return
    if not path.is_file():
        raise _Refused('it is no file')
    if not os.access(path, os.R_OK | os.W_OK):
        raise _Refused('this user may not read and write it')
    with path.open('rb') as file:
        head = file.read(_HEAD)
    if head and (
        not head.startswith(_MAGIC)
        or int.from_bytes(head[_APPLICATION]) != APPLICATION_ID
    ):
        raise _Refused('it is no history; name another file with --history')


def _prepare(database: sqlite3.Connection) -> None:
    """Check a database, and make its tables if it has none."""
    # Two monitors would overwrite each other's minutes.
    database.execute('PRAGMA locking_mode = EXCLUSIVE')
    (version,) = database.execute('PRAGMA user_version').fetchone()
    if version > VERSION:
        raise _Refused('a newer version of this program wrote it')
    # Set before there is a log, so that the file itself has it.
    database.execute(f'PRAGMA page_size = {_PAGE_BYTES}')
    database.execute(f'PRAGMA application_id = {APPLICATION_ID}')
    database.execute('PRAGMA journal_mode = WAL')
    # A power failure may lose minutes, and damages nothing.
    database.execute('PRAGMA synchronous = NORMAL')
    database.execute(f'PRAGMA journal_size_limit = {_LOG_BYTES}')
    database.execute(f'PRAGMA max_page_count = {_MOST_PAGES}')
    for row in database.execute('PRAGMA quick_check(1)'):
        if row[0] != 'ok':
            raise _Damaged(row[0])
    with database:
        database.execute('BEGIN IMMEDIATE')
        database.execute(
            'CREATE TABLE IF NOT EXISTS rows ('
            'length_s INTEGER NOT NULL, time INTEGER NOT NULL, '
            'data BLOB NOT NULL, '
            'UNIQUE (length_s, time))'
        )
        database.execute(
            'CREATE TABLE IF NOT EXISTS kept ('
            'name TEXT NOT NULL PRIMARY KEY, data BLOB NOT NULL)'
        )
        database.execute(f'PRAGMA user_version = {VERSION}')


def _is_damage(error: Exception) -> bool:
    """Check whether it is the file that is at fault, not its surroundings."""
    if not isinstance(error, sqlite3.Error):
        return not isinstance(error, OSError | _Refused)
    # What is a fault of ours has no code.
    code = getattr(error, 'sqlite_errorcode', sqlite3.SQLITE_MISUSE) & 0xFF
    return code in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        # Our statements are sound, so the tables aren't.
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_MISMATCH,
    )


def _pack(value: Any) -> bytes:
    return zlib.compress(
        json.dumps(value, separators=(',', ':')).encode('utf-8')
    )


def _unpack(data: Any) -> Any:
    if not isinstance(data, bytes):
        raise ValueError('a row is no bytes')
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(data, _LARGEST_ROW)
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError('a row does not end')
    return json.loads(text)
