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

"""Tests of what the ledger keeps."""

import dataclasses

import pytest

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from tests.unit.hugepages.state.ledgers import ALICE
from tests.unit.hugepages.state.ledgers import BOB
from tests.unit.hugepages.state.ledgers import GIANT
from tests.unit.hugepages.state.ledgers import GUEST
from tests.unit.hugepages.state.ledgers import HELD
from tests.unit.hugepages.state.ledgers import hold
from tests.unit.hugepages.state.ledgers import INCOMING
from tests.unit.hugepages.state.ledgers import NODE_0
from tests.unit.hugepages.state.ledgers import NODE_1
from tests.unit.hugepages.state.ledgers import RESIZE
from tests.unit.hugepages.state.ledgers import TAKEN


@pytest.fixture
def path(tmp_path):
    """Where the ledger is."""
    return tmp_path / 'ledger.sqlite'


@pytest.fixture
def ledger(path):
    """Open a new ledger."""
    with Ledger.open(path) as opened:
        yield opened


class TestHolds:
    def test_nothing_is_held_at_first(self, ledger):
        assert ledger.holds() == []
        assert ledger.holds(ALICE) == []

    def test_what_is_put_in_comes_out(self, ledger):
        both = [
            hold(cell=0, key=NODE_0, grown=12, since=1000.25),
            hold(cell=1, key=GIANT, count=2, state=TAKEN),
        ]

        ledger.replace_holds(ALICE, GUEST, both)

        assert ledger.holds() == both

    def test_are_in_order_of_holder_purpose_and_cell(self, ledger):
        ledger.replace_holds(BOB, GUEST, [hold(BOB)])
        ledger.replace_holds(
            ALICE,
            RESIZE,
            [hold(cell=1, purpose=RESIZE), hold(cell=0, purpose=RESIZE)],
        )
        ledger.replace_holds(ALICE, GUEST, [hold()])

        assert ledger.holds() == [
            hold(),
            hold(cell=0, purpose=RESIZE),
            hold(cell=1, purpose=RESIZE),
            hold(BOB),
        ]

    def test_are_listed_for_one_holder(self, ledger):
        ledger.replace_holds(ALICE, GUEST, [hold()])
        ledger.replace_holds(BOB, GUEST, [hold(BOB)])

        assert ledger.holds(BOB) == [hold(BOB)]

    def test_are_listed_for_some_purposes(self, ledger):
        ledger.replace_holds(ALICE, GUEST, [hold()])
        ledger.replace_holds(ALICE, RESIZE, [hold(purpose=RESIZE)])

        assert ledger.holds(ALICE, RESIZE) == [hold(purpose=RESIZE)]
        assert ledger.holds(ALICE, GUEST, INCOMING) == [hold()]
        assert ledger.holds(None, INCOMING) == []

    def test_replace_those_for_the_same_purpose_only(self, ledger):
        ledger.replace_holds(ALICE, GUEST, [hold(cell=0), hold(cell=1)])
        ledger.replace_holds(ALICE, RESIZE, [hold(purpose=RESIZE)])

        ledger.replace_holds(ALICE, GUEST, [hold(cell=0, count=7)])

        assert ledger.holds() == [hold(count=7), hold(purpose=RESIZE)]

    def test_may_be_replaced_by_nothing(self, ledger):
        ledger.replace_holds(ALICE, GUEST, [hold()])

        ledger.replace_holds(ALICE, GUEST, [])

        assert ledger.holds() == []

    def test_of_no_pages_are_holds(self, ledger):
        ledger.replace_holds(ALICE, GUEST, [hold(count=0)])

        assert ledger.holds() == [hold(count=0)]

    @pytest.mark.parametrize(
        'wrong',
        [
            hold(BOB),
            hold(purpose=RESIZE),
            hold(cell=-1),
            hold(count=-1),
            hold(count=2**40),
            hold(count=2**63),
            hold(count=1.5),
            hold(grown=-1),
            hold(key=model.PoolKey(-1, 2048)),
            hold(key=model.PoolKey(0, 0)),
            hold(state='lost'),
            hold(since=float('nan')),
            hold(since=float('inf')),
            hold(since=-1.0),
        ],
        ids=repr,
    )
    def test_that_cannot_be_change_nothing(self, ledger, wrong):
        ledger.replace_holds(ALICE, GUEST, [hold(count=1)])

        with pytest.raises(ValueError):  # noqa: PT011
            ledger.replace_holds(ALICE, GUEST, [hold(cell=5), wrong])

        assert ledger.holds() == [hold(count=1)]

    def test_without_a_holder_cannot_be(self, ledger):
        with pytest.raises(ValueError) as raised:  # noqa: PT011
            ledger.replace_holds('', GUEST, [hold('')])

        assert str(raised.value) == (
            "('', <Purpose.GUEST: 'guest'>, 0, 0, 2048, 512, 0, "
            "<State.HELD: 'held'>, 1000.0) cannot be a row in holds: "
            'CHECK constraint failed: holder'
        )

    def test_of_one_cell_twice_change_nothing(self, ledger):
        ledger.replace_holds(ALICE, GUEST, [hold(count=1)])

        with pytest.raises(ValueError, match='twice'):
            ledger.replace_holds(
                ALICE, GUEST, [hold(key=NODE_0), hold(key=NODE_1)]
            )

        assert ledger.holds() == [hold(count=1)]

    def test_get_a_state_for_one_purpose(self, ledger):
        ledger.replace_holds(ALICE, GUEST, [hold(cell=0), hold(cell=1)])
        ledger.replace_holds(ALICE, RESIZE, [hold(purpose=RESIZE)])

        ledger.set_state(ALICE, GUEST, TAKEN)

        assert [one.state for one in ledger.holds()] == [TAKEN, TAKEN, HELD]

    def test_that_are_not_there_get_no_state(self, ledger):
        ledger.set_state(ALICE, GUEST, TAKEN)

        assert ledger.holds() == []

    def test_cannot_get_a_state_that_is_none(self, ledger):
        ledger.replace_holds(ALICE, GUEST, [hold()])

        with pytest.raises(ValueError, match='lost'):
            ledger.set_state(ALICE, GUEST, 'lost')

        assert ledger.holds() == [hold()]

    def test_move_in_place_of_what_is_there(self, ledger):
        ledger.replace_holds(ALICE, GUEST, [hold(cell=0), hold(cell=1)])
        ledger.replace_holds(
            ALICE, INCOMING, [hold(key=NODE_1, purpose=INCOMING)]
        )

        for _ in range(2):
            ledger.move(ALICE, INCOMING, GUEST)

            assert ledger.holds() == [hold(key=NODE_1)]

    def test_that_are_not_there_do_not_move(self, ledger):
        ledger.replace_holds(ALICE, GUEST, [hold()])

        ledger.move(ALICE, INCOMING, GUEST)

        assert ledger.holds() == [hold()]

    def test_may_move_to_where_they_are(self, ledger):
        ledger.replace_holds(ALICE, GUEST, [hold()])

        ledger.move(ALICE, GUEST, GUEST)

        assert ledger.holds() == [hold()]

    def test_are_dropped_for_one_purpose(self, ledger):
        ledger.replace_holds(ALICE, GUEST, [hold()])
        ledger.replace_holds(ALICE, RESIZE, [hold(purpose=RESIZE)])

        assert ledger.drop(ALICE, RESIZE) == [hold(purpose=RESIZE)]
        assert ledger.drop(ALICE, RESIZE) == []
        assert ledger.holds() == [hold()]

    def test_are_dropped_for_all_purposes(self, ledger):
        ledger.replace_holds(ALICE, GUEST, [hold()])
        ledger.replace_holds(ALICE, RESIZE, [hold(purpose=RESIZE)])
        ledger.replace_holds(BOB, GUEST, [hold(BOB)])

        assert ledger.drop(ALICE) == [hold(), hold(purpose=RESIZE)]
        assert ledger.drop(ALICE) == []
        assert ledger.holds() == [hold(BOB)]


