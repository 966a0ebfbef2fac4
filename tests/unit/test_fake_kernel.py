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

"""The kernel of the tests does what Linux does.

``tests/host/test_fake_kernel.py`` plays such scenes on the real one, too.
"""

from __future__ import annotations

import pathlib
import threading

import pytest

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hugetlb
from tests.fixtures import kernel as fake_kernel
from tests.fixtures.kernel import Event
from tests.fixtures.kernel import FakeKernel
from tests.fixtures.kernel import FakeNode

KIB = 2048
GIB = 1048576
GUEST = '00000000-0000-4000-8000-000000000001'
OTHER = '00000000-0000-4000-8000-000000000002'
HERE = model.PoolKey(0, KIB)
THERE = model.PoolKey(1, KIB)
LARGE = model.PoolKey(0, GIB)


@pytest.fixture
def kernel(tmp_path: pathlib.Path) -> FakeKernel:
    return FakeKernel(tmp_path)


def counters(kernel: FakeKernel, key: model.PoolKey) -> tuple[int, int, int]:
    """Read total, free and surplus from the files."""
    pool = hugetlb.Hugetlb(kernel.fs, kernel).pool(key)
    assert pool == kernel.pool(key)
    kernel.check()
    return pool.total, pool.free, pool.surplus


class TestPersistentPages:
    def test_idle_pages_come_and_go(self, kernel: FakeKernel) -> None:
        kernel.write_nr(0, KIB, 8)
        assert counters(kernel, HERE) == (8, 8, 0)

        kernel.write_nr(0, KIB, 3)

        assert counters(kernel, HERE) == (3, 3, 0)
        assert counters(kernel, THERE) == (0, 0, 0)

    def test_pages_in_use_become_surplus(self, kernel: FakeKernel) -> None:
        kernel.write_nr(0, KIB, 8)
        kernel.start_guest(GUEST, {HERE: 5})

        kernel.write_nr(0, KIB, 2)

        assert counters(kernel, HERE) == (5, 0, 3)

    def test_surplus_pages_become_persistent_first(
        self, kernel: FakeKernel
    ) -> None:
        kernel.write_nr(0, KIB, 5)
        kernel.start_guest(GUEST, {HERE: 5})
        kernel.write_nr(0, KIB, 2)

        kernel.write_nr(0, KIB, 4)
        assert counters(kernel, HERE) == (5, 0, 1)
        kernel.write_nr(0, KIB, 7)

        assert counters(kernel, HERE) == (7, 2, 0)

    def test_surplus_pages_vanish_when_freed(self, kernel: FakeKernel) -> None:
        kernel.write_nr(0, KIB, 5)
        kernel.start_guest(GUEST, {HERE: 5})
        kernel.write_nr(0, KIB, 2)

        kernel.stop_guest(GUEST)

        assert counters(kernel, HERE) == (2, 2, 0)

    def test_growth_is_partial_when_memory_is_broken(
        self, kernel: FakeKernel
    ) -> None:
        whole = kernel.memory(0).whole
        kernel.fragment(0, (whole - 6) * KIB)

        kernel.write_nr(0, KIB, 10)

        assert counters(kernel, HERE) == (6, 6, 0)

    def test_growth_stops_at_the_lowest_watermark(
        self, tmp_path: pathlib.Path
    ) -> None:
        # 10 MiB are free, and 4 MiB stay free.
        kernel = FakeKernel(tmp_path, {0: FakeNode(total=266, used=256)})

        kernel.write_nr(0, KIB, 10)

        assert counters(kernel, HERE) == (3, 3, 0)

    def test_growth_drops_cached_files_and_compaction_mends(
        self, tmp_path: pathlib.Path
    ) -> None:
        kernel = FakeKernel(
            tmp_path, {0: FakeNode(total=266, used=246, cache=10)}
        )
        kernel.write_nr(0, KIB, 8)
        assert counters(kernel, HERE) == (3, 3, 0)
        assert kernel.memory(0).cache == 0

        kernel.write_compact(0)
        kernel.write_nr(0, KIB, 8)

        assert counters(kernel, HERE) == (8, 8, 0)

    def test_compaction_mends_what_it_can(self, kernel: FakeKernel) -> None:
        whole = kernel.memory(0).whole
        kernel.fragment(0, whole * KIB, mendable_kib=3 * KIB)

        kernel.write_compact(0)
        kernel.write_compact(0)
        kernel.write_nr(0, KIB, 10)

        assert counters(kernel, HERE) == (3, 3, 0)

    def test_a_refused_shrink_leaves_free_surplus(
        self, kernel: FakeKernel
    ) -> None:
        kernel.write_nr(0, KIB, 8)
        kernel.refuse_shrink(HERE, frees=2)
        assert kernel.refuses(HERE)

        kernel.write_nr(0, KIB, 3)
        assert counters(kernel, HERE) == (6, 6, 3)
        kernel.refuse_shrink(HERE, None)
        kernel.write_nr(0, KIB, 3)
        assert counters(kernel, HERE) == (6, 6, 3)

        # They go when they are persistent before.
        kernel.write_nr(0, KIB, 6)
        kernel.write_nr(0, KIB, 3)
        assert counters(kernel, HERE) == (3, 3, 0)

    def test_a_shrink_counts_pages_in_use_on_all_nodes(
        self, kernel: FakeKernel
    ) -> None:
        # Surplus pages in use there count as pages that have to stay.
        kernel.write_nr(1, KIB, 8)
        kernel.start_guest(GUEST, {THERE: 8})
        kernel.write_nr(1, KIB, 2)
        kernel.write_nr(0, KIB, 4)

        kernel.write_nr(0, KIB, 0)

        assert counters(kernel, THERE) == (8, 0, 6)
        assert counters(kernel, HERE) == (4, 4, 4)

    def test_a_shrink_keeps_what_is_promised(self, kernel: FakeKernel) -> None:
        kernel.write_nr(0, KIB, 8)
        kernel.start_guest(GUEST, {HERE: 5}, touch=False)

        kernel.write_nr(0, KIB, 0)
        assert counters(kernel, HERE) == (5, 5, 5)
        assert kernel.reserved(KIB) == 5

        # An end of the guest takes the surplus away that was kept for it.
        kernel.stop_guest(GUEST)
        assert counters(kernel, HERE) == (0, 0, 0)
        assert kernel.reserved(KIB) == 0


