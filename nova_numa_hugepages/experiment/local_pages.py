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

"""Huge pages that are allocated as long as an experiment runs."""

from __future__ import annotations

from nova_numa_hugepages import exception
from nova_numa_hugepages.core import units
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hugetlb


class TooFewPages(exception.NUMAHugepagesError):
    """The kernel could not allocate as many as it takes."""


class AllocatedPages:
    """What was allocated, to be given back.

    :param pools: writes pools; it takes root
    """

    def __init__(self, pools: hugetlb.Hugetlb) -> None:
        self._pools = pools
        # How many there were before, and are to be at most.
        self._before: dict[model.PoolKey, tuple[int, int]] = {}

    def allocate(self, key: model.PoolKey, pages: int) -> None:
        """Have so many pages of a pool be free.

        :raises TooFewPages: if that can't be
        :raises exception.NUMAHugepagesError: if the pool can't be written
        """
        pool = self._pools.pool(key)
        missing = pages - pool.free
        if missing <= 0:
            return
        # Noted before, so that they are given back whatever happens then.
        self._before[key] = pool.persistent, missing
        self._pools.set_persistent(key, pool.persistent + missing)
        now = self._pools.pool(key)
        if now.free < pages:
            made = max(0, now.persistent - pool.persistent)
            raise TooFewPages(
                f'Of {missing} huge pages of {units.format_kib(key.size_kib)} '
                f'on NUMA node {key.node} the kernel could allocate {made}: '
                'memory is short or fragmented. Give the workloads less '
                'memory, or try it after a reboot.'
            )

    def give_back(self) -> None:
        """Give back what was added, and no more.

        :raises exception.NUMAHugepagesError: if a pool can't be written
        """
        for key, (before, added) in list(self._before.items()):
            # What others have added meanwhile stays, and no more goes than
            # came, also if the kernel was interrupted.
            now = self._pools.pool(key).persistent
            self._pools.set_persistent(key, min(now, max(before, now - added)))
            del self._before[key]
