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

"""Other programs have reserved pages in the kernel, and not touched them.

The kernel counts these on the whole host.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.reconcile_rules import Present
from tests.fixtures import kernel as fake_kernel
from tests.unit.hugepages import page_host

A, B, C, D = map(page_host.guest, range(1, 5))
HERE, THERE = map(page_host.pool, (0, 1))


def test_two_cells_do_not_excuse_each_other(tmp_path: pathlib.Path) -> None:
    # Given 10 pages on each node that were allocated for guests, and a program
    # that has reserved 5 of them.
    rig = page_host.make(tmp_path, warm_mib=20)
    rig.pools.hold(A, page_host.needs((0, 10), (1, 10)))
    rig.pools.release(A)
    rig.kernel.take({HERE: 5}, touch=False)
    # When a guest needs all of them, Then 5 more are allocated.
    rig.pools.hold(B, page_host.needs((0, 10), (1, 10)))
    assert rig.total(0) + rig.total(1) == 25
    rig.run(B)


def test_two_cells_are_refused_together(tmp_path: pathlib.Path) -> None:
    rig = page_host.make(
        tmp_path, page_host.grown(10), page_host.grown(10), dynamic=False
    )
    rig.kernel.take({HERE: 5}, touch=False)
    with pytest.raises(exception.NotEnoughPages):
        rig.pools.hold(B, page_host.needs((0, 10), (1, 10)))


def test_missing_pages_are_allocated_once(tmp_path: pathlib.Path) -> None:
    # Given a guest that is off, and a program that has reserved its pages.
    rig = page_host.make(tmp_path)
    rig.pools.hold(A, page_host.needs((0, 5), (1, 5)))
    rig.kernel.take({HERE: 3}, touch=False)
    # Then as many are allocated, on one node, and stay.
    done = rig.reconcile([A])
    assert [line for line in done if 'were allocated' in line]
    assert rig.total(0) + rig.total(1) == 13
    assert rig.reconcile([A]) == []
    rig.run(A)


@pytest.mark.parametrize('look', range(40))
def test_a_guest_that_goes_on_while_it_is_looked_at(
    tmp_path: pathlib.Path, look: int
) -> None:
    # Given a program that has reserved 6 of 20 pages here, and a guest that
    # starts there, and maps and touches its pages at any moment.
    rig = page_host.make(
        tmp_path, page_host.grown(20), page_host.grown(8), dynamic=False
    )
    rig.pools.hold(A, page_host.needs((1, 8)))
    rig.kernel.take({HERE: 6}, touch=False)
    rig.kernel.start_guest(A, {THERE: 8}, touch=False)
    rig.at_read(look, lambda: rig.kernel.touch(A))
    # Then what that program has reserved isn't offered.
    assert rig.pools.usage()[HERE].available <= 14


@pytest.mark.parametrize('release', [(6, 8), (6, 9)])
@pytest.mark.parametrize('shared', [True, False])
def test_what_a_guest_returns_is_not_what_others_have_reserved(
    tmp_path: pathlib.Path, release: tuple[int, int], shared: bool
) -> None:
    # Given a guest that has returned 5 of its pages through its balloon, for
    # which the kernel keeps others if they are private, since Linux 6.9.
    rig = page_host.make(tmp_path, page_host.grown(20), release=release)
    rig.pools.hold(A, page_host.needs((0, 10)))
    rig.kernel.start_guest(A, {HERE: 10}, shared=shared)
    rig.pools.mark_taken(A)
    rig.kernel.discard(A, HERE, 5)
    rig.kernel.take({HERE: 4}, touch=False)
    # Then these and those that others have reserved are left out, once each.
    used = rig.pools.usage()[HERE]
    assert (used.promised, used.available, used.missing) == (5, 6, 0)
    # And none are allocated for them, until the pool is used up.
    assert rig.reconcile([A]) == []
    rig.pools.hold(B, page_host.needs((0, 6)))
    assert rig.total() == 20
    rig.run(B)
    rig.kernel.touch(A)


def test_what_others_use_does_not_hide_what_a_guest_returns(
    tmp_path: pathlib.Path,
) -> None:
    # Given a guest that has returned as many pages as a program uses.
    rig = page_host.make(tmp_path, page_host.grown(20), dynamic=False)
    rig.pools.hold(A, page_host.needs((0, 10)))
    rig.kernel.start_guest(A, {HERE: 10}, shared=True)
    rig.pools.mark_taken(A)
    rig.kernel.take({HERE: 5})
    rig.kernel.discard(A, HERE, 5)
    # Then they are kept for it.
    used = rig.pools.usage()[HERE]
    assert (used.promised, used.occupied, used.available) == (5, 5, 5)
    rig.pools.hold(B, page_host.needs((0, 5)))
    rig.run(B)
    rig.kernel.touch(A)


def test_a_guest_that_cannot_be_looked_at_has_its_pages(
    tmp_path: pathlib.Path,
) -> None:
    def refuse(pid: int) -> str:
        raise exception.KernelError(f'/proc/{pid}/numa_maps', 'no', 'a file')

    rig = page_host.Rig(
        tmp_path,
        {0: page_host.grown(20)},
        page_host.POLICY,
        read_maps=refuse,
    )
    rig.reconcile(starting=True)
    rig.pools.hold(A, page_host.needs((0, 10)))
    rig.run(A)
    used = rig.pools.usage()[HERE]
    assert (used.promised, used.occupied, used.available) == (0, 0, 10)


@pytest.mark.parametrize('look', range(12))
def test_pages_that_a_guest_returns_while_it_is_looked_at(
    tmp_path: pathlib.Path, look: int
) -> None:
    # Given a guest that returns as many pages as a program uses, at any moment
    # of a hold.
    rig = page_host.make(tmp_path, page_host.grown(20), dynamic=False)
    rig.pools.hold(A, page_host.needs((0, 10)))
    rig.kernel.start_guest(A, {HERE: 10}, shared=True)
    rig.pools.mark_taken(A)
    rig.kernel.take({HERE: 5})
    rig.at_read(look, lambda: rig.kernel.discard(A, HERE, 5))
    # Then no other guest gets them.
    with contextlib.suppress(exception.NotEnoughPages):
        rig.pools.hold(B, page_host.needs((0, 10)))
        rig.run(B)
        rig.kernel.touch(A)


@pytest.mark.parametrize('look', range(12))
def test_none_are_allocated_for_what_a_guest_takes_again(
    tmp_path: pathlib.Path, look: int
) -> None:
    rig = page_host.make(tmp_path, page_host.grown(10))
    rig.pools.hold(A, page_host.needs((0, 10)))
    rig.run(A)
    rig.kernel.discard(A, HERE, 5)
    rig.at_read(look, lambda: rig.kernel.touch(A))
    assert rig.reconcile([A]) == []
    assert rig.total() == 10


def test_a_guest_that_ended_while_it_was_looked_at_has_none(
    tmp_path: pathlib.Path,
) -> None:
    def vanish(pid: int) -> str:
        raise ProcessLookupError

    rig = page_host.Rig(
        tmp_path,
        {0: page_host.grown(20)},
        dataclasses.replace(page_host.POLICY, dynamic=False),
        read_maps=vanish,
    )
    rig.reconcile(starting=True)
    rig.pools.hold(A, page_host.needs((0, 10)))
    rig.run(A)
    used = rig.pools.usage()[HERE]
    # It counts as promised as far as it is free, and as used.
    assert (used.promised, used.available) == (10, 0)


def test_surplus_pages_that_growth_makes_persistent_kept_nothing(
    tmp_path: pathlib.Path,
) -> None:
    # Given a guest that returned 5 pages beside surplus pages.
    rig = page_host.make(tmp_path, page_host.grown(10), page_host.grown(20))
    rig.pools.hold(A, page_host.needs((0, 10)))
    rig.run(A)
    rig.kernel.operator_writes(HERE, 8)
    rig.pools.hold(B, page_host.needs((1, 10)))
    rig.run(B)
    rig.kernel.discard(B, THERE, 5)
    # When these are persistent, and others have reserved 4,
    rig.pools.hold(C, page_host.needs((0, 4)))
    rig.run(C)
    assert rig.kernel.state.totals(2048)[2] == 0
    rig.kernel.take({THERE: 4}, touch=False)
    # Then these are not taken for those of the guest.
    left = rig.pools.usage()[THERE].available
    rig.pools.hold(D, page_host.needs((1, left)))
    rig.run(D)
    rig.kernel.touch(B)


def test_a_guest_that_was_moved_has_returned_nothing(
    tmp_path: pathlib.Path,
) -> None:
    rig = page_host.make(tmp_path, page_host.grown(10), page_host.grown(10))
    rig.pools.hold(A, page_host.needs((0, 10)))
    rig.kernel.start_guest(A, {THERE: 10})
    rig.pools.mark_taken(A)
    rig.kernel.take({HERE: 10})
    # No others are allocated for it.
    assert rig.pools.usage()[HERE].promised == 0
    assert rig.reconcile([A]) == []
    assert rig.total() == 10


def test_what_a_guest_returns_beside_surplus_pages_is_not_kept_for_it(
    tmp_path: pathlib.Path,
) -> None:
    # Given surplus pages on the host when a guest returns 5 pages.
    rig = page_host.make(
        tmp_path, page_host.grown(20), page_host.grown(3), dynamic=False
    )
    rig.pools.hold(A, page_host.needs((0, 10)))
    rig.run(A)
    rig.kernel.take({THERE: 3})
    rig.kernel.operator_writes(THERE, 0)
    rig.kernel.discard(A, HERE, 5)
    assert rig.kernel.reserved() == 0
    rig.kernel.take({HERE: 4}, touch=False)
    # Then what a program has reserved is kept all the same.
    assert rig.pools.usage()[HERE].available == 6


def test_pages_that_are_kept_are_missing_for_those_that_are_promised(
    tmp_path: pathlib.Path,
) -> None:
    # Given a guest that is off, and a program that has reserved 10 of 20 pages
    # of which 15 are promised.
    rig = page_host.make(tmp_path, page_host.grown(20))
    rig.pools.hold(A, page_host.needs((0, 15)))
    rig.kernel.take({HERE: 10}, touch=False)
    assert rig.pools.usage()[HERE].overdue == 5
    rig.reconcile([A])
    assert rig.total() == 25
    assert rig.reconcile([A]) == []
    rig.run(A)


def test_missing_pages_may_be_on_any_node(tmp_path: pathlib.Path) -> None:
    # Given a guest that is off, a program that has reserved its pages, and a
    # node without memory.
    rig = page_host.make(tmp_path)
    rig.pools.hold(A, page_host.needs((0, 5), (1, 5)))
    rig.kernel.take({HERE: 3}, touch=False)
    rig.kernel.use_memory(0, 1 << 30)
    rig.reconcile([A])
    assert (rig.total(0), rig.total(1)) == (5, 8)
    assert rig.reconcile([A]) == []
    rig.run(A)


def test_what_is_kept_on_a_node_stays_there(tmp_path: pathlib.Path) -> None:
    # Given 10 idle pages on node 1 of which others have reserved 5.
    rig = page_host.make(tmp_path, warm_mib=20)
    rig.pools.hold(A, page_host.needs((1, 10)))
    rig.pools.release(A)
    rig.kernel.take({THERE: 5}, touch=False)
    # When a guest needs all that can be had of node 0, Then it gets it.
    offered = rig.pools.snapshot().pools[HERE].offered
    rig.pools.hold(B, page_host.needs((0, offered)))
    assert (rig.total(0), rig.total(1)) == (offered, 10)
    rig.run(B)


@pytest.mark.parametrize('reserved_on', [0, 1])
def test_all_that_two_nodes_offer_is_held_at_once(
    tmp_path: pathlib.Path, reserved_on: int
) -> None:
    # Given that others have reserved all pages of one node.
    nodes = [
        dataclasses.replace(
            page_host.NODE,
            min_kib=0,
            high_kib=0,
            pools={2048: 2 * (node == reserved_on)},
        )
        for node in (0, 1)
    ]
    rig = page_host.make(
        tmp_path, *nodes, node_free_mib=0, ceiling_percent=100
    )
    rig.kernel.take({page_host.pool(reserved_on): 2}, touch=False)
    pools = rig.pools.snapshot().pools
    rig.pools.hold(
        A,
        page_host.needs((0, pools[HERE].offered), (1, pools[THERE].offered)),
    )
    rig.run(A)


def test_missing_pages_are_allocated_once_for_all_cells(
    tmp_path: pathlib.Path,
) -> None:
    rig = page_host.make(tmp_path)
    rig.pools.hold(A, page_host.needs((0, 5), (1, 5)))
    rig.kernel.take({HERE: 5}, touch=False)
    rig.pools.hold(B, page_host.needs((0, 10), (1, 10)))
    assert rig.total(0) + rig.total(1) == 35
    rig.run(B)


def test_after_a_reboot_none_are_allocated_for_guests(
    tmp_path: pathlib.Path,
) -> None:
    # Given a host whose pool was all ours before it was rebooted, and which
    # has a pool from boot now of which others have reserved some.
    rig = page_host.make(tmp_path, page_host.grown(20))
    rig.kernel.operator_writes(HERE, 0)
    rig.reconcile()
    rig.pools.hold(A, page_host.needs((0, 20)))
    rig.kernel.reboot()
    rig.kernel.take({HERE: 6}, touch=False)
    # Then they are the operator's, before the service starts.
    used = rig.pools.usage()[HERE]
    assert (used.account.floor, used.account.grown) == (20, 0)


class TestPagesThatAreBeingCleared:
    """They are free no more, and not among those of the guest that takes them.

    Nor does the kernel keep a page for them any longer.
    """

    @pytest.fixture
    def rig(self, tmp_path: pathlib.Path) -> page_host.Rig:
        """8 of 20 pages are for a guest that has 3, and gets 2 others."""
        rig = page_host.make(
            tmp_path,
            page_host.grown(20),
            page_host.grown(20),
            dynamic=False,
        )
        rig.pools.hold(A, page_host.needs((0, 8)))
        rig.kernel.start_guest(A, {HERE: 8}, touch=False)
        rig.kernel.touch(A, 3)
        rig.keep_look(A)
        rig.kernel.touch(A, 2)
        return rig

    def test_they_count_once(self, rig: page_host.Rig) -> None:
        rig.sleep = pytest.fail
        rig.pools.hold(B, page_host.needs((0, 12), (1, 20)))
        rig.look_again()
        rig.run(B)

    def test_what_others_have_reserved_is_not_hidden(
        self, rig: page_host.Rig
    ) -> None:
        rig.kernel.take({THERE: 1}, touch=False)
        with pytest.raises(exception.NotEnoughPages):
            rig.pools.hold(B, page_host.needs((0, 12), (1, 20)))
        rig.look_again()
        rig.pools.hold(B, page_host.needs((0, 11), (1, 19)))
        rig.run(B)

    @pytest.fixture
    def others(self, rig: page_host.Rig) -> None:
        """So many are reserved by others that it can't be told."""
        rig.kernel.take({THERE: 8}, touch=False)

    @pytest.mark.usefixtures('others')
    def test_they_are_waited_for(self, rig: page_host.Rig) -> None:
        rig.sleep = lambda _: rig.look_again()
        rig.pools.hold(B, page_host.needs((0, 4)))
        rig.run(B)

    @pytest.mark.usefixtures('others')
    def test_not_for_longer_than_allocating_may_take(
        self, rig: page_host.Rig
    ) -> None:
        began = rig.now
        with pytest.raises(exception.NotEnoughPages, match=r'of 12 pages'):
            rig.pools.hold(B, page_host.needs((0, 12)))
        assert rig.policy.time_limit_s <= rig.now - began < 2

    def test_nor_if_nothing_is_used_by_others(
        self, rig: page_host.Rig
    ) -> None:
        rig.sleep = pytest.fail
        with pytest.raises(exception.NotEnoughPages, match=r'1 of 13 pages'):
            rig.pools.hold(B, page_host.needs((0, 13)))


