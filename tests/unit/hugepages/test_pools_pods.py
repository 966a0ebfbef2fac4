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

"""Pages that a kubelet promised to pods, and that these don't have yet."""

from __future__ import annotations

import pathlib

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.kernel import kubelet
from tests.unit.hugepages import page_host

A, B = map(page_host.guest, (1, 2))
HERE, THERE = page_host.pool(0), page_host.pool(1)
POD = '8d1c5e0a-3b1f-4f57-9f0c-1f5b6d2a7e90'
# As systemd has it below kubepods.slice.
SLICE = (
    f'/kubepods.slice/kubepods-pod{POD.replace("-", "_")}.slice/cri-1.scope'
)


def promised(pages: int, *nodes: int) -> kubelet.Promises:
    """Promise 2 MiB pages to the pod, on node 0 if no other is named."""
    return {POD: [kubelet.Promise(frozenset(nodes or (0,)), 2048, pages)]}


def test_they_are_neither_offered_nor_held(tmp_path: pathlib.Path) -> None:
    rig = page_host.make(tmp_path, page_host.grown(20), dynamic=False)
    rig.promises = lambda: promised(8)
    pool = rig.pools.snapshot().pools[HERE]
    assert (pool.offered, pool.usage.available) == (12, 12)
    with pytest.raises(exception.NotEnoughPages, match='8 held back'):
        rig.pools.hold(A, page_host.needs((0, 13)))
    rig.pools.hold(A, page_host.needs((0, 12)))
    rig.run(A)
    rig.kernel.take({HERE: 8}, cgroup=SLICE)


@pytest.mark.parametrize('group', [SLICE, f'/kubepods/pod{POD}/7f3a'])
def test_what_a_pod_has_is_not_kept_for_it_again(
    tmp_path: pathlib.Path, group: str
) -> None:
    rig = page_host.make(tmp_path, page_host.grown(20), dynamic=False)
    rig.promises = lambda: promised(8)
    rig.kernel.take({HERE: 5}, cgroup=group)
    # Nor does another program have them.
    rig.kernel.take({HERE: 2})
    used = rig.pools.usage()[HERE]
    assert (used.pods, used.available) == (3, 10)
    # A pod may have more than it was promised.
    rig.kernel.take({HERE: 6}, cgroup=group)
    used = rig.pools.usage()[HERE]
    assert (used.pods, used.available) == (0, 7)


def test_pages_that_an_operator_reserved_are_for_them(
    tmp_path: pathlib.Path,
) -> None:
    rig = page_host.make(
        tmp_path, page_host.grown(20), dynamic=False, reserved={HERE: 10}
    )
    rig.promises = lambda: promised(8)
    assert rig.pools.usage()[HERE].available == 10
    rig.kernel.take({HERE: 5}, cgroup=SLICE)
    assert rig.pools.usage()[HERE].available == 10
    rig.promises = lambda: promised(12)
    assert rig.pools.usage()[HERE].available == 8


def test_more_are_allocated_for_a_guest_beside_them(
    tmp_path: pathlib.Path,
) -> None:
    rig = page_host.make(tmp_path, page_host.grown(20))
    rig.promises = lambda: promised(8)
    rig.pools.hold(A, page_host.needs((0, 15)))
    assert rig.total() == 23
    rig.run(A)
    rig.kernel.take({HERE: 8}, cgroup=SLICE)


def test_pages_that_may_be_on_two_nodes(tmp_path: pathlib.Path) -> None:
    rig = page_host.make(
        tmp_path, page_host.grown(20), page_host.grown(20), dynamic=False
    )
    rig.promises = lambda: promised(8, 0, 1)
    rig.kernel.take({HERE: 5}, cgroup=SLICE)
    # Each may have to give the rest.
    assert [rig.pools.usage()[key].pods for key in (HERE, THERE)] == [3, 3]
    rig.kernel.take({THERE: 3}, cgroup=SLICE)
    assert [rig.pools.usage()[key].pods for key in (HERE, THERE)] == [0, 0]


@pytest.mark.parametrize(
    'group',
    [
        f'/user.slice/kubepods/pod{POD}',
        f'/system.slice/pod{POD}',
        f'/kubepods/pod{POD}x/1',
        f'/kubepods/xpod{POD}/1',
        '/kubepods/pod/1',
    ],
)
def test_groups_that_look_like_that_of_a_pod(
    tmp_path: pathlib.Path, group: str
) -> None:
    rig = page_host.make(tmp_path, page_host.grown(20), dynamic=False)
    rig.promises = lambda: promised(8)
    rig.kernel.take({HERE: 5}, cgroup=group)
    assert rig.pools.usage()[HERE].pods == 8


def test_a_hold_gets_what_is_offered_beside_them(
    tmp_path: pathlib.Path,
) -> None:
    # Given pages that were allocated because of a pod, and that others who
    # have reserved some must not have in its place.
    rig = page_host.make(tmp_path, page_host.grown(20), page_host.grown(20))
    rig.promises = lambda: promised(3)
    rig.kernel.take({THERE: 8}, touch=False)
    rig.pools.hold(A, page_host.needs((0, 25)))
    rig.run(A)


def test_a_pool_that_is_not_there(tmp_path: pathlib.Path) -> None:
    rig = page_host.make(tmp_path, page_host.grown(20))
    rig.promises = lambda: promised(8, 7)
    assert rig.pools.usage()[HERE].available == 20


def test_what_was_read_last_counts_if_it_cannot_be_read(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = page_host.make(tmp_path, page_host.grown(20), dynamic=False)
    rig.promises = lambda: promised(8)
    rig.reconcile([])
    rig.promises = lambda: kubelet.parse(b'{"entries": 7}')
    for _ in range(3):
        assert rig.pools.usage()[HERE].available == 12
    warned = [line for line in caplog.messages if 'pods' in line]
    assert len(warned) == 1
    assert 'memory manager of Kubernetes' in warned[0]
    # It is told again after it could be read.
    rig.promises = dict
    assert rig.pools.usage()[HERE].available == 20
    rig.promises = lambda: kubelet.parse(b'[]')
    rig.pools.usage()
    rig.promises = lambda: kubelet.parse(b'{"entries": 7}')
    rig.pools.usage()
    assert len([line for line in caplog.messages if 'pods' in line]) == 3
