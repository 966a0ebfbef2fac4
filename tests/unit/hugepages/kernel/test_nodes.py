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

"""Tests of the nodes and their memory, as the kernel shows them."""

from __future__ import annotations

import pathlib

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.kernel import nodes
from tests.fixtures.kernel import FakeKernel
from tests.fixtures.kernel import FakeNode


class TestPlaces:
    def test_nodes_that_are_not_numbered_in_a_row(
        self, tmp_path: pathlib.Path
    ) -> None:
        kernel = FakeKernel(
            tmp_path,
            {
                0: FakeNode(cpus=(0, 1, 2, 6)),
                1: FakeNode(cpus=(3,)),
                4: FakeNode(cpus=()),
            },
        )

        assert nodes.read_nodes(kernel.fs) == {
            0: nodes.Node(0, frozenset({0, 1, 2, 6}), {0: 10, 1: 21, 4: 21}),
            1: nodes.Node(1, frozenset({3}), {0: 21, 1: 10, 4: 21}),
            4: nodes.Node(4, frozenset(), {0: 21, 1: 21, 4: 10}),
        }

    @pytest.mark.parametrize('row', ['10', '10 21 31', '10 far', ''])
    def test_distances_of_another_host(
        self, tmp_path: pathlib.Path, row: str
    ) -> None:
        kernel = FakeKernel(tmp_path)
        path = tmp_path / 'sys/devices/system/node/node1/distance'
        path.write_text(row)

        with pytest.raises(exception.KernelError) as caught:
            nodes.read_nodes(kernel.fs)

        assert str(caught.value) == (
            f'{path}: expected 2 numbers, found {row!r}'
        )


class TestMemory:
    def test_what_is_free_and_what_the_kernel_can_take_back(
        self, tmp_path: pathlib.Path
    ) -> None:
        kernel = FakeKernel(
            tmp_path,
            {
                0: FakeNode(total=4096, used=96, cache=1000),
                1: FakeNode(total=2048, used=48, cma_gib=1),
            },
        )

        assert nodes.memory(kernel.fs) == {
            0: nodes.NodeMemory(4194304, 3000 * 1024, 1000 * 1024),
            1: nodes.NodeMemory(2097152, 2000 * 1024, 0),
        }

    def test_files_that_have_to_be_written_before_are_not_taken_back(
        self, tmp_path: pathlib.Path
    ) -> None:
        kernel = FakeKernel(tmp_path, {0: FakeNode()})
        (tmp_path / 'sys/devices/system/node/node0/meminfo').write_text(
            'Node 0 MemTotal:        7432408 kB\n'
            'Node 0 MemFree:         5799816 kB\n'
            'Node 0 Active(anon):       1580 kB\n'
            'Node 0 Active(file):     216416 kB\n'
            'Node 0 Inactive(file):   431632 kB\n'
            'Node 0 Dirty:               212 kB\n'
            'Node 0 Writeback:           100 kB\n'
            'Node 0 WritebackTmp:         77 kB\n'
            'Node 0 HugePages_Total:     5\n'
        )

        assert nodes.memory(kernel.fs) == {
            0: nodes.NodeMemory(7432408, 5799816, 216416 + 431632 - 312)
        }

    def test_a_file_with_something_else(self, tmp_path: pathlib.Path) -> None:
        kernel = FakeKernel(tmp_path, {0: FakeNode()})
        path = tmp_path / 'sys/devices/system/node/node0/meminfo'
        path.write_text('Node 0 MemTotal:        7432408 kB\n')

        with pytest.raises(exception.KernelError) as caught:
            nodes.memory(kernel.fs)

        assert str(caught.value).startswith(
            f'{path}: expected lines with MemTotal and MemFree, found'
        )
