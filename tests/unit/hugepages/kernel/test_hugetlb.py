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

"""Tests of reading and writing the kernel's pools."""

from __future__ import annotations

import os
import pathlib

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from tests.fixtures.kernel import Event
from tests.fixtures.kernel import FakeKernel
from tests.fixtures.kernel import FakeNode

KIB = 2048
GIB = 1048576
GUEST = '00000000-0000-4000-8000-000000000001'
HERE = model.PoolKey(0, KIB)
THERE = model.PoolKey(1, KIB)
LARGE = model.PoolKey(0, GIB)


@pytest.fixture
def kernel(tmp_path: pathlib.Path) -> FakeKernel:
    return FakeKernel(
        tmp_path, {0: FakeNode(pools={KIB: 8, GIB: 1}), 1: FakeNode()}
    )


@pytest.fixture
def pools(kernel: FakeKernel) -> hugetlb.Hugetlb:
    return hugetlb.Hugetlb(kernel.fs, kernel.write)


class TestRead:
    def test_all_pools(
        self, kernel: FakeKernel, pools: hugetlb.Hugetlb
    ) -> None:
        kernel.start_guest(GUEST, {HERE: 5})
        kernel.operator_writes(HERE, 2)

        assert pools.nodes() == [0, 1]
        assert pools.sizes(0) == [KIB, GIB]
        assert pools.pools() == {
            HERE: model.Pool(0, KIB, 5, 0, 3),
            LARGE: model.Pool(0, GIB, 1, 1, 0),
            THERE: model.Pool(1, KIB, 0, 0, 0),
            model.PoolKey(1, GIB): model.Pool(1, GIB, 0, 0, 0),
        }

    def test_what_the_kernel_promised(
        self, kernel: FakeKernel, pools: hugetlb.Hugetlb
    ) -> None:
        kernel.start_guest(GUEST, {HERE: 5}, touch=False)

        assert pools.reserved() == {KIB: 5, GIB: 0}

    def test_nodes_without_memory_have_no_pools(
        self,
        kernel: FakeKernel,
        pools: hugetlb.Hugetlb,
        tmp_path: pathlib.Path,
    ) -> None:
        path = tmp_path / 'sys/devices/system/node/has_memory'
        path.write_text('1\n')

        assert pools.nodes() == [1]
        assert {key.node for key in pools.pools()} == {1}

    def test_a_kernel_without_huge_pages(
        self, pools: hugetlb.Hugetlb, tmp_path: pathlib.Path
    ) -> None:
        for node in (0, 1):
            folder = tmp_path / f'sys/devices/system/node/node{node}'
            (folder / 'hugepages').rename(folder / 'gone')

        assert pools.nodes() == []
        assert pools.sizes(0) == []
        assert pools.pools() == {}

    def test_other_names_are_no_sizes(
        self, pools: hugetlb.Hugetlb, tmp_path: pathlib.Path
    ) -> None:
        folder = tmp_path / 'sys/devices/system/node/node0/hugepages'
        for name in ('hugepages-', 'hugepages-04kB', 'hugepages-8kB.old'):
            (folder / name).mkdir()

        assert pools.sizes(0) == [KIB, GIB]

    def test_a_pool_that_changes_is_read_again(
        self, kernel: FakeKernel, pools: hugetlb.Hugetlb
    ) -> None:
        changes = iter([20, 3])

        def interfere(event: Event) -> None:
            if event.what.endswith(
                'node0/hugepages/hugepages-2048kB/free_hugepages'
            ):
                for count in changes:
                    kernel.operator_writes(HERE, count)
                    break

        kernel.hook = interfere

        assert pools.pool(HERE) == model.Pool(0, KIB, 3, 3, 0)

    def test_a_pool_that_never_rests_has_no_more_free_than_pages(
        self, kernel: FakeKernel, pools: hugetlb.Hugetlb
    ) -> None:
        def interfere(event: Event) -> None:
            if 'node0/' not in event.what or '2048' not in event.what:
                return
            many = event.what.endswith('free_hugepages')
            kernel.operator_writes(HERE, 90 if many else 2)

        kernel.hook = interfere

        assert pools.pool(HERE) == model.Pool(0, KIB, 2, 2, 0)

    @pytest.mark.parametrize(
        ('text', 'found'),
        [('', "''"), ('-1\n', "'-1'"), ('eight\n', "'eight'"), ('٣', "'٣'")],
    )
    def test_something_else_in_a_file(
        self,
        pools: hugetlb.Hugetlb,
        tmp_path: pathlib.Path,
        text: str,
        found: str,
    ) -> None:
        path = (
            tmp_path / 'sys/devices/system/node/node0/hugepages'
            '/hugepages-2048kB/free_hugepages'
        )
        path.write_text(text)

        with pytest.raises(exception.KernelError) as caught:
            pools.pool(HERE)

        assert str(caught.value) == f'{path}: expected a number, found {found}'

    def test_a_pool_that_is_not_there(
        self, pools: hugetlb.Hugetlb, tmp_path: pathlib.Path
    ) -> None:
        with pytest.raises(exception.KernelError) as caught:
            pools.pool(model.PoolKey(2, KIB))

        assert str(caught.value) == (
            f'{tmp_path}/sys/devices/system/node/node2/hugepages'
            '/hugepages-2048kB/nr_hugepages: expected a file that can be '
            'read, found No such file or directory'
        )


