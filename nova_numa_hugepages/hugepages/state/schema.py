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

"""The tables of the ledger, their versions and their checks.

The schema has a number, kept in the file: that of the last step that brought
it there. A change of the tables is a step at the end of :data:`STEPS`; those
before it stay as they are, since there are files that have gone through them.

What a row may hold is said by the constraints of the tables alone. The first
ledgers had none, and later ones fewer; as their columns are the same, that is
no version of its own: `migrate` adds the constraints, and earlier versions of
this package can still use the ledger. Nor are tables that earlier versions
don't miss, which `migrate` adds as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import pathlib
import sqlite3

from nova_numa_hugepages import exception

# Marks a database as the ledger of this package: "NNHP".
APPLICATION_ID = 0x4E4E4850

Step = Sequence[str]
"""Statements that bring the tables from one version to the next."""


# Columns, by what they hold. No host has 2 to the power of 40 pages, or such
# large ones. Larger times are infinite.
_TEXT = """{0} TEXT NOT NULL CONSTRAINT {0}
    CHECK (typeof({0}) = 'text' AND {0} <> '')"""
_PURPOSE = """{0} TEXT NOT NULL CONSTRAINT {0}
    CHECK ({0} IN ('guest', 'incoming', 'resize'))"""
_STATE = """{0} TEXT NOT NULL CONSTRAINT {0}
    CHECK ({0} IN ('held', 'taken'))"""
_COUNT = """{0} INTEGER NOT NULL CONSTRAINT {0}
    CHECK (typeof({0}) = 'integer' AND {0} >= 0 AND {0} < 1099511627776)"""
_SIZE = """{0} INTEGER NOT NULL CONSTRAINT {0}
    CHECK (typeof({0}) = 'integer' AND {0} > 0 AND {0} < 1099511627776)"""
_MAYBE = """{0} INTEGER CONSTRAINT {0}
    CHECK ({0} IS NULL OR
        typeof({0}) = 'integer' AND {0} >= 0 AND {0} < 1099511627776)"""
_TIME = """{0} REAL NOT NULL CONSTRAINT {0}
    CHECK (typeof({0}) = 'real' AND {0} >= 0 AND {0} < 9e999)"""


def _table(table: str, key: str, /, *constraints: str, **columns: str) -> str:
    parts = [text.format(column) for column, text in columns.items()]
    parts += [f'PRIMARY KEY ({key})', *constraints]
    return f'CREATE TABLE {table} ({", ".join(parts)}) WITHOUT ROWID'


# The tables of version 1. The quick check doesn't compare a table with its
# index, so none has one.
_TABLES = {
    'holds': _table(
        'holds',
        'holder, purpose, cell',
        holder=_TEXT,
        purpose=_PURPOSE,
        cell=_COUNT,
        node=_COUNT,
        size_kib=_SIZE,
        pages=_COUNT,
        grown=_COUNT,
        state=_STATE,
        since=_TIME,
    ),
    'accounts': _table(
        'accounts',
        'node, size_kib',
        'CONSTRAINT announcement '
        'CHECK ((announced_from IS NULL) = (announced_to IS NULL))',
        node=_COUNT,
        size_kib=_SIZE,
        floor=_COUNT,
        grown=_COUNT,
        announced_from=_MAYBE,
        announced_to=_MAYBE,
    ),
    'placements': _table(
        'placements',
        'holder, node, size_kib',
        holder=_TEXT,
        node=_COUNT,
        size_kib=_SIZE,
        pages=_COUNT,
        at=_TIME,
    ),
    'facts': _table('facts', 'name', name=_TEXT, value=_TEXT),
}

# Tables that the first ledgers don't have. What is in them of holds that an
# earlier version has changed since doesn't count.
ELASTIC = 'elastic'
_ADDED_TABLES = {
    ELASTIC: _table(
        ELASTIC,
        'holder, purpose, cell',
        'CONSTRAINT ceiling CHECK (base < ceiling)',
        holder=_TEXT,
        purpose=_PURPOSE,
        cell=_COUNT,
        base=_SIZE,
        ceiling=_SIZE,
    ),
    'cell_sizes': _table(
        'cell_sizes',
        'holder, cell',
        holder=_TEXT,
        cell=_COUNT,
        wanted_kib=_MAYBE,
        changed=_TIME,
        why=_TEXT,
    ),
    'waits': _table(
        'waits',
        'holder, cell',
        holder=_TEXT,
        cell=_COUNT,
        kib=_SIZE,
        since=_TIME,
    ),
    'starts': _table(
        'starts',
        'node, size_kib, week, hour, need',
        node=_COUNT,
        size_kib=_SIZE,
        week=_COUNT,
        hour=_COUNT,
        need=_COUNT,
        count=_SIZE,
    ),
}

STEPS: Sequence[Step] = (
    (f'PRAGMA application_id = {APPLICATION_ID}', *_TABLES.values()),
)


def inspect(path: pathlib.Path, connection: sqlite3.Connection) -> None:
    """Check that a database is a sound ledger, or empty. Changes nothing.

    :param path: its file, for messages
    :raises exception.LedgerTooNew: if a later version wrote it
    :raises exception.LedgerDamaged: if it is no ledger, or damaged
    :raises sqlite3.Error: if it can't be read
    """
    try:
        with _transaction(connection, 'BEGIN'):
            version = _version(path, connection, STEPS)
            # SQLite's check would not name the row, and finds none in a
            # ledger without constraints.
            _check_rows(path, connection, version)
            faults = connection.execute('PRAGMA quick_check(1)').fetchall()
    except UnicodeDecodeError as error:
        # SQLite's message has the name of a table in it, which is no text.
        faults = [(f'a name is no text: {error}',)]
    for (fault,) in faults:
        if fault != 'ok':
            raise exception.LedgerDamaged(
                path, f'is damaged: {" ".join(fault.split())}'
            )


def migrate(
    path: pathlib.Path,
    connection: sqlite3.Connection,
    *,
    read_only: bool = False,
    steps: Sequence[Step] = STEPS,
) -> None:
    """Bring a ledger to this version of the schema.

    Idempotent; several processes may do it at a time. If a step fails, the
    ledger stays as it was.

    :param read_only: check that it is of this version, and change nothing
    :raises exception.LedgerTooNew: if a later version wrote it
    :raises exception.LedgerDamaged: if it is no ledger
    :raises exception.LedgerError: if it is not of this version and may not be
        changed
    :raises sqlite3.Error: if it can't be used
    """
    with _transaction(connection, 'BEGIN'):
        version = _version(path, connection, steps)
        complete = _constrained(connection) and not missing(connection)
    if version == len(steps) and (complete or read_only):
        return
    if read_only:
        if not version:
            raise exception.LedgerMissing(path)
        raise exception.LedgerError(
            path,
            f'has version {version} of its schema, which is brought to '
            f'version {len(steps)} when nova-compute starts',
            'Start nova-compute.',
        )
    with _transaction(connection, 'BEGIN IMMEDIATE'):
        # Another process may have been faster.
        version = _version(path, connection, steps)
        if not _constrained(connection):
            _constrain(connection)
        for step in steps[version:]:
            for statement in step:
                connection.execute(statement)
        for table in missing(connection):
            connection.execute(_ADDED_TABLES[table])
        connection.execute(f'PRAGMA user_version = {len(steps)}')


def marks(row: Sequence[object]) -> str:
    """Return the placeholders for the values of a row."""
    return ', '.join('?' * len(row))


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute('COMMIT')
    except BaseException:
        if connection.in_transaction:
            connection.execute('ROLLBACK')
        raise


def _version(
    path: pathlib.Path,
    connection: sqlite3.Connection,
    steps: Sequence[Step],
) -> int:
    """Read the version of the schema; 0 if there is nothing yet.

    Needs a transaction, as others may make the ledger meanwhile.
    """
    version = _number(connection, 'PRAGMA user_version')
    if not version and not _number(
        connection, 'SELECT count(*) FROM sqlite_master'
    ):
        return 0
    if (
        version < 1
        or _number(connection, 'PRAGMA application_id') != APPLICATION_ID
    ):
        raise exception.LedgerDamaged(
            path, 'is a database, but not of huge pages'
        )
    if version > len(steps):
        raise exception.LedgerTooNew(path, version, len(steps))
    return version


def _number(connection: sqlite3.Connection, query: str) -> int:
    (value,) = connection.execute(query).fetchone()
    return int(value)


def _check_rows(
    path: pathlib.Path, connection: sqlite3.Connection, version: int
) -> None:
    """Check each row by writing it to an empty ledger in memory.

    :param version: that of the schema
    :raises exception.LedgerDamaged: if a row breaks a constraint
    """
    with contextlib.closing(sqlite3.connect(':memory:')) as memory:
        for statement in (one for step in STEPS[:version] for one in step):
            memory.execute(statement)
        for table in _ADDED_TABLES.keys() - missing(connection):
            memory.execute(_ADDED_TABLES[table])
        tables = memory.execute('SELECT name FROM sqlite_master').fetchall()
        for (table,) in tables:
            rows = connection.execute(f'SELECT * FROM {table}')
            columns = [column[0] for column in rows.description]
            for row in rows:
                try:
                    memory.execute(
                        f'INSERT INTO {table} VALUES ({marks(row)})', row
                    )
                except sqlite3.IntegrityError as error:
                    values = ', '.join(
                        f'{column} {value!r}'
                        for column, value in zip(columns, row, strict=True)
                    )
                    raise exception.LedgerDamaged(
                        path,
                        f'has an invalid row in {table}: {values} ({error})',
                    ) from error


def missing(connection: sqlite3.Connection) -> list[str]:
    """List the tables that a ledger of an earlier version doesn't have."""
    rows = connection.execute('SELECT name FROM sqlite_master').fetchall()
    return [table for table in _ADDED_TABLES if (table,) not in rows]


def _constrained(connection: sqlite3.Connection) -> bool:
    """Return whether the tables have these constraints, or aren't there."""
    found = connection.execute(
        "SELECT sql FROM sqlite_master WHERE name = 'holds'"
    ).fetchone()
    return found in (None, (_TABLES['holds'],))


def _constrain(connection: sqlite3.Connection) -> None:
    """Give the tables of version 1 the constraints that they have now."""
    for table, create in _TABLES.items():
        connection.execute(f'ALTER TABLE {table} RENAME TO old_{table}')
        connection.execute(create)
        connection.execute(f'INSERT INTO {table} SELECT * FROM old_{table}')
        connection.execute(f'DROP TABLE old_{table}')
