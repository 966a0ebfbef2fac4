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

"""A test of the ledger against a model of it, in any order of operations."""

import copy
import dataclasses
import pathlib
import tempfile

import hypothesis
from hypothesis import stateful
from hypothesis import strategies as st
import pytest

from nova_numa_hugepages.hugepages import model as page_model
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from tests.unit.core.dice import examples
from tests.unit.hugepages.state.ledgers import GIANT
from tests.unit.hugepages.state.ledgers import NODE_0
from tests.unit.hugepages.state.ledgers import NODE_1

HOLDERS = st.sampled_from(['alice', 'bob', "o'hara", 'ünï'])
PURPOSES = st.sampled_from(page_model.Purpose)
STATES = st.sampled_from(page_model.State)
KEYS = st.sampled_from([NODE_0, NODE_1, GIANT])
COUNTS = st.integers(0, 2**40 - 1) | st.integers(0, 512)
TIMES = st.floats(0, 1e12)
CELLS = st.dictionaries(
    st.integers(0, 3), st.tuples(KEYS, COUNTS, COUNTS, STATES, TIMES)
)


class Undone(Exception):
    """Lets a transaction fail."""


@dataclasses.dataclass
class Model:
    """What is in the ledger."""

    holds: dict = dataclasses.field(default_factory=dict)
    accounts: dict = dataclasses.field(default_factory=dict)
    placements: dict = dataclasses.field(default_factory=dict)
    boot_id: str | None = None

    def drop(self, holder, *purposes):
        """Delete holds, as `Ledger.drop`."""
        gone = {
            key: hold
            for key, hold in self.holds.items()
            if key[0] == holder and (not purposes or key[1] in purposes)
        }
        for key in gone:
            del self.holds[key]
        return [gone[key] for key in sorted(gone)]

    def tidy(self, holder):
        """Forget where a holder was found that holds nothing."""
        if not any(key[0] == holder for key in self.holds):
            self.placements.pop(holder, None)


