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

"""Tests of the transactions of the ledger, and of its end."""

import sqlite3
import threading

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from tests.unit.hugepages.state.ledgers import ALICE
from tests.unit.hugepages.state.ledgers import GUEST
from tests.unit.hugepages.state.ledgers import hold
from tests.unit.hugepages.state.ledgers import NODE_0


@pytest.fixture
def path(tmp_path):
    """Where the ledger is."""
    return tmp_path / 'ledger.sqlite'


@pytest.fixture
def ledger(path):
    """Open a new ledger."""
    with Ledger.open(path) as opened:
        yield opened


class NotOurs(Exception):
    """Something that the caller of the ledger raises."""


def fail():
    """Do what the caller of the ledger may do."""
    raise NotOurs


def in_one(ledger, *steps):
    """Take steps in one transaction."""
    with ledger.transaction():
        for step in steps:
            step()


class TestTransaction:
    def test_keeps_everything(self, ledger, path):
        with ledger.transaction():
            ledger.replace_holds(ALICE, GUEST, [hold()])
            ledger.set_boot_id('monday')

        with Ledger.open(path) as other:
            assert other.holds() == [hold()]
            assert other.boot_id == 'monday'

    def test_keeps_nothing_if_anything_fails(self, ledger):
        ledger.replace_holds(ALICE, GUEST, [hold()])

        with pytest.raises(NotOurs):
            in_one(
                ledger,
                lambda: ledger.drop(ALICE),
                lambda: ledger.set_boot_id('monday'),
                fail,
            )

        assert ledger.holds() == [hold()]
        assert ledger.boot_id is None

    @pytest.mark.parametrize(
        'error', [FileNotFoundError('theirs'), KeyboardInterrupt('now')]
    )
    def test_leaves_errors_of_the_caller_alone(self, ledger, error):
        with pytest.raises(type(error)) as raised, ledger.transaction():
            raise error

        assert raised.value is error

    def test_shows_nothing_to_others_before_it_ends(self, ledger, path):
        with Ledger.open(path) as other:
            with ledger.transaction():
                ledger.replace_holds(ALICE, GUEST, [hold()])

                assert other.holds() == []

            assert other.holds() == [hold()]

    def test_inner_is_undone_with_the_outer(self, ledger):
        def inner():
            with ledger.transaction():
                ledger.replace_holds(ALICE, GUEST, [hold()])

        with pytest.raises(NotOurs):
            in_one(ledger, lambda: in_one(ledger, inner), fail)

        assert ledger.holds() == []

    @pytest.mark.parametrize(
        ('inner', 'error'),
        [
            (
                lambda ledger: ledger.replace_holds(
                    ALICE, GUEST, [hold(), hold(cell=-1)]
                ),
                ValueError,
            ),
            (
                lambda ledger: in_one(
                    ledger, lambda: ledger.drop(ALICE), fail
                ),
                NotOurs,
            ),
        ],
    )
    def test_cannot_go_on_after_an_inner_one_failed(
        self, ledger, inner, error
    ):
        ledger.replace_holds(ALICE, GUEST, [hold(count=7)])

        def go_on():
            ledger.set_boot_id('monday')
            with pytest.raises(error):
                inner(ledger)

        with pytest.raises(exception.LedgerError, match='given up a change'):
            in_one(ledger, go_on)

        assert ledger.holds() == [hold(count=7)]
        assert ledger.boot_id is None

    def test_works_after_one_that_failed(self, ledger):
        with pytest.raises(NotOurs), ledger.transaction():
            raise NotOurs

        ledger.replace_holds(ALICE, GUEST, [hold()])

        assert ledger.holds() == [hold()]

    def test_of_a_thread_lets_other_threads_wait(self, ledger):
        inside = threading.Event()
        seen = []

        def look():
            inside.wait()
            seen.append(ledger.holds())

        other = threading.Thread(target=look)
        other.start()
        with ledger.transaction():
            ledger.replace_holds(ALICE, GUEST, [hold()])
            inside.set()
            other.join(0.05)
            assert seen == []
        other.join()

        assert seen == [[hold()]]

    def test_adds_up_what_many_threads_do(self, ledger):
        ledger.put_account(model.Account(*NODE_0, 0))

        def add():
            for _ in range(25):
                with ledger.transaction():
                    account = ledger.account(NODE_0)
                    ledger.settle(NODE_0, account.floor + 1, account.grown)

        threads = [threading.Thread(target=add) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert ledger.account(NODE_0) == model.Account(*NODE_0, 200)

    def test_that_the_disk_has_ended_takes_nothing_more(
        self, path, monkeypatch
    ):
        # given a disk on which a write undoes the whole transaction
        class Failing(sqlite3.Connection):
            def execute(self, statement, *values):
                found = super().execute(statement, *values)
                if statement.startswith('DELETE FROM holds'):
                    super().execute('ROLLBACK')
                    error = sqlite3.OperationalError('disk is full')
                    error.sqlite_errorcode = sqlite3.SQLITE_FULL
                    raise error
                return found

        Ledger.open(path).close()
        connect = sqlite3.connect
        monkeypatch.setattr(
            sqlite3,
            'connect',
            lambda *args, **named: connect(*args, factory=Failing, **named),
        )
        with Ledger.open(path) as ledger:
            # when the caller goes on after it
            def drop():
                with pytest.raises(exception.LedgerError, match='is full'):
                    ledger.drop(ALICE)

            with pytest.raises(exception.LedgerError, match='given up'):
                in_one(
                    ledger,
                    lambda: ledger.set_boot_id('monday'),
                    drop,
                    lambda: ledger.set_boot_id('tuesday'),
                )

            # then nothing is kept
            assert ledger.boot_id is None


class TestClose:
    def test_may_come_twice(self, ledger):
        ledger.close()
        ledger.close()

    @pytest.mark.parametrize(
        'use',
        [
            lambda ledger: ledger.holds(),
            lambda ledger: ledger.drop(ALICE),
            lambda ledger: ledger.boot_id,
        ],
    )
    def test_is_the_end(self, ledger, use):
        ledger.close()

        with pytest.raises(exception.LedgerError, match='is closed'):
            use(ledger)

    def test_inside_a_transaction_keeps_nothing_of_it(self, ledger, path):
        with pytest.raises(exception.LedgerError, match='is closed'):
            in_one(ledger, lambda: ledger.set_boot_id('monday'), ledger.close)

        with Ledger.open(path) as other:
            assert other.boot_id is None
