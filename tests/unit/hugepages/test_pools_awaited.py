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

import pathlib

import pytest

from nova_numa_hugepages import exception
from tests.fixtures import kernel as fake_kernel
from tests.unit.hugepages import page_host

A, B = map(page_host.guest, (1, 2))
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
    left = look

    def go_on(event: fake_kernel.Event) -> None:
        nonlocal left
        left -= event.kind == 'read'
        if left == 0:
            rig.kernel.touch(A)

    rig.watch(go_on)
    # Then what that program has reserved isn't offered.
    assert rig.pools.usage()[HERE].available <= 14


def test_what_a_guest_returns_is_not_what_others_have_reserved(
    tmp_path: pathlib.Path,
) -> None:
    # Given a guest that has returned 5 of its pages through its balloon.
    rig = page_host.make(tmp_path, page_host.grown(20), dynamic=False)
    rig.pools.hold(A, page_host.needs((0, 10)))
    rig.run(A)
    rig.kernel.discard(A, HERE, 5)
    rig.kernel.take({HERE: 4}, touch=False)
    # Then these and those that others have reserved are left out.
    assert rig.pools.usage()[HERE].available == 6


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
    assert (used.floor, used.held_back) == (20, 6)


class TestPageThatIsBeingCleared:
    """It is neither free nor among the pages of the guest that takes it."""

    @pytest.fixture
    def rig(self, tmp_path: pathlib.Path) -> page_host.Rig:
        """8 of 20 pages are for a guest that has taken 3, and takes one."""
        rig = page_host.make(tmp_path, page_host.grown(20), dynamic=False)
        rig.pools.hold(A, page_host.needs((0, 8)))
        rig.kernel.start_guest(A, {HERE: 8}, touch=False)
        rig.kernel.touch(A, 3)
        self.cleared = rig.kernel.take({HERE: 1})
        return rig

    def test_it_is_waited_for(self, rig: page_host.Rig) -> None:
        def go_on(_: float) -> None:
            rig.kernel.give(self.cleared)
            rig.kernel.touch(A)

        rig.sleep = go_on
        rig.pools.hold(B, page_host.needs((0, 12)))
        rig.run(B)

    def test_not_for_longer_than_allocating_may_take(
        self, rig: page_host.Rig
    ) -> None:
        began = rig.now
        with pytest.raises(exception.NotEnoughPages, match=r'1 of 12 pages'):
            rig.pools.hold(B, page_host.needs((0, 12)))
        assert rig.policy.time_limit_s <= rig.now - began < 2

    def test_nor_if_more_is_missing(self, rig: page_host.Rig) -> None:
        rig.sleep = pytest.fail
        with pytest.raises(exception.NotEnoughPages, match=r'2 of 13 pages'):
            rig.pools.hold(B, page_host.needs((0, 13)))
