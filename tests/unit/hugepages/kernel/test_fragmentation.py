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

"""Tests of the fragmentation of nodes, as the kernel shows it."""

from __future__ import annotations

import pathlib
import resource

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import fragmentation
from nova_numa_hugepages.hugepages.kernel import hostfs
from tests.fixtures.kernel import FakeKernel
from tests.fixtures.kernel import FakeNode

KIB = 2048
GIB = 1048576
HERE = model.PoolKey(0, KIB)
LARGE = model.PoolKey(0, GIB)

# Excerpts from a kernel 6.18 with one node, to which a second was added.
BUDDYINFO = """\
Node 0, zone      DMA      0      0      0      0      0      0      0      0      1      1      3 
Node 0, zone    DMA32      2      3      5      2      6      5      4      4      5      4    742 
Node 0, zone   Normal   3424    842    702    469    401    420    270    130     39      1      9 
Node 1, zone   Normal      1      0      0      0      0      0      0      0      0      3     10 
"""  # noqa: E501, W291

ZONEINFO = """\
Node 0, zone      DMA
  per-node stats
      nr_inactive_anon 1935
      nr_foll_pin_released 7239
  pages free     3840
        boost    0
        min      34
        low      42
        high     50
        promo    58
        spanned  4095
        present  3998
        managed  3840
        cma      0
        protection: (0, 3019, 7243, 7243, 7243)
      nr_free_pages 3840
      nr_free_pages_blocks 3584
      nr_free_cma  0
  pagesets
    cpu: 0
              count:    0
              high:     0
              batch:    1
              high_min: 21
              high_max: 240
  vm stats threshold: 4
  node_unreclaimable:  0
  start_pfn:           1
Node 0, zone    DMA32
  pages free     764204
        boost    0
        min      2116
        low      2888
        high     3660
        promo    4432
        managed  772918
        cma      0
        protection: (0, 0, 21071, 21071, 21071)
      nr_free_pages 764204
      nr_free_cma  0
  pagesets
    cpu: 0
              count:    6
              high:     1444
Node 0, zone   Normal
  pages free     49000
        boost    0
        min      14000
        low      18000
        high     22000
        managed  5394188
        cma      0
        protection: (0, 0, 0, 0, 0)
      nr_free_pages 49000
      nr_free_cma  0
  pagesets
    cpu: 0
              count:    6
              high:     1444
Node 0, zone  Movable
  pages free     0
        boost    0
        min      32
        low      32
        high     32
        protection: (0, 0, 0, 0, 0)
Node 1, zone   Normal
  per-node stats
      nr_inactive_anon 7
  pages free     11777
        min      1000
        low      1250
        high     1500
        managed  100000
        cma      4096
        protection: (0, 0, 0, 0, 0)
      nr_free_cma  1024
  pagesets
    cpu: 0
              high:     99
Node 1, zone   Device
  pages free     0
        high     0
        protection: (0, 0, 0, 0, 0)
"""


@pytest.fixture
def real(tmp_path: pathlib.Path) -> hostfs.HostFS:
    """The files of a kernel 6.18."""
    fs = hostfs.HostFS(tmp_path / 'sys', tmp_path / 'proc')
    fs.nodes_folder.mkdir(parents=True)
    fs.proc.mkdir()
    (fs.nodes_folder / 'online').write_text('0-1\n')
    for node, total_kib in enumerate((24683784, 400000)):
        fs.node_folder(node).mkdir()
        (fs.node_folder(node) / 'meminfo').write_text(
            f'Node {node} MemTotal: {total_kib} kB\n'
            f'Node {node} MemFree: 0 kB\n'
        )
    (fs.proc / 'buddyinfo').write_text(BUDDYINFO)
    (fs.proc / 'zoneinfo').write_text(ZONEINFO)
    return fs


