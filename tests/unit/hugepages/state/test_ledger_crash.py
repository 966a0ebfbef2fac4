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

"""Tests of the ledger in several processes, some of which are killed."""

import contextlib
import random
import time

import pytest

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from tests.unit.hugepages.state.ledgers import ALICE
from tests.unit.hugepages.state.ledgers import BOB
from tests.unit.hugepages.state.ledgers import FATAL
from tests.unit.hugepages.state.ledgers import GUEST
from tests.unit.hugepages.state.ledgers import hold
from tests.unit.hugepages.state.ledgers import next_line
from tests.unit.hugepages.state.ledgers import NODE_0
from tests.unit.hugepages.state.ledgers import NODE_1
from tests.unit.hugepages.state.ledgers import process
from tests.unit.hugepages.state.ledgers import run

KILLED = -9

CHANGE = """
with ledger.Ledger.open(path) as ledger:
    with ledger.transaction():
        ledger.replace_holds(ALICE, GUEST, [hold(cell=5), hold(cell=6)])
        ledger.settle(NODE_0, 7, 8)
        ledger.announce(NODE_1, 9, 10)
"""

ADD = """
with ledger.Ledger.open(path) as ledger:
    report('open')
    sys.stdin.readline()
    for number in range(100):
        holder = f'{sys.argv[2]} {number}'
        with ledger.transaction():
            account = ledger.account(NODE_0)
            ledger.settle(NODE_0, account.floor + 1, account.grown)
            ledger.replace_holds(holder, GUEST, [hold(holder)])
"""

TURNS = """
ledger = ledger.Ledger.open(path)
report('open')
while True:
    ledger.replace_holds(ALICE, GUEST, [hold(cell=n) for n in range(3)])
    ledger.replace_holds(ALICE, GUEST, [hold(cell=n) for n in range(7, 9)])
"""

OPEN = """
report('ready')
sys.stdin.readline()
with ledger.Ledger.open(path) as ledger:
    ledger.replace_holds(sys.argv[2], GUEST, [hold(sys.argv[2])])
"""


@pytest.fixture
def path(tmp_path):
    """Where the ledger is."""
    return tmp_path / 'ledger.sqlite'


def seen(path):
    """Return all that is in a ledger."""
    with Ledger.open(path) as ledger:
        return ledger.holds(), ledger.accounts()


def go(running):
    """Let a process go on."""
    running.stdin.write('go\n')
    running.stdin.flush()


@pytest.mark.parametrize('when', ['before', 'after'])
def test_killed_at_any_statement_leaves_all_or_nothing(path, when):
    # given a ledger with holds and accounts
    accounts = [model.Account(*NODE_0, 1, 2), model.Account(*NODE_1, 3, 4)]
    with Ledger.open(path) as ledger:
        ledger.replace_holds(ALICE, GUEST, [hold(cell=0)])
        for account in accounts:
            ledger.put_account(account)
    before = seen(path)
    after = (
        [hold(cell=5), hold(cell=6)],
        {
            NODE_0: model.Account(*NODE_0, 7, 8),
            NODE_1: model.Account(*NODE_1, 3, 4, 9, 10),
        },
    )

    # when the process that changes them is killed at each of its statements
    found = []
    while True:
        status, _ = run(path.parent, FATAL + CHANGE, len(found), when)
        if status != KILLED:
            break
        found.append(seen(path))

    # then each time either nothing was done, or all of it
    assert status == 0
    assert len(found) > 15
    changed = found.index(after) if when == 'after' else len(found)
    assert found == [before] * changed + [after] * (len(found) - changed)
    assert seen(path) == after


def test_killed_at_any_statement_of_the_first_start_can_start(tmp_path):
    count = 0
    while True:
        folder = tmp_path / str(count)
        folder.mkdir()

        status, _ = run(
            folder, FATAL + 'ledger.Ledger.open(path).close()', count, 'before'
        )

        assert seen(folder / 'ledger.sqlite') == ([], {})
        if status != KILLED:
            break
        count += 1
    assert status == 0
    assert count > 10


def test_killed_at_any_moment_leaves_all_or_nothing(path):
    dice = random.Random(4)
    outcomes = (
        [],
        [hold(cell=0), hold(cell=1), hold(cell=2)],
        [hold(cell=7), hold(cell=8)],
    )
    for _ in range(15):
        with process(path.parent, TURNS) as service:
            assert next_line(service) == 'open'
            time.sleep(dice.random() / 50)
            service.kill()
            service.wait()

        holds, _ = seen(path)

        assert holds in outcomes


@pytest.mark.parametrize(
    'harm',
    [
        lambda log: log[:0],
        lambda log: log[: len(log) // 2],
        lambda log: log[:-1],
        lambda log: bytes([*log[:100], log[100] ^ 1, *log[101:]]),
        lambda log: bytes([*log[:-100], log[-100] ^ 1, *log[-99:]]),
    ],
    ids=['empty', 'half', 'cut', 'bit of its start', 'bit of its end'],
)
def test_a_log_that_is_harmed_after_a_crash_takes_nothing_away(path, harm):
    assert run(path.parent, KILLED_LATE)[0] == KILLED
    log = path.with_name('ledger.sqlite-wal')
    log.write_bytes(harm(log.read_bytes()))

    holds, accounts = seen(path)

    assert [one.holder for one in holds] == [ALICE, BOB]
    assert accounts[NODE_0].floor == 7


KILLED_LATE = """
ledger = ledger.Ledger.open(path)
ledger.replace_holds(ALICE, GUEST, [hold()])
ledger.put_account(model.Account(*NODE_0, 7))
ledger.replace_holds(BOB, GUEST, [hold(BOB)])
die()
"""


def test_killed_in_a_transaction_lets_others_write(path):
    script = """
with ledger.Ledger.open(path).transaction():
    report('inside')
    time.sleep(60)
"""
    with Ledger.open(path) as ledger:
        with process(path.parent, script) as service:
            assert next_line(service) == 'inside'
            service.kill()
            service.wait()

        ledger.replace_holds(ALICE, GUEST, [hold()])

        assert ledger.holds() == [hold()]


def test_two_that_write_at_once_lose_nothing(path):
    with Ledger.open(path) as ledger:
        ledger.put_account(model.Account(*NODE_0, 0))

        with (
            process(path.parent, ADD, 'one') as one,
            process(path.parent, ADD, 'two') as two,
        ):
            for running in (one, two):
                assert next_line(running) == 'open'
            for running in (one, two):
                go(running)
            assert [one.wait(60), two.wait(60)] == [0, 0]

        assert ledger.account(NODE_0) == model.Account(*NODE_0, 200)
        assert {found.holder for found in ledger.holds()} == {
            f'{name} {number}'
            for name in ('one', 'two')
            for number in range(100)
        }


def test_those_that_start_at_once_make_one(path):
    names = ['one', 'two', 'three', 'four']
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(process(path.parent, OPEN, name))
            for name in names
        ]
        assert [next_line(service) for service in running] == ['ready'] * 4
        for service in running:
            go(service)
        assert [service.wait(60) for service in running] == [0] * 4

    holds, _ = seen(path)
    assert sorted(found.holder for found in holds) == sorted(names)
