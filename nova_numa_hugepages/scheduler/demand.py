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

"""The demand: which kinds of guests are asked for, and how often.

Learned from the requests that this scheduler gets. Old requests count less:
half as much after each half-life. Before there are many, the flavors of the
cloud stand in, all alike; together they count like `PRIOR_REQUESTS` requests,
so that they fade as requests come in.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import heapq
import threading
import time

from nova import conf as nova_conf
from nova.objects import request_spec

from nova_numa_hugepages.core.capacity import guest_kinds
from nova_numa_hugepages.nova_fit import translate
from nova_numa_hugepages.scheduler import demand_store
from nova_numa_hugepages.scheduler import flavors
from nova_numa_hugepages.scheduler import request_cache

CONF = nova_conf.CONF

PRIOR_REQUESTS = 20.0

# Kinds that are kept. Only some of them count at a time, but which ones
# changes.
_MOST_KEPT = 1000

# The least count that is worth keeping.
_LEAST_KEPT = 1e-6

# Seconds in which counts decay too little to be worth the time.
_DECAY_EVERY_S = 1.0

Mix = tuple[tuple[guest_kinds.GuestKind, ...], list[float]]


class Demand:
    """Learns the demand. May be used by several threads.

    :param half_life_s: seconds after which a request counts half
    :param at_most: learned kinds that count at a time, the most asked for
    :param prior: returns the kinds of the cloud's flavors
    :param pinned: returns the demand that the operator has set, by kind; empty
        if it is to be learned
    :param store: keeps what was learned, None if nothing is to be kept
    :param clock: returns the time in seconds
    """

    def __init__(
        self,
        *,
        half_life_s: float,
        at_most: int,
        prior: Callable[[], Mapping[str, guest_kinds.GuestKind]] = dict,
        pinned: Callable[[], Mapping[guest_kinds.GuestKind, float]] = dict,
        store: demand_store.DemandFile | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.half_life_s = half_life_s
        self._at_most = at_most
        self._prior = prior
        self._pinned = pinned
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._saving = threading.Lock()
        self._counts: dict[guest_kinds.GuestKind, float] = {}
        self._at = clock()
        if store is not None:
            counts, self._at = store.load(self._at)
            self._counts = _most_asked(
                {k: n for k, n in counts.items() if n > _LEAST_KEPT},
                _MOST_KEPT,
            )

    def observe(
        self, spec: request_spec.RequestSpec, kind: guest_kinds.GuestKind
    ) -> None:
        """Count the guest of a request, but only once.

        Nova filters the hosts again for the same guest, to find alternates,
        and schedules a guest again that failed to start. A guest that moves
        is not asked for again, either: Nova then names the hosts that it must
        not come to.
        """
        guest = translate.instance_uuid(spec)
        cache = request_cache.of(spec)
        retry = spec.retry if 'retry' in spec else None
        again = retry is not None and retry.num_attempts > 1
        if 'ignore_hosts' in spec and spec.ignore_hosts:
            again = True
        if again or cache.counted == (guest, kind):
            return
        cache.counted = (guest, kind)
        self.count(kind)

    def count(self, kind: guest_kinds.GuestKind) -> None:
        """Count a guest, unless it is not `guest_kinds.plausible`."""
        if not guest_kinds.plausible(kind):
            return
        with self._lock:
            self._decay()
            self._counts[kind] = self._counts.get(kind, 0.0) + 1.0
            if len(self._counts) > _MOST_KEPT:
                del self._counts[
                    min(self._counts, key=self._counts.__getitem__)
                ]
        self._save()

    def _save(self) -> None:
        """Save what was learned; other threads need not wait for the disk."""
        if self._store is None or not self._saving.acquire(blocking=False):
            return
        try:
            with self._lock:
                counts, at = dict(self._counts), self._at
            self._store.save(counts, at)
        finally:
            self._saving.release()

    def mix(self) -> Mix:
        """Return the demand as it is now.

        :returns: the kinds, always in the same order, and their shares, which
            sum up to 1; empty if nothing is known
        """
        counts = dict(self._pinned())
        if not counts:
            counts = _most_asked(self._learned(), self._at_most)
        total = sum(counts.values())
        return tuple(counts), [count / total for count in counts.values()]

    def _learned(self) -> dict[guest_kinds.GuestKind, float]:
        with self._lock:
            self._decay()
            counts = dict(self._counts)
        prior = self._prior()
        for kind in prior.values():
            counts[kind] = counts.get(kind, 0.0) + PRIOR_REQUESTS / len(prior)
        return counts

    def _decay(self) -> None:
        now = self._clock()
        if 0 <= now - self._at < _DECAY_EVERY_S:
            return
        # After a clock was put back nothing decays.
        factor = 0.5 ** (max(0.0, now - self._at) / self.half_life_s)
        self._at = now
        if factor < 1.0:
            self._counts = {
                kind: count * factor
                for kind, count in self._counts.items()
                if count * factor > _LEAST_KEPT
            }


def _most_asked(
    counts: dict[guest_kinds.GuestKind, float], at_most: int
) -> dict[guest_kinds.GuestKind, float]:
    """Pick the kinds that are asked for most, and leave them in their order.

    Among equals those that came first.
    """
    if len(counts) <= at_most:
        return counts
    most = set(heapq.nlargest(at_most, counts, key=counts.__getitem__))
    return {kind: count for kind, count in counts.items() if kind in most}


class _Process:
    """The demand of this process: filter and weigher share it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.demand: Demand | None = None


_PROCESS = _Process()


def start() -> Demand:
    """Begin to learn the demand in this process, as configured. Idempotent.

    :raises exception.InvalidOption: if an option can't be used
    """
    with _PROCESS.lock:
        if _PROCESS.demand is None:
            options = CONF.numa_hugepages
            of_flavors = flavors.FlavorKinds(options.demand_flavors_interval)
            _PROCESS.demand = Demand(
                half_life_s=options.demand_half_life,
                at_most=options.demand_kinds,
                prior=of_flavors.kinds,
                pinned=flavors.PinnedMix(of_flavors, options.demand_mix).mix,
                store=demand_store.open_configured(),
            )
        return _PROCESS.demand


def current() -> Demand | None:
    """Get the demand of this process, None if it was not started."""
    return _PROCESS.demand


def stop() -> None:
    """Forget the demand of this process. Idempotent."""
    with _PROCESS.lock:
        _PROCESS.demand = None