class TestBlocks:
    def test_zones_of_a_node_are_added_up_but_for_dma(
        self, real: hostfs.HostFS
    ) -> None:
        assert fragmentation.free_blocks(real) == {
            0: (0, 0, 3426, 845, 707, 471, 407, 425, 274, 134, 44, 5, 751),
            1: (0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 3, 10),
        }

    def test_a_node_without_memory_has_none(self, real: hostfs.HostFS) -> None:
        free = fragmentation.free_blocks(real)
        (real.nodes_folder / 'online').write_text('0-2\n')

        assert fragmentation.free_blocks(real) == {**free, 2: (0,) * 13}

    def test_zones(self, real: hostfs.HostFS) -> None:
        assert fragmentation.zones(real) == [
            fragmentation.Zone(
                0,
                'DMA32',
                free_kib=764204 * 4,
                high_kib=3660 * 4,
                protected_kib=21071 * 4,
                cma_free_kib=0,
                blocks=(0, 0, 2, 3, 5, 2, 6, 5, 4, 4, 5, 4, 742),
            ),
            fragmentation.Zone(
                0,
                'Normal',
                free_kib=49000 * 4,
                high_kib=22000 * 4,
                protected_kib=0,
                cma_free_kib=0,
                blocks=(
                    0,
                    0,
                    3424,
                    842,
                    702,
                    469,
                    401,
                    420,
                    270,
                    130,
                    39,
                    1,
                    9,
                ),
            ),
            fragmentation.Zone(
                1,
                'Normal',
                free_kib=11777 * 4,
                high_kib=1500 * 4,
                protected_kib=0,
                cma_free_kib=4096,
                blocks=(0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 3, 10),
            ),
        ]

    @pytest.mark.parametrize(
        ('name', 'text', 'expected'),
        [
            (
                'buddyinfo',
                'Node 0, zone Normal\n',
                "lines like 'Node 0, zone Normal 1 2 3', "
                "found 'Node 0, zone Normal'",
            ),
            (
                'zoneinfo',
                'Node 0, zone   Normal\n  pages free     7\n',
                'free pages and a high watermark, '
                "found '\\n  pages free     7\\n'",
            ),
        ],
    )
    def test_a_file_with_something_else(
        self, real: hostfs.HostFS, name: str, text: str, expected: str
    ) -> None:
        path = real.proc / name
        path.write_text(text)

        with pytest.raises(exception.KernelError) as caught:
            fragmentation.zones(real)

        assert str(caught.value) == f'{path}: expected {expected}'


class TestAllocatablePages:
    def test_what_a_real_kernel_has(self, real: hostfs.HostFS) -> None:
        # DMA32: (764204 - 3660 - 21071) // 512 = 1444, and 4 + 2 * 742 blocks.
        # Normal: (49000 - 22000) // 512 = 52, but 1 + 2 * 9 blocks.
        assert fragmentation.allocatable_pages(real, HERE) == 1444 + 19
        # 3 + 2 * 10 blocks, but for the 2 that may be the area's;
        # (11777 - 1024 - 1500) // 512 = 18.
        assert (
            fragmentation.allocatable_pages(real, model.PoolKey(1, KIB)) == 18
        )
        assert (
            fragmentation.allocatable_pages(real, model.PoolKey(2, KIB)) == 0
        )

    def test_zones_that_were_read_before(self, real: hostfs.HostFS) -> None:
        zones = fragmentation.zones(real)
        (real.proc / 'zoneinfo').unlink()

        assert fragmentation.allocatable_pages(real, HERE, zones) == 1444 + 19

    def test_broken_memory_does_not_count(
        self, tmp_path: pathlib.Path
    ) -> None:
        kernel = FakeKernel(tmp_path, {0: FakeNode(total=512, used=256)})
        assert fragmentation.allocatable_pages(kernel.fs, HERE) == 124

        kernel.fragment(0, 28 * KIB)

        assert fragmentation.allocatable_pages(kernel.fs, HERE) == 100

    def test_memory_below_the_watermark_does_not_count(
        self, tmp_path: pathlib.Path
    ) -> None:
        kernel = FakeKernel(tmp_path, {0: FakeNode(total=512, used=256)})

        kernel.use_memory(0, 245 * 1024)

        assert fragmentation.allocatable_pages(kernel.fs, HERE) == 1
        kernel.use_memory(0, 2 * 1024)
        assert fragmentation.allocatable_pages(kernel.fs, HERE) == 0

    def test_the_kernel_gives_what_was_counted(
        self, tmp_path: pathlib.Path
    ) -> None:
        kernel = FakeKernel(
            tmp_path, {0: FakeNode(total=2048, used=256, cma_gib=1)}
        )
        kernel.fragment(0, 50 * KIB, mendable_kib=0)
        counted = fragmentation.allocatable_pages(kernel.fs, HERE)

        kernel.write_nr(0, KIB, counted)

        assert counted > 0
        assert kernel.pool(HERE).total == counted

    def test_large_pages_come_from_their_area_only(
        self, tmp_path: pathlib.Path
    ) -> None:
        kernel = FakeKernel(
            tmp_path,
            {
                0: FakeNode(total=16384, cma_gib=3),
                1: FakeNode(total=16384, lucky=5),
            },
        )
        kernel.write_nr(0, GIB, 1)

        assert fragmentation.allocatable_pages(kernel.fs, LARGE) == 2
        assert (
            fragmentation.allocatable_pages(kernel.fs, model.PoolKey(1, GIB))
            == 0
        )

    def test_memory_that_their_area_has_lent_does_not_count(
        self, tmp_path: pathlib.Path
    ) -> None:
        kernel = FakeKernel(tmp_path, {0: FakeNode(total=16384, cma_gib=8)})
        path = kernel.fs.proc / 'zoneinfo'
        # Floating guests have a bit less than 3 GiB of it.
        text = path.read_text()
        free = 8 * GIB // fragmentation.BASE_KIB
        assert f'nr_free_cma  {free}' in text
        left = free - 3 * GIB // fragmentation.BASE_KIB + 1
        path.write_text(
            text.replace(f'nr_free_cma  {free}', f'nr_free_cma  {left}')
        )

        assert fragmentation.allocatable_pages(kernel.fs, LARGE) == 5

    def test_large_pages_on_a_kernel_before_6_15(
        self, tmp_path: pathlib.Path
    ) -> None:
        kernel = FakeKernel(
            tmp_path, {0: FakeNode(total=16384, cma_gib=3), 1: FakeNode()}
        )
        area = kernel.fs.sys / 'kernel/mm/cma/hugetlb0'
        for name in ('available_pages', 'total_pages'):
            (area / name).unlink()

        assert fragmentation.allocatable_pages(kernel.fs, LARGE) == 3

    def test_pages_that_neither_blocks_nor_an_area_give(
        self, tmp_path: pathlib.Path
    ) -> None:
        kernel = FakeKernel(tmp_path, {0: FakeNode(total=16384, cma_gib=3)})

        assert (
            fragmentation.allocatable_pages(
                kernel.fs, model.PoolKey(0, 16 * GIB)
            )
            == 0
        )


