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

"""The tables of the ledger, how they came to be, and what a row may hold.

The schema has a number, kept in the file: that of the last step that brought
it there. A change of the tables is a step at the end of :data:`STEPS`; those
before it stay as they are, since there are files that have gone through them.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import math
import pathlib
import sqlite3
from typing import Generic
from typing import NamedTuple
from typing import TypeVar

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model

# Tells the ledger from the databases of other programs: "NNHP".
APPLICATION_ID = 0x4E4E4850

# The largest number that a column can have.
LARGEST = 2**63 - 1

T = TypeVar('T')

Row = tuple[object, ...]

Step = Sequence[str]
"""Statements that bring the tables from one version to the next."""

# The quick check doesn't compare a table with its index, so none has one.
STEPS: Sequence[Step] = (
    (
        f'PRAGMA application_id = {APPLICATION_ID}',
        'CREATE TABLE holds ('
        'holder TEXT NOT NULL, '
        'purpose TEXT NOT NULL, '
        'cell INTEGER NOT NULL, '
        'node INTEGER NOT NULL, '
        'size_kib INTEGER NOT NULL, '
        'pages INTEGER NOT NULL, '
        'grown INTEGER NOT NULL, '
        'state TEXT NOT NULL, '
        'since REAL NOT NULL, '
        'PRIMARY KEY (holder, purpose, cell)) WITHOUT ROWID',
        'CREATE TABLE accounts ('
        'node INTEGER NOT NULL, '
        'size_kib INTEGER NOT NULL, '
        'floor INTEGER NOT NULL, '
        'grown INTEGER NOT NULL, '
        'announced_from INTEGER, '
        'announced_to INTEGER, '
        'PRIMARY KEY (node, size_kib)) WITHOUT ROWID',
        'CREATE TABLE placements ('
        'holder TEXT NOT NULL, '
        'node INTEGER NOT NULL, '
        'size_kib INTEGER NOT NULL, '
        'pages INTEGER NOT NULL, '
        'at REAL NOT NULL, '
        'PRIMARY KEY (holder, node, size_kib)) WITHOUT ROWID',
        'CREATE TABLE facts ('
        'name TEXT NOT NULL PRIMARY KEY, '
        'value TEXT NOT NULL) WITHOUT ROWID',
    ),
)


class MemoryPlacement(NamedTuple):
    """Pages of a pool where a guest's memory was found: a row of the ledger.

    :ivar at: when, in seconds since the epoch
    """

    holder: str
    node: int
    size_kib: int
    pages: int
    at: float


class Fact(NamedTuple):
    """Something about the host: a row of the ledger."""

    name: str
    value: str


@dataclasses.dataclass(frozen=True, slots=True)
class Table(Generic[T]):
    """How a table is read and written.

    :ivar columns: their names, those of its key first, in their order; the
        values have attributes of these names
    :ivar keys: how many of them are its key
    :ivar make: makes a value of a row; raises ValueError if it can't be
    """

    name: str
    columns: tuple[str, ...]
    keys: int
    make: Callable[[Row], T]

    def select(self, of: Collection[str]) -> str:
        """Phrase the reading of rows, in the order of their key.

        :param of: the columns whose values choose the rows
        """
        order = ', '.join(self.columns[: self.keys])
        return (
            f'SELECT {", ".join(self.columns)} FROM {self.name}'
            f'{_where(of)} ORDER BY {order}'
        )

    def insert(self) -> str:
        """Phrase the writing of a row, in place of the one of its key."""
        values = ', '.join('?' for _ in self.columns)
        return (
            f'INSERT OR REPLACE INTO {self.name} '
            f'({", ".join(self.columns)}) VALUES ({values})'
        )

    def delete(self, of: Collection[str]) -> str:
        """Phrase the deletion of rows, chosen as by `select`."""
        return f'DELETE FROM {self.name}{_where(of)}'

    def row(self, value: T) -> Row:
        """Make a row of a value.

        :raises ValueError: if it couldn't be read again
        """
        row = tuple(getattr(value, column) for column in self.columns)
        self.make(row)
        return row

    def told(self, row: Row) -> str:
        """Name what a row holds, for messages."""
        return ', '.join(
            f'{column} {value!r}'
            for column, value in zip(self.columns, row, strict=True)
        )


def _where(of: Collection[str]) -> str:
    if not of:
        return ''
    return ' WHERE ' + ' AND '.join(f'{column} = ?' for column in of)


def inspect(
    path: pathlib.Path,
    connection: sqlite3.Connection,
    *,
    steps: Sequence[Step] = STEPS,
) -> None:
    """See that a database is a sound ledger, or empty. Changes nothing.

    :param path: its file, for messages
    :param steps: the steps to all versions there are
    :raises exception.LedgerTooNew: if a later version wrote it
    :raises exception.LedgerDamaged: if it is no ledger, or damaged
    :raises sqlite3.Error: if it can't be read
    """
    try:
        with _transaction(connection, 'BEGIN'):
            _version(path, connection, steps)
            faults = connection.execute('PRAGMA quick_check(1)').fetchall()
    except UnicodeDecodeError as error:
        # SQLite's message has the name of a table in it, which is no text.
        faults = [(f'a name is no text: {error}',)]
    for (fault,) in faults:
        if fault != 'ok':
            told = f'is damaged: {" ".join(fault.split())}'
            raise exception.LedgerDamaged(path, told, remedy(path))


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

    :param read_only: see that it is of this version, and change nothing
    :returns: whether there was nothing in it before
    :raises exception.LedgerTooNew: if a later version wrote it
    :raises exception.LedgerDamaged: if it is no ledger
    :raises exception.LedgerError: if it is not of this version and may not be
        changed
    :raises sqlite3.Error: if it can't be used
    """
    with _transaction(connection, 'BEGIN'):
        version = _version(path, connection, steps)
    if version == len(steps):
        return False
    if read_only:
        if not version:
            raise missing(path)
        raise exception.LedgerError(
            path,
            f'has version {version} of its schema, which is brought to '
            f'version {len(steps)} when the service starts',
            'Start the service.',
        )
    with _transaction(connection, 'BEGIN IMMEDIATE'):
        # Another process may have been faster.
        version = _version(path, connection, steps)
        for step in steps[version:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f'PRAGMA user_version = {len(steps)}')
    return version == 0


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

    def number(query: str) -> int:
        (value,) = connection.execute(query).fetchone()
        return int(value)

    version = number('PRAGMA user_version')
    if version == 0 and number('SELECT count(*) FROM sqlite_master') == 0:
        return 0
    if version < 1 or number('PRAGMA application_id') != APPLICATION_ID:
        raise exception.LedgerDamaged(
            path, 'is a database, but not of huge pages', remedy(path)
        )
    if version > len(steps):
        raise exception.LedgerTooNew(
            path,
            f'has version {version} of its schema, and this '
            f'nova-numa-hugepages knows versions up to {len(steps)}',
            'Install the nova-numa-hugepages that wrote it, or a later one. '
            'If there is none: ' + remedy(path),
        )
    return version


