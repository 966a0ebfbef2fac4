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

"""Tests of pools with elastic guests: held, lent, changed and healed."""

import dataclasses

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from tests.unit.hugepages import page_host

A, B, C = (page_host.guest(number) for number in range(3))
KEY = page_host.pool(0)


def elastic(base, ceiling, *, node=0):
    """Ask for an elastic cell."""
    return [model.PageNeed(0, node, 2048, base, base, ceiling)]


def has(rig, holder, count, key=KEY):
    """Have a guest run on so many pages."""
    rig.kernel.stop_guest(holder)
    rig.kernel.start_guest(holder, {key: count})


def available(rig, key=KEY):
    """Return how many pages another guest can have."""
    return rig.pools.usage()[key].available


def pages(rig, holder):
    """Return what a guest holds, by cell."""
    return {hold.cell: hold.pages for hold in rig.pools.holds(holder)}


@pytest.fixture
def rig(tmp_path):
    """A host whose operator set up 100 pages, which lends nothing."""
    return page_host.make(tmp_path, page_host.grown(100), dynamic=False)


@pytest.fixture
def lending(tmp_path):
    """The same, whose idle pages are lent up to half of the pool."""
    return page_host.make(
        tmp_path, page_host.grown(100), dynamic=False, lend_ratio=1.5
    )


class TestHeld:
    def test_all_that_it_may_have_is_kept_for_it(self, rig):
        rig.pools.hold(A, elastic(20, 60))
        rig.run(A)

        assert available(rig) == 40
        with pytest.raises(exception.NotEnoughPages, match='1 of 41'):
            rig.pools.hold(B, page_host.needs((0, 41)))
        rig.pools.hold(B, page_host.needs((0, 40)))

    def test_no_more_than_can_be_kept_is_held(self, rig):
        with pytest.raises(exception.NotEnoughPages, match='1 of 101 pages'):
            rig.pools.hold(A, elastic(20, 101))

        assert rig.pools.holds() == []

    def test_pages_are_made_for_all_of_it(self, tmp_path):
        rig = page_host.make(tmp_path)

        rig.pools.hold(A, elastic(20, 60))

        assert rig.total() == 60
        rig.run(A)
        # Nor are they freed while it doesn't use them.
        rig.reconcile([A])
        assert rig.total() == 60

        rig.kernel.stop_guest(A)
        rig.pools.release(A)
        assert rig.total() == 0

    def test_it_grows_to_its_ceiling_and_no_further(self, rig):
        rig.pools.hold(A, elastic(20, 60))
        rig.run(A)

        rig.pools.resize(A, {0: 60})

        assert pages(rig, A) == {0: 60}
        assert available(rig) == 40
        has(rig, A, 60)
        assert available(rig) == 40
        for count in (61, 19):
            with pytest.raises(ValueError, match='cannot have'):
                rig.pools.resize(A, {0: count})
        with pytest.raises(ValueError, match='cannot have'):
            rig.pools.resize(A, {1: 20})

    def test_what_it_gave_back_stays_its_own(self, rig):
        rig.pools.hold(A, elastic(20, 60))
        rig.run(A)
        rig.pools.resize(A, {0: 50})
        has(rig, A, 50)

        has(rig, A, 30)
        rig.pools.resize(A, {0: 30})

        assert pages(rig, A) == {0: 30}
        assert available(rig) == 40

    def test_what_a_reset_took_from_it_stays_held(self, rig):
        rig.pools.hold(A, elastic(20, 60))
        rig.run(A)
        rig.pools.resize(A, {0: 50})
        has(rig, A, 50)

        has(rig, A, 20)

        rig.reconcile([A])
        assert pages(rig, A) == {0: 50}
        assert available(rig) == 40

    def test_an_ordinary_guest_has_no_size(self, rig):
        rig.pools.hold(A, page_host.needs((0, 10)))
        rig.run(A)

        with pytest.raises(ValueError, match='cannot have'):
            rig.pools.resize(A, {0: 11})

    def test_it_grows_though_a_page_of_all_is_missing(self, rig):
        rig.pools.hold(A, elastic(20, 60))
        rig.run(A)
        rig.pools.hold(B, elastic(20, 40))
        rig.run(B)
        rig.kernel.take({KEY: 1})
        assert available(rig) == -1

        rig.pools.resize(A, {0: 60})
        has(rig, A, 60)

        # The other can have all but that one.
        with pytest.raises(exception.NotEnoughPages, match='1 of 20 pages'):
            rig.pools.resize(B, {0: 40})
        rig.pools.resize(B, {0: 39})

    def test_when_lending_ends_what_is_free_can_be_had(self, tmp_path):
        rig = page_host.make(
            tmp_path, page_host.grown(100), dynamic=False, lend_ratio=1.5
        )
        rig.pools.hold(A, elastic(20, 90))
        rig.run(A)
        rig.pools.hold(B, page_host.needs((0, 40)))
        rig.run(B)
        rig.policy = dataclasses.replace(rig.policy, lend_ratio=1.0)
        rig.start()
        assert available(rig) < 0

        rig.pools.resize(A, {0: 60})
        with pytest.raises(exception.NotEnoughPages):
            rig.pools.resize(A, {0: 61})


