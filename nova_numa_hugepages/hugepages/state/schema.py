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
ledgers had none; as their columns are the same, that is no version of its
own: `migrate` adds the constraints, and earlier versions of this package can
still use the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import pathlib
import sqlite3

from nova_numa_hugepages import exception

# Tells the ledger from the databases of other programs: "NNHP".
APPLICATION_ID = 0x4E4E4850

Step = Sequence[str]
"""Statements that bring the tables from one version to the next."""


def _text(column: str) -> str:
    return (
        f'{column} TEXT NOT NULL CONSTRAINT {column} '
        f"CHECK (typeof({column}) = 'text' AND {column} <> '')"
    )


def _choice(column: str, *values: str) -> str:
    return (
        f'{column} TEXT NOT NULL CONSTRAINT {column} '
        f'CHECK ({column} IN ({", ".join(map(repr, values))}))'
    )


def _count(column: str, least: int = 0) -> str:
    return (
        f'{column} INTEGER NOT NULL CONSTRAINT {column} '
        f"CHECK (typeof({column}) = 'integer' AND {column} >= {least})"
    )


def _optional_count(column: str) -> str:
    return (
        f'{column} INTEGER CONSTRAINT {column} CHECK ({column} IS NULL '
        f"OR typeof({column}) = 'integer' AND {column} >= 0)"
    )


def _time(column: str) -> str:
    # A larger number is infinite.
    return (
        f'{column} REAL NOT NULL CONSTRAINT {column} '
        f"CHECK (typeof({column}) = 'real' AND {column} >= 0 "
        f'AND {column} < 9e999)'
    )


# The tables of version 1. The quick check doesn't compare a table with its
# index, so none has one.
_TABLES = {
    'holds': (
        _text('holder'),
        _choice('purpose', 'guest', 'incoming', 'resize'),
        _count('cell'),
        _count('node'),
        _count('size_kib', 1),
        _count('pages'),
        _count('grown'),
        _choice('state', 'held', 'taken'),
        _time('since'),
        'PRIMARY KEY (holder, purpose, cell)',
    ),
    'accounts': (
        _count('node'),
        _count('size_kib', 1),
        _count('floor'),
        _count('grown'),
        _optional_count('announced_from'),
        _optional_count('announced_to'),
        'PRIMARY KEY (node, size_kib)',
        'CONSTRAINT announcement '
        'CHECK ((announced_from IS NULL) = (announced_to IS NULL))',
    ),
    'placements': (
        _text('holder'),
        _count('node'),
        _count('size_kib', 1),
        _count('pages'),
        _time('at'),
        'PRIMARY KEY (holder, node, size_kib)',
    ),
    'facts': (_text('name'), _text('value'), 'PRIMARY KEY (name)'),
}
_CREATE = {
    table: f'CREATE TABLE {table} ({", ".join(columns)}) WITHOUT ROWID'
    for table, columns in _TABLES.items()
}

STEPS: Sequence[Step] = (
    (f'PRAGMA application_id = {APPLICATION_ID}', *_CREATE.values()),
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
) -> bool:
    """Bring a ledger to this version of the schema.

    Idempotent; several processes may do it at a time. If a step fails, the
    ledger stays as it was.

    :param read_only: check that it is of this version, and change nothing
    :returns: whether there was nothing in it before
    :raises exception.LedgerTooNew: if a later version wrote it
    :raises exception.LedgerDamaged: if it is no ledger
    :raises exception.LedgerError: if it is not of this version and may not be
        changed
    :raises sqlite3.Error: if it can't be used
    """
    with _transaction(connection, 'BEGIN'):
        version = _version(path, connection, steps)
        constrained = _constrained(connection)
    if version == len(steps) and (constrained or read_only):
        return False
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
        connection.execute(f'PRAGMA user_version = {len(steps)}')
    return version == 0


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


def _constrained(connection: sqlite3.Connection) -> bool:
    """Return whether the tables have constraints, or are not there yet."""
    return not _number(
        connection,
        "SELECT count(*) FROM sqlite_master WHERE name = 'holds' "
        "AND sql NOT LIKE '%CHECK%'",
    )


def _constrain(connection: sqlite3.Connection) -> None:
    """Add the constraints to the tables of version 1."""
    for table, create in _CREATE.items():
        connection.execute(f'ALTER TABLE {table} RENAME TO old_{table}')
        connection.execute(create)
        connection.execute(f'INSERT INTO {table} SELECT * FROM old_{table}')
        connection.execute(f'DROP TABLE old_{table}')
