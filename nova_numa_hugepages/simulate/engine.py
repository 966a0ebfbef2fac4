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


"""One policy over one sequence of arrivals."""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Sequence
import heapq
import itertools
import math
import time
from typing import NamedTuple
from typing import TypeAlias

from nova import conf as nova_conf
from nova import exception as nova_exception
from nova import objects
from nova.scheduler import host_manager
from nova.virt import hardware as nova_hardware

from nova_numa_hugepages.core import units
from nova_numa_hugepages.core.capacity import guest_kinds
from nova_numa_hugepages.hugepages import elastic
from nova_numa_hugepages.scheduler import demand
from nova_numa_hugepages.scheduler import flavors
from nova_numa_hugepages.simulate import fleet
from nova_numa_hugepages.simulate import gauge
from nova_numa_hugepages.simulate import lending
from nova_numa_hugepages.simulate import locality
from nova_numa_hugepages.simulate import readiness
from nova_numa_hugepages.simulate import results
from nova_numa_hugepages.simulate import scenario
from nova_numa_hugepages.simulate import schedulers

CONF = nova_conf.CONF

# Samples that a run keeps, at most. When there are as many, every other one
# is dropped, and from then on half as many are taken.
_MOST_SAMPLES = 256
_SMALL_KIB = 4

_State: TypeAlias = host_manager.HostState

Progress = Callable[[float], None]


class _Placed(NamedTuple):
    host: _State
    flavor: objects.Flavor
    topology: objects.InstanceNUMATopology | None