class TestAccounts:
    def test_a_pool_has_none_at_first(self, ledger):
        assert ledger.accounts() == {}
        assert ledger.account(NODE_0) is None

    def test_replace_the_one_there_is(self, ledger):
        ledger.put_account(model.Account(*NODE_0, 10, 5))
        ledger.put_account(model.Account(*GIANT, 1))
        ledger.put_account(model.Account(*NODE_0, 11, 6))

        assert ledger.accounts() == {
            NODE_0: model.Account(*NODE_0, 11, 6),
            GIANT: model.Account(*GIANT, 1, 0),
        }
        assert ledger.account(GIANT) == model.Account(*GIANT, 1, 0)

    def test_keep_what_is_announced_until_it_is_settled(self, ledger):
        ledger.put_account(model.Account(*NODE_0, 10, 5))

        ledger.announce(NODE_0, 15, 20)

        assert ledger.account(NODE_0) == model.Account(*NODE_0, 10, 5, 15, 20)

        ledger.settle(NODE_0, 10, 10)

        assert ledger.account(NODE_0) == model.Account(*NODE_0, 10, 10)

    def test_nothing_is_announced_for_a_pool_without_one(self, ledger):
        with pytest.raises(KeyError):
            ledger.announce(NODE_0, 15, 20)

        assert ledger.accounts() == {}

    @pytest.mark.parametrize(
        'wrong',
        [
            model.Account(*NODE_0, -1),
            model.Account(*NODE_0, 1, -1),
            model.Account(*NODE_0, 1, 1, 5, None),
            model.Account(*NODE_0, 1, 1, None, 5),
            model.Account(*NODE_0, 1, 1, -1, 5),
        ],
        ids=repr,
    )
    def test_that_cannot_be_change_nothing(self, ledger, wrong):
        ledger.put_account(model.Account(*NODE_0, 10, 5))

        with pytest.raises(ValueError):  # noqa: PT011
            ledger.put_account(wrong)

        assert ledger.account(NODE_0) == model.Account(*NODE_0, 10, 5)

    def test_are_forgotten(self, ledger):
        ledger.put_account(model.Account(*NODE_0, 10, 5))

        ledger.forget_accounts()
        ledger.forget_accounts()

        assert ledger.accounts() == {}


