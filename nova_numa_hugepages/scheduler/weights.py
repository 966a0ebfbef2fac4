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

"""
NUMA and huge pages weigher. Prefer the host on which a guest costs the fleet
least: where it takes away least of the room that other guests will ask for.

A guest on the wrong host strands resources: CPUs whose node has no pages left,
pages whose node has no CPUs left, hosts on which every node has a little room
and none enough. The weigher counts, for each kind of guest in the demand, how
many more of them every host could take, and what is left of these slots when
the guest has come. See ``core/capacity/scarcity.py`` for the score.

Guests that ask for no NUMA cells, huge pages or dedicated CPUs are kept off
the hosts that have most of the scarce slots.

Among hosts on which a guest costs the same, the one that has to make the
fewest huge pages for it is preferred, then the one whose nodes are left in the
better balance. What is equal even so is left to the other weighers.

The weigher is to be used with ``NUMAHugepagesFilter``, which finds out where
on each host the guest would go. Enable it beside Nova's::

    [filter_scheduler]
    weight_classes = nova.scheduler.weights.all_weighers,\
nova_numa_hugepages.scheduler.weights.NUMAHugepagesWeigher

``[numa_hugepages] weight_multiplier``, or the key
``numa_hugepages_weight_multiplier`` in the metadata of an aggregate, says how
much it counts. The default lets it decide beside Nova's default weighers. With
a multiplier of 0 it has no effect. A negative one reverses the order, so that
guests go where they do most harm.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
import logging as stdlib_logging
import math

from nova import conf as nova_conf
from nova.objects import request_spec
from nova.scheduler import host_manager
from nova.scheduler import utils
from nova.scheduler import weights
from oslo_log import log as logging

from nova_numa_hugepages import conf
from nova_numa_hugepages.core.capacity import counter
from nova_numa_hugepages.core.capacity import guest_kinds
from nova_numa_hugepages.nova_fit import numa_fit
from nova_numa_hugepages.nova_fit import translate
from nova_numa_hugepages.scheduler import demand
from nova_numa_hugepages.scheduler import host_check
from nova_numa_hugepages.scheduler import request_cache
from nova_numa_hugepages.scheduler import score

CONF = nova_conf.CONF
LOG = logging.getLogger(__name__)

# Hosts further back in the order count as equal. With as many hosts or more,
# a place in the order is so worth at least 10 times the weight of a default
# weigher of Nova's, if the multiplier is the default.
PLACES = 1000

# A host without a NUMA topology has nothing that is scarce, and one on which
# the guest doesn't fit is the last one to go to.
_FREE = score.Score(0.0)
_WORST = score.Score(math.inf)

# The best hosts, which are logged.
_LOGGED = 3


class NUMAHugepagesWeigher(weights.BaseHostWeigher):
    """Order hosts by what a guest costs the fleet on them.

    :param learned: the demand; that of this process if None
    :raises exception.InvalidOption: at start, if an option of
        ``[numa_hugepages]`` is out of range or can't be used
    """

    def __init__(self, learned: demand.Demand | None = None) -> None:
        conf.register_opts(CONF)
        conf.validate(CONF)
        self._stats = host_check.StatsReader()
        self._counter: counter.Counter | None = None
        self._demand = learned or demand.start()

    def weight_multiplier(self, host_state: host_manager.HostState) -> float:
        """Override the weight multiplier."""
        multiplier: float = utils.get_weight_multiplier(
            host_state,
            'numa_hugepages_weight_multiplier',
            CONF.numa_hugepages.weight_multiplier,
        )
        return multiplier

    def _weigh_object(
        self,
        obj: host_manager.HostState,
        weight_properties: request_spec.RequestSpec,
    ) -> float:
        """Weigh one host, which has none to be compared with."""
        return 0.0

    def weigh_objects(
        self,
        weighed_obj_list: Sequence[weights.WeighedHost],
        weight_properties: request_spec.RequestSpec,
    ) -> list[float]:
        """Weigh all hosts that passed the filters.

        :returns: a weight for each, 0 for the worst one; equal where nothing
            speaks for one or the other
        """
        hosts = [weighed.obj for weighed in weighed_obj_list]
        scores = self._scores(hosts, weight_properties)
        places = {
            score: place for place, score in enumerate(sorted(set(scores)))
        }
        last = min(len(places), PLACES) - 1
        return [float(last - min(places[score], last)) for score in scores]

    def _scores(
        self,
        hosts: Sequence[host_manager.HostState],
        spec: request_spec.RequestSpec,
    ) -> list[score.Score]:
        cache = self._cache(hosts, spec)
        if cache.fitter is not None:
            # Counts once, also if our filter has done so.
            kind = guest_kinds.guest_kind(cache.fitter.request, cache.farthest)
            self._demand.observe(spec, kind)
        kinds, shares = self._demand.mix()
        scorer = score.Scorer(
            self._counter_of(kinds), shares, cache.hosts(), cache.fitter
        )
        scored = [scorer.score(host) for host in hosts]
        often = collections.Counter(map(_score_of, scored))
        for one in scored:
            if one is not None and often[_score_of(one)] > 1:
                scorer.add_imbalance(one)
        scores = [*map(_score_of, scored)]
        if LOG.isEnabledFor(stdlib_logging.DEBUG):
            self._log_best(scorer, hosts, scored, spec)
        return scores

    def _counter_of(
        self, kinds: tuple[guest_kinds.GuestKind, ...]
    ) -> counter.Counter:
        """Get the counter of these kinds, which keeps what it has counted."""
        strategy = numa_fit.strategy()
        count = self._counter
        if count is None or count.kinds != kinds or count.strategy != strategy:
            count = self._counter = counter.Counter(
                kinds, strategy, by_placement=True
            )
        return count

    def _cache(
        self,
        hosts: Sequence[host_manager.HostState],
        spec: request_spec.RequestSpec,
    ) -> request_cache.RequestCache:
        """Get what our filter has read, and read what it has not."""
        cache = request_cache.of(spec)
        missing = [
            host
            for host in hosts
            if host.numa_topology is not None and not cache.has(host)
        ]
        if missing or not cache.filled:
            check = host_check.HostCheck(spec, self._stats)
            cache.fill(
                check.fitter,
                check.farthest,
                [check.read(host, host.numa_topology) for host in missing],
            )
        return cache

    def _log_best(
        self,
        scorer: score.Scorer,
        hosts: Sequence[host_manager.HostState],
        scored: Sequence[score.ScoredHost | None],
        spec: request_spec.RequestSpec,
    ) -> None:
        fitting = [
            (_score_of(one), host.host, one)
            for host, one in zip(hosts, scored, strict=True)
            if one is None or one.score is not None
        ]
        if not fitting:
            return
        fitting.sort(key=lambda entry: entry[0])
        LOG.debug(
            'NUMAHugepagesWeigher: best of %(count)d hosts: %(best)s',
            {
                'count': len(fitting),
                'best': '; '.join(
                    f'{name} ({scorer.explain(one)})'
                    for _, name, one in fitting[:_LOGGED]
                ),
            },
            instance_uuid=translate.instance_uuid(spec),
        )


def _score_of(scored: score.ScoredHost | None) -> score.Score:
    if scored is None:
        return _FREE
    return scored.score or _WORST
