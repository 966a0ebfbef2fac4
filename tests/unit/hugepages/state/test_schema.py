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

"""Tests of the ledger's schema: its versions, and what a row may hold."""

import contextlib
import sqlite3

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.state import schema
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from tests.unit.hugepages.state.ledgers import ALICE
from tests.unit.hugepages.state.ledgers import GUEST
from tests.unit.hugepages.state.ledgers import hold
from tests.unit.hugepages.state.ledgers import NODE_0
from tests.unit.hugepages.state.ledgers import TAKEN

COLUMNS = [
    'holder',
    'purpose',
    'cell',
    'node',
    'size_kib',
    'pages',
    'grown',
    'state',
    'since',
]
# What a later version might do.
LATER = (
    *schema.STEPS,
    (
        'ALTER TABLE holds ADD COLUMN zone TEXT',
        "UPDATE holds SET zone = 'normal'",
    ),
)
BROKEN = (
    *schema.STEPS,
    ('UPDATE holds SET pages = 0', 'INSERT INTO nowhere VALUES (1)'),
)


@pytest.fixture
def path(tmp_path):
    """A ledger with a hold."""
    path = tmp_path / 'ledger.sqlite'
    with Ledger.open(path) as ledger:
        ledger.replace_holds(ALICE, GUEST, [hold()])
        ledger.put_placement(ALICE, {NODE_0: 512}, 1.0)
        ledger.put_account(model.Account(*NODE_0, 10, 5))
        ledger.set_boot_id('monday')
    return path


def connection(path):
    """Open a database as any program does."""
    return contextlib.closing(sqlite3.connect(path, isolation_level=None))


def version(path):
    """Read the version of the schema, and the columns of a table."""
    with connection(path) as database:
        (number,) = database.execute('PRAGMA user_version').fetchone()
        columns = database.execute('PRAGMA table_info(holds)').fetchall()
    return number, [column[1] for column in columns]


def changed(path, *statements):
    """Change a database behind the ledger's back, as damage does."""
    with connection(path) as database:
        database.execute('PRAGMA ignore_check_constraints = ON')
        for statement in statements:
            database.execute(statement)


class TestVersions:
    def test_columns_are_those_that_are_read(self, path):
        assert version(path) == (len(schema.STEPS), COLUMNS)

    def test_an_earlier_one_is_brought_to_this_one(self, path):
        with connection(path) as database:
            schema.migrate(path, database, steps=LATER)
            (row,) = database.execute('SELECT pages, zone FROM holds')

        assert row == (512, 'normal')
        assert version(path) == (len(LATER), [*COLUMNS, 'zone'])

    def test_this_one_stays_as_it_is(self, path):
        before = path.read_bytes()

        Ledger.open(path).close()

        assert path.read_bytes() == before

    def test_a_step_that_fails_changes_nothing(self, path):
        with connection(path) as database:
            with pytest.raises(sqlite3.OperationalError, match='nowhere'):
                schema.migrate(path, database, steps=BROKEN)
            schema.migrate(path, database)

        with Ledger.open(path) as ledger:
            assert ledger.holds() == [hold()]
        assert version(path)[0] == len(schema.STEPS)

    @pytest.mark.parametrize('read_only', [False, True])
    def test_a_later_one_is_refused_with_what_to_do(self, path, read_only):
        with connection(path) as database:
            schema.migrate(path, database, steps=LATER)

        with pytest.raises(exception.LedgerTooNew) as raised:
            Ledger.open(path, read_only=read_only)

        assert str(raised.value) == (
            f'the ledger of huge pages {path} has version 2 of its schema, '
            'and this nova-numa-hugepages knows versions up to 1. Install '
            'the nova-numa-hugepages that wrote it, or a later one. If there '
            f'is none: Stop nova-compute, move {path} aside, together with '
            f'{path}-wal and {path}-shm if they are there, and start '
            'nova-compute: it makes another ledger from the running domains, '
            'and leaves the page pools as they are.'
        )
        assert version(path)[0] == len(LATER)

    def test_an_earlier_one_is_not_changed_by_a_reader(self, path):
        with (
            connection(path) as database,
            pytest.raises(
                exception.LedgerError, match=r'Start nova-compute\.'
            ),
        ):
            schema.migrate(path, database, read_only=True, steps=LATER)

        assert version(path)[0] == len(schema.STEPS)

    @pytest.mark.parametrize('number', [0, 1, 99, -1])
    def test_another_programs_database_is_left_alone(self, tmp_path, number):
        path = tmp_path / 'nova.sqlite'
        changed(
            path,
            'CREATE TABLE instances (uuid TEXT)',
            f'PRAGMA user_version = {number}',
        )
        path.chmod(0o644)
        before = path.read_bytes()

        with pytest.raises(
            exception.LedgerDamaged,
            match='is a database, but not of huge pages',
        ):
            Ledger.open(path)

        assert path.read_bytes() == before
        assert path.stat().st_mode & 0o777 == 0o644

    def test_a_table_that_is_gone_is_damage(self, path):
        changed(path, 'DROP TABLE placements')

        with pytest.raises(exception.LedgerDamaged, match='no such table'):
            Ledger.open(path)


