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

"""The ledger: who holds which pages, and what was done to the pools.

SQLite keeps it, with a log that is synced at each commit, so that what was
committed is there after a crash of the service or of the host.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import json
import pathlib
import sqlite3
import threading
from typing import Any

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import forecast
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.state import schema
from nova_numa_hugepages.hugepages.state import sqlite

# Names of facts.
_BOOT_ID = 'boot_id'
_LEAKS = 'leaks'
_READY = 'ready'
_COUNTING_SINCE = 'counting_since'

# A hold is a row of each.
_OF_HOLDS = ('holds', schema.ELASTIC)
# An earlier version changes the first of them only.
_COLUMNS = f"""
    holder, purpose, cell, node, size_kib, pages, grown, state, since,
    coalesce(base, 0), coalesce(ceiling, 0)
    FROM holds LEFT JOIN {schema.ELASTIC} AS elastic
        USING (holder, purpose, cell)
"""

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
    """

    def __init__(
        self,
        path: pathlib.Path,
        connection: sqlite3.Connection,
        file: tuple[int, int] | None = None,
    ) -> None:
        self.path = path
        self._connection = connection
        # What is read and written has to be the file of that name.
        self._file = file
        # Reentrant, and held for as long as a transaction lasts.
        self._lock = threading.RLock()
        self._depth = 0
        self._closed = False
        # One of an earlier version that is only read has fewer tables.
        self._missing = frozenset(schema.missing(connection))

    @classmethod
    def open(
        cls,
        path: pathlib.Path,
        *,
        create: bool = True,
        read_only: bool = False,
    ) -> Ledger:
        """Open a ledger, check all of it, and bring it to this version.

        :param create: whether to make the file if there is none; its folder
            has to be there
        :param read_only: change no file and make none. If no other process
            has it open, what others write later isn't seen.
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
                schema.migrate(path, connection, read_only=read_only)
                file = None if read_only else sqlite.identity(path)
        except BaseException:
            connection.close()
            raise
        return cls(path, connection, file)

    @classmethod
    def in_memory(cls) -> Ledger:
        """Make an empty ledger that no file keeps."""
        path = pathlib.Path(':memory:')
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False
        )
        schema.migrate(path, connection)
        return cls(path, connection)

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
        an inner one is a part of the outermost. If it fails, all is undone,
        and the outermost can't go on. Other threads and processes can't write
        meanwhile.
        """
        with self._lock, sqlite.translated(self.path):
            self._check_open()
            if not self._depth:
                self._connection.execute('BEGIN IMMEDIATE')
            self._depth += 1
            try:
                yield
                self._check_open()
                if self._depth == 1:
                    self._connection.execute('COMMIT')
            except BaseException:
                # Some errors of the disk have undone everything already.
                if not self._closed and self._connection.in_transaction:
                    self._connection.execute('ROLLBACK')
                raise
            finally:
                self._depth -= 1

    def holds(
        self, holder: str | None = None, *purposes: model.Purpose
    ) -> list[model.Hold]:
        """List holds, by holder, purpose and guest cell.

        :param holder: whose; those of all holders if None
        :param purposes: for what; everything if none
        """
        has_elastic = schema.ELASTIC not in self._missing
        columns = _COLUMNS if has_elastic else '*, 0, 0 FROM holds'
        rows = self._read(
            f'SELECT {columns} WHERE holder = coalesce(?, holder) '
            'ORDER BY holder, purpose, cell',
            holder,
        )
        holds = [_hold(*row) for row in rows]
        try:
            return [
                dataclasses.replace(
                    hold,
                    purpose=model.Purpose(hold.purpose),
                    state=model.State(hold.state),
                )
                for hold in holds
                if not purposes or hold.purpose in purposes
            ]
        except ValueError as error:
            raise exception.LedgerDamaged(
                self.path, f'has an invalid row in holds: {error}'
            ) from error

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
            self._delete_holds(holder, purpose)
            rows = [dataclasses.astuple(hold) for hold in holds]
            self._write('holds', [row[:-2] for row in rows])
            self._write(
                schema.ELASTIC,
                [
                    (holder, purpose, hold.cell, hold.base, hold.ceiling)
                    for hold in holds
                    if hold.ceiling
                ],
            )
            self._forget(holder)

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
            if purpose == to or not self.holds(holder, purpose):
                return
            self._delete_holds(holder, to)
            for table in _OF_HOLDS:
                self._connection.execute(
                    f'UPDATE {table} SET purpose = ? '
                    'WHERE holder = ? AND purpose = ?',
                    (model.Purpose(to), holder, purpose),
                )

    def drop(self, holder: str, *purposes: model.Purpose) -> list[model.Hold]:
        """Delete holds, and with the last one where the guest was found.

        :param purposes: for what; everything if none
        :returns: what was deleted
        """
        with self.transaction():
            dropped = self.holds(holder, *purposes)
            self._delete_holds(holder, *purposes)
            self._forget(holder)
        return dropped

    def accounts(self) -> dict[model.PoolKey, model.Account]:
        """Get the accounts of all pools, by node and size."""
        rows = self._read('SELECT * FROM accounts ORDER BY node, size_kib')
        found = [model.Account(*row) for row in rows]
        return {account.key: account for account in found}

    def account(self, key: model.PoolKey) -> model.Account | None:
        """Get the account of a pool, None if there is none."""
        return self.accounts().get(key)

    def put_account(self, account: model.Account) -> None:
        """Write the account of a pool, in place of the one there is.

        :raises ValueError: if its values can't be
        """
        with self.transaction():
            self._write('accounts', [dataclasses.astuple(account)])

    def forget_accounts(self) -> None:
        """Delete the accounts of all pools."""
        with self.transaction():
            self._connection.execute('DELETE FROM accounts')

    def announce(self, key: model.PoolKey, before: int, wanted: int) -> None:
        """Note that a pool is about to be written.

        :param before: persistent pages before the write
        :param wanted: persistent pages that will be asked for
        :raises KeyError: if the pool has no account
        :raises ValueError: if the numbers can't be
        """
        with self.transaction():
            self.put_account(
                dataclasses.replace(
                    self.accounts()[key],
                    announced_from=before,
                    announced_to=wanted,
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
        return self._fact(_BOOT_ID)

    def set_boot_id(self, boot_id: str) -> None:
        """Note which boot of the host the accounts are of.

        The pages that had leaked are free since then.

        :raises ValueError: if it is empty
        """
        with self.transaction():
            self._write('facts', [(_BOOT_ID, boot_id)])
            self.set_leaks({})

    def leaks(self) -> dict[model.PoolKey, int]:
        """Get the pages that guests have left in use that ended."""
        return self._counts(_LEAKS)

    def set_leaks(self, leaks: Mapping[model.PoolKey, int]) -> None:
        """Note the pages that guests have left in use that ended."""
        self._set_counts(_LEAKS, leaks)

    def ready(self) -> dict[model.PoolKey, int]:
        """Get how many idle pages of each pool are kept ready."""
        return self._counts(_READY)

    def set_ready(self, kept: Mapping[model.PoolKey, int]) -> None:
        """Note how many idle pages of each pool are kept ready."""
        self._set_counts(_READY, kept)

    def _counts(self, fact: str) -> dict[model.PoolKey, int]:
        """Read pages by pool."""
        text = self._fact(fact) or '[]'
        try:
            return {
                model.PoolKey(int(node), int(size_kib)): int(pages)
                for node, size_kib, pages in json.loads(text)
            }
        except (TypeError, ValueError) as error:
            raise exception.LedgerDamaged(
                self.path, f'has invalid {fact}: {text}'
            ) from error

    def _set_counts(
        self, fact: str, counts: Mapping[model.PoolKey, int]
    ) -> None:
        """Write pages by pool."""
        rows = [[*key, count] for key, count in sorted(counts.items())]
        with self.transaction():
            self._write('facts', [(fact, json.dumps(rows))])

    def placements(self, holder: str) -> dict[model.PoolKey, int]:
        """Get where the memory of a guest was found, in pages of each pool."""
        rows = self._read(
            'SELECT node, size_kib, pages FROM placements WHERE holder = ? '
            'ORDER BY node, size_kib',
            holder,
        )
        return {
            model.PoolKey(node, size_kib): pages
            for node, size_kib, pages in rows
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
            self._connection.execute(
                'DELETE FROM placements WHERE holder = ?', (holder,)
            )
            self._write(
                'placements',
                [(holder, *key, count, at) for key, count in found.items()],
            )
            self._forget(holder)

    def sizes(self, holder: str) -> dict[int, model.Size]:
        """Get the sizes of the elastic cells of a guest, by cell.

        One whose size never changed has none.
        """
        if 'cell_sizes' in self._missing:
            return {}
        rows = self._read(
            'SELECT cell, wanted_kib, changed, why FROM cell_sizes '
            'WHERE holder = ? ORDER BY cell',
            holder,
        )
        return {cell: model.Size(*size) for cell, *size in rows}

    def put_size(self, holder: str, cell: int, size: model.Size) -> None:
        """Set the size that is wanted of an elastic cell, and why.

        It is forgotten with the last hold of the guest, so of one that holds
        nothing it isn't noted.

        :raises ValueError: if its values can't be
        """
        with self.transaction():
            self._write('cell_sizes', [(holder, cell, *size)])
            self._forget(holder)

    def note_size(
        self, holder: str, cell: int, changed: float, why: str
    ) -> None:
        """Note when and why the size of an elastic cell has changed.

        What an operator wants stays.
        """
        with self.transaction():
            self._connection.execute(
                'INSERT INTO cell_sizes VALUES (?, ?, NULL, ?, ?) '
                'ON CONFLICT DO UPDATE SET changed = excluded.changed, '
                'why = excluded.why',
                (holder, cell, changed, why),
            )
            self._forget(holder)

    def waits(self) -> list[model.Wait]:
        """List the elastic cells that need pages which aren't there."""
        if 'waits' in self._missing:
            return []
        return [
            model.Wait(*row)
            for row in self._read(
                'SELECT holder, cell, kib, since FROM waits '
                'ORDER BY holder, cell'
            )
        ]

    def put_waits(
        self, holder: str, missing_kib: Mapping[int, int], now: float
    ) -> None:
        """Note which pages the elastic cells of a guest need and don't get.

        One that needed some before goes on waiting.

        :param missing_kib: by cell, without those that need none
        :raises ValueError: if the values can't be
        """
        with self.transaction():
            since = {
                wait.cell: wait.since
                for wait in self.waits()
                if wait.holder == holder
            }
            self._connection.execute(
                'DELETE FROM waits WHERE holder = ?', (holder,)
            )
            self._write(
                'waits',
                [
                    (holder, cell, kib, since.get(cell, now))
                    for cell, kib in missing_kib.items()
                ],
            )
            self._forget(holder)

    @property
    def counting_since(self) -> float | None:
        """When the first start was counted, in seconds since the epoch."""
        text = self._fact(_COUNTING_SINCE)
        try:
            return None if text is None else float(text)
        except ValueError as error:
            raise exception.LedgerDamaged(
                self.path, f'has an invalid {_COUNTING_SINCE}: {text}'
            ) from error

    def add_start(self, key: model.PoolKey, start: forecast.Start) -> None:
        """Count a start of an instance, and forget those that are too old.

        :param key: the pool that its pages come from
        """
        with self.transaction():
            if self._fact(_COUNTING_SINCE) is None:
                since = start.week * forecast.WEEK_S
                since += start.hour * forecast.HOUR_S
                self._write('facts', [(_COUNTING_SINCE, str(since))])
            self._connection.execute(
                'INSERT INTO starts VALUES (?, ?, ?, ?, ?, 1) '
                'ON CONFLICT DO UPDATE SET count = count + 1',
                (*key, *start),
            )
            self._connection.execute(
                'DELETE FROM starts WHERE week < ?',
                (start.week - forecast.WEEKS,),
            )

    def starts(
        self, since: int
    ) -> dict[model.PoolKey, dict[forecast.Start, int]]:
        """Get how many starts of instances were counted, by pool.

        :param since: the first week, since the epoch
        """
        if 'starts' in self._missing:
            return {}
        rows = self._read(
            'SELECT node, size_kib, week, hour, need, count FROM starts '
            'WHERE week >= ?',
            since,
        )
        found: dict[model.PoolKey, dict[forecast.Start, int]] = {}
        for node, size_kib, week, hour, need, count in rows:
            counts = found.setdefault(model.PoolKey(node, size_kib), {})
            counts[forecast.Start(week, hour % forecast.HOURS, need)] = count
        return found

    def _check_open(self) -> None:
        """Check that the ledger is open, and a transaction not given up."""
        if self._closed:
            raise exception.LedgerError(
                self.path, 'is closed', 'nova-compute is about to stop.'
            )
        if self._file is not None and sqlite.identity(self.path) != self._file:
            # SQLite would go on with a file that no other process finds.
            raise exception.LedgerError(
                self.path,
                'was deleted or replaced while it was in use',
                'Restart nova-compute: it makes a new ledger of the '
                'instances that run.',
            )
        if self._depth and not self._connection.in_transaction:
            raise exception.LedgerError(
                self.path,
                'has given up a change after an error',
                'Nothing of the change was kept; try again.',
            )

    def _read(self, query: str, *values: object) -> list[Any]:
        with self._lock, sqlite.translated(self.path):
            self._check_open()
            return self._connection.execute(query, values).fetchall()

    def _fact(self, name: str) -> str | None:
        rows = self._read('SELECT value FROM facts WHERE name = ?', name)
        return rows[0][0] if rows else None

    def _delete_holds(self, holder: str, *purposes: model.Purpose) -> None:
        """Delete the holds that `holds` lists. Needs a transaction."""
        for purpose in purposes or model.Purpose:
            for table in _OF_HOLDS:
                self._connection.execute(
                    f'DELETE FROM {table} WHERE holder = ? AND purpose = ?',
                    (holder, purpose),
                )

    def _write(self, table: str, rows: Iterable[tuple[object, ...]]) -> None:
        """Write rows in place of those of their keys. Needs a transaction.

        :raises ValueError: if one of them can't be
        """
        for row in rows:
            try:
                self._connection.execute(
                    f'INSERT OR REPLACE INTO {table} '
                    f'VALUES ({schema.marks(row)})',
                    row,
                )
            # The second is a number that is too large for SQLite.
            except (sqlite3.IntegrityError, OverflowError) as error:
                raise ValueError(
                    f'{row} cannot be a row in {table}: {error}'
                ) from error

    def _forget(self, holder: str) -> None:
        """Forget all of a guest that holds nothing any more."""
        for table in ('placements', 'cell_sizes', 'waits'):
            self._connection.execute(
                f'DELETE FROM {table} WHERE holder = ? '
                'AND holder NOT IN (SELECT holder FROM holds)',
                (holder,),
            )


def _hold(*row: Any) -> model.Hold:
    hold = model.Hold(*row)
    if hold.base <= hold.pages <= hold.ceiling:
        return hold
    return dataclasses.replace(hold, base=0, ceiling=0)
