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

"""Pages that were allocated are freed with their instance."""

from __future__ import annotations

import pathlib

from nova_numa_hugepages.hugepages import model
from tests.unit.hugepages import page_host

A, B = map(page_host.guest, (1, 2))


def test_the_pools_go_back_to_the_floor(tmp_path: pathlib.Path) -> None:
    rig = page_host.make(tmp_path, page_host.grown(10))
    rig.pools.hold(A, page_host.needs((0, 50)))
    rig.run(A)
    rig.kernel.stop_guest(A)
    rig.pools.release(A)
    assert rig.held() == {}
    assert rig.account(0) == (10, 0)
    assert rig.persistent()[page_host.pool(0)] == 10


def test_it_can_be_repeated(tmp_path: pathlib.Path) -> None:
    rig = page_host.make(tmp_path)
    rig.pools.release(A)
    rig.pools.hold(A, page_host.needs((0, 50)))
    rig.pools.release(A)
    rig.pools.release(A)
    assert rig.persistent()[page_host.pool(0)] == 0


def test_what_others_hold_stays(tmp_path: pathlib.Path) -> None:
    rig = page_host.make(tmp_path)
    rig.pools.hold(A, page_host.needs((0, 50)))
    rig.pools.hold(B, page_host.needs((0, 20)))
    rig.pools.release(A)
    assert rig.persistent()[page_host.pool(0)] == 20


def test_some_pages_stay_warm(tmp_path: pathlib.Path) -> None:
    # Given 16 MiB that stay ready on each node.
    rig = page_host.make(tmp_path, page_host.grown(10), warm_mib=16)
    rig.pools.hold(A, page_host.needs((0, 50)))
    rig.pools.release(A)
    # Then 8 pages above the floor stay.
    assert rig.account(0) == (10, 8)


def test_only_for_a_purpose(tmp_path: pathlib.Path) -> None:
    rig = page_host.make(tmp_path)
    rig.pools.hold(A, page_host.needs((0, 50)))
    rig.pools.move(A, model.Purpose.GUEST, model.Purpose.RESIZE)
    rig.pools.hold(A, page_host.needs((0, 20)))
    rig.pools.release(A, model.Purpose.RESIZE)
    assert rig.held() == {(A, 'guest'): {page_host.pool(0): 20}}
    assert rig.persistent()[page_host.pool(0)] == 20


def test_pages_that_are_still_in_use_stay(tmp_path: pathlib.Path) -> None:
    rig = page_host.make(tmp_path)
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
    tmp_path: pathlib.Path,
) -> None:
    # Given a kernel that gives up 20 of 50 pages.
    rig = page_host.make(tmp_path)
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
    tmp_path: pathlib.Path,
) -> None:
    # Given a guest on node 1 on pages that the operator took away since.
    rig = page_host.make(tmp_path)
    rig.pools.hold(A, page_host.needs((1, 40)))
    rig.run(A)
    rig.kernel.operator_writes(page_host.pool(1), 0)
    rig.pools.hold(B, page_host.needs((0, 30)))
    # When the pages of node 0 are freed,
    rig.pools.release(B)
    rig.kernel.stop_guest(A)
    rig.pools.release(A)
    rig.reconcile()
    # Then none is left on either.
    assert {
        node: rig.kernel.pool(page_host.pool(node)).total for node in (0, 1)
    } == {0: 0, 1: 0}


def test_no_pages_are_allocated_to_be_reserved(tmp_path: pathlib.Path) -> None:
    # Given 10 pages reserved of a pool of 4.
    rig = page_host.make(
        tmp_path, page_host.grown(4), reserved={page_host.pool(0): 10}
    )
    rig.pools.hold(A, page_host.needs((0, 20)))
    # Then the guest has 20, and the others stay when it has gone.
    assert rig.persistent()[page_host.pool(0)] == 24
    rig.pools.release(A)
    assert rig.persistent()[page_host.pool(0)] == 4
