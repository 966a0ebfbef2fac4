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

"""What is refused is refused in full, and says why."""

from __future__ import annotations

import pathlib

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from tests.fixtures import kernel as fake_kernel
from tests.unit.hugepages import page_host

A, B = map(page_host.guest, (1, 2))


def test_all_cells_or_none(tmp_path: pathlib.Path) -> None:
    # Given two nodes, each of which can make 400 pages or so.
    rig = page_host.make(tmp_path)
    # When one cell needs more than its node has,
    with pytest.raises(exception.NotEnoughPages) as caught:
        rig.pools.hold(A, page_host.needs((0, 100), (1, 600)))
    # Then nothing is held and both pools are as before,
    assert rig.held() == {}
    assert set(rig.persistent().values()) == {0}
    assert (rig.account(0), rig.account(1)) == ((0, 0), (0, 0))
    # And the numbers are in the error.
    assert len(caught.value.shortages) == 1
    assert '600 pages of 2 MiB on NUMA node 1' in str(caught.value)


def test_what_was_held_before_stays_held(tmp_path: pathlib.Path) -> None:
    rig = page_host.make(tmp_path)
    rig.pools.hold(A, page_host.needs((0, 20)))
    with pytest.raises(exception.NotEnoughPages):
        rig.pools.hold(A, page_host.needs((0, 5000)))
    assert rig.held() == {(A, 'guest'): {page_host.pool(0): 20}}
    assert rig.persistent()[page_host.pool(0)] == 20


def test_static_pools_never_grow(tmp_path: pathlib.Path) -> None:
    rig = page_host.make(tmp_path, page_host.grown(20), dynamic=False)
    with pytest.raises(exception.NotEnoughPages, match='pools are static'):
        rig.pools.hold(A, page_host.needs((0, 21)))
    rig.pools.hold(A, page_host.needs((0, 20)))
    assert rig.persistent()[page_host.pool(0)] == 20


def test_a_page_size_that_the_host_does_not_have(
    tmp_path: pathlib.Path,
) -> None:
    rig = page_host.make(tmp_path)
    with pytest.raises(exception.NotEnoughPages, match='no such pool'):
        rig.pools.hold(A, [model.PageNeed(0, 0, 64, 1)])


def test_memory_that_is_to_stay_free(tmp_path: pathlib.Path) -> None:
    # Given 960 MiB of free memory, 900 MiB of which are to stay free.
    rig = page_host.make(tmp_path, page_host.NODE, node_free_mib=900)
    rig.pools.hold(A, page_host.needs((0, 30)))
    with pytest.raises(exception.NotEnoughPages, match='900 MiB stay free'):
        rig.pools.hold(B, page_host.needs((0, 1)))


def test_pools_have_a_ceiling(tmp_path: pathlib.Path) -> None:
    # Given that pools may take a quarter of 1024 MiB.
    rig = page_host.make(tmp_path, page_host.NODE, ceiling_percent=25)
    rig.pools.hold(A, page_host.needs((0, 128)))
    with pytest.raises(exception.NotEnoughPages, match='25 %'):
        rig.pools.hold(B, page_host.needs((0, 1)))


def test_what_others_use_is_not_promised(tmp_path: pathlib.Path) -> None:
    rig = page_host.make(tmp_path, page_host.grown(30), dynamic=False)
    rig.kernel.take({page_host.pool(0): 20})
    with pytest.raises(exception.NotEnoughPages, match='20 used by oth'):
        rig.pools.hold(A, page_host.needs((0, 11)))
    rig.pools.hold(A, page_host.needs((0, 10)))


def test_what_others_have_reserved_in_the_kernel_is_not_promised(
    tmp_path: pathlib.Path,
) -> None:
    rig = page_host.make(tmp_path, page_host.grown(30), dynamic=False)
    rig.kernel.take({page_host.pool(0): 20}, touch=False)
    with pytest.raises(exception.NotEnoughPages):
        rig.pools.hold(A, page_host.needs((0, 11)))
    rig.pools.hold(A, page_host.needs((0, 10)))


