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

"""Tests of the kernel's counters on memory."""

from __future__ import annotations

import pathlib

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.kernel import counters
from nova_numa_hugepages.hugepages.kernel import hostfs
from tests.fixtures.kernel import FakeKernel

NUMASTAT = """\
numa_hit 1741
numa_miss 3
numa_foreign 7
interleave_hit 612
local_node 1740
other_node 4
"""
VMSTAT = """\
nr_free_pages 81
allocstall_dma 1
allocstall_normal 2
allocstall_movable 4
compact_stall 9
compact_fail 5
compact_success 6
htlb_buddy_alloc_success 12
htlb_buddy_alloc_fail 13
"""
PRESSURE = """\
some avg10=1.50 avg60=0.75 avg300=0.10 total=123456
full avg10=0.50 avg60=0.25 avg300=0.00 total=4567
"""


@pytest.fixture
def fs(tmp_path: pathlib.Path) -> hostfs.HostFS:
    fs = FakeKernel(tmp_path).fs
    for node in (0, 1):
        (fs.node_folder(node) / 'numastat').write_text(NUMASTAT)
    (fs.proc / 'vmstat').write_text(VMSTAT)
    (fs.proc / 'pressure').mkdir(exist_ok=True)
    (fs.proc / 'pressure/memory').write_text(PRESSURE)
    return fs


def test_nodes(fs: hostfs.HostFS) -> None:
    assert counters.of_nodes(fs) == {
        node: counters.NodeCounters(hit=1741, miss=3, foreign=7)
        for node in (0, 1)
    }


@pytest.mark.parametrize('text', ['', 'numa_hit 1\nnuma_miss 2\n', 'x'])
def test_a_node_that_counts_something_else(
    fs: hostfs.HostFS, text: str
) -> None:
    path = fs.node_folder(1) / 'numastat'
    path.write_text(text)

    with pytest.raises(exception.KernelError, match='expected a line with'):
        counters.of_nodes(fs)


def test_the_host(fs: hostfs.HostFS) -> None:
    assert counters.of_host(fs) == counters.HostCounters(
        compact_success=6,
        compact_fail=5,
        hugepage_success=12,
        hugepage_fail=13,
        stalls=7,
    )


def test_a_kernel_that_counts_less(fs: hostfs.HostFS) -> None:
    (fs.proc / 'vmstat').write_text('nr_free_pages 81\n')

    assert counters.of_host(fs) == counters.HostCounters(0, 0, 0, 0, 0)


def test_pressure(fs: hostfs.HostFS) -> None:
    assert counters.pressure(fs) == counters.Pressure(
        some_us=123456, full_us=4567
    )


def test_a_kernel_without_pressure(fs: hostfs.HostFS) -> None:
    (fs.proc / 'pressure/memory').unlink()

    assert counters.pressure(fs) is None


@pytest.mark.parametrize('text', ['', PRESSURE.splitlines()[0], 'some x'])
def test_pressure_of_another_kind(fs: hostfs.HostFS, text: str) -> None:
    (fs.proc / 'pressure/memory').write_text(text)

    with pytest.raises(exception.KernelError, match='some and full pressure'):
        counters.pressure(fs)


def test_this_machine() -> None:
    fs = hostfs.HostFS()
    if not fs.nodes_folder.is_dir():
        pytest.skip('this machine shows no NUMA nodes')

    assert counters.of_nodes(fs).keys() == set(fs.online())
    assert min(counters.of_host(fs)) >= 0
    found = counters.pressure(fs)
    assert found is None or 0 <= found.full_us <= found.some_us
