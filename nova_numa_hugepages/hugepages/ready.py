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

"""Huge pages that are kept ready for instances which will start.

The ledger counts what starts would have needed; from that follows how many
idle pages of each pool are kept in each hour of the week.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping

from nova_numa_hugepages.hugepages import forecast
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import nodes
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.hugepages.state.ledger import Ledger

# A new host keeps nothing ready until it has counted for so long.
_LEAST_S = 24 * forecast.HOUR_S


class ReadyPages:
    """Says how many idle pages of each pool are kept ready.

    :param clock: seconds since the epoch
    """

    def __init__(
        self, ledger: Ledger, policy: PoolPolicy, clock: Callable[[], float]
    ) -> None:
        self._ledger = ledger
        self._policy = policy
        self._clock = clock
        # What was taken since idle pages were last made, by pool.
        self._taken: dict[model.PoolKey, int] = collections.Counter()
        # The margins of each pool, and the hour in which they were chosen.
        self._margins: dict[model.PoolKey, list[int]] = {}
        self._chosen_in = -1

    def note_start(self, wanted: Mapping[model.PoolKey, int]) -> None:
        """Count a start of an instance.

        :param wanted: the pages that it takes, by pool
        """
        if not self._policy.ready_risk_percent:
            return
        now = self._clock()
        for key, pages in wanted.items():
            self._taken[key] += pages
            self._ledger.add_start(key, forecast.start(now, self._taken[key]))

    def made(self) -> None:
        """Note that idle pages were made, as many as are kept ready."""
        self._taken.clear()

    def kept(
        self,
        keys: Iterable[model.PoolKey],
        memory: Mapping[int, nodes.NodeMemory],
    ) -> dict[model.PoolKey, int]:
        """Return how many idle pages of pools are kept ready now.

        Fewer where memory of a node is short for others.

        :param memory: that of each node
        """
        self._choose()
        now = self._clock()
        found = {}
        for key in keys:
            pages = self._policy.warm_mib * 1024 // key.size_kib
            margins = self._margins.get(key)
            if margins and key.node in memory:
                of_node = memory[key.node]
                short_kib = self._policy.node_free_mib * 1024 - (
                    of_node.free_kib + self._policy.cache_kib(of_node)
                )
                wanted_kib = min(
                    forecast.kept(margins, now) * key.size_kib,
                    of_node.total_kib
                    * self._policy.ready_limit_percent
                    // 100,
                ) - max(0, short_kib)
                pages = max(pages, wanted_kib // key.size_kib)
            found[key] = pages
        return found

    def _choose(self) -> None:
        """Choose the margins of all pools, once an hour."""
        if not self._policy.ready_risk_percent:
            return
        now = self._clock()
        hour = int(now) // forecast.HOUR_S
        if hour == self._chosen_in:
            return
        self._chosen_in = hour
        self._margins = {}
        since = self._ledger.counting_since
        # Set back, the clock must not make it wait for long.
        if since is None or abs(now - since) < _LEAST_S:
            return
        starts = self._ledger.starts(
            int(now) // forecast.WEEK_S - forecast.WEEKS
        )
        self._margins = {
            key: forecast.margins(
                counts,
                now,
                risk=self._policy.ready_risk_percent / 100,
                began_s=since,
            )
            for key, counts in starts.items()
        }
