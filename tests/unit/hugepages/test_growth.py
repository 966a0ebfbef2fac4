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

"""What is tried when the kernel gives fewer pages than it was asked for."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from tests.fixtures import kernel as fake_kernel
from tests.unit.hugepages import page_host

A, B = map(page_host.guest, (1, 2))
LARGE = 1048576
# 900 MiB in small blocks, all of which compaction can join.
BROKEN = fake_kernel.FakeNode(total=1024, used=64, broken=900)
TWO_LARGE = fake_kernel.FakeNode(
    total=3 * 1024, used=64, broken=900, mendable=0, pools={LARGE: 2}
)


def verbs(rig: page_host.Rig) -> list[str]:
    """Note the verbs of what is written from now on."""
    written: list[str] = []
    step = rig.kernel.hook

    def note(event: fake_kernel.Event) -> None:
        if event.kind == 'write':
            written.append(event.what)
        if step is not None:
            step(event)

    rig.kernel.hook = note
    return written


class TestCompaction:
    def test_memory_is_compacted(self, tmp_path: pathlib.Path) -> None:
        rig = page_host.make(tmp_path, BROKEN)
        written = verbs(rig)
        rig.pools.hold(A, page_host.needs((0, 100)))
        assert rig.account(0) == (0, 100)
        assert 'write_compact 0' in written

    def test_only_if_it_is_allowed(self, tmp_path: pathlib.Path) -> None:
        rig = page_host.make(tmp_path, BROKEN, compact=False)
        written = verbs(rig)
        with pytest.raises(exception.NotEnoughPages, match='too small'):
            rig.pools.hold(A, page_host.needs((0, 100)))
        assert not any('compact' in verb for verb in written)

    def test_only_where_pages_are_missing(
        self, tmp_path: pathlib.Path
    ) -> None:
        whole = dataclasses.replace(BROKEN, broken=0)
        rig = page_host.make(tmp_path, BROKEN, whole)
        written = verbs(rig)
        rig.pools.hold(A, page_host.needs((0, 100), (1, 100)))
        assert 'write_compact 1' not in written

    def test_it_takes_no_longer_than_allowed(
        self, tmp_path: pathlib.Path
    ) -> None:
        # Given memory that can't be mended, and half a second.
        rig = page_host.make(
            tmp_path,
            dataclasses.replace(BROKEN, mendable=0),
            time_limit_s=0.5,
        )
        start = rig.now
        with pytest.raises(exception.NotEnoughPages):
            rig.pools.hold(A, page_host.needs((0, 100)))
        # The clock goes on by 50 ms each time that it is read.
        assert rig.now - start < 0.8


class TestDemotion:
    def test_larger_pages_are_split(self, tmp_path: pathlib.Path) -> None:
        # Given two idle 1 GiB pages from boot, and no room for others.
        rig = page_host.make(tmp_path, TWO_LARGE, demote=True)
        rig.pools.hold(A, page_host.needs((0, 100)))
        # Then one is split, and all of its pages were there before us.
        assert rig.account(0, LARGE) == (1, 0)
        assert rig.account(0)[0] >= 512 - 30
        assert rig.kernel.pool(page_host.pool(0)).total >= 512
        rig.run(A)

    def test_only_if_it_is_allowed(self, tmp_path: pathlib.Path) -> None:
        rig = page_host.make(tmp_path, TWO_LARGE)
        with pytest.raises(exception.NotEnoughPages):
            rig.pools.hold(A, page_host.needs((0, 100)))
        assert rig.account(0, LARGE) == (2, 0)

    def test_not_if_it_is_not_enough(self, tmp_path: pathlib.Path) -> None:
        # Given that both large pages together are not enough.
        rig = page_host.make(tmp_path, TWO_LARGE, demote=True)
        written = verbs(rig)
        with pytest.raises(exception.NotEnoughPages):
            rig.pools.hold(A, page_host.needs((0, 1300)))
        assert not any('demote' in verb for verb in written)

    def test_not_those_that_are_held(self, tmp_path: pathlib.Path) -> None:
        rig = page_host.make(tmp_path, TWO_LARGE, demote=True)
        rig.pools.hold(A, [model.PageNeed(0, 0, LARGE, 2)])
        with pytest.raises(exception.NotEnoughPages):
            rig.pools.hold(B, page_host.needs((0, 100)))
        assert rig.account(0, LARGE) == (2, 0)

    def test_not_those_that_the_guest_needs_itself(
        self, tmp_path: pathlib.Path
    ) -> None:
        rig = page_host.make(tmp_path, TWO_LARGE, demote=True)
        with pytest.raises(exception.NotEnoughPages):
            rig.pools.hold(
                A,
                [
                    model.PageNeed(0, 0, LARGE, 2),
                    model.PageNeed(1, 0, 2048, 100),
                ],
            )
        assert rig.account(0, LARGE) == (2, 0)

    @pytest.mark.parametrize('joined', [0, 1, 2])
    def test_pages_of_the_operator_stay_theirs_if_it_is_undone(
        self, tmp_path: pathlib.Path, joined: int
    ) -> None:
        # Given that so many of two pages can be joined again,
        node = dataclasses.replace(TWO_LARGE, lucky=joined)
        rig = page_host.make(tmp_path, node, demote=True)
        wanted = {page_host.pool(0): 600}
        with rig.pools.locked():
            growth = rig.growth(wanted)
            assert growth.grow(wanted) == {}
            assert rig.account(0, LARGE) == (0, 0)
            growth.undo()
        # then these, and the pieces of the others, are not ours,
        left = (2 - joined) * 512
        assert (rig.account(0, LARGE), rig.account(0)) == (
            (joined, 0),
            (left, 0),
        )
        # and nothing is freed.
        rig.reconcile()
        assert (rig.account(0, LARGE), rig.account(0)) == (
            (joined, 0),
            (left, 0),
        )

    def test_a_process_that_is_killed_after_it_leaves_no_page(
        self, tmp_path: pathlib.Path
    ) -> None:
        for step in range(60):
            rig = page_host.make(tmp_path / str(step), TWO_LARGE, demote=True)
            memory = rig.kernel.memory(0)
            rig.steps.revive()
            rig.steps.kill_at = step
            try:
                rig.pools.hold(A, page_host.needs((0, 100)))
            except page_host.Killed:
                pass
            else:
                break
            rig.start()
            rig.reconcile(starting=True)
            # What was in large pages is in pages, of whatever size. So is
            # what was allocated before, if it isn't known who split some.
            large = rig.kernel.pool(page_host.pool(0, LARGE)).total
            small = rig.kernel.pool(page_host.pool(0)).total
            made = 30 if large < 2 and small > 512 else 0
            assert large * 512 + small == 1024 + made, step
            assert rig.kernel.memory(0).total == memory.total
            assert rig.account(0) == (small, 0), step
        else:
            pytest.fail('it never ended')


class TestHandingOver:
    def test_pages_of_ours_of_another_size(
        self, tmp_path: pathlib.Path
    ) -> None:
        # Given a 1 GiB page that was made for a guest which has gone, and is
        # kept warm, and no room for other pages.
        node = fake_kernel.FakeNode(total=2048, used=64, lucky=1)
        rig = page_host.make(tmp_path, node, warm_mib=1024)
        rig.pools.hold(A, [model.PageNeed(0, 0, LARGE, 1)])
        rig.pools.release(A)
        assert rig.account(0, LARGE) == (0, 1)
        rig.kernel.fragment(0, 1024 * 1024, 0)
        # When 2 MiB pages are needed, Then it goes for them.
        rig.pools.hold(B, page_host.needs((0, 300)))
        assert rig.account(0, LARGE) == (0, 0)
        assert rig.account(0) == (0, 300)

    def test_it_is_undone(self, tmp_path: pathlib.Path) -> None:
        # Given the same, and a kernel that will make the page once more.
        node = fake_kernel.FakeNode(total=2048, used=64, lucky=9)
        rig = page_host.make(tmp_path, node, warm_mib=1024)
        rig.pools.hold(A, [model.PageNeed(0, 0, LARGE, 1)])
        rig.pools.release(A)
        rig.kernel.fragment(0, 1024 * 1024, 0)
        # When it isn't enough, Then all is as before.
        with pytest.raises(exception.NotEnoughPages):
            rig.pools.hold(B, page_host.needs((0, 900)))
        assert rig.account(0, LARGE) == (0, 1)
        assert rig.account(0) == (0, 0)

    def test_never_pages_that_were_there_before(
        self, tmp_path: pathlib.Path
    ) -> None:
        rig = page_host.make(tmp_path, TWO_LARGE)
        with pytest.raises(exception.NotEnoughPages):
            rig.pools.hold(A, page_host.needs((0, 100)))
        assert rig.kernel.pool(page_host.pool(0, LARGE)).total == 2


def test_a_pool_with_enough_pages_takes_none_back(
    tmp_path: pathlib.Path,
) -> None:
    # Given a pool whose pages are handed over once it has enough, in vain.
    rig = page_host.make(
        tmp_path, dataclasses.replace(page_host.NODE, pools={LARGE: 0})
    )
    large = page_host.pool(0, LARGE)
    assert rig.growth({}).grow({page_host.pool(0): 10, large: 1}) == {large: 1}
    # Then it does not compete with the other one.
    assert rig.total() == 0


def test_surplus_pages_become_persistent_before_new_ones_are_made(
    tmp_path: pathlib.Path,
) -> None:
    # Given a guest on 20 pages that the operator has taken away since.
    rig = page_host.make(tmp_path, fake_kernel.FakeNode(total=1024, used=64))
    rig.pools.hold(A, page_host.needs((0, 20)))
    rig.run(A)
    rig.kernel.operator_writes(page_host.pool(0), 0)
    assert rig.kernel.pool(page_host.pool(0)).surplus == 20
    # When another one needs 10, Then there are 10 free ones,
    rig.pools.hold(B, page_host.needs((0, 10)))
    assert rig.kernel.pool(page_host.pool(0)) == model.Pool(
        0, 2048, total=30, free=10, surplus=0
    )
    # And none are left when both have gone.
    for guest in (A, B):
        if guest in rig.kernel.guests():
            rig.kernel.stop_guest(guest)
        rig.pools.release(guest)
    assert rig.kernel.pool(page_host.pool(0)).total == 0
