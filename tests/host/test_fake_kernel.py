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

"""The kernel of the tests against the one of this machine.

The same scenes are played on both, with a few 2 MiB pages of one node, and
the counters are compared after each step. The pool is as before afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import mmap
import os
import pathlib
from typing import Protocol

import pytest

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import fragmentation
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from tests.fixtures.kernel import FakeKernel
from tests.fixtures.kernel import FakeNode
from tests.host import mapped_pages

KIB = mapped_pages.KIB

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or hugetlb.read_only_reason(hostfs.HostFS()) is not None,
    reason='needs root on a host with huge pages',
)


class Host(Protocol):
    """What a scene is played on.

    :ivar pools: its pools
    :ivar key: the one to play with
    """

    pools: hugetlb.Hugetlb
    key: model.PoolKey

    def take(self, count: int, *, touch: int | None = None) -> object:
        """Have another process take pages, or touch only some of them."""
        ...

    def give(self, taken: object) -> None:
        """Have them end."""
        ...


class Real:
    """This machine."""

    def __init__(self) -> None:
        fs = hostfs.HostFS()
        self.pools = hugetlb.Hugetlb(fs, hugetlb.write_number)
        self.key = model.PoolKey(self.pools.nodes()[0], KIB)
        self._open: list[mmap.mmap] = []

    def take(self, count: int, *, touch: int | None = None) -> object:
        taken = mapped_pages.take(count)
        self._open.append(taken)
        mapped_pages.touch(taken, count if touch is None else touch)
        return taken

    def give(self, taken: object) -> None:
        assert isinstance(taken, mmap.mmap)
        self._open.remove(taken)
        taken.close()

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        before = self.pools.pool(self.key)
        if before.total or self.pools.reserved()[KIB]:
            pytest.skip('another process uses the pool of this machine')
        try:
            yield
        finally:
            for taken in list(self._open):
                self.give(taken)
            mapped_pages.empty(self.pools, self.key)
        assert self.pools.pool(self.key) == before


class Fake:
    """The kernel of the tests."""

    def __init__(self, root: pathlib.Path, node: int) -> None:
        self._kernel = FakeKernel(root, {node: FakeNode()})
        self.pools = hugetlb.Hugetlb(self._kernel.fs, self._kernel.write)
        self.key = model.PoolKey(node, KIB)
        self._number = 0

    def take(self, count: int, *, touch: int | None = None) -> object:
        self._number += 1
        uuid = f'00000000-0000-4000-8000-{self._number:012d}'
        self._kernel.start_guest(uuid, {self.key: count}, touch=touch is None)
        if touch is not None:
            self._kernel.touch(uuid, touch)
        return uuid

    def give(self, taken: object) -> None:
        self._kernel.stop_guest(str(taken))


# Each yields what is done in its next step, after it was done.
Scene = Iterator[str]


def shrinks_under_a_process(host: Host) -> Scene:
    host.pools.set_persistent(host.key, 8)
    yield 'grow to 8'
    taken = host.take(4)
    yield 'take 4'
    host.pools.set_persistent(host.key, 2)
    yield 'shrink to 2'
    host.pools.set_persistent(host.key, 3)
    yield 'grow to 3'
    host.pools.set_persistent(host.key, 6)
    yield 'grow to 6'
    host.pools.set_persistent(host.key, 1)
    yield 'shrink to 1'
    host.give(taken)
    yield 'give'
    host.pools.set_persistent(host.key, 0)
    yield 'shrink to 0'


def shrinks_under_a_promise(host: Host) -> Scene:
    host.pools.set_persistent(host.key, 8)
    taken = host.take(5, touch=2)
    yield 'promise 5, take 2'
    host.pools.set_persistent(host.key, 1)
    yield 'shrink to 1'
    host.pools.set_persistent(host.key, 4)
    yield 'grow to 4'
    host.pools.set_persistent(host.key, 0)
    yield 'shrink to 0'
    host.give(taken)
    yield 'give'


def one_of_two_ends(host: Host) -> Scene:
    host.pools.set_persistent(host.key, 10)
    one = host.take(3)
    two = host.take(4, touch=1)
    yield 'take 3, promise 4 and take 1'
    host.pools.set_persistent(host.key, 2)
    yield 'shrink to 2'
    host.give(one)
    yield 'give'
    host.pools.set_persistent(host.key, 9)
    yield 'grow to 9'
    host.give(two)
    yield 'give the other'


def surplus_that_is_free(host: Host) -> Scene:
    host.pools.set_persistent(host.key, 6)
    taken = host.take(4, touch=0)
    host.pools.set_persistent(host.key, 0)
    yield 'promise 4, shrink to 0'
    host.pools.set_persistent(host.key, 4)
    yield 'make them persistent'
    host.pools.set_persistent(host.key, 2)
    yield 'shrink to 2'
    host.give(taken)
    yield 'give'


def _counters(host: Host) -> tuple[int, int, int, int]:
    pool = host.pools.pool(host.key)
    return pool.total, pool.free, pool.surplus, host.pools.reserved()[KIB]


@pytest.mark.parametrize(
    'scene',
    [
        shrinks_under_a_process,
        shrinks_under_a_promise,
        one_of_two_ends,
        surplus_that_is_free,
    ],
)
def test_both_kernels_do_the_same(scene, tmp_path: pathlib.Path) -> None:
    real = Real()
    fake = Fake(tmp_path, real.key.node)

    seen: dict[str, list[tuple[str, tuple[int, int, int, int]]]] = {}
    with real.restored():
        seen['real'] = [(step, _counters(real)) for step in scene(real)]
    seen['fake'] = [(step, _counters(fake)) for step in scene(fake)]

    assert seen['fake'] == seen['real']
    assert len(seen['real']) >= 4


def test_pages_that_count_as_allocatable_are() -> None:
    real = Real()
    allocatable = fragmentation.allocatable_pages(hostfs.HostFS(), real.key)

    with real.restored():
        real.pools.set_persistent(real.key, min(allocatable, 32))
        got = real.pools.pool(real.key).total

    assert got == min(allocatable, 32)
