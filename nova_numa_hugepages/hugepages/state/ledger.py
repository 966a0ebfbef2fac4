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

"""Who holds which pages, and what we did to the pools: a file that survives.

SQLite keeps it, with a log that is synced at each commit, so that what was
committed is there after a crash of the service or of the host.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import pathlib
import sqlite3
import threading
from typing import TypeVar

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.state import schema
from nova_numa_hugepages.hugepages.state import sqlite

T = TypeVar('T')

_BOOT_ID = 'boot_id'

# What begins a transaction, what keeps it, and what undoes it.
_OUTERMOST = ('BEGIN IMMEDIATE', 'COMMIT', ('ROLLBACK',))
# What a savepoint undoes it also keeps, until it is released.
_NESTED = (
    'SAVEPOINT inner',
    'RELEASE inner',
    ('ROLLBACK TO inner', 'RELEASE inner'),
)

# In the folder where the service keeps its state.
FILE_NAME = 'nova-numa-hugepages-ledger.sqlite'


class Ledger:
    """The ledger of one host.

    Safe to use from several threads, and from several processes. Every
    operation is one transaction, may be repeated, and needs no other lock;
    what is read and what is then written on the strength of it belong into
    one :meth:`transaction`.

    Every method raises :class:`~nova_numa_hugepages.exception.LedgerError`
    if the file can't be used, and
    :class:`~nova_numa_hugepages.exception.LedgerDamaged`, which is one, if
    something in it can't be. Nothing of the change is kept then.

    :ivar created: whether there was nothing in the file before it was opened
    """

    def __init__(
        self, path: pathlib.Path, connection: sqlite3.Connection, created: bool
    ) -> None:
        self.path = path
        self.created = created
        self._connection = connection
        # Reentrant, and held for as long as a transaction lasts.
        self._lock = threading.RLock()
        self._depth = 0
        self._closed = False

    @classmethod
    def open(
        cls,
        path: pathlib.Path,
        *,
        create: bool = True,
        read_only: bool = False,
    ) -> Ledger:
        """Open a ledger, read through it, and bring it to this version.

        :param create: whether to make the file if there is none; its folder
            has to be there
        :param read_only: change no file and make none. If nobody else has it
            open, what others write later isn't seen.
        :raises exception.LedgerMissing: if there is none and none is made
        :raises exception.LedgerTooNew: if a later version wrote it
        :raises exception.LedgerDamaged: if it is no ledger, or damaged
        :raises exception.LedgerError: if it can't be used for another reason
        """
        if read_only:
            connection = sqlite.connect_read_only(path)
        else:
            connection = sqlite.connect(path, create=create)
        try:
            with sqlite.translated(path):
                schema.inspect(path, connection)
                if not read_only:
                    sqlite.secure(path, connection)
                created = schema.migrate(path, connection, read_only=read_only)
            ledger = cls(path, connection, created)
            ledger._read(schema.HOLDS)
            ledger._read(schema.ACCOUNTS)
            ledger._read(schema.PLACEMENTS)
            ledger._read(schema.FACTS)
        except BaseException:
            connection.close()
            raise
        return ledger

    @classmethod
    def in_memory(cls) -> Ledger:
        """Make an empty ledger that no file keeps."""
        path = pathlib.Path(':memory:')
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False
        )
        schema.migrate(path, connection)
        return cls(path, connection, True)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, once no other thread is at it. Idempotent."""
        with self._lock:
            self._closed = True
            self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Make several operations one: all of them are kept, or none is.

        Whatever is raised inside undoes them, and goes on. Transactions nest:
        what an inner one did is kept once the outermost ends, and only an
        inner one is undone if what was raised in it is caught in between.
        Other threads and processes can't write meanwhile.
        """
        with self._lock, sqlite.translated(self.path):
            inner = self._depth > 0
            begin, keep, undo = _NESTED if inner else _OUTERMOST
            self._check(inner)
            self._connection.execute(begin)
            self._depth += 1
            try:
                yield
                self._check(True)
                self._connection.execute(keep)
            except BaseException:
                # Some errors of the disk have undone everything already.
                if not self._closed and self._connection.in_transaction:
                    for statement in undo:
                        self._connection.execute(statement)
                raise
            finally:
                self._depth -= 1

    def holds(self, holder: str | None = None) -> list[model.Hold]:
        """List holds, by holder, purpose and guest cell.

        :param holder: whose; everybody's if None
        """
        of = {} if holder is None else {'holder': holder}
        return self._read(schema.HOLDS, **of)

    def replace_holds(
        self,
        holder: str,
        purpose: model.Purpose,
        holds: Sequence[model.Hold],
    ) -> None:
        """Put holds in place of all that a holder has for a purpose.

        :param holds: one a guest cell; none at all is as good as `drop`
        :raises ValueError: if a hold is of another holder or for another
            purpose, or can't be, or two are for the same guest cell
        """
        for hold in holds:
            if (hold.holder, hold.purpose) != (holder, purpose):
                raise ValueError(f'{hold} is not of {holder} for {purpose}')
        if len({hold.cell for hold in holds}) < len(holds):
            raise ValueError(f'{holder} would hold pages twice for a cell')
        with self.transaction():
            self._delete(schema.HOLDS, holder=holder, purpose=purpose)
            self._write(schema.HOLDS, holds)
            self._forget_placement(holder)

    def set_state(
        self, holder: str, purpose: model.Purpose, state: model.State
    ) -> None:
        """Set the state of all holds of a holder for a purpose, if any."""
        with self.transaction():
            self._connection.execute(
                'UPDATE holds SET state = ? WHERE holder = ? AND purpose = ?',
                (model.State(state), holder, purpose),
            )

    def move(
        self, holder: str, purpose: model.Purpose, to: model.Purpose
    ) -> None:
        """Let holds for one purpose be for another, in place of those.

        Does nothing if there are none, as after the first time.
        """
        with self.transaction():
            if purpose == to or not self._read(
                schema.HOLDS, holder=holder, purpose=purpose
            ):
                return
            self._delete(schema.HOLDS, holder=holder, purpose=to)
            self._connection.execute(
                'UPDATE holds SET purpose = ? '
                'WHERE holder = ? AND purpose = ?',
                (model.Purpose(to), holder, purpose),
            )

    def drop(
        self, holder: str, purpose: model.Purpose | None = None
    ) -> list[model.Hold]:
        """Strike holds out; with the last one, where the guest was found.

        :param purpose: for what; everything if None
        :returns: what was struck out
        """
        of = {'holder': holder}
        if purpose is not None:
            of['purpose'] = purpose
        with self.transaction():
            dropped = self._read(schema.HOLDS, **of)
            self._delete(schema.HOLDS, **of)
            self._forget_placement(holder)
        return dropped

    def accounts(self) -> dict[model.PoolKey, model.Account]:
        """Get the accounts of all pools, by node and size."""
        found = self._read(schema.ACCOUNTS)
        return {account.key: account for account in found}

    def account(self, key: model.PoolKey) -> model.Account | None:
        """Get the account of a pool, None if there is none."""
        found = self._read(
            schema.ACCOUNTS, node=key.node, size_kib=key.size_kib
        )
        return found[0] if found else None

    def put_account(self, account: model.Account) -> None:
        """Write the account of a pool, in place of the one there is.

        :raises ValueError: if its values can't be
        """
        with self.transaction():
            self._write(schema.ACCOUNTS, [account])

    def forget_accounts(self) -> None:
        """Strike the accounts of all pools out."""
        with self.transaction():
            self._delete(schema.ACCOUNTS)

    def announce(self, key: model.PoolKey, before: int, wanted: int) -> None:
        """Note that a pool is about to be written.

        :param before: persistent pages before the write
        :param wanted: persistent pages that will be asked for
        :raises KeyError: if the pool has no account
        :raises ValueError: if the numbers can't be
        """
        with self.transaction():
            account = self.account(key)
            if account is None:
                raise KeyError(key)
            self.put_account(
                model.Account(
                    *key, account.floor, account.grown, before, wanted
                )
            )

    def settle(self, key: model.PoolKey, floor: int, grown: int) -> None:
        """Note what a write that was announced has come to.

        :raises ValueError: if the numbers can't be
        """
        self.put_account(model.Account(*key, floor, grown))

    @property
    def boot_id(self) -> str | None:
        """The boot of the host that the accounts are of, if known."""
        facts = {fact.name: fact for fact in self._read(schema.FACTS)}
        return facts[_BOOT_ID].value if _BOOT_ID in facts else None

    def set_boot_id(self, boot_id: str) -> None:
        """Note which boot of the host the accounts are of.

        :raises ValueError: if it is empty
        """
        with self.transaction():
            self._write(schema.FACTS, [schema.Fact(_BOOT_ID, boot_id)])

    def placements(self, holder: str) -> dict[model.PoolKey, int]:
        """Get where the memory of a guest was found, in pages of each pool."""
        found = self._read(schema.PLACEMENTS, holder=holder)
        return {
            model.PoolKey(row.node, row.size_kib): row.pages for row in found
        }

    def put_placement(
        self, holder: str, found: Mapping[model.PoolKey, int], at: float
    ) -> None:
        """Note where the memory of a guest was found.

        It is forgotten with the last hold of the guest, so of one that holds
        nothing it isn't noted.

        :param found: pages of each pool
        :param at: when, in seconds since the epoch
        :raises ValueError: if the values can't be
        """
        with self.transaction():
            self._delete(schema.PLACEMENTS, holder=holder)
            self._write(
                schema.PLACEMENTS,
                [
                    schema.MemoryPlacement(holder, *key, count, at)
                    for key, count in found.items()
                ],
            )
            self._forget_placement(holder)

    def _check(self, inside: bool) -> None:
        """See that the ledger is open, and a transaction not given up."""
        if self._closed:
            raise exception.LedgerError(
                self.path, 'is closed', 'The service is about to stop.'
            )
        if inside and not self._connection.in_transaction:
            raise exception.LedgerError(
                self.path,
                'has given up a change after an error',
                'Nothing of the change was kept; try again.',
            )

    def _read(self, table: schema.Table[T], **of: object) -> list[T]:
        """Read rows, in the order of their key.

        :param of: what they have in which columns
        """
        with self._lock, sqlite.translated(self.path):
            self._check(self._depth > 0)
            rows = self._connection.execute(
                table.select(of), tuple(of.values())
            ).fetchall()
        found = []
        for row in rows:
            try:
                found.append(table.make(row))
            except ValueError as error:
                raise exception.LedgerDamaged(
                    self.path,
                    f'has a row in {table.name} that cannot be: '
                    f'{table.told(row)} ({error})',
                    schema.remedy(self.path),
                ) from error
        return found

    def _write(self, table: schema.Table[T], values: Iterable[T]) -> None:
        """Write rows in place of those of their keys. Needs a transaction.

        :raises ValueError: if one of them could not be read again
        """
        for value in values:
            self._connection.execute(table.insert(), table.row(value))

    def _delete(self, table: schema.Table[T], **of: object) -> None:
        """Strike rows out. Needs a transaction."""
        self._connection.execute(table.delete(of), tuple(of.values()))

    def _forget_placement(self, holder: str) -> None:
        """Forget where a guest was found that holds nothing any more."""
        self._connection.execute(
            'DELETE FROM placements WHERE holder = ? '
            'AND holder NOT IN (SELECT holder FROM holds)',
            (holder,),
        )