class TestFacts:
    def test_no_boot_is_known_at_first(self, ledger):
        assert ledger.boot_id is None

    def test_the_last_boot_is_known(self, ledger):
        ledger.set_boot_id('monday')
        ledger.set_boot_id('tuesday')

        assert ledger.boot_id == 'tuesday'

    def test_a_boot_has_a_name(self, ledger):
        with pytest.raises(ValueError, match='constraint failed: value'):
            ledger.set_boot_id('')


class TestPlacements:
    def test_replace_those_there_are(self, ledger):
        ledger.replace_holds(ALICE, GUEST, [hold()])

        ledger.put_placement(ALICE, {NODE_0: 500, NODE_1: 12}, 1.0)
        ledger.put_placement(ALICE, {NODE_1: 512}, 2.0)

        assert ledger.placements(ALICE) == {NODE_1: 512}
        assert ledger.placements(BOB) == {}

    def test_stay_while_anything_is_held(self, ledger):
        ledger.replace_holds(ALICE, GUEST, [hold()])
        ledger.put_placement(ALICE, {NODE_0: 512}, 1.0)

        ledger.replace_holds(ALICE, GUEST, [hold(count=7)])
        ledger.move(ALICE, GUEST, RESIZE)
        ledger.drop(ALICE, GUEST)

        assert ledger.placements(ALICE) == {NODE_0: 512}

    @pytest.mark.parametrize(
        'end',
        [
            lambda ledger: ledger.drop(ALICE),
            lambda ledger: ledger.replace_holds(ALICE, GUEST, []),
        ],
    )
    def test_go_with_the_last_hold(self, ledger, end):
        ledger.replace_holds(BOB, GUEST, [hold(BOB)])
        ledger.replace_holds(ALICE, GUEST, [hold()])
        ledger.put_placement(ALICE, {NODE_0: 512}, 1.0)

        end(ledger)

        assert ledger.placements(ALICE) == {}

    def test_of_one_that_holds_nothing_are_not_noted(self, ledger):
        ledger.put_placement(ALICE, {NODE_0: 512}, 1.0)

        assert ledger.placements(ALICE) == {}

    def test_that_cannot_be_change_nothing(self, ledger):
        ledger.replace_holds(ALICE, GUEST, [hold()])
        ledger.put_placement(ALICE, {NODE_0: 512}, 1.0)

        with pytest.raises(ValueError, match='constraint failed: pages'):
            ledger.put_placement(ALICE, {NODE_1: 5, NODE_0: -1}, 1.0)

        assert ledger.placements(ALICE) == {NODE_0: 512}


def test_a_ledger_in_memory_is_a_ledger():
    with Ledger.in_memory() as ledger:
        ledger.replace_holds(ALICE, GUEST, [hold()])

        assert ledger.holds() == [hold()]


def elastic(holder=ALICE, count=512, **values):
    """Make a hold of an elastic cell."""
    return dataclasses.replace(
        hold(holder, count=count, **values), base=256, ceiling=1024
    )


