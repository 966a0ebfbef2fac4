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

"""Why there are not enough pages, in the words of whoever has to mend it."""

from __future__ import annotations

from collections.abc import Mapping

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import usage
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import nodes
from nova_numa_hugepages.hugepages.policy import PoolPolicy


def explain(
    fs: hostfs.HostFS,
    policy: PoolPolicy,
    wanted: Mapping[model.PoolKey, int],
    short: Mapping[model.PoolKey, int],
    standings: Mapping[model.PoolKey, usage.PoolUsage],
    made: Mapping[model.PoolKey, int],
) -> list[str]:
    """Say how many pages are missing in each pool, and why.

    :param wanted: pages that were needed, by pool
    :param short: pages that are missing, by pool
    :param standings: how the pools stand with what was made
    :param made: pages that were made, and are about to be undone
    :returns: one sentence for each pool that falls short
    """
    sentences = []
    for key in sorted(short):
        text = f'{short[key]} of {wanted[key]} pages of {key} are missing'
        if key in standings:
            numbers = _numbers(standings[key], made.get(key, 0))
            text = f'{text} ({numbers}): {_cause(fs, policy, key)}'
        else:
            text = f'{text}: the host has no such pool'
        sentences.append(text)
    return sentences


def _numbers(standing: usage.PoolUsage, made: int) -> str:
    pool = standing.pool
    parts = [f'{pool.total} there, {pool.free} free']
    if standing.promised:
        parts.append(f'{standing.promised} promised to other guests')
    if standing.held_back:
        parts.append(f'{standing.held_back} held back')
    if standing.occupied:
        parts.append(f'{standing.occupied} used by others')
    if made:
        parts.append(f'{made} made now and undone')
    return ', '.join(parts)


def _cause(fs: hostfs.HostFS, policy: PoolPolicy, key: model.PoolKey) -> str:
    if not policy.dynamic:
        return 'pools are static, so none were made'
    memory = nodes.memory(fs)[key.node]
    free_mib = (memory.free_kib + memory.reclaimable_kib) // 1024
    at_most = free_mib - policy.node_free_mib
    text = (
        f'node {key.node} has {free_mib} MiB free, of which '
        f'{policy.node_free_mib} MiB stay free'
    )
    if at_most * 1024 < key.size_kib:
        return text
    unusable = nodes.unusable_permille(
        nodes.free_blocks(fs)[key.node], key.size_kib
    )
    return (
        f'{text}, and pools may take {policy.ceiling_percent} % of it; '
        f'{unusable // 10} % of the free memory is in blocks that are too '
        'small'
    )