def missing(path: pathlib.Path) -> exception.LedgerMissing:
    """Make the error for a ledger that is not there, or has nothing in it."""
    return exception.LedgerMissing(
        path, 'is not there, or is empty', 'The service makes it at its start.'
    )


def remedy(path: pathlib.Path) -> str:
    """Tell what to do about a ledger that can't be kept."""
    return (
        f'Stop the service, move {path} aside, and with it {path.name}-wal '
        f'and {path.name}-shm if they are there, and start the service: the '
        'ledger is made anew from the running domains, and the page pools '
        'are left as they are.'
    )


def hold_of(row: Row) -> model.Hold:
    """Make a hold of the columns of its row, in their order.

    :raises ValueError: if one of them can't be
    """
    holder, purpose, cell, node, size_kib, count, grown, state, since = row
    return model.Hold(
        _name('holder', holder),
        model.Purpose(_name('purpose', purpose)),
        _number('cell', cell),
        _number('node', node),
        _number('size_kib', size_kib, 1),
        _number('pages', count),
        _number('grown', grown),
        model.State(_name('state', state)),
        _time('since', since),
    )


def account_of(row: Row) -> model.Account:
    """Make an account of the columns of its row, as `hold_of` does."""
    node, size_kib, floor, grown, before, wanted = row
    if (before is None) != (wanted is None):
        raise ValueError('half of an announcement')
    return model.Account(
        _number('node', node),
        _number('size_kib', size_kib, 1),
        _number('floor', floor),
        _number('grown', grown),
        None if before is None else _number('announced_from', before),
        None if wanted is None else _number('announced_to', wanted),
    )


def placement_of(row: Row) -> MemoryPlacement:
    """Make a placement of the columns of its row, as `hold_of` does."""
    holder, node, size_kib, count, at = row
    return MemoryPlacement(
        _name('holder', holder),
        _number('node', node),
        _number('size_kib', size_kib, 1),
        _number('pages', count),
        _time('at', at),
    )


def fact_of(row: Row) -> Fact:
    """Make a fact of the columns of its row, as `hold_of` does."""
    name, value = row
    return Fact(_name('name', name), _name('value', value))


def _name(column: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f'{column} is {value!r}')
    return value


def _number(column: str, value: object, least: int = 0) -> int:
    # A bool is an int, too.
    if type(value) is not int or not least <= value <= LARGEST:
        raise ValueError(f'{column} is {value!r}')
    return value


def _time(column: str, value: object) -> float:
    if not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f'{column} is {value!r}')
    return float(value)


HOLDS = Table(
    'holds',
    (
        'holder',
        'purpose',
        'cell',
        'node',
        'size_kib',
        'pages',
        'grown',
        'state',
        'since',
    ),
    3,
    hold_of,
)
ACCOUNTS = Table(
    'accounts',
    ('node', 'size_kib', 'floor', 'grown', 'announced_from', 'announced_to'),
    2,
    account_of,
)
PLACEMENTS = Table(
    'placements',
    ('holder', 'node', 'size_kib', 'pages', 'at'),
    3,
    placement_of,
)
FACTS = Table('facts', ('name', 'value'), 1, fact_of)
