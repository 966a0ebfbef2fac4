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

"""Pages that a kubelet promised to pods, and that these don't have yet.

The kernel doesn't know of them: a container has its pages when it maps them,
which may be long after its pod was admitted.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Collection
import logging

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import cgroups
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import kubelet

# Not that of oslo.log, which commands that only read don't need.
LOG = logging.getLogger(__name__)

PromisesReader = Callable[[], kubelet.Promises]


class PodPages:
    """The pages of the pods of a host.

    :param read: reads what a kubelet promised
    """

    def __init__(self, fs: hostfs.HostFS, read: PromisesReader) -> None:
        self._fs = fs
        self._read = read
        self._last: kubelet.Promises = {}
        self._problem = ''

    def absent(
        self, pools: Collection[model.PoolKey]
    ) -> dict[model.PoolKey, int]:
        """Count the pages that pods were promised and don't have, by pool.

        If what was promised can't be read, what was read last counts.

        :param pools: those that there are
        """
        promised = self._promised()
        if not promised:
            return {}
        has: collections.Counter[tuple[str, model.PoolKey]] = (
            collections.Counter()
        )
        for path, key, count in cgroups.users(self._fs, pools):
            # systemd has no dashes in the names of its slices.
            name = path.replace('_', '-')
            for pod in promised:
                if f'pod{pod}' in name:
                    has[pod, key] += count
        found: dict[model.PoolKey, int] = collections.Counter()
        for pod, counts in promised.items():
            for key, count in counts.items():
                if key in pools:
                    found[key] += max(0, count - has[pod, key])
        return model.above_zero(found)

    def _promised(self) -> kubelet.Promises:
        try:
            self._last = self._read()
        except exception.KernelError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                LOG.warning(
                    'Cannot read which huge pages pods were promised; what '
                    'was read last counts: %s',
                    error,
                )
        else:
            self._problem = ''
        return self._last
