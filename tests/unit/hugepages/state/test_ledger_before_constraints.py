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


"""Tests of ledgers that were made before their tables had constraints."""

import contextlib
import dataclasses
import sqlite3

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from tests.unit.hugepages.state.ledgers import ALICE
from tests.unit.hugepages.state.ledgers import BOB
from tests.unit.hugepages.state.ledgers import FATAL
from tests.unit.hugepages.state.ledgers import files
from tests.unit.hugepages.state.ledgers import GIANT
from tests.unit.hugepages.state.ledgers import GUEST
from tests.unit.hugepages.state.ledgers import hold
from tests.unit.hugepages.state.ledgers import NODE_0
from tests.unit.hugepages.state.ledgers import RESIZE
from tests.unit.hugepages.state.ledgers import run
from tests.unit.hugepages.state.ledgers import TAKEN

# As those releases have made and filled it, statement by statement.
OLD = f"""
PRAGMA journal_mode = WAL;
PRAGMA application_id = {0x4E4E4850};
CREATE TABLE holds (
    holder TEXT NOT NULL,
    purpose TEXT NOT NULL,
    cell INTEGER NOT NULL,
    node INTEGER NOT NULL,
    size_kib INTEGER NOT NULL,
    pages INTEGER NOT NULL,
    grown INTEGER NOT NULL,
    state TEXT NOT NULL,
    since REAL NOT NULL,
    PRIMARY KEY (holder, purpose, cell)) WITHOUT ROWID;
CREATE TABLE accounts (
    node INTEGER NOT NULL,
    size_kib INTEGER NOT NULL,
    floor INTEGER NOT NULL,
    grown INTEGER NOT NULL,
    announced_from INTEGER,
    announced_to INTEGER,
    PRIMARY KEY (node, size_kib)) WITHOUT ROWID;
CREATE TABLE placements (
    holder TEXT NOT NULL,
    node INTEGER NOT NULL,
    size_kib INTEGER NOT NULL,
    pages INTEGER NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (holder, node, size_kib)) WITHOUT ROWID;
CREATE TABLE facts (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 1;
INSERT INTO holds VALUES
    ('{ALICE}', 'guest', 0, 0, 2048, 512, 100, 'taken', 1000.25),
    ('{ALICE}', 'resize', 0, 0, 2048, 256, 0, 'held', 2000.0),
    ('{BOB}', 'guest', 0, 0, 2048, 512, 0, 'held', 1000.0);
INSERT INTO accounts VALUES
    (0, 2048, 10, 5, NULL, NULL), (1, 1048576, 1, 0, 1, 2);
INSERT INTO placements VALUES ('{ALICE}', 0, 2048, 512, 1.0);
INSERT INTO facts VALUES ('boot_id', 'monday');
"""
TABLES = [
    'accounts',
    'cell_sizes',
    'elastic',
    'facts',
    'holds',
    'placements',
    'starts',
    'waits',
]
OPEN = 'ledger.Ledger.open(path).close()'


def connection(path):
    """Open a database as any program does."""
    return contextlib.closing(sqlite3.connect(path, isolation_level=None))


@pytest.fixture
def path(tmp_path):
    """Make an old ledger with rows."""
    path = tmp_path / 'ledger.sqlite'
    with connection(path) as database:
        database.executescript(OLD)
    return path


def content(path, *, read_only):
    """Read all that was in an old ledger."""
    with Ledger.open(path, read_only=read_only) as ledger:
        return (
            ledger.holds(),
            ledger.accounts(),
            ledger.placements(ALICE),
            ledger.boot_id,
        )


ALL = (
    [
        hold(grown=100, state=TAKEN, since=1000.25),
        hold(count=256, purpose=RESIZE, since=2000.0),
        hold(BOB),
    ],
    {
        NODE_0: model.Account(*NODE_0, 10, 5),
        GIANT: model.Account(*GIANT, 1, 0, 1, 2),
    },
    {NODE_0: 512},
    'monday',
)


def constrained(path):
    """Get the tables of a ledger that check what is written to them."""
    with connection(path) as database:
        rows = database.execute(
            "SELECT name FROM sqlite_master WHERE sql LIKE '%CHECK%'"
        ).fetchall()
    return sorted(name for (name,) in rows)