class TestUnusable:
    def test_sound_memory(self) -> None:
        assert fragmentation.unusable_permille((0,) * 11 + (3, 10), KIB) == 0

    def test_broken_memory(self) -> None:
        # 512 of 4 KiB beside three times as much in whole blocks.
        blocks = (0, 0, 512, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1)

        assert fragmentation.unusable_permille(blocks, KIB) == 250
        assert fragmentation.unusable_permille(blocks, 4) == 0
        assert fragmentation.unusable_permille(blocks, GIB) == 1000

    def test_no_free_memory(self) -> None:
        assert fragmentation.unusable_permille((0,) * 13, KIB) == 1000


class TestBaseKib:
    """The size of small pages, of this host and of others."""

    @pytest.mark.parametrize(
        ('base_kib', 'orders', 'largest_kib'),
        [
            pytest.param(4, 11, 4096, id='4 KiB'),
            pytest.param(16, 12, 32768, id='arm64, 16 KiB'),
            pytest.param(64, 14, 524288, id='arm64, 64 KiB'),
        ],
    )
    def test_the_files_of_a_host_tell_it(
        self,
        real: hostfs.HostFS,
        base_kib: int,
        orders: int,
        largest_kib: int,
    ) -> None:
        _write_pages(real, base_kib)
        row = '1 ' * orders
        (real.proc / 'buddyinfo').write_text(f'Node 0, zone Normal {row}\n')

        (zone,) = fragmentation.zones(real)

        assert fragmentation.base_kib(real) == base_kib
        assert zone.free_kib == 49000 * base_kib
        assert zone.high_kib == 22000 * base_kib
        blocks = fragmentation.free_blocks(real)[0]
        assert fragmentation.has_blocks(blocks, largest_kib)
        assert not fragmentation.has_blocks(blocks, 2 * largest_kib)
        free = 2**orders - 1
        assert fragmentation.unusable_permille(blocks, 2048) == (
            1000 * (2048 // base_kib - 1) // free
        )

    def test_the_files_of_the_running_kernel_need_not_tell_it(self) -> None:
        assert fragmentation.base_kib(hostfs.HostFS()) == (
            resource.getpagesize() // 1024
        )

    def test_files_of_two_hosts(self, real: hostfs.HostFS) -> None:
        _write_pages(real, 6)

        with pytest.raises(exception.KernelError) as caught:
            fragmentation.base_kib(real)

        assert str(caught.value) == (
            f'{real.proc}/zoneinfo: expected {6270946 * 6} KiB of memory, as '
            'in meminfo of the nodes, in pages of 4, 8, 16, 32, 64, 256 KiB, '
            'found 6270946 managed pages'
        )


def _write_pages(fs: hostfs.HostFS, base_kib: int) -> None:
    """Write what memory the nodes have, in pages of a size."""
    for node, pages in enumerate((6170946, 100000)):
        (fs.node_folder(node) / 'meminfo').write_text(
            f'Node {node} MemTotal: {pages * base_kib} kB\n'
            f'Node {node} MemFree: 0 kB\n'
        )