class TestElastic:
    def test_cells_keep_their_base_and_ceiling(self, ledger):
        rows = [elastic(), hold(cell=1)]
        ledger.replace_holds(ALICE, GUEST, rows)

        assert ledger.holds(ALICE) == rows
        ledger.set_state(ALICE, GUEST, TAKEN)
        assert ledger.holds()[0].ceiling == 1024

    def test_they_move_with_the_hold(self, ledger):
        ledger.replace_holds(ALICE, GUEST, [elastic()])
        ledger.replace_holds(ALICE, RESIZE, [hold(purpose=RESIZE)])

        ledger.move(ALICE, GUEST, RESIZE)

        assert ledger.holds() == [elastic(purpose=RESIZE)]

    def test_an_ordinary_hold_takes_their_place(self, ledger):
        ledger.replace_holds(ALICE, GUEST, [elastic()])
        ledger.replace_holds(ALICE, GUEST, [hold()])
        assert ledger.holds() == [hold()]

        ledger.replace_holds(ALICE, GUEST, [elastic()])
        ledger.drop(ALICE)
        ledger.replace_holds(ALICE, GUEST, [hold()])
        assert ledger.holds() == [hold()]

    @pytest.mark.parametrize(
        'values', [{'base': 1024}, {'base': 0}, {'ceiling': -5}]
    )
    def test_sizes_that_cannot_be_change_nothing(self, ledger, values):
        ledger.replace_holds(ALICE, GUEST, [elastic()])

        with pytest.raises(ValueError, match='cannot be a row in elastic'):
            ledger.replace_holds(
                ALICE, GUEST, [dataclasses.replace(elastic(), **values)]
            )

        assert ledger.holds() == [elastic()]

    def test_what_an_earlier_version_changed_is_not_elastic(self, ledger):
        ledger.replace_holds(ALICE, GUEST, [elastic()])
        for count in (255, 1025):
            ledger._connection.execute('UPDATE holds SET pages = ?', (count,))
            [found] = ledger.holds()
            assert (found.pages, found.base, found.ceiling) == (count, 0, 0)

    def test_how_they_came_to_their_size_is_noted(self, ledger):
        size = model.Size(None, 5.0, 'it swapped')
        ledger.replace_holds(ALICE, GUEST, [elastic()])
        ledger.put_size(ALICE, 0, size)
        ledger.put_size(ALICE, 1, size._replace(wanted_kib=300))

        assert ledger.sizes(ALICE) == {
            0: size,
            1: size._replace(wanted_kib=300),
        }
        assert ledger.sizes(BOB) == {}

    def test_it_is_forgotten_with_the_last_hold(self, ledger):
        size = model.Size(None, 5.0, 'it swapped')
        ledger.put_size(BOB, 0, size)
        assert ledger.sizes(BOB) == {}
        ledger.replace_holds(ALICE, GUEST, [elastic()])
        ledger.put_size(ALICE, 0, size)

        ledger.drop(ALICE)

        assert ledger.sizes(ALICE) == {}

    def test_what_they_wait_for_is_noted_since_it_began(self, ledger):
        ledger.replace_holds(ALICE, GUEST, [elastic()])
        ledger.put_waits(ALICE, {0: 128, 1: 256}, 5.0)
        ledger.put_waits(ALICE, {1: 512}, 6.0)
        ledger.put_waits(BOB, {1: 512}, 6.0)
        assert ledger.waits() == [model.Wait(ALICE, 1, 512, 5.0)]

        ledger.put_waits(ALICE, {0: 128}, 7.0)
        assert ledger.waits() == [model.Wait(ALICE, 0, 128, 7.0)]
        ledger.drop(ALICE)
        assert ledger.waits() == []

    def test_one_that_others_have_not_brought_up_to_date_is_read(self, ledger):
        ledger.replace_holds(ALICE, GUEST, [elastic()])
        for table in ('waits', 'cell_sizes', 'starts'):
            ledger._connection.execute(f'DROP TABLE {table}')

        with Ledger.open(ledger.path, read_only=True) as read:
            assert read.holds() == [elastic()]
            assert read.waits() == []
            assert read.sizes(ALICE) == read.starts(0) == {}

    def test_a_size_without_a_reason_cannot_be(self, ledger):
        with pytest.raises(ValueError, match='why'):
            ledger.put_size(ALICE, 0, model.Size(None, 5.0, ''))