def test_goes_on(path):
    # when it is opened, then all of it is there
    assert content(path, read_only=False) == ALL

    # and what is written is kept
    with Ledger.open(path) as ledger:
        ledger.drop(ALICE)
        ledger.replace_holds(BOB, GUEST, [hold(BOB, cell=1, count=7)])
        ledger.settle(GIANT, 1, 1)
        ledger.set_boot_id('tuesday')
    assert content(path, read_only=False) == (
        [hold(BOB, cell=1, count=7)],
        {
            NODE_0: model.Account(*NODE_0, 10, 5),
            GIANT: model.Account(*GIANT, 1, 1),
        },
        {},
        'tuesday',
    )


def test_is_checked_from_then_on(path):
    assert constrained(path) == []

    Ledger.open(path).close()

    assert constrained(path) == TABLES
    with (
        Ledger.open(path) as ledger,
        pytest.raises(ValueError, match='constraint failed: pages'),
    ):
        ledger.replace_holds(BOB, GUEST, [hold(BOB, count=-1)])


def test_has_the_tables_of_a_new_one(path):
    def tables(path):
        with connection(path) as database:
            return database.execute(
                'SELECT name, sql FROM sqlite_master ORDER BY name'
            ).fetchall()

    Ledger.open(path).close()
    Ledger.open(path.with_name('new')).close()

    assert tables(path) == tables(path.with_name('new'))


def test_keeps_its_version(path):
    # so that the release that made it can go on with it
    Ledger.open(path).close()

    with connection(path) as database:
        assert database.execute('PRAGMA user_version').fetchone() == (1,)


def test_cells_may_be_elastic_from_then_on(path):
    with Ledger.open(path, read_only=True) as ledger:
        assert ledger.sizes(ALICE) == {}
    row = dataclasses.replace(hold(BOB), base=256, ceiling=1024)
    with Ledger.open(path) as ledger:
        ledger.replace_holds(BOB, GUEST, [row])
    with Ledger.open(path, read_only=True) as ledger:
        assert ledger.holds(BOB) == [row]


def test_is_changed_once(path):
    Ledger.open(path).close()
    before = files(path.parent)

    Ledger.open(path).close()

    assert files(path.parent) == before


def test_is_not_changed_by_a_reader(path):
    before = files(path.parent)

    assert content(path, read_only=True) == ALL
    assert files(path.parent) == before


def test_goes_on_under_a_service_that_has_it_open(path):
    # given a service of that release, in the middle of its work
    with connection(path) as service:
        query = 'SELECT pages FROM holds WHERE holder = ?'
        assert service.execute(query, (BOB,)).fetchall() == [(512,)]

        # when a command of this release opens the ledger
        Ledger.open(path).close()

        # then the service goes on
        assert service.execute(query, (BOB,)).fetchall() == [(512,)]
        service.execute(
            'INSERT OR REPLACE INTO holds (holder, purpose, cell, node, '
            'size_kib, pages, grown, state, since) VALUES '
            "(?, 'guest', 0, 0, 2048, 7, 0, 'held', 1000.0)",
            (BOB,),
        )
    with Ledger.open(path) as ledger:
        assert ledger.holds(BOB) == [hold(BOB, count=7)]


@pytest.mark.parametrize('read_only', [False, True])
@pytest.mark.parametrize(
    ('change', 'fault'),
    [
        (
            f"UPDATE holds SET pages = -512 WHERE holder = '{BOB}'",
            f"has an invalid row in holds: holder '{BOB}', purpose 'guest', "
            'cell 0, node 0, size_kib 2048, pages -512, grown 0, state '
            "'held', since 1000.0 (CHECK constraint failed: pages)",
        ),
        (
            'UPDATE accounts SET announced_to = NULL',
            'has an invalid row in accounts: node 1, size_kib 1048576, '
            'floor 1, grown 0, announced_from 1, announced_to None '
            '(CHECK constraint failed: announcement)',
        ),
    ],
)
def test_with_an_invalid_row_is_damaged(path, change, fault, read_only):
    with connection(path) as database:
        database.execute(change)
    before = files(path.parent)

    with pytest.raises(exception.LedgerDamaged) as raised:
        Ledger.open(path, read_only=read_only)

    assert fault in str(raised.value)
    assert f'Stop nova-compute, move {path} aside' in str(raised.value)
    assert files(path.parent)[path.name] == before[path.name]


def test_killed_at_any_statement_keeps_everything(tmp_path, path):
    old = path.read_bytes()
    for count in range(100):
        folder = tmp_path / str(count)
        folder.mkdir()
        copy = folder / path.name
        copy.write_bytes(old)

        status, _ = run(folder, FATAL + OPEN, count, 'before')

        assert constrained(copy) in (
            [],
            TABLES,
        )
        assert content(copy, read_only=False) == ALL
        if status == 0:
            break
    assert status == 0
    # Four tables take four statements each.
    assert count > 16
