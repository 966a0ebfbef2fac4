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

"""What samples of a host and its history tell together."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import time
from typing import NamedTuple

from oslo_log import log as logging

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.hugepages.sample import HostSample
from nova_numa_hugepages.monitor import fragments
from nova_numa_hugepages.monitor import leaks
from nova_numa_hugepages.monitor import room
from nova_numa_hugepages.monitor import trend
from nova_numa_hugepages.monitor.history import History
from nova_numa_hugepages.monitor.history import MINUTE_S
from nova_numa_hugepages.monitor.history import Series
from nova_numa_hugepages.monitor.labels import of_pool

LOG = logging.getLogger(__name__)

AVAILABLE = 'node_available_kib'
IN_PLACE = 'instance_in_place_kib'
POOL_FREE = 'pool_free_pages'
SLOTS = 'slots'

# The history changes slowly, and takes time to read.
_LOOK_BACK_S = 300.0
_TREND_S = 3 * 3600.0
# A trend of less isn't one.
_LEAST_TREND_S = 1800.0

_KINDS = 'kinds'


@dataclasses.dataclass(frozen=True, slots=True)
class Insight:
    """What is known beside a sample.

    :ivar slots: room for more instances, by the name of their kind
    :ivar fragments: pages that can't be allocated, though there is memory
    :ivar remedy: what to do about these; empty if there are none
    :ivar leaks: memory that is lost
    :ivar time_left_s: when a NUMA node has no more memory for instances, at
        the rate of the last hours, in seconds; nodes of which it has more and
        more are left out
    """

    slots: Mapping[str, room.Slots] = dataclasses.field(default_factory=dict)
    fragments: Sequence[fragments.Fragment] = ()
    remedy: str = ''
    leaks: Sequence[leaks.Leak] = ()
    time_left_s: Mapping[int, float] = dataclasses.field(default_factory=dict)


class Seen(NamedTuple):
    """What a look at a host has found."""

    sample: HostSample
    insight: Insight


class Analyst:
    """Finds out what samples and history tell, and keeps the history.

    :param history: of this host
    :param policy: the operator's policy for the pools
    :param dedicated: the CPUs that pinned vCPUs may have, None if not known
    :param named: kinds of instances that the operator names
    :param ticks: seconds of a clock that only goes forward
    """

    def __init__(
        self,
        history: History,
        policy: PoolPolicy,
        *,
        dedicated: Collection[int] | None = None,
        named: Collection[room.Kind] = (),
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self.history = history
        self._policy = policy
        self._dedicated = dedicated
        self._ticks = ticks
        self._kinds = room.Kinds(named)
        try:
            self._kinds.restore(history.kept(_KINDS))
        except (TypeError, ValueError) as error:
            LOG.warning(
                'The kinds of instances that were seen before are forgotten: '
                'those in the history cannot be read: %s',
                error,
            )
        self._looked: float | None = None
        self._leaks: list[leaks.Leak] = []
        self._left: dict[int, float] = {}

    def look(self, sample: HostSample) -> Insight:
        """Look at a sample, and add it to the history."""
        if self._kinds.see(sample):
            self.history.keep(_KINDS, self._kinds.as_json())
        kinds = self._kinds.all()
        slots = room.count(sample, kinds, self._dedicated)
        self.history.add(sample.time, self._values(sample, slots))
        now = self._ticks()
        if self._looked is None or now - self._looked >= _LOOK_BACK_S:
            self._looked = now
            self._leaks = leaks.find(sample, self.history, kinds)
            self._left = self._time_left(sample)
        found = fragments.find(sample)
        return Insight(
            slots,
            found,
            fragments.remedy(found, compacts=self._policy.compact),
            [*leaks.left(sample, kinds), *self._leaks],
            self._left,
        )

    def _values(
        self, sample: HostSample, slots: Mapping[str, room.Slots]
    ) -> dict[Series, float]:
        """Return what of a sample is kept."""
        found = leaks.values(sample)
        for node in sample.snapshot.nodes:
            available_kib = sample.available_kib(node)
            if available_kib is not None:
                found[Series(AVAILABLE, node=str(node))] = available_kib
        for key, pool in sample.snapshot.pools.items():
            if pool.usage.pool.total:
                found[Series(POOL_FREE, *of_pool(key))] = pool.usage.pool.free
        for uuid, instance in sample.instances.items():
            if instance.in_place:
                found[Series(IN_PLACE, uuid)] = model.total_kib(
                    instance.in_place.items()
                )
        for name, count in slots.items():
            found[Series(SLOTS, name)] = count.now
        return found

    def _time_left(self, sample: HostSample) -> dict[int, float]:
        found = {}
        for series, points in self.history.minutes(
            lambda one: one.name == AVAILABLE, sample.time - _TREND_S
        ).items():
            span_s = points[-1].time - points[0].time + MINUTE_S
            left_s = trend.time_left_s([(p.time, p.mean) for p in points])
            if left_s is not None and span_s >= _LEAST_TREND_S:
                found[int(series.node)] = left_s
        return found
