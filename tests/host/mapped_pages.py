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

"""Huge pages of 2 MiB that this process maps."""

from __future__ import annotations

import contextlib
import mmap

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hugetlb

KIB = 2048
_BYTES = KIB * 1024
# Not in Python before 3.13.
_MAP_HUGETLB = getattr(mmap, 'MAP_HUGETLB', 0x40000)


def take(pages: int, *, private: bool = False) -> mmap.mmap:
    """Map pages, which the kernel then keeps free. Children don't have them.

    :param private: whether no other process can map them
    :raises OSError: if there are too few
    """
    sharing = mmap.MAP_PRIVATE if private else mmap.MAP_SHARED
    mapped = mmap.mmap(
        -1, pages * _BYTES, sharing | mmap.MAP_ANONYMOUS | _MAP_HUGETLB
    )
    mapped.madvise(mmap.MADV_DONTFORK)
    return mapped


def touch(mapped: mmap.mmap, pages: int) -> None:
    """Take pages that are mapped."""
    for number in range(pages):
        mapped[number * _BYTES] = 1


def give_back(mapped: mmap.mmap, pages: int) -> None:
    """Return pages that are mapped, and may be touched again.

    As QEMU does for a balloon, in private memory or in shared memory.
    """
    for advice in (mmap.MADV_DONTNEED, mmap.MADV_REMOVE):
        # Private memory can't be removed.
        with contextlib.suppress(PermissionError):
            mapped.madvise(advice, 0, pages * _BYTES)


def empty(kernel: hugetlb.Hugetlb, key: model.PoolKey) -> None:
    """Free all pages of a pool that are not in use."""
    # Free surplus pages go if they are persistent before.
    kernel.set_persistent(key, kernel.pool(key).total)
    kernel.set_persistent(key, 0)
