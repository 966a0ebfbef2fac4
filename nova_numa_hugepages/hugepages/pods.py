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
import re

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import cgroups
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import kubelet

# Not that of oslo.log, which commands that only read don't need.
LOG = logging.getLogger(__name__)

_POD = re.compile(r'(?:kubepods.*-)?pod([0-9a-f_-]+)(?:\.slice)?')

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
            has[_pod(path), key] += count
        found: dict[model.PoolKey, int] = collections.Counter()
        for pod, promises in promised.items():
            # What may be on one node only takes its pages first.
            for promise in sorted(promises, key=lambda one: len(one.nodes)):
                left = promise.pages
                keys = [
                    key
                    for node in sorted(promise.nodes)
                    if (key := model.PoolKey(node, promise.size_kib)) in pools
                ]
                for key in keys:
                    used = min(left, has[pod, key])
                    has[pod, key] -= used
                    left -= used
                # Each of the nodes may have to give all of the rest.
                for key in keys:
                    found[key] += left
        return model.above_zero(found)

    def _promised(self) -> kubelet.Promises:
        try:
            self._last = {
                pod.lower(): promises for pod, promises in self._read().items()
            }
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


def _pod(path: str) -> str:
    """Return the uid of the pod that a control group is of; empty if of none.

    Users may make groups of such names, but not among those of a kubelet.
    """
    parts = path.strip('/').split('/')
    if parts[0] == 'user.slice':
        return ''
    for index, part in enumerate(parts):
        if part.partition('.')[0].startswith('kubepods'):
            for below in parts[index:]:
                if match := _POD.fullmatch(below):
                    # systemd has no dashes in the names of its slices.
                    return match[1].replace('_', '-')
            return ''
    return ''