class TestWrite:
    def test_persistent_pages(
        self, kernel: FakeKernel, pools: hugetlb.Hugetlb
    ) -> None:
        pools.set_persistent(THERE, 6)

        assert pools.pool(THERE) == model.Pool(1, KIB, 6, 6, 0)
        assert pools.pool(HERE) == model.Pool(0, KIB, 8, 8, 0)

    def test_less_than_none(self, pools: hugetlb.Hugetlb) -> None:
        with pytest.raises(ValueError, match='cannot have -1 pages'):
            pools.set_persistent(HERE, -1)

    def test_compaction(
        self, kernel: FakeKernel, pools: hugetlb.Hugetlb
    ) -> None:
        kernel.fragment(1, 10 * KIB)

        pools.compact(1)

        assert kernel.memory(1).broken == 0

    def test_a_kernel_that_can_not_compact(
        self,
        kernel: FakeKernel,
        pools: hugetlb.Hugetlb,
        tmp_path: pathlib.Path,
    ) -> None:
        (tmp_path / 'sys/devices/system/node/node1/compact').unlink()
        kernel.fragment(1, 10 * KIB)

        pools.compact(1)

        assert kernel.memory(1).broken == 10 * KIB

    def test_splitting(self, pools: hugetlb.Hugetlb) -> None:
        assert pools.can_demote(LARGE)

        pools.demote(LARGE, 1)

        assert pools.pool(LARGE).total == 0
        assert pools.pool(HERE).total == 8 + 512

    def test_small_pages_are_not_split(self, pools: hugetlb.Hugetlb) -> None:
        assert not pools.can_demote(HERE)

        with pytest.raises(ValueError, match='2 MiB on NUMA node 0 cannot be'):
            pools.demote(HERE, 1)

    def test_pages_are_split_into_2_mib_only(
        self, pools: hugetlb.Hugetlb, tmp_path: pathlib.Path
    ) -> None:
        path = (
            tmp_path / 'sys/devices/system/node/node0/hugepages'
            '/hugepages-1048576kB/demote_size'
        )
        path.write_text('64kB\n')

        assert not pools.can_demote(LARGE)


class TestReadOnlyReason:
    def test_a_host(self, kernel: FakeKernel) -> None:
        assert hugetlb.read_only_reason(kernel.fs) is None

    def test_a_kernel_without_nodes(self, tmp_path: pathlib.Path) -> None:
        fs = hostfs.HostFS(tmp_path, tmp_path)

        assert hugetlb.read_only_reason(fs) == (
            f'the kernel shows no NUMA nodes in {fs.nodes_folder}'
        )

    def test_a_kernel_without_huge_pages(
        self, kernel: FakeKernel, tmp_path: pathlib.Path
    ) -> None:
        for node in (0, 1):
            folder = tmp_path / f'sys/devices/system/node/node{node}'
            (folder / 'hugepages').rename(folder / 'gone')

        assert (
            hugetlb.read_only_reason(kernel.fs)
            == 'the kernel has no huge pages'
        )

    def test_a_container(
        self, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fields = list(os.statvfs(kernel.fs.sys))
        fields[8] |= os.ST_RDONLY
        monkeypatch.setattr(
            os, 'statvfs', lambda path: os.statvfs_result(fields)
        )

        assert hugetlb.read_only_reason(kernel.fs) == (
            f'{kernel.fs.sys} is mounted read-only, as in a container'
        )