def test_the_last_idle_page_is_not_given_for_one_that_is_missing(
    tmp_path: pathlib.Path,
) -> None:
    # Given that 2 of 9 pages are being cleared, and that others have reserved
    # 7, of which 2 are hidden by that.
    rig = page_host.make(tmp_path, page_host.grown(9), page_host.grown(10))
    rig.pools.hold(A, page_host.needs((0, 9)))
    rig.kernel.start_guest(A, {HERE: 9}, touch=False)
    rig.keep_look(A)
    rig.kernel.touch(A, 2)
    rig.kernel.take({THERE: 7}, touch=False)
    rig.pools.hold(B, page_host.needs((1, 4)))
    rig.run(B)


def test_a_guest_whose_own_hold_does_not_count(tmp_path: pathlib.Path) -> None:
    rig = page_host.make(tmp_path, page_host.grown(20), dynamic=False)
    rig.pools.hold(A, page_host.needs((0, 8)))
    rig.kernel.start_guest(A, {HERE: 8}, touch=False)
    rig.keep_look(A)
    rig.kernel.touch(A, 2)
    used = rig.pools.usage((A, model.Purpose.GUEST))[HERE]
    assert (used.promised, used.owed, used.starting) == (0, 0, 0)


def test_no_more_is_waited_for_than_a_guest_may_take(
    tmp_path: pathlib.Path,
) -> None:
    # Given a guest that lacks one page, and others who have reserved 100.
    rig = page_host.make(tmp_path, page_host.grown(200), dynamic=False)
    rig.pools.hold(A, page_host.needs((0, 8)))
    rig.kernel.start_guest(A, {HERE: 8}, touch=False)
    rig.kernel.touch(A, 7)
    rig.kernel.take({HERE: 100}, touch=False)
    rig.sleep = pytest.fail
    with pytest.raises(exception.NotEnoughPages, match=r'58 of 150 pages'):
        rig.pools.hold(B, page_host.needs((0, 150)))


