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

"""Tests of how numbers get into the files of the kernel's pools."""

from __future__ import annotations

from collections.abc import Callable
import errno
import os
import pathlib

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hugetlb
from tests.fixtures.kernel import FakeKernel
from tests.fixtures.kernel import FakeNode

KIB = 2048
GIB = 1048576
SMALL = model.PoolKey(0, KIB)
LARGE = model.PoolKey(0, GIB)


@pytest.fixture
def kernel(tmp_path: pathlib.Path) -> FakeKernel:
    return FakeKernel(
        tmp_path, {0: FakeNode(pools={KIB: 8, GIB: 1}), 1: FakeNode()}
    )


class TestFiles:
    """What is in the files after a write, without a kernel behind them."""

    FOLDER = 'sys/devices/system/node/node0'

    @pytest.mark.parametrize(
        ('write', 'path', 'text'),
        [
            (
                lambda pools: pools.set_persistent(SMALL, 17),
                'hugepages/hugepages-2048kB/nr_hugepages',
                '17',
            ),
            (
                lambda pools: pools.demote(LARGE, 2),
                'hugepages/hugepages-1048576kB/demote',
                '2',
            ),
            (lambda pools: pools.compact(0), 'compact', '1'),
        ],
    )
    def test_each_verb_writes_its_file(
        self,
        kernel: FakeKernel,
        tmp_path: pathlib.Path,
        write: Callable[[hugetlb.Hugetlb], None],
        path: str,
        text: str,
    ) -> None:
        (tmp_path / self.FOLDER / path).write_text('')

        write(pools_of(kernel))

        assert (tmp_path / self.FOLDER / path).read_text() == text

    def test_no_file_is_created(
        self, kernel: FakeKernel, tmp_path: pathlib.Path
    ) -> None:
        path = tmp_path / self.FOLDER / 'hugepages/hugepages-2048kB'
        path = path / 'nr_hugepages'
        path.unlink()

        with pytest.raises(exception.KernelError) as caught:
            pools_of(kernel).set_persistent(SMALL, 1)

        assert not path.exists()
        assert str(caught.value) == (
            f'{path}: expected a file that can be written, found No such '
            'file or directory'
        )

    @pytest.mark.parametrize('number', ['1/../..', None, 1.5])
    def test_nothing_but_numbers_get_into_a_path(
        self, kernel: FakeKernel, number: object
    ) -> None:
        pools = pools_of(kernel)

        with pytest.raises((ValueError, TypeError)):
            pools.set_persistent(SMALL._replace(node=number), 1)
        with pytest.raises((ValueError, TypeError)):
            pools.set_persistent(SMALL._replace(size_kib=number), 1)
        with pytest.raises((ValueError, TypeError)):
            pools.compact(number)  # type: ignore[arg-type]


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
            pools_of(kernel).set_persistent(LARGE, 1)

    @pytest.mark.parametrize('name', ['EROFS', 'EACCES', 'EPERM'])
    def test_what_is_forbidden(
        self, monkeypatch: pytest.MonkeyPatch, kernel: FakeKernel, name: str
    ) -> None:
        refuse(monkeypatch, name)

        with pytest.raises(exception.PoolsReadOnly) as caught:
            pools_of(kernel).set_persistent(SMALL, 1)

        path = hugetlb.nr_file(kernel.fs, *SMALL)
        reason = os.strerror(getattr(errno, name))
        assert str(caught.value) == (
            f'huge page pools cannot be changed: {path}: {reason}'
        )

    def test_a_writer_that_refuses(self, kernel: FakeKernel) -> None:
        pools = hugetlb.Hugetlb(
            kernel.fs, hugetlb.refusing('it is a container')
        )

        for write in (
            lambda: pools.set_persistent(SMALL, 1),
            lambda: pools.compact(0),
            lambda: pools.demote(LARGE, 1),
        ):
            with pytest.raises(exception.PoolsReadOnly, match='a container'):
                write()


def pools_of(kernel: FakeKernel) -> hugetlb.Hugetlb:
    """Get the pools of files that this process writes itself."""
    return hugetlb.Hugetlb(kernel.fs, hugetlb.write_number)


def refuse(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have each write fail."""
    number = getattr(errno, name)

    def write(descriptor: int, data: bytes) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, 'write', write)
