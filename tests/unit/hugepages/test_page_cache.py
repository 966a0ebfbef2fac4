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

"""Memory in which the kernel keeps files that were read."""

from __future__ import annotations

import pathlib

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from tests.fixtures import kernel as fake_kernel
from tests.unit.hugepages import page_host

A = page_host.guest(1)
POOL = page_host.pool(0)
# 1024 MiB, of which 64 stay free, 100 are free and 800 are page cache.
NODE = fake_kernel.FakeNode(total=1024, used=124, cache=800)


def offered(rig: page_host.Rig) -> int:
    """Get how many pages the scheduler is offered."""
    return rig.pools.snapshot().pools[POOL].offered


@pytest.mark.parametrize(
    ('percent', 'pages'), [(0, 18), (50, 218), (100, 418)]
)
def test_what_is_offered_of_it_a_hold_gets(
    tmp_path: pathlib.Path, percent: int, pages: int
) -> None:
    rig = page_host.make(tmp_path, NODE, cache_percent=percent)
    assert offered(rig) == pages

    rig.pools.hold(A, page_host.needs((0, pages)))

    assert rig.total() == pages


@pytest.mark.parametrize(('percent', 'pages'), [(0, 19), (100, 419)])
def test_a_hold_goes_by_the_same_rule(
    tmp_path: pathlib.Path, percent: int, pages: int
) -> None:
    rig = page_host.make(tmp_path, NODE, cache_percent=percent)

    with pytest.raises(exception.NotEnoughPages, match='64 MiB stay free'):
        rig.pools.hold(A, page_host.needs((0, pages)))


def test_none_of_it_is_offered_without_compaction(
    tmp_path: pathlib.Path,
) -> None:
    rig = page_host.make(tmp_path, NODE, compact=False)

    assert offered(rig) == 18


@pytest.mark.parametrize(('stay_free_mib', 'pages'), [(100, 1), (1000, 0)])
def test_memory_of_cma_is_free_memory(tmp_path, stay_free_mib, pages):
    node = fake_kernel.FakeNode(total=2048, used=256, cma_gib=1)
    rig = page_host.make(tmp_path, node, node_free_mib=stay_free_mib)
    key = page_host.pool(0, fake_kernel.LARGE_KIB)

    assert rig.pools.snapshot().pools[key].allocatable == pages
    if pages:
        rig.pools.hold(A, [model.PageNeed(0, *key, pages)])
