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

"""Shrinking of pools: which idle pages are freed, and freeing them."""

from __future__ import annotations

from collections.abc import Mapping

from oslo_log import log as logging

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.accounts import Accounts
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.hugepages.usage import PoolUsage

LOG = logging.getLogger(__name__)


def freeable(
    accounts: Mapping[model.PoolKey, model.Account],
    usage: Mapping[model.PoolKey, PoolUsage],
    policy: PoolPolicy,
) -> dict[model.PoolKey, int]:
    """Count the idle pages that may be freed, by pool.

    They are those that we allocated, without those that the policy keeps
    ready. What was there before us, or is the operator's, is never freed.
    """
    return model.above_zero(
        {
            key: min(account.grown, usage[key].available)
            - policy.warm_mib * 1024 // key.size_kib
            for key, account in accounts.items()
            if account.grown and key in usage
        }
    )


def free(
    accounts: Accounts,
    idle: Mapping[model.PoolKey, int],
    freed: dict[model.PoolKey, int],
) -> None:
    """Free idle pages, as far as the kernel does.

    Needs accounts that are in step.

    :param freed: receives how many pages were freed, pool by pool, also if an
        error ends it
    """
    for key, pages in idle.items():
        count = -accounts.add(key, -pages)
        if count > 0:
            freed[key] = count
            LOG.info(
                'Freed idle huge pages: %s.', model.in_words({key: count})
            )
        if count < pages:
            LOG.info(
                'Kernel freed only %(count)d of %(idle)d idle pages of '
                '%(pool)s; will retry.',
                {'count': count, 'idle': pages, 'pool': key},
            )
