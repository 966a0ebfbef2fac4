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

"""Pages are held, made where they lack, and given back."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from tests.fixtures import kernel as fake_kernel
from tests.unit.hugepages import page_host

A, B, C = map(page_host.guest, (1, 2, 3))
NODE = fake_kernel.FakeNode(total=1024, used=64)
LARGE = 1048576


def make(
    path: pathlib.Path,
    *nodes: fake_kernel.FakeNode,
    **policy: object,
) -> page_host.Rig:
    """Make a host with these nodes."""
    rig = page_host.Rig(
        path,
        dict(enumerate(nodes or (NODE, NODE))),
        dataclasses.replace(page_host.POLICY, **policy),
    )
    rig.reconcile(starting=True)
    return rig


def grown(count: int) -> fake_kernel.FakeNode:
    """A node whose operator set up a pool of 2 MiB pages."""
    return dataclasses.replace(NODE, pools={2048: count})


class TestHold:
    def test_pages_are_made_on_the_nodes_of_the_plan(
        self, tmp_path: pathlib.Path
    ) -> None:
        # Given a host without pages.
        rig = make(tmp_path)
        # When two guest cells need some of both nodes,
        rig.pools.hold(A, page_host.needs((1, 30), (0, 20)))
        # Then they are there and held, and known to be made for it.
        assert rig.persistent() == {
            page_host.pool(0): 20,
            page_host.pool(1): 30,
        }
        assert rig.held() == {
            (A, 'guest'): {page_host.pool(0): 20, page_host.pool(1): 30}
        }
        assert [hold.grown for hold in rig.ledger.holds(A)] == [30, 20]
        assert (rig.account(0), rig.account(1)) == ((0, 20), (0, 30))

    def test_only_what_lacks_is_made(self, tmp_path: pathlib.Path) -> None:
        # Given a pool of 25 pages, 10 of which are promised.
        rig = make(tmp_path, grown(25))
        rig.pools.hold(A, page_host.needs((0, 10)))
        # When 20 more are needed, Then 5 are made.
        rig.pools.hold(B, page_host.needs((0, 20)))
        assert rig.account(0) == (25, 5)

    def test_two_guest_cells_on_a_node_need_the_sum(
        self, tmp_path: pathlib.Path
    ) -> None:
        rig = make(tmp_path, grown(25))
        rig.pools.hold(A, page_host.needs((0, 20), (0, 20)))
        assert rig.account(0) == (25, 15)

    def test_it_can_be_repeated(self, tmp_path: pathlib.Path) -> None:
        rig = make(tmp_path)
        rig.pools.hold(A, page_host.needs((0, 20)))
        rig.pools.hold(A, page_host.needs((0, 20)))
        assert rig.persistent()[page_host.pool(0)] == 20

    def test_a_guest_that_runs_on_its_pages_needs_no_more(
        self, tmp_path: pathlib.Path
    ) -> None:
        rig = make(tmp_path)
        rig.pools.hold(A, page_host.needs((0, 20)))
        rig.run(A)
        rig.pools.hold(A, page_host.needs((0, 20)))
        assert rig.persistent()[page_host.pool(0)] == 20

    def test_other_needs_replace_those_before(
        self, tmp_path: pathlib.Path
    ) -> None:
        rig = make(tmp_path)
        rig.pools.hold(A, page_host.needs((0, 20)))
        rig.pools.hold(A, page_host.needs((1, 5)))
        assert rig.held() == {(A, 'guest'): {page_host.pool(1): 5}}

    def test_no_needs_release(self, tmp_path: pathlib.Path) -> None:
        rig = make(tmp_path)
        rig.pools.hold(A, page_host.needs((0, 20)))
        rig.pools.hold(A, [])
        assert rig.held() == {}
        assert rig.persistent()[page_host.pool(0)] == 0

    def test_a_guest_that_is_off_keeps_its_promise(
        self, tmp_path: pathlib.Path
    ) -> None:
        # Given a guest that ran, on all pages of a pool that can't grow.
        rig = make(tmp_path, grown(20), dynamic=False)
        rig.pools.hold(A, page_host.needs((0, 20)))
        rig.run(A)
        rig.kernel.stop_guest(A)
        # When another one needs a page, Then it gets none.
        with pytest.raises(exception.NotEnoughPages):
            rig.pools.hold(B, page_host.needs((0, 1)))

    def test_pages_that_a_starting_guest_takes_do_not_count_twice(
        self, tmp_path: pathlib.Path
    ) -> None:
        # Given a guest that has taken 12 of its 20 pages so far.
        rig = make(tmp_path, grown(30), dynamic=False)
        rig.pools.hold(A, page_host.needs((0, 20)))
        rig.kernel.start_guest(A, {page_host.pool(0): 20}, touch=False)
        rig.kernel.touch(A, 12)
        # When another one needs all that are left, Then it gets them,
        rig.pools.hold(B, page_host.needs((0, 10)))
        # And the first one gets the rest of its own.
        rig.kernel.touch(A)
        assert rig.kernel.guests()[A] == {page_host.pool(0): 20}


class TestNotEnough:
    def test_all_cells_or_none(self, tmp_path: pathlib.Path) -> None:
        # Given two nodes, each of which can make 400 pages or so.
        rig = make(tmp_path)
        # When one cell needs more than its node has,
        with pytest.raises(exception.NotEnoughPages) as caught:
            rig.pools.hold(A, page_host.needs((0, 100), (1, 600)))
        # Then nothing is held and both pools are as before,
        assert rig.held() == {}
        assert set(rig.persistent().values()) == {0}
        assert (rig.account(0), rig.account(1)) == ((0, 0), (0, 0))
        # And the numbers are told.
        assert len(caught.value.shortages) == 1
        assert '600 pages of 2 MiB on NUMA node 1' in str(caught.value)

    def test_what_was_held_before_stays_held(
        self, tmp_path: pathlib.Path
    ) -> None:
        rig = make(tmp_path)
        rig.pools.hold(A, page_host.needs((0, 20)))
        with pytest.raises(exception.NotEnoughPages):
            rig.pools.hold(A, page_host.needs((0, 5000)))
        assert rig.held() == {(A, 'guest'): {page_host.pool(0): 20}}
        assert rig.persistent()[page_host.pool(0)] == 20

    def test_static_pools_never_grow(self, tmp_path: pathlib.Path) -> None:
        rig = make(tmp_path, grown(20), dynamic=False)
        with pytest.raises(exception.NotEnoughPages, match='pools are static'):
            rig.pools.hold(A, page_host.needs((0, 21)))
        rig.pools.hold(A, page_host.needs((0, 20)))
        assert rig.persistent()[page_host.pool(0)] == 20

    def test_a_page_size_that_the_host_lacks(
        self, tmp_path: pathlib.Path
    ) -> None:
        rig = make(tmp_path)
        with pytest.raises(exception.NotEnoughPages, match='no such pool'):
            rig.pools.hold(A, [model.PageNeed(0, 0, 64, 1)])

    def test_memory_that_is_to_stay_free(self, tmp_path: pathlib.Path) -> None:
        # Given 960 MiB of free memory, 900 MiB of which are to stay free.
        rig = make(tmp_path, NODE, node_free_mib=900)
        rig.pools.hold(A, page_host.needs((0, 30)))
        with pytest.raises(
            exception.NotEnoughPages, match='900 MiB stay free'
        ):
            rig.pools.hold(B, page_host.needs((0, 1)))

    def test_pools_have_a_ceiling(self, tmp_path: pathlib.Path) -> None:
        # Given that pools may take a quarter of 1024 MiB.
        rig = make(tmp_path, NODE, ceiling_percent=25)
        rig.pools.hold(A, page_host.needs((0, 128)))
        with pytest.raises(exception.NotEnoughPages, match='25 %'):
            rig.pools.hold(B, page_host.needs((0, 1)))

    def test_what_others_use_is_not_promised(
        self, tmp_path: pathlib.Path
    ) -> None:
        rig = make(tmp_path, grown(30), dynamic=False)
        rig.kernel.take({page_host.pool(0): 20})
        with pytest.raises(exception.NotEnoughPages, match='20 used by oth'):
            rig.pools.hold(A, page_host.needs((0, 11)))
        rig.pools.hold(A, page_host.needs((0, 10)))

    def test_what_others_have_reserved_in_the_kernel_is_not_promised(
        self, tmp_path: pathlib.Path
    ) -> None:
        rig = make(tmp_path, grown(30), dynamic=False)
        rig.kernel.take({page_host.pool(0): 20}, touch=False)
        with pytest.raises(exception.NotEnoughPages):
            rig.pools.hold(A, page_host.needs((0, 11)))
        rig.pools.hold(A, page_host.needs((0, 10)))

    def test_what_the_operator_reserves_is_not_promised(
        self, tmp_path: pathlib.Path
    ) -> None:
        # Given 12 pages reserved for a program that has 8 of them so far.
        rig = make(
            tmp_path,
            grown(30),
            dynamic=False,
            reserved={page_host.pool(0): 12},
        )
        rig.kernel.take({page_host.pool(0): 8})
        # When a guest needs what is beyond, Then the rest stays for it.
        with pytest.raises(exception.NotEnoughPages):
            rig.pools.hold(A, page_host.needs((0, 19)))
        rig.pools.hold(A, page_host.needs((0, 18)))

    def test_others_that_take_pages_while_they_are_made(
        self, tmp_path: pathlib.Path
    ) -> None:
        # Given a program that takes 5 pages as soon as there are some.
        rig = make(tmp_path)
        step = rig.kernel.hook
        took: list[int] = []

        def interfere(event: fake_kernel.Event) -> None:
            if event.kind == 'written' and not took:
                took.append(rig.kernel.take({page_host.pool(0): 5}))
            if step is not None:
                step(event)

        rig.kernel.hook = interfere
        # When a guest needs 20, Then it gets 20 all the same.
        rig.pools.hold(A, page_host.needs((0, 20)))
        assert took
        assert rig.pools.usage()[page_host.pool(0)].available == 0
        rig.run(A)


class TestRelease:
    def test_the_pools_go_back_to_the_floor(
        self, tmp_path: pathlib.Path
    ) -> None:
        rig = make(tmp_path, grown(10))
        rig.pools.hold(A, page_host.needs((0, 50)))
        rig.run(A)
        rig.kernel.stop_guest(A)
        rig.pools.release(A)
        assert rig.held() == {}
        assert rig.account(0) == (10, 0)
        assert rig.persistent()[page_host.pool(0)] == 10

    def test_it_can_be_repeated(self, tmp_path: pathlib.Path) -> None:
        rig = make(tmp_path)
        rig.pools.release(A)
        rig.pools.hold(A, page_host.needs((0, 50)))
        rig.pools.release(A)
        rig.pools.release(A)
        assert rig.persistent()[page_host.pool(0)] == 0

    def test_what_others_hold_stays(self, tmp_path: pathlib.Path) -> None:
        rig = make(tmp_path)
        rig.pools.hold(A, page_host.needs((0, 50)))
        rig.pools.hold(B, page_host.needs((0, 20)))
        rig.pools.release(A)
        assert rig.persistent()[page_host.pool(0)] == 20

    def test_some_pages_stay_warm(self, tmp_path: pathlib.Path) -> None:
        # Given 16 MiB that stay ready on each node.
        rig = make(tmp_path, grown(10), warm_mib=16)
        rig.pools.hold(A, page_host.needs((0, 50)))
        rig.pools.release(A)
        # Then 8 pages above the floor stay.
        assert rig.account(0) == (10, 8)

    def test_only_for_a_purpose(self, tmp_path: pathlib.Path) -> None:
        rig = make(tmp_path)
        rig.pools.hold(A, page_host.needs((0, 50)))
        rig.pools.move(A, model.Purpose.GUEST, model.Purpose.RESIZE)
        rig.pools.hold(A, page_host.needs((0, 20)))
        rig.pools.release(A, model.Purpose.RESIZE)
        assert rig.held() == {(A, 'guest'): {page_host.pool(0): 20}}
        assert rig.persistent()[page_host.pool(0)] == 20

    def test_pages_that_are_still_in_use_stay(
        self, tmp_path: pathlib.Path
    ) -> None:
        rig = make(tmp_path)
        rig.pools.hold(A, page_host.needs((0, 50)))
        rig.run(A)
        rig.pools.release(A)
        assert rig.kernel.pool(page_host.pool(0)) == model.Pool(
            0, 2048, total=50, free=0
        )
        rig.kernel.stop_guest(A)
        rig.reconcile()
        assert rig.persistent()[page_host.pool(0)] == 0

    def test_a_kernel_that_keeps_pages_is_asked_again(
        self, tmp_path: pathlib.Path
    ) -> None:
        # Given a kernel that gives up 20 of 50 pages.
        rig = make(tmp_path)
        rig.pools.hold(A, page_host.needs((0, 50)))
        rig.kernel.refuse_shrink(page_host.pool(0), 20)
        rig.pools.release(A)
        # Then the rest are ours, no surplus, and still to be had.
        assert rig.kernel.pool(page_host.pool(0)) == model.Pool(
            0, 2048, total=30, free=30
        )
        assert rig.account(0) == (0, 30)
        # When it does again what it is asked, Then they go.
        rig.kernel.refuse_shrink(page_host.pool(0), None)
        rig.reconcile()
        assert rig.kernel.pool(page_host.pool(0)).total == 0

    def test_surplus_pages_of_another_node_do_not_stay_for_ever(
        self, tmp_path: pathlib.Path
    ) -> None:
        # Given a guest on node 1 on pages that the operator took away since.
        rig = make(tmp_path)
        rig.pools.hold(A, page_host.needs((1, 40)))
        rig.run(A)
        rig.kernel.operator_writes(page_host.pool(1), 0)
        rig.pools.hold(B, page_host.needs((0, 30)))
        # When the pages of node 0 are given back,
        rig.pools.release(B)
        rig.kernel.stop_guest(A)
        rig.pools.release(A)
        rig.reconcile()
        # Then none is left on either.
        assert {
            node: rig.kernel.pool(page_host.pool(node)).total
            for node in (0, 1)
        } == {0: 0, 1: 0}


class TestReadOnly:
    def test_from_the_start(self, tmp_path: pathlib.Path) -> None:
        # Given pools with pages, on a host where they can't be changed.
        rig = make(tmp_path, grown(20))
        rig.start(read_only='/sys is mounted read-only')
        # Then what is there is held, and no more; the reason is told.
        rig.pools.hold(A, page_host.needs((0, 20)))
        with pytest.raises(exception.NotEnoughPages) as caught:
            rig.pools.hold(B, page_host.needs((0, 1)))
        assert caught.value.shortages == (
            '1 of 1 pages of 2 MiB on NUMA node 0 are missing (20 there, 20 '
            'free, 20 promised to other instances): pools are read-only: '
            '/sys is mounted read-only',
        )
        assert not rig.pools.can_grow
        # And nothing is freed.
        rig.pools.release(A)
        assert rig.persistent()[page_host.pool(0)] == 20

    def test_later_on(self, tmp_path: pathlib.Path) -> None:
        # Given a helper that dies while pages are allocated.
        rig = make(tmp_path, grown(20))

        def die(event: fake_kernel.Event) -> None:
            if event.kind == 'write':
                raise exception.PoolsReadOnly('the helper has died')

        rig.kernel.hook = die
        with pytest.raises(exception.PoolsReadOnly):
            rig.pools.hold(A, page_host.needs((0, 21)))
        # Then its cause is told from then on.
        assert rig.pools.read_only == 'the helper has died'
        with pytest.raises(
            exception.NotEnoughPages,
            match=r'pools are read-only: the helper has died$',
        ):
            rig.pools.hold(A, page_host.needs((0, 21)))
        # And what is there can still be held.
        rig.pools.hold(A, page_host.needs((0, 20)))

    def test_static_pools_that_are_also_read_only(
        self, tmp_path: pathlib.Path
    ) -> None:
        # Then the reason is the one that `dynamic` would not change.
        rig = make(tmp_path, dynamic=False)
        rig.start(read_only='/sys is mounted read-only')
        with pytest.raises(exception.NotEnoughPages) as caught:
            rig.pools.hold(A, page_host.needs((0, 1)))
        assert 'static' not in str(caught.value)


def test_a_ledger_that_fails_leaves_no_pages(tmp_path: pathlib.Path) -> None:
    # Given a ledger that can't be written when the pages are there.
    rig = make(tmp_path)
    rig.steps.errors['replace_holds'] = exception.LedgerError(
        'ledger', 'is on a full disk', 'Make room.'
    )
    # When pages are to be held, Then none are left.
    with pytest.raises(exception.LedgerError):
        rig.pools.hold(A, page_host.needs((0, 20)))
    assert rig.persistent()[page_host.pool(0)] == 0


def test_reserved_pages_of_our_own_making_are_given_back_last(
    tmp_path: pathlib.Path,
) -> None:
    # Given 10 pages reserved of a pool of 4.
    rig = make(tmp_path, grown(4), reserved={page_host.pool(0): 10})
    rig.pools.hold(A, page_host.needs((0, 20)))
    # Then 30 are there, and 10 of them stay when the guest has gone.
    assert rig.persistent()[page_host.pool(0)] == 30
    rig.pools.release(A)
    assert rig.persistent()[page_host.pool(0)] == 10
