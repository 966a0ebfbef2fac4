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

"""The cache of a request, by which the filter shares its work.

The weigher is given the hosts that passed all filters, but what a guest costs
depends on all that is left in the fleet. And what the filter has read and
decided needn't be done again. The cache goes with the request: Nova hands the
same object to filters and weighers.
"""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses

from nova.objects import numa
from nova.objects import request_spec
from nova.scheduler import host_manager

from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.capacity import guest_kinds
from nova_numa_hugepages.core.fit import host_fit
from nova_numa_hugepages.core.fit import host_memory
from nova_numa_hugepages.core.fit.fitter import Fitter
from nova_numa_hugepages.core.rejection import Rejection
from nova_numa_hugepages.nova_fit import attributes
from nova_numa_hugepages.nova_fit import numa_fit
from nova_numa_hugepages.nova_fit import translate


@dataclasses.dataclass(slots=True)
class CheckedHost:
    """A host, as it was read for a request.

    :ivar host: Nova's state of it
    :ivar numa_topology: the topology that the state had when it was read
    :ivar topology: what was read
    :ivar limits: the overcommit ratios
    :ivar stats: what the host reports, None if it runs the stock driver
    :ivar choice: where the guest would go; None if it doesn't fit, or has no
        NUMA topology
    :ivar devices: the PCI devices that go with it
    """

    host: host_manager.HostState
    numa_topology: numa.NUMATopology
    topology: model.HostTopology
    limits: model.Limits
    stats: host_stats.HostStats | None
    choice: host_fit.Choice | None = None
    devices: model.Devices | None = None

    def refreshed(self) -> CheckedHost:
        """Read the host again if another guest has come to it since then.

        Nova keeps on filtering hosts, which change, while it places several
        servers of one request, but only those that passed before.
        """
        numa_topology = self.host.numa_topology
        if numa_topology is self.numa_topology or numa_topology is None:
            return self
        return dataclasses.replace(
            self,
            numa_topology=numa_topology,
            topology=translate.host_topology(numa_topology, self.stats),
            choice=None,
        )

    def small_mib(self) -> int | None:
        """Return how much memory on small pages the whole host has left.

        :returns: None if nothing limits it, or the host hasn't reported yet
        """
        total = self.host.total_usable_ram_mb
        if not total or self.host.free_ram_mb is None:
            return None
        return host_memory.room_mib(
            self.topology,
            total_mib=total,
            used_mib=total - self.host.free_ram_mb,
            ram_ratio=self.host.ram_allocation_ratio or 1.0,
        )

    def claimed(self, fitter: Fitter) -> host_fit.Choice | model.Plan | None:
        """Return what the claim on this host will take.

        :returns: a choice where it takes what our fit chooses, a plan where
            it is another; None if the guest doesn't fit
        """
        choice = self.choice
        if choice is None:
            outcome = fitter.choose(self.topology, limits=self.limits)
            if isinstance(outcome, Rejection):
                return None
            choice = outcome
        if self.stats is None:
            plan = numa_fit.stock_plan(
                fitter.request, self.topology, self.limits, self.devices
            )
            return plan or choice
        return choice


class RequestCache:
    """All that is kept of a request.

    :ivar filled: whether the request was read
    :ivar fitter: the request, None if it has no NUMA topology
    :ivar farthest: what ``max_distance`` allows, None if anything
    :ivar counted: the instance, and its kind, that counted for the demand
    """

    def __init__(self) -> None:
        self.filled = False
        self.fitter: Fitter | None = None
        self.farthest: int | None = None
        self.counted: tuple[str | None, guest_kinds.GuestKind] | None = None
        self._hosts: dict[tuple[str, str], CheckedHost] = {}

    def fill(
        self,
        fitter: Fitter | None,
        farthest: int | None,
        hosts: Iterable[CheckedHost],
    ) -> None:
        """Add hosts, in place of what was read of them before.

        :param fitter: as the attribute; only the first one is kept, since
            the servers of one request all ask for the same
        :param farthest: likewise
        """
        if not self.filled:
            self.filled = True
            self.fitter = fitter
            self.farthest = farthest
        for checked in hosts:
            self._hosts[checked.host.host, checked.host.nodename] = checked

    def hosts(self) -> list[CheckedHost]:
        """List all hosts as they are now, in no order that matters."""
        for key, checked in self._hosts.items():
            self._hosts[key] = checked.refreshed()
        return list(self._hosts.values())

    def has(self, host: host_manager.HostState) -> bool:
        """Check whether a host was read."""
        return (host.host, host.nodename) in self._hosts


def of(spec: request_spec.RequestSpec) -> RequestCache:
    """Get the cache of a request, an empty one the first time."""
    cache: RequestCache | None = getattr(spec, attributes.REQUEST_CACHE, None)
    if cache is None:
        cache = RequestCache()
        setattr(spec, attributes.REQUEST_CACHE, cache)
    return cache
