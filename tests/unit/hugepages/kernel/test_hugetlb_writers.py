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
from nova_numa_hugepages.hugepages.kernel import hugetlb
from tests.fixtures.kernel import FakeKernel
from tests.fixtures.kernel import FakeNode

KIB = 2048
GIB = 1048576


@pytest.fixture
def kernel(tmp_path: pathlib.Path) -> FakeKernel:
    return FakeKernel(
        tmp_path, {0: FakeNode(pools={KIB: 8, GIB: 1}), 1: FakeNode()}
    )


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