class TestLargePages:
    def test_they_come_from_their_area_only(
        self, tmp_path: pathlib.Path
    ) -> None:
        kernel = FakeKernel(tmp_path, {0: FakeNode(total=8192, cma_gib=2)})

        kernel.write_nr(0, GIB, 3)
        assert counters(kernel, LARGE) == (2, 2, 0)
        kernel.write_nr(0, GIB, 1)

        assert counters(kernel, LARGE) == (1, 1, 0)
        assert kernel.memory(0).cma == GIB

    def test_luck_makes_some(self, tmp_path: pathlib.Path) -> None:
        kernel = FakeKernel(tmp_path, {0: FakeNode(total=8192, lucky=1)})
        before = kernel.memory(0).whole

        kernel.write_nr(0, GIB, 3)

        assert counters(kernel, LARGE) == (1, 1, 0)
        assert kernel.memory(0).whole == before - 512

    def test_idle_ones_are_split(self, tmp_path: pathlib.Path) -> None:
        kernel = FakeKernel(
            tmp_path, {0: FakeNode(total=8192, pools={GIB: 3, KIB: 7})}
        )
        kernel.start_guest(GUEST, {LARGE: 1})

        kernel.write_demote(0, GIB, 9)

        assert counters(kernel, LARGE) == (1, 0, 0)
        assert counters(kernel, HERE) == (1031, 1031, 0)

    def test_promised_ones_are_not_split(self, tmp_path: pathlib.Path) -> None:
        kernel = FakeKernel(
            tmp_path, {0: FakeNode(total=8192, pools={GIB: 3})}
        )
        kernel.start_guest(GUEST, {LARGE: 2}, touch=False)

        kernel.write_demote(0, GIB, 2)

        assert counters(kernel, LARGE) == (2, 2, 0)

    def test_promised_ones_are_split_when_the_number_wraps_around(
        self, tmp_path: pathlib.Path
    ) -> None:
        # Two are free here, and three are promised, though elsewhere.
        node = FakeNode(total=8192, pools={GIB: 2})
        kernel = FakeKernel(tmp_path, {0: node, 1: node})
        there = model.PoolKey(1, GIB)
        kernel.start_guest(GUEST, {LARGE: 1, there: 2}, touch=False)

        kernel.write_demote(0, GIB, 9)

        assert counters(kernel, LARGE) == (0, 0, 0)
        assert counters(kernel, there) == (2, 2, 0)


