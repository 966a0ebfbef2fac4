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

"""Pools of a node while another node has surplus pages.

Before Linux 6.7 what is written for a node is off by these.
"""

from __future__ import annotations

from collections.abc import Callable
import pathlib

import pytest

from nova_numa_hugepages import exception
from tests.fixtures import kernel as fake_kernel
from tests.unit.hugepages import page_host

A, B, C = map(page_host.guest, (1, 2, 3))
HERE, THERE = page_host.pool(1), page_host.pool(0)


@pytest.fixture(params=[(6, 1), (6, 7)], ids=['before 6.7', 'since 6.7'])
def rig(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> page_host.Rig:
    """A host on whose node 0 a guest has 200 surplus pages."""
    rig = page_host.Rig(
        tmp_path,
        {0: page_host.NODE, 1: page_host.NODE},
        release=request.param,
    )
    rig.reconcile(starting=True)
    rig.pools.hold(A, page_host.needs((0, 200)))
    rig.run(A)
    rig.kernel.operator_writes(THERE, 0)
    assert rig.kernel.pool(THERE).surplus == 200
    return rig


def watch(rig: page_host.Rig) -> list[int]:
    """Note how large the pool is after each write."""
    sizes: list[int] = []

    def note(event: fake_kernel.Event) -> None:
        if event.kind == 'written':
            sizes.append(rig.kernel.pool(HERE).total)

    rig.watch(note)
    return sizes


def test_a_pool_never_has_more_than_was_asked_for(rig: page_host.Rig) -> None:
    sizes = watch(rig)
    for guest, pages in ((B, 100), (C, 300)):
        rig.pools.hold(guest, page_host.needs((1, pages)))
        assert rig.kernel.pool(HERE).total == pages
        assert max(sizes) == pages
        rig.run(guest)
        rig.kernel.stop_guest(guest)
        rig.pools.release(guest)
        assert rig.account(1)[0] == 0
    assert rig.account(0) == (0, 0)

    # The kernel keeps a free page for each that is surplus elsewhere.
    rig.kernel.stop_guest(A)
    rig.pools.release(A)
    rig.reconcile()
    assert (rig.total(0), rig.total(1)) == (0, 0)
    assert (rig.account(0), rig.account(1)) == ((0, 0), (0, 0))


def test_what_falls_short_is_undone(rig: page_host.Rig) -> None:
    rig.kernel.operator_writes(HERE, 7)
    rig.reconcile([A])
    floor = rig.persistent()[HERE]
    with pytest.raises(exception.NotEnoughPages):
        rig.pools.hold(B, page_host.needs((1, 450)))
    assert rig.account(1)[0] == floor
    rig.kernel.stop_guest(A)
    rig.pools.release(A)
    rig.reconcile()
    assert rig.account(1) == (floor, 0)
    assert rig.persistent()[HERE] == floor


def test_surplus_comes_up_while_pages_are_freed(rig: page_host.Rig) -> None:
    rig.kernel.operator_writes(THERE, 200)
    rig.pools.hold(B, page_host.needs((1, 150)))
    sizes = watch(rig)
    rig.at_first_write(lambda: rig.kernel.operator_writes(THERE, 0))
    rig.pools.release(B)

    # Before 6.7 the write of 0 is one of 200. Nothing comes on top of that.
    assert max(sizes) <= 200
    assert rig.account(1)[0] == 0
    rig.kernel.stop_guest(A)
    rig.pools.release(A)
    rig.reconcile()
    assert rig.total(1) == 0


@pytest.mark.parametrize(
    'others',
    [
        pytest.param(
            lambda kernel: kernel.operator_writes(THERE, 0),
            id='surplus comes up',
        ),
        pytest.param(
            lambda kernel: kernel.operator_writes(THERE, 230),
            id='surplus goes',
        ),
        pytest.param(
            lambda kernel: kernel.operator_writes(THERE, 50),
            id='some of the surplus goes',
        ),
    ],
)
@pytest.mark.parametrize('before', [0, 120, 200])
def test_others_who_write_at_the_same_time(
    rig: page_host.Rig,
    before: int,
    others: Callable[[fake_kernel.FakeKernel], None],
) -> None:
    rig.kernel.operator_writes(THERE, before)
    rig.at_first_write(lambda: others(rig.kernel))
    rig.pools.hold(B, page_host.needs((1, 100)))

    # Then what the kernel gave on top is ours, and goes when it can.
    pool = rig.kernel.pool(HERE)
    assert pool.total >= 100
    assert (pool.surplus, rig.account(1)) == (0, (0, pool.total))
    rig.run(B)
    rig.kernel.stop_guest(A)
    rig.reconcile([B])
    assert rig.kernel.pool(HERE).total == 100
    assert rig.account(1) == (0, 100)
