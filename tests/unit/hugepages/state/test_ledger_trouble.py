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

"""Tests of the ledger on a disk that is full, or that others write to."""

import sqlite3

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.state import sqlite
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from tests.unit.hugepages.state.ledgers import ALICE
from tests.unit.hugepages.state.ledgers import BOB
from tests.unit.hugepages.state.ledgers import filled
from tests.unit.hugepages.state.ledgers import GUEST
from tests.unit.hugepages.state.ledgers import hold


@pytest.fixture
def path(tmp_path):
    """Where the ledger is."""
    return tmp_path / 'ledger.sqlite'


def opened_by(factory, monkeypatch):
    """Let SQLite make connections of another class."""
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3,
        'connect',
        lambda *args, **named: connect(*args, factory=factory, **named),
    )


class TestLocked:
    def test_by_another_process_for_too_long(self, path, monkeypatch):
        monkeypatch.setattr(sqlite, 'BUSY_TIMEOUT_S', 0.1)
        with (
            Ledger.open(path) as one,
            Ledger.open(path) as other,
            one.transaction(),
        ):
            with pytest.raises(exception.LedgerError) as raised:
                other.drop(ALICE)
            assert other.holds() == []

        assert str(raised.value) == (
            f'the ledger of huge pages {path} is locked: another process has '
            'been writing to it for 0.1 s (database is locked). See which '
            f'one has it open (fuser -v {path}), and try again.'
        )

    def test_while_it_switches_to_its_log(self, path, monkeypatch):
        # given an empty file that another process writes to
        monkeypatch.setattr(sqlite, 'BUSY_TIMEOUT_S', 0.1)
        path.touch(0o600)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute('BEGIN EXCLUSIVE')

        with pytest.raises(exception.LedgerError, match='is locked'):
            Ledger.open(path)

        other.close()

    def test_only_while_it_switches_to_its_log(self, path, monkeypatch):
        # given another process that switches at the same time, and is faster
        class Late(sqlite3.Connection):
            tries = 0

            def execute(self, statement, *values):
                if statement == 'PRAGMA journal_mode = WAL':
                    Late.tries += 1
                    if Late.tries < 3:
                        error = sqlite3.OperationalError('locked')
                        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
                        raise error
                return super().execute(statement, *values)

        opened_by(Late, monkeypatch)

        with Ledger.open(path) as ledger:
            assert ledger.holds() == []
        assert Late.tries == 3

    @pytest.mark.parametrize(
        ('code', 'expected'),
        [
            (sqlite3.SQLITE_PROTOCOL, 'is locked'),
            (sqlite3.SQLITE_NOMEM, 'cannot be used'),
            (sqlite3.SQLITE_NOLFS, 'cannot be used'),
        ],
    )
    def test_whatever_sqlite_says_is_an_error_of_ours(
        self, path, monkeypatch, code, expected
    ):
        class Failing(sqlite3.Connection):
            def execute(self, statement, *values):
                error = sqlite3.OperationalError('locking protocol')
                error.sqlite_errorcode = code
                error.sqlite_errorname = 'SQLITE_X'
                raise error

        opened_by(Failing, monkeypatch)

        with pytest.raises(exception.LedgerError, match=expected):
            Ledger.open(path)


class TestFile:
    @pytest.mark.parametrize('replaced', [False, True])
    def test_that_is_taken_away_is_not_written_to(self, path, replaced):
        with Ledger.open(path) as ledger:
            ledger.replace_holds(ALICE, GUEST, [hold(ALICE, 0)])
            path.rename(path.with_name('aside'))
            if replaced:
                Ledger.open(path).close()

            for use in (
                ledger.holds,
                lambda: ledger.replace_holds(BOB, GUEST, [hold(BOB, 0)]),
            ):
                with pytest.raises(exception.LedgerError) as raised:
                    use()

                assert str(raised.value) == (
                    f'the ledger of huge pages {path} was deleted or replaced '
                    'while it was in use. Restart nova-compute: it makes a '
                    'new ledger of the instances that run.'
                )


class TestFileSystem:
    def test_without_shared_memory_is_refused(self, path, monkeypatch):
        class Remote(sqlite3.Connection):
            def execute(self, statement, *values):
                if statement == 'PRAGMA journal_mode = WAL':
                    statement = 'PRAGMA journal_mode'
                return super().execute(statement, *values)

        opened_by(Remote, monkeypatch)

        with pytest.raises(exception.LedgerError, match='on a local disk'):
            Ledger.open(path)


class TestFullDisk:
    def test_keeps_what_was_there(self, path, monkeypatch):
        # given a database that may not grow any more
        connect = sqlite3.connect

        def small(*args, **named):
            connection = connect(*args, **named)
            (size,) = connection.execute('PRAGMA page_count').fetchone()
            connection.execute(f'PRAGMA max_page_count = {size}')
            return connection

        filled(path)
        monkeypatch.setattr(sqlite3, 'connect', small)
        with Ledger.open(path) as ledger:
            before = ledger.holds()
            many = [hold(BOB, cell) for cell in range(1000)]

            # when more is to be held than there is room for
            with pytest.raises(
                exception.LedgerError, match='the disk is full'
            ):
                ledger.replace_holds(BOB, GUEST, many)

            # then nothing of it is, and what has room is
            assert ledger.holds() == before
            ledger.replace_holds(BOB, GUEST, many[:1])
            assert ledger.holds(BOB) == many[:1]
