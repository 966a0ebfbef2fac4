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

"""Pages are held, and allocated where they are missing."""

from __future__ import annotations

import pathlib

import pytest

from nova_numa_hugepages import exception
from tests.fixtures import kernel as fake_kernel
from tests.unit.hugepages import page_host

A, B = map(page_host.guest, (1, 2))


def test_pages_are_made_on_the_nodes_of_the_plan(
    tmp_path: pathlib.Path,
) -> None:
    # Given a host without pages.
    rig = page_host.make(tmp_path)
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


def test_only_missing_pages_are_allocated(tmp_path: pathlib.Path) -> None:
    # Given a pool of 25 pages, 10 of which are promised.
    rig = page_host.make(tmp_path, page_host.grown(25))
    rig.pools.hold(A, page_host.needs((0, 10)))
    # When 20 more are needed, Then 5 are made.
    rig.pools.hold(B, page_host.needs((0, 20)))
    assert rig.account(0) == (25, 5)


def test_two_guest_cells_on_a_node_need_the_sum(
    tmp_path: pathlib.Path,
) -> None:
    rig = page_host.make(tmp_path, page_host.grown(25))
    rig.pools.hold(A, page_host.needs((0, 20), (0, 20)))
    assert rig.account(0) == (25, 15)


def test_it_can_be_repeated(tmp_path: pathlib.Path) -> None:
    rig = page_host.make(tmp_path)
    rig.pools.hold(A, page_host.needs((0, 20)))
    rig.pools.hold(A, page_host.needs((0, 20)))
    assert rig.persistent()[page_host.pool(0)] == 20


def test_a_guest_that_runs_on_its_pages_needs_no_more(
    tmp_path: pathlib.Path,
) -> None:
    rig = page_host.make(tmp_path)
    rig.pools.hold(A, page_host.needs((0, 20)))
    rig.run(A)
    rig.pools.hold(A, page_host.needs((0, 20)))
    assert rig.persistent()[page_host.pool(0)] == 20


def test_other_needs_replace_those_before(tmp_path: pathlib.Path) -> None:
    rig = page_host.make(tmp_path)
    rig.pools.hold(A, page_host.needs((0, 20)))
    rig.pools.hold(A, page_host.needs((1, 5)))
    assert rig.held() == {(A, 'guest'): {page_host.pool(1): 5}}


def test_no_needs_release(tmp_path: pathlib.Path) -> None:
    rig = page_host.make(tmp_path)
    rig.pools.hold(A, page_host.needs((0, 20)))
    rig.pools.hold(A, [])
    assert rig.held() == {}
    assert rig.persistent()[page_host.pool(0)] == 0


def test_a_guest_that_is_off_keeps_its_promise(tmp_path: pathlib.Path) -> None:
    # Given a guest that ran, on all pages of a pool that can't grow.
    rig = page_host.make(tmp_path, page_host.grown(20), dynamic=False)
    rig.pools.hold(A, page_host.needs((0, 20)))
    rig.run(A)
    rig.kernel.stop_guest(A)
    # When another one needs a page, Then it gets none.
    with pytest.raises(exception.NotEnoughPages):
        rig.pools.hold(B, page_host.needs((0, 1)))


def test_pages_that_a_starting_guest_takes_do_not_count_twice(
    tmp_path: pathlib.Path,
) -> None:
    # Given a guest that has taken 12 of its 20 pages so far.
    rig = page_host.make(tmp_path, page_host.grown(30), dynamic=False)
    rig.pools.hold(A, page_host.needs((0, 20)))
    rig.kernel.start_guest(A, {page_host.pool(0): 20}, touch=False)
    rig.kernel.touch(A, 12)
    # When another one needs all that are left, Then it gets them,
    rig.pools.hold(B, page_host.needs((0, 10)))
    # And the first one gets the rest of its own.
    rig.kernel.touch(A)
    assert rig.kernel.guests()[A] == {page_host.pool(0): 20}


def test_a_ledger_that_fails_leaves_no_pages(tmp_path: pathlib.Path) -> None:
    # Given a ledger that can't be written when the pages are there.
    rig = page_host.make(tmp_path)
    rig.steps.errors['replace_holds'] = exception.LedgerError(
        'ledger', 'is on a full disk', 'Make room.'
    )
    # When pages are to be held, Then none are left.
    with pytest.raises(exception.LedgerError):
        rig.pools.hold(A, page_host.needs((0, 20)))
    assert rig.persistent()[page_host.pool(0)] == 0


def test_others_that_take_pages_while_they_are_made(
    tmp_path: pathlib.Path,
) -> None:
    # Given a program that takes 5 pages as soon as there are some.
    rig = page_host.make(tmp_path)
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


def test_what_others_await_is_not_awaited_among_pages_made_for_guests(
    tmp_path: pathlib.Path,
) -> None:
    # Given a program that has mapped 40 pages, which are on node 1 so far.
    rig = page_host.make(tmp_path, page_host.NODE, page_host.grown(40))
    rig.kernel.take({page_host.pool(1): 40}, touch=False)
    # When a guest needs pages of node 0, Then just these are allocated.
    rig.pools.hold(A, page_host.needs((0, 10)))
    assert rig.total() == 10
