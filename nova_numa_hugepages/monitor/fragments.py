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

"""What fragmentation of memory costs, who is in the way, and the remedy."""

from __future__ import annotations

from collections.abc import Sequence
import enum
from typing import NamedTuple

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.sample import HostSample

# With more unmovable blocks than this, moving the rest hardly helps.
_MOST_UNMOVABLE = 0.25


class Because(enum.StrEnum):
    """Who is in the way, as far as the kernel tells."""

    CACHE = 'cached files'
    MOVABLE = 'memory of programs, which can be moved'
    UNMOVABLE = 'memory of the kernel, which cannot be moved'


class Fragment(NamedTuple):
    """Pages that can't be allocated, though there is memory enough.

    :ivar pages: how many
    """

    key: model.PoolKey
    pages: int
    because: Because


def find(sample: HostSample) -> list[Fragment]:
    """Find which pages can't be allocated, and why."""
    return [
        _fragment(sample, key, pool.fragmented)
        for key, pool in sample.snapshot.pools.items()
        if pool.fragmented
    ]


def _fragment(sample: HostSample, key: model.PoolKey, pages: int) -> Fragment:
    blocks = sample.page_blocks.get(key.node)
    memory = sample.snapshot.memory[key.node]
    if blocks is not None and (
        blocks.unmovable + blocks.reclaimable > _MOST_UNMOVABLE * blocks.all
    ):
        because = Because.UNMOVABLE
    elif memory.reclaimable_kib >= pages * key.size_kib:
        because = Because.CACHE
    else:
        because = Because.MOVABLE
    return Fragment(key, pages, because)


def remedy(found: Sequence[Fragment], *, compacts: bool) -> str:
    """Return the cheapest remedy; empty if nothing is to be done.

    :param compacts: whether nova-compute compacts memory when it needs pages
    """
    causes = {one.because for one in found}
    if not causes:
        return ''
    nodes = sorted({one.key.node for one in found})
    files = ' and '.join(
        f'/sys/devices/system/node/node{node}/compact' for node in nodes
    )
    if causes == {Because.UNMOVABLE}:
        return (
            'Migrate instances on small pages away, which frees whole blocks; '
            'only a reboot frees all of them. Allocate the pages at boot.'
        )
    step = f'Write 1 to {files}'
    if Because.CACHE in causes:
        step = f'Write 1 to /proc/sys/vm/drop_caches, and then to {files}'
    return step + (
        '; nova-compute does so itself when an instance needs the pages, but '
        'does not offer them to the scheduler before.'
        if compacts and Because.CACHE not in causes
        else '.'
    )