def test_what_others_have_to_find_here_is_not_promised(
    tmp_path: pathlib.Path,
) -> None:
    # Given a program that has mapped pages that were made for a guest which is
    # off, for there are no others.
    rig = page_host.make(tmp_path, page_host.NODE)
    rig.pools.hold(A, page_host.needs((0, 20)))
    rig.kernel.take({page_host.pool(0): 15}, touch=False)
    # Then as many are missing, and are allocated.
    assert rig.pools.usage()[page_host.pool(0)].overdue == 15
    rig.reconcile([A])
    assert rig.total() == 35
    rig.run(A)


@pytest.mark.parametrize('mapped', [False, True])
def test_a_guest_that_starts_doesn_t_stand_for_others(
    tmp_path: pathlib.Path, mapped: bool
) -> None:
    # Given another program that has mapped 6 pages and touched none, and a
    # guest whose process runs, and has its memory mapped or not yet.
    rig = page_host.make(tmp_path, page_host.grown(20), dynamic=False)
    rig.kernel.take({page_host.pool(0): 6}, touch=False)
    rig.pools.hold(A, page_host.needs((0, 8)))
    memory = {page_host.pool(0): 8} if mapped else {}
    rig.kernel.start_guest(A, memory, touch=False)
    # When another guest asks, Then the pages of both are left out.
    with pytest.raises(exception.NotEnoughPages):
        rig.pools.hold(B, page_host.needs((0, 7)))
    rig.pools.hold(B, page_host.needs((0, 6)))


def test_what_the_operator_reserves_is_not_promised(
    tmp_path: pathlib.Path,
) -> None:
    # Given 12 pages reserved for a program that has 8 of them so far.
    rig = page_host.make(
        tmp_path,
        page_host.grown(30),
        dynamic=False,
        reserved={page_host.pool(0): 12},
    )
    rig.kernel.take({page_host.pool(0): 8})
    # When a guest needs what is beyond, Then the rest stays for it.
    with pytest.raises(exception.NotEnoughPages):
        rig.pools.hold(A, page_host.needs((0, 19)))
    rig.pools.hold(A, page_host.needs((0, 18)))


def test_pools_that_are_read_only_from_the_start(
    tmp_path: pathlib.Path,
) -> None:
    # Given pools with pages, on a host where they can't be changed.
    rig = page_host.make(tmp_path, page_host.grown(20))
    rig.start(read_only='/sys is mounted read-only')
    # Then what is there is held, and no more; the error has the reason.
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


def test_pools_that_turn_out_to_be_read_only(tmp_path: pathlib.Path) -> None:
    # Given a helper that dies while pages are allocated.
    rig = page_host.make(tmp_path, page_host.grown(20))

    def die(event: fake_kernel.Event) -> None:
        if event.kind == 'write':
            raise exception.PoolsReadOnly('the helper has died')

    rig.kernel.hook = die
    with pytest.raises(exception.PoolsReadOnly):
        rig.pools.hold(A, page_host.needs((0, 21)))
    # Then errors have its cause from then on.
    with pytest.raises(
        exception.NotEnoughPages,
        match=r'pools are read-only: the helper has died$',
    ):
        rig.pools.hold(A, page_host.needs((0, 21)))
    # And what is there can still be held.
    rig.pools.hold(A, page_host.needs((0, 20)))


def test_static_pools_that_are_also_read_only(tmp_path: pathlib.Path) -> None:
    # Then the reason is the one that `dynamic` would not change.
    rig = page_host.make(tmp_path, dynamic=False)
    rig.start(read_only='/sys is mounted read-only')
    with pytest.raises(exception.NotEnoughPages) as caught:
        rig.pools.hold(A, page_host.needs((0, 1)))
    assert 'static' not in str(caught.value)


def test_more_than_a_node_has_memory_takes_none_of_it(
    tmp_path: pathlib.Path,
) -> None:
    rig = page_host.make(tmp_path)
    sizes = []

    def note(event: fake_kernel.Event) -> None:
        sizes.append(rig.total())

    rig.watch(note)
    with pytest.raises(exception.NotEnoughPages) as caught:
        rig.pools.hold(A, page_host.needs((0, 10**9), (1, 5)))

    [shortage] = caught.value.shortages
    assert 'of 1000000000 pages of 2 MiB on NUMA node 0 are' in shortage
    assert max(sizes) == 0
