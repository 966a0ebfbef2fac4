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

"""Reading and writing the kernel's pools."""

from __future__ import annotations

from collections.abc import Callable
import errno
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
    return hugetlb.Hugetlb(kernel.fs, kernel)


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

        assert pools.reserved(KIB) == 5
        assert pools.reserved(GIB) == 0
        assert pools.overcommit(KIB) == 0

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


class TestDirectWriter:
    """What is in the files after a write, without a kernel behind them."""

    FOLDER = 'sys/devices/system/node/node0'

    @pytest.mark.parametrize(
        ('write', 'path', 'text'),
        [
            (
                lambda writer: writer.write_nr(0, KIB, 17),
                'hugepages/hugepages-2048kB/nr_hugepages',
                '17',
            ),
            (
                lambda writer: writer.write_demote(0, GIB, 2),
                'hugepages/hugepages-1048576kB/demote',
                '2',
            ),
            (lambda writer: writer.write_compact(0), 'compact', '1'),
        ],
    )
    def test_each_verb_writes_its_file(
        self,
        kernel: FakeKernel,
        tmp_path: pathlib.Path,
        write: Callable[[hugetlb.Writer], None],
        path: str,
        text: str,
    ) -> None:
        (tmp_path / self.FOLDER / path).write_text('')

        write(hugetlb.DirectWriter(kernel.fs))

        assert (tmp_path / self.FOLDER / path).read_text() == text

    def test_no_file_is_created(
        self, kernel: FakeKernel, tmp_path: pathlib.Path
    ) -> None:
        with pytest.raises(exception.KernelError) as caught:
            hugetlb.DirectWriter(kernel.fs).write_demote(0, KIB, 1)

        path = tmp_path / self.FOLDER / 'hugepages/hugepages-2048kB/demote'
        assert not path.exists()
        assert str(caught.value) == (
            f'{path}: expected a file that can be written, found No such '
            'file or directory'
        )

    @pytest.mark.parametrize('number', ['1/../..', None, 1.5])
    def test_nothing_but_numbers_get_into_a_path(
        self, kernel: FakeKernel, number: object
    ) -> None:
        writer = hugetlb.DirectWriter(kernel.fs)

        with pytest.raises((ValueError, TypeError)):
            writer.write_nr(number, KIB, 1)  # type: ignore[arg-type]
        with pytest.raises((ValueError, TypeError)):
            writer.write_nr(0, number, 1)  # type: ignore[arg-type]
        with pytest.raises((ValueError, TypeError)):
            writer.write_compact(number)  # type: ignore[arg-type]


class TestRefusals:
    @pytest.mark.parametrize('name', ['EBUSY', 'ENOMEM', 'EAGAIN', 'EINTR'])
    def test_less_than_was_asked_for_is_no_error(
        self,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: pathlib.Path,
        name: str,
    ) -> None:
        path = tmp_path / 'file'
        path.touch()
        refuse(monkeypatch, name)

        hugetlb.write_number(path, 1)

        assert path.read_text() == ''

    def test_other_errors_are(
        self, monkeypatch: pytest.MonkeyPatch, kernel: FakeKernel
    ) -> None:
        refuse(monkeypatch, 'EINVAL')

        with pytest.raises(exception.KernelError, match='Invalid argument'):
            hugetlb.DirectWriter(kernel.fs).write_nr(0, GIB, 1)

    @pytest.mark.parametrize('name', ['EROFS', 'EACCES', 'EPERM'])
    def test_what_is_forbidden(
        self, monkeypatch: pytest.MonkeyPatch, kernel: FakeKernel, name: str
    ) -> None:
        refuse(monkeypatch, name)

        with pytest.raises(exception.PoolsReadOnly) as caught:
            hugetlb.DirectWriter(kernel.fs).write_nr(0, KIB, 1)

        path = hugetlb.nr_file(kernel.fs, 0, KIB)
        reason = os.strerror(getattr(errno, name))
        assert str(caught.value) == (
            f'huge page pools cannot be changed: {path}: {reason}'
        )

    def test_a_writer_that_refuses(self) -> None:
        writer = hugetlb.RefusingWriter('it is a container')

        for write in (
            lambda: writer.write_nr(0, KIB, 1),
            lambda: writer.write_compact(0),
            lambda: writer.write_demote(0, GIB, 1),
        ):
            with pytest.raises(exception.PoolsReadOnly, match='a container'):
                write()


def refuse(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have each write fail."""
    number = getattr(errno, name)

    def write(descriptor: int, data: bytes) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, 'write', write)


class TestWritable:
    def test_a_host(self, kernel: FakeKernel) -> None:
        assert hugetlb.writable(kernel.fs) is None

    def test_a_kernel_without_nodes(self, tmp_path: pathlib.Path) -> None:
        fs = hostfs.HostFS(tmp_path, tmp_path)

        assert hugetlb.writable(fs) == (
            f'the kernel tells of no NUMA nodes in {fs.nodes_folder}'
        )

    def test_a_kernel_without_huge_pages(
        self, kernel: FakeKernel, tmp_path: pathlib.Path
    ) -> None:
        for node in (0, 1):
            folder = tmp_path / f'sys/devices/system/node/node{node}'
            (folder / 'hugepages').rename(folder / 'gone')

        assert hugetlb.writable(kernel.fs) == 'the kernel has no huge pages'

    def test_a_container(
        self, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fields = list(os.statvfs(kernel.fs.sys))
        fields[8] |= os.ST_RDONLY
        monkeypatch.setattr(
            os, 'statvfs', lambda path: os.statvfs_result(fields)
        )

        assert hugetlb.writable(kernel.fs) == (
            f'{kernel.fs.sys} is mounted read-only, as in a container'
        )


class TestIds:
    @pytest.mark.parametrize(
        ('text', 'found'),
        [
            ('0\n', [0]),
            ('0-3,8,10-11\n', [0, 1, 2, 3, 8, 10, 11]),
            ('2,0', [0, 2]),
            ('\n', []),
        ],
    )
    def test_a_list(self, text: str, found: list[int]) -> None:
        assert hostfs.parse_ids(text) == found

    @pytest.mark.parametrize('text', ['a', '1-', '-1', '3-1', '1 2', '0-3:2'])
    def test_something_else(self, text: str) -> None:
        with pytest.raises(ValueError, match=text.split('-')[0]):
            hostfs.parse_ids(text)

    def test_a_file_with_something_else(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / 'online'
        path.write_text('all\n')

        with pytest.raises(exception.KernelError) as caught:
            hostfs.HostFS().ids(path)

        assert str(caught.value) == (
            f"{path}: expected a list like '0-3,8', found 'all'"
        )

    def test_no_node_at_all(
        self, kernel: FakeKernel, tmp_path: pathlib.Path
    ) -> None:
        path = tmp_path / 'sys/devices/system/node/online'
        path.write_text('\n')

        with pytest.raises(exception.KernelError) as caught:
            kernel.fs.online()

        assert str(caught.value) == (
            f'{path}: expected at least one node, found none'
        )
