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

"""Tests of reading the files in which the kernel describes a host."""

from __future__ import annotations

import pathlib

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.kernel import hostfs
from tests.fixtures.kernel import FakeKernel


@pytest.fixture
def kernel(tmp_path: pathlib.Path) -> FakeKernel:
    return FakeKernel(tmp_path)


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

    @pytest.mark.parametrize(
        'text', ['a', '1-', '-1', '3-1', '1 2', '0-3:2', '65535-65536']
    )
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


@pytest.mark.parametrize(
    ('numbers', 'text'),
    [
        ([], ''),
        ([3], '3'),
        ([0, 1], '0-1'),
        ([3, 1, 2, 8], '1-3,8'),
        ([8, 0, 1, 2, 9, 11], '0-2,8-9,11'),
    ],
)
def test_lists_of_numbers(numbers: list[int], text: str) -> None:
    assert hostfs.format_ids(numbers) == text