class TestLent:
    def test_idle_pages_are_lent_up_to_the_ratio(self, lending):
        lending.pools.hold(A, elastic(20, 90))
        lending.run(A)

        # 10 that nobody has, and 50 of the 70 that are idle.
        assert available(lending) == 60
        used = lending.pools.usage()[KEY]
        assert (used.lendable, used.lent, used.unclaimed) == (50, 0, 10)
        lending.pools.hold(B, page_host.needs((0, 60)))
        lending.run(B)
        used = lending.pools.usage()[KEY]
        assert (used.available, used.lent) == (0, 50)

    def test_what_is_lent_has_to_come_back_first(self, lending):
        lending.pools.hold(A, elastic(20, 90))
        lending.run(A)
        lending.pools.hold(B, page_host.needs((0, 60)))
        lending.run(B)

        # 20 are kept for it.
        lending.pools.resize(A, {0: 40})
        has(lending, A, 40)
        with pytest.raises(exception.NotEnoughPages, match='1 of 1 pages'):
            lending.pools.resize(A, {0: 41})
        assert pages(lending, A) == {0: 40}

        lending.kernel.stop_guest(B)
        lending.pools.release(B)
        lending.pools.resize(A, {0: 90})
        assert pages(lending, A) == {0: 90}

    def test_two_that_grow_never_have_the_same_page(self, lending):
        for holder in (A, B):
            lending.pools.hold(holder, elastic(20, 70))
            lending.run(holder)
        assert available(lending) == 10

        lending.pools.resize(A, {0: 70})
        has(lending, A, 70)
        with pytest.raises(exception.NotEnoughPages, match='40 of 50 pages'):
            lending.pools.resize(B, {0: 70})
        lending.pools.resize(B, {0: 30})
        assert available(lending) == 0

    def test_one_whose_ceiling_fits_nowhere_else_fits(self, lending):
        lending.pools.hold(A, elastic(40, 100))
        lending.run(A)

        lending.pools.hold(B, elastic(30, 50))
        lending.run(B)

        assert available(lending) == 0
        assert lending.pools.usage()[KEY].lent == 50

    def test_idle_pages_are_not_freed(self, tmp_path):
        rig = page_host.make(tmp_path, lend_ratio=1.5)
        rig.pools.hold(A, elastic(20, 60))
        rig.run(A)

        rig.reconcile([A])

        assert rig.total() == 60
        assert available(rig) == 30


class TestHealed:
    def test_it_holds_what_it_was_asked_to_have(self, rig):
        rig.pools.hold(A, elastic(20, 60))
        rig.run(A)
        rig.pools.resize(A, {0: 40})
        # The service is killed before it asks.

        rig.pools.settle(A, elastic(20, 60))

        [hold] = rig.pools.holds(A)
        assert hold.need == elastic(20, 60)[0]
        assert hold.state is model.State.TAKEN

    def test_a_lost_ledger_learns_that_it_is_elastic(self, rig):
        rig.kernel.start_guest(A, {KEY: 30})
        rig.reconcile([A])
        assert available(rig) == 70

        need = model.PageNeed(0, *KEY, 30, 20, 60)
        rig.pools.settle(A, [need])

        assert [hold.need for hold in rig.pools.holds(A)] == [need]
        assert available(rig) == 40

    def test_pages_that_were_made_for_it_stay_so(self, tmp_path):
        rig = page_host.make(tmp_path)
        rig.pools.hold(A, elastic(20, 60))
        rig.run(A)
        before = sum(hold.grown for hold in rig.pools.holds(A))

        rig.pools.settle(A, [model.PageNeed(0, *KEY, 40, 20, 60)])

        assert sum(hold.grown for hold in rig.pools.holds(A)) == before

    def test_one_that_holds_nothing_is_left_alone(self, rig):
        rig.pools.settle(A, elastic(20, 60))

        assert rig.pools.holds() == []

    def test_killed_at_any_write_no_page_is_lost(self, tmp_path):
        for step in range(100):
            rig = page_host.make(tmp_path / str(step), lend_ratio=2.0)
            rig.pools.hold(A, elastic(20, 60))
            rig.run(A)
            # What it wants back others have, so pages are made.
            rig.pools.hold(B, page_host.needs((0, 40)))
            rig.run(B)
            assert rig.total() == 60
            rig.steps.kill_at = rig.steps.count + step
            try:
                rig.pools.resize(A, {0: 60})
                ended = True
            except page_host.Killed:
                ended = False
            rig.start()
            rig.reconcile([A, B], starting=True)
            rig.pools.settle(A, elastic(20, 60))
            assert pages(rig, A) == {0: 20}
            rig.kernel.stop_guest(A)
            rig.kernel.stop_guest(B)
            rig.reconcile([], starting=True)
            assert rig.pools.holds() == []
            assert rig.total() == 0
            if ended:
                break
        else:
            pytest.fail('it never came to its end')
        assert step > 5