class TestRows:
    HOLD = (
        'has an invalid row in holds: holder {0}, purpose {1}, cell {2}, '
        'node {3}, size_kib {4}, pages {5}, grown {6}, state {7}, since {8} '
        '(CHECK constraint failed: {column})'
    )

    @pytest.mark.parametrize(
        ('column', 'value', 'found'),
        [
            ('purpose', "'rent'", "'rent'"),
            ('state', "'lost'", "'lost'"),
            ('holder', "''", "''"),
            ('holder', "x'80'", "b'\\x80'"),
            ('cell', '-1', '-1'),
            ('node', '-1', '-1'),
            ('size_kib', '0', '0'),
            ('pages', '-512', '-512'),
            ('pages', '1099511627776', '1099511627776'),
            ('pages', "'many'", "'many'"),
            ('pages', '0.5', '0.5'),
            ('grown', '-1', '-1'),
            ('since', "'now'", "'now'"),
            ('since', '-1.0', '-1.0'),
            ('since', '9e999', 'inf'),
        ],
    )
    @pytest.mark.parametrize('read_only', [False, True])
    def test_of_holds_are_checked(self, path, column, value, found, read_only):
        changed(path, f'UPDATE holds SET {column} = {value}')

        with pytest.raises(exception.LedgerDamaged) as raised:
            Ledger.open(path, read_only=read_only)

        sound = [
            f"'{ALICE}'",
            "'guest'",
            *('0', '0', '2048', '512', '0'),
            "'held'",
            '1000.0',
        ]
        sound[COLUMNS.index(column)] = found
        fault = self.HOLD.format(*sound, column=column)
        assert str(raised.value) == (
            f'the ledger of huge pages {path} {fault}. Stop nova-compute, '
            f'move {path} aside, together with {path}-wal and {path}-shm if '
            'they are there, and start nova-compute: it makes another ledger '
            'from the running domains, and leaves the page pools as they are.'
        )

    @pytest.mark.parametrize(
        ('change', 'fault'),
        [
            (
                "UPDATE holds SET holder = CAST(x'80' AS TEXT)",
                'is damaged: Could not decode to UTF-8',
            ),
            (
                'UPDATE accounts SET floor = -1',
                'has an invalid row in accounts: node 0, size_kib 2048, '
                'floor -1, grown 5, announced_from None, announced_to None '
                '(CHECK constraint failed: floor)',
            ),
            (
                'UPDATE accounts SET announced_to = 5',
                'has an invalid row in accounts: node 0, size_kib 2048, '
                'floor 10, grown 5, announced_from None, announced_to 5 '
                '(CHECK constraint failed: announcement)',
            ),
            (
                'UPDATE placements SET pages = -1',
                f"has an invalid row in placements: holder '{ALICE}', "
                'node 0, size_kib 2048, pages -1, at 1.0 '
                '(CHECK constraint failed: pages)',
            ),
            (
                "UPDATE facts SET value = ''",
                "has an invalid row in facts: name 'boot_id', value '' "
                '(CHECK constraint failed: value)',
            ),
        ],
    )
    def test_of_all_tables_are_checked(self, path, change, fault):
        changed(path, change)

        with pytest.raises(exception.LedgerDamaged) as raised:
            Ledger.open(path)

        assert fault in str(raised.value)
        assert f'Stop nova-compute, move {path} aside' in str(raised.value)

    def test_that_turn_bad_later_are_damage_and_change_nothing(self, path):
        with Ledger.open(path) as ledger:
            changed(path, "UPDATE holds SET state = 'lost'")

            with pytest.raises(exception.LedgerDamaged, match="'lost'"):
                ledger.drop(ALICE)

            changed(path, "UPDATE holds SET state = 'taken'")
            assert ledger.holds() == [hold(state=TAKEN)]

    def test_that_are_invalid_no_program_can_write(self, path):
        with (
            connection(path) as database,
            pytest.raises(sqlite3.IntegrityError, match='pages'),
        ):
            database.execute('UPDATE holds SET pages = -1')