class TestProcesses:
    def test_a_guest_needs_free_pages_that_nobody_was_promised(
        self, kernel: FakeKernel
    ) -> None:
        kernel.write_nr(0, KIB, 8)
        kernel.start_guest(GUEST, {HERE: 5}, touch=False)

        with pytest.raises(fake_kernel.OutOfPages):
            kernel.start_guest(OTHER, {HERE: 4})

        assert kernel.guests() == {GUEST: {}}
        assert counters(kernel, HERE) == (8, 8, 0)

    def test_a_guest_dies_when_its_node_has_none(
        self, kernel: FakeKernel
    ) -> None:
        # The kernel promises pages of the host, not of a node.
        kernel.write_nr(1, KIB, 8)
        kernel.start_guest(GUEST, {HERE: 4}, touch=False)

        with pytest.raises(fake_kernel.OutOfPages):
            kernel.touch(GUEST)

        assert kernel.guests() == {}
        assert kernel.reserved(KIB) == 0
        assert counters(kernel, THERE) == (8, 8, 0)

    def test_a_guest_takes_its_pages_bit_by_bit(
        self, kernel: FakeKernel
    ) -> None:
        kernel.write_nr(0, KIB, 8)
        kernel.write_nr(1, KIB, 8)
        kernel.start_guest(GUEST, {HERE: 3, THERE: 1}, touch=False)

        kernel.touch(GUEST, 2)
        assert kernel.guests() == {GUEST: {HERE: 2, THERE: 1}}
        assert kernel.reserved(KIB) == 1
        kernel.touch(GUEST)

        assert kernel.guests() == {GUEST: {HERE: 3, THERE: 1}}
        assert counters(kernel, HERE) == (8, 5, 0)

    def test_small_pages_come_from_small_blocks_first(
        self, kernel: FakeKernel
    ) -> None:
        before = kernel.memory(0)
        kernel.fragment(0, KIB)

        assert kernel.use_memory(0, KIB + 4) == KIB + 4
        taken = kernel.memory(0)
        assert kernel.free_memory(0, KIB + 4) == KIB + 4
        freed = kernel.memory(0)

        kernel.check()
        assert taken.whole == before.whole - 2
        assert taken.broken == KIB - 4
        assert freed.whole == before.whole - 2
        assert freed.broken == 2 * KIB

    def test_programs_get_no_more_than_there_is(
        self, kernel: FakeKernel
    ) -> None:
        memory = kernel.memory(0)

        got = kernel.use_memory(0, 10 * GIB)

        kernel.check()
        assert got == memory.spare - memory.min


class TestReboot:
    def test_pools_are_as_configured_and_nothing_runs(
        self, tmp_path: pathlib.Path
    ) -> None:
        kernel = FakeKernel(tmp_path, {0: FakeNode(pools={KIB: 4})})
        boot_id = kernel.fs.boot_id()
        kernel.write_nr(0, KIB, 9)
        pid = kernel.start_guest(GUEST, {HERE: 2})
        group = f'sys/fs/cgroup/machine.slice/machine-qemu\\x2d{pid}.scope'
        assert (tmp_path / group).is_dir()

        kernel.reboot()

        assert counters(kernel, HERE) == (4, 4, 0)
        assert kernel.guests() == {}
        assert not (tmp_path / f'proc/{pid}').exists()
        assert not (tmp_path / group).exists()
        assert kernel.fs.boot_id() != boot_id


class TestHook:
    def test_it_sees_each_read_and_write(
        self, kernel: FakeKernel, tmp_path: pathlib.Path
    ) -> None:
        seen = []
        kernel.hook = seen.append

        kernel.fs.boot_id()
        kernel.write_nr(0, KIB, 1)

        assert seen == [
            Event('read', f'{tmp_path}/proc/sys/kernel/random/boot_id'),
            Event('write', 'write_nr 0 2048 1'),
            Event('written', 'write_nr 0 2048 1'),
        ]

    def test_it_may_interfere(self, kernel: FakeKernel) -> None:
        def take_it_back(event: Event) -> None:
            if event.kind == 'written':
                kernel.operator_writes(HERE, 1)

        kernel.hook = take_it_back

        kernel.write_nr(0, KIB, 6)

        assert counters(kernel, HERE) == (1, 1, 0)

    @pytest.mark.parametrize(('kind', 'total'), [('write', 0), ('written', 6)])
    def test_it_may_end_the_writer(
        self, kernel: FakeKernel, kind: str, total: int
    ) -> None:
        def end(event: Event) -> None:
            if event.kind == kind:
                raise KeyboardInterrupt

        kernel.hook = end

        with pytest.raises(KeyboardInterrupt):
            kernel.write_nr(0, KIB, 6)

        assert counters(kernel, HERE) == (total, total, 0)


def test_threads_may_use_it_at_once(kernel: FakeKernel) -> None:
    kernel.write_nr(0, KIB, 40)

    def start_and_stop(first: int) -> None:
        for number in range(first, first + 5):
            uuid = f'00000000-0000-4000-8000-{number:012d}'
            kernel.start_guest(uuid, {HERE: 2})
            kernel.stop_guest(uuid)

    threads = [
        threading.Thread(target=start_and_stop, args=(first,))
        for first in (0, 10, 20, 30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counters(kernel, HERE) == (40, 40, 0)
