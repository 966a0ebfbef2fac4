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

"""Why an instance cannot have its huge pages here, in words for operators."""

from __future__ import annotations

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import fragmentation
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import nodes
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.hugepages.usage import PoolUsage


def describe(
    key: model.PoolKey,
    missing: int,
    wanted: int,
    usage: PoolUsage | None,
    made: int,
    why: str,
) -> str:
    """Describe a pool that has too few pages.

    :param missing: how many of the wanted pages are missing
    :param usage: its use with what was allocated, None if there is no such
        pool
    :param made: pages that were allocated, and are about to be freed again
    :param why: why there are not more
    """
    text = f'{missing} of {wanted} pages of {key} are missing'
    if usage is None:
        return f'{text}: {why}'
    numbers = f', {made} made now and undone' if made else ''
    return f'{text} ({usage}{numbers}): {why}'


def growth_limits(
    fs: hostfs.HostFS, policy: PoolPolicy, key: model.PoolKey
) -> str:
    """Describe what limits the growth of a pool.

    :raises exception.KernelError: if the kernel's files can't be used
    """
    memory = nodes.memory(fs)[key.node]
    free_mib = (memory.free_kib + memory.reclaimable_kib) // 1024
    text = (
        f'NUMA node {key.node} has {free_mib} MiB free, of which '
        f'{policy.node_free_mib} MiB stay free'
    )
    if (free_mib - policy.node_free_mib) * 1024 < key.size_kib:
        return text
    unusable = fragmentation.unusable_permille(
        fragmentation.free_blocks(fs)[key.node], key.size_kib
    )
    return (
        f'{text}, and pools may take {policy.ceiling_percent} % of its '
        f'memory; {unusable // 10} % of the free memory is in blocks that '
        'are too small'
    )