class Machine(stateful.RuleBasedStateMachine):
    """Does the same to a ledger and to its model."""

    def __init__(self):
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._path = pathlib.Path(self._folder.name) / 'ledger.sqlite'
        self._ledger = Ledger.open(self._path)
        self._model = Model()
        # The transactions that have begun, each with what was there before.
        self._open = []

    def teardown(self):
        """End what was begun."""
        while self._open:
            self.keep()
        self._ledger.close()
        self._folder.cleanup()

    @stateful.rule(holder=HOLDERS, purpose=PURPOSES, cells=CELLS)
    def replace(self, holder, purpose, cells):
        """Hold pages, of some cells or of none."""
        holds = [
            page_model.Hold(
                holder, purpose, cell, *key, count, grown, state, since
            )
            for cell, (key, count, grown, state, since) in cells.items()
        ]
        self._ledger.replace_holds(holder, purpose, holds)
        self._model.drop(holder, purpose)
        for hold in holds:
            self._model.holds[holder, purpose, hold.cell] = hold
        self._model.tidy(holder)

    @stateful.rule(
        holder=HOLDERS,
        purpose=PURPOSES,
        cells=CELLS,
        wrong=st.integers(-9, -1),
    )
    def replace_wrongly(self, holder, purpose, cells, wrong):
        """Try to hold what can't be held."""
        holds = [
            page_model.Hold(holder, purpose, cell, *key, count)
            for cell, (key, count, *_) in cells.items()
        ]
        holds.append(page_model.Hold(holder, purpose, 9, *NODE_0, wrong))
        with pytest.raises(ValueError, match='constraint failed') as raised:
            self._ledger.replace_holds(holder, purpose, holds)
        self._leave_all(raised.value)

    @stateful.rule(holder=HOLDERS, purpose=PURPOSES, state=STATES)
    def set_state(self, holder, purpose, state):
        """Set the state of holds."""
        self._ledger.set_state(holder, purpose, state)
        for key, hold in self._model.holds.items():
            if key[:2] == (holder, purpose):
                self._model.holds[key] = dataclasses.replace(hold, state=state)

    @stateful.rule(holder=HOLDERS, old=PURPOSES, new=PURPOSES)
    def move(self, holder, old, new):
        """Move holds to another purpose, or to the same."""
        self._ledger.move(holder, old, new)
        if old is new:
            return
        moved = self._model.drop(holder, old)
        if moved:
            self._model.drop(holder, new)
        for hold in moved:
            self._model.holds[holder, new, hold.cell] = dataclasses.replace(
                hold, purpose=new
            )

    @stateful.rule(holder=HOLDERS, purposes=st.sets(PURPOSES))
    def drop(self, holder, purposes):
        """Delete holds."""
        dropped = self._ledger.drop(holder, *purposes)
        assert dropped == self._model.drop(holder, *purposes)
        self._model.tidy(holder)

    @stateful.rule(key=KEYS, floor=COUNTS, grown=COUNTS)
    def settle(self, key, floor, grown):
        """Write an account."""
        self._ledger.settle(key, floor, grown)
        self._model.accounts[key] = page_model.Account(*key, floor, grown)

    @stateful.rule(key=KEYS, before=COUNTS, wanted=COUNTS)
    def announce(self, key, before, wanted):
        """Announce a write, if there is an account."""
        if key not in self._model.accounts:
            with pytest.raises(KeyError) as raised:
                self._ledger.announce(key, before, wanted)
            self._leave_all(raised.value)
            return
        self._ledger.announce(key, before, wanted)
        self._model.accounts[key] = dataclasses.replace(
            self._model.accounts[key],
            announced_from=before,
            announced_to=wanted,
        )

    @stateful.rule()
    def forget_accounts(self):
        """Forget all accounts."""
        self._ledger.forget_accounts()
        self._model.accounts.clear()

    @stateful.rule(boot_id=st.sampled_from(['monday', 'tuesday']))
    def boot(self, boot_id):
        """Note another boot."""
        self._ledger.set_boot_id(boot_id)
        self._model.boot_id = boot_id

    @stateful.rule(
        holder=HOLDERS, found=st.dictionaries(KEYS, COUNTS), at=TIMES
    )
    def place(self, holder, found, at):
        """Note where a guest is."""
        self._ledger.put_placement(holder, found, at)
        self._model.placements[holder] = found
        self._model.tidy(holder)

    @stateful.rule()
    def begin(self):
        """Begin a transaction, maybe in another one."""
        transaction = self._ledger.transaction()
        transaction.__enter__()
        self._open.append((transaction, copy.deepcopy(self._model)))

    @stateful.precondition(lambda self: self._open)
    @stateful.rule()
    def keep(self):
        """End the innermost transaction."""
        transaction, _ = self._open.pop()
        transaction.__exit__(None, None, None)

    @stateful.precondition(lambda self: self._open)
    @stateful.rule()
    def undo(self):
        """Let the innermost transaction fail."""
        self._leave_all(Undone())

    def _leave_all(self, error):
        """Let an error leave all transactions, which undoes them."""
        while self._open:
            transaction, self._model = self._open.pop()
            assert not transaction.__exit__(type(error), error, None)

    @stateful.precondition(lambda self: not self._open)
    @stateful.rule()
    def restart(self):
        """Close the ledger, and open it again."""
        self._ledger.close()
        self._ledger = Ledger.open(self._path)

    @stateful.precondition(lambda self: not self._open)
    @stateful.rule()
    def look(self):
        """See the same as a reader."""
        with Ledger.open(self._path, read_only=True) as other:
            assert other.holds() == self._ledger.holds()
            assert other.accounts() == self._ledger.accounts()

    @stateful.invariant()
    def is_as_the_model(self):
        """Compare all that can be read."""
        model = self._model
        assert self._ledger.holds() == [
            model.holds[key] for key in sorted(model.holds)
        ]
        assert self._ledger.accounts() == model.accounts
        assert self._ledger.boot_id == model.boot_id
        for holder in {'alice', 'bob', *model.placements}:
            assert self._ledger.holds(holder) == [
                model.holds[key]
                for key in sorted(model.holds)
                if key[0] == holder
            ]
            assert self._ledger.placements(holder) == model.placements.get(
                holder, {}
            )


TestLedger = Machine.TestCase
TestLedger.settings = hypothesis.settings(
    examples(0.03), stateful_step_count=40
)