class Engine:
    """Runs one task, which changes the fit of this process.

    :param progress: called with the share that is done, from 0 to 1
    """

    def __init__(
        self, task: scenario.Task, progress: Progress = lambda share: None
    ) -> None:
        self._task = task
        self._progress = progress
        self._now = 0.0
        self._flavors = {
            flavor.name: fleet.nova_flavor(flavor)
            for flavor in task.play.flavors
        }
        self._asked = {
            name: schedulers.placement_request(fleet.request(flavor))
            for name, flavor in self._flavors.items()
        }
        mix = [
            (flavors.kind_of(self._flavors[flavor.name]), flavor.share)
            for flavor in task.play.flavors
        ]
        self._gauge = gauge.Gauge(mix)
        self._hosts = list(fleet.hosts(task.play.hosts))
        self._placement = schedulers.PlacementService(self._hosts)
        self._scheduler = schedulers.Scheduler(
            task.policy,
            self._demand(mix),
            self._hosts,
            types=[
                number
                for number, kind in enumerate(task.play.hosts)
                for _ in range(kind.count)
            ],
        )
        self._stays: dict[lending.HostPool, list[readiness.Stay]] = {}
        self._kinds = {
            host.host: kind
            for host, kind in zip(
                self._hosts,
                (kind for kind in task.play.hosts for _ in range(kind.count)),
                strict=True,
            )
        }
        self._placements = locality.Placements(task.play.latency_ns)
        self._lent: lending.LentPages | None = None
        if task.phase is results.Phase.LENDING:
            self._lent = lending.LentPages(task.lend_ratio, self._hosts)
        self._leaving: list[tuple[float, int, _Placed]] = []
        self._building: list[tuple[float, int, _State]] = []
        self._numbers = itertools.count()
        self._there = 0

    def _demand(self, mix: Sequence[gauge.MixFlavor]) -> demand.Demand:
        prior: dict[str, guest_kinds.GuestKind] = {}
        pinned: dict[guest_kinds.GuestKind, float] = {}
        for name, (kind, share) in zip(self._flavors, mix, strict=True):
            if kind is None:
                continue
            if self._task.learning is scenario.Learning.PINNED:
                pinned[kind] = pinned.get(kind, 0.0) + share
            elif self._task.learning is scenario.Learning.FLAVORS:
                prior[name] = kind
        options = CONF.numa_hugepages
        return demand.Demand(
            half_life_s=options.demand_half_life,
            at_most=options.demand_kinds,
            prior=lambda: prior,
            pinned=lambda: pinned,
            clock=lambda: self._now,
        )

    def run(self) -> results.Run:
        """Run the task to its end."""
        begin = time.monotonic()
        task = self._task
        warm_up = 0
        if task.phase is results.Phase.CHURN:
            warm_up = task.play.arrivals.warm_up
        arrived = placed = 0
        first: str | None = None
        counted: collections.Counter[str] = collections.Counter()
        refused: collections.Counter[str] = collections.Counter()
        samples = [self._sample(0)]
        every = 1
        for guest in scenario.arrivals(task.play, task.phase, task.seed):
            self._now = guest.at
            self._leave()
            arrived += 1
            fits = self._arrive(guest, counts=arrived > warm_up)
            if arrived > warm_up:
                counted[guest.flavor] += 1
                if not fits:
                    refused[guest.flavor] += 1
            if first is None:
                first = None if fits else guest.flavor
                placed += fits
            if arrived % every == 0:
                samples.append(self._sample(arrived))
                self._progress(self._done(arrived, samples[-1]))
                if len(samples) >= _MOST_SAMPLES:
                    samples = samples[::2]
                    every *= 2
            if task.phase.fills and first is not None:
                break
        if samples[-1].arrivals != arrived:
            samples.append(self._sample(arrived))
        week = None
        if self._lent is not None:
            week = lending.live(
                self._lent.pages,
                self._lent.guests,
                task.play.use,
                task.seed,
                elastic.Marks.read(CONF.numa_hugepages),
            )
        made_ready = None
        if task.with_ready:
            made_ready = readiness.compare(
                self._stays,
                lambda pool: pool.size_kib,
                scenario.lasts_s(task.play),
                risk=CONF.numa_hugepages.ready_risk_percent / 100,
                limit_kib=self._ready_limit_kib,
            )
        return results.Run(
            policy=task.policy,
            phase=task.phase,
            seed=task.seed,
            arrivals=arrived,
            placed=placed,
            first_refused=first,
            counted=counted,
            refused=refused,
            samples=tuple(samples),
            seconds=time.monotonic() - begin,
            lend_ratio=task.lend_ratio,
            week=week,
            ready=made_ready,
            locality=self._placements.result(),
        )

    def _arrive(self, guest: scenario.Arrival, *, counts: bool = True) -> bool:
        """Place a guest.

        :param counts: whether it counts for where guests lie
        :returns: whether there was a place
        """
        asked = self._asked[guest.flavor]
        spec = fleet.request(self._flavors[guest.flavor])
        hosts = self._scheduler.select(self._placement.candidates(asked), spec)
        # As many hosts as Nova tries, one after the other.
        for host in hosts[: CONF.scheduler.max_attempts]:
            placed = self._claim(host, self._flavors[guest.flavor])
            if placed is None:
                continue
            self._there += 1
            if counts:
                self._placements.add(
                    self._kinds[host.host], placed.flavor, placed.topology
                )
            if self._task.with_ready:
                self._note_stay(placed, guest)
            if self._task.play.arrivals.build_s:
                self._build(host, 1)
                done = guest.at + self._task.play.arrivals.build_s
                entry = done, next(self._numbers), host
                heapq.heappush(self._building, entry)
            if guest.until is not None:
                heapq.heappush(
                    self._leaving, (guest.until, next(self._numbers), placed)
                )
            return True
        return False

    def _ready_limit_kib(self, pool: lending.HostPool) -> int:
        node = self._kinds[pool.host].nodes[pool.node]
        percent: int = CONF.numa_hugepages.ready_limit_percent
        return node.memory_mib * units.KIB_PER_MIB * percent // 100

    def _note_stay(self, placed: _Placed, guest: scenario.Arrival) -> None:
        """Note how long a guest has its pages."""
        cells = placed.topology.cells if placed.topology else ()
        pages: dict[lending.HostPool, int] = collections.Counter()
        for cell in cells:
            if (cell.pagesize or 0) > _SMALL_KIB:
                pool = lending.HostPool(
                    placed.host.host, cell.id, cell.pagesize
                )
                pages[pool] += cell.memory * 1024 // cell.pagesize
        end_s = math.inf if guest.until is None else guest.until
        for pool, count in pages.items():
            self._stays.setdefault(pool, []).append(
                readiness.Stay(guest.at, end_s, count)
            )

    def _claim(self, host: _State, flavor: objects.Flavor) -> _Placed | None:
        """Claim what a guest needs on a host, as its compute service does.

        :returns: None if the claim fails
        """
        # A request of its own: Nova's fit changes it.
        spec = fleet.request(flavor)
        topology = None
        if spec.numa_topology is not None:
            topology = nova_hardware.numa_fit_instance_to_host(
                host.numa_topology,
                spec.numa_topology,
                provider_mapping=None,
                limits=host.limits.get('numa_topology'),
                pci_requests=[],
                pci_stats=host.pci_stats,
            )
            if topology is None:
                return None
        placed = _Placed(host, flavor, topology)
        try:
            self._account(placed, 1)
        except nova_exception.NovaException:
            # Stock Nova's fit has plans that can't be accounted. The compute
            # service gives up such a guest, and Nova takes the next host.
            return None
        return placed

    def _account(self, placed: _Placed, sign: int) -> None:
        host, flavor = placed.host, placed.flavor
        if placed.topology is not None:
            host.numa_topology = nova_hardware.numa_usage_from_instance_numa(
                host.numa_topology, placed.topology, free=sign < 0
            )
        host.free_ram_mb -= sign * flavor.memory_mb
        host.vcpus_used += sign * flavor.vcpus
        host.num_instances += sign
        self._placement.allocate(host, self._asked[flavor.name], sign)
        if self._lent is not None:
            more_mib = self._lent.add(host, flavor, placed.topology)
            self._placement.add_memory(host, more_mib)
            host.free_ram_mb += more_mib
        self._scheduler.changed(host)

    def _build(self, host: _State, sign: int) -> None:
        host.num_io_ops += sign
        self._scheduler.changed(host)

    def _leave(self) -> None:
        """End the builds and remove the guests whose time has come."""
        while self._building and self._building[0][0] <= self._now:
            _, _, host = heapq.heappop(self._building)
            self._build(host, -1)
        while self._leaving and self._leaving[0][0] <= self._now:
            _, _, placed = heapq.heappop(self._leaving)
            self._account(placed, -1)
            self._there -= 1

    def _sample(self, arrived: int) -> results.Sample:
        return self._gauge.sample(self._hosts, arrived, self._there)

    def _done(self, arrived: int, sample: results.Sample) -> float:
        if self._task.phase.fills:
            return max(sample.cpus_used, sample.pages_used)
        trace = self._task.play.trace
        count = self._task.play.arrivals.count if trace is None else len(trace)
        return arrived / count