def test_memory_is_not_compacted_while_it_is_waited(
    tmp_path: pathlib.Path,
) -> None:
    rig = page_host.make(tmp_path, page_host.grown(20), page_host.NODE)
    rig.pools.hold(A, page_host.needs((0, 8)))
    rig.kernel.start_guest(A, {HERE: 8}, touch=False)
    rig.keep_look(A)
    rig.kernel.touch(A, 3)
    rig.kernel.take({THERE: 9}, touch=False)
    for node in (0, 1):
        rig.kernel.use_memory(node, 1 << 30)
    written: list[str] = []
    rig.watch(
        lambda event: (
            written.append(event.what) if event.kind == 'write' else None
        )
    )
    with pytest.raises(exception.NotEnoughPages):
        rig.pools.hold(B, page_host.needs((0, 8)))
    # Each time that it is tried, which is once more at the end.
    assert 0 < written.count('write_compact 0') <= 2


def test_what_was_allocated_is_reported_though_another_node_fails(
    tmp_path: pathlib.Path,
) -> None:
    # Given 5 pages that are missing, of which 2 can be had on node 0.
    rig = page_host.make(tmp_path, page_host.grown(5), page_host.grown(5))
    rig.pools.hold(A, page_host.needs((0, 5), (1, 5)))
    rig.kernel.take({HERE: 5}, touch=False)
    spare_kib = rig.kernel.memory(0).spare
    rig.kernel.use_memory(
        0, spare_kib - rig.policy.node_free_mib * 1024 - 2 * 2048
    )

    def fail(event: fake_kernel.Event) -> None:
        if event.kind == 'write' and event.what.startswith('write_nr 1'):
            raise exception.KernelError('nr_hugepages', 'an error', 'none')

    rig.watch(fail)
    done: list[str] = []
    with rig.pools.locked():
        plan = rig.reconciler.plan(Present(frozenset([A]), frozenset()))
        with pytest.raises(exception.KernelError):
            rig.reconciler.apply(plan, done=done)
    assert done == ['2 pages of 2 MiB on NUMA node 0 were allocated']


def test_no_more_are_missing_than_are_wanted(tmp_path: pathlib.Path) -> None:
    rig = page_host.make(tmp_path, page_host.grown(5), dynamic=False)
    rig.pools.hold(A, page_host.needs((0, 5)))
    rig.kernel.take({HERE: 5}, touch=False)
    with pytest.raises(
        exception.NotEnoughPages,
        match=r'1 of 1 pages .*5 more reserved on the host than are free',
    ):
        rig.pools.hold(B, page_host.needs((0, 1)))
