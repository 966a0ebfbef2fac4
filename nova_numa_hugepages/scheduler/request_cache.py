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


"""What the filter has seen of the hosts of a request, for the weigher.

The weigher is given the hosts that passed all filters, but what a guest costs
depends on all that is left in the fleet. And what the filter has read and
decided needn't be done again. It goes with the request: Nova hands the same
object to filters and weighers.
"""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
from typing import Protocol

from nova.objects import numa
from nova.objects import request_spec
from nova.scheduler import host_manager

from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.fit import host_fit
from nova_numa_hugepages.core.fit import host_memory
from nova_numa_hugepages.core.fit.fitter import Fitter
from nova_numa_hugepages.core.rejection import Rejection
from nova_numa_hugepages.nova_fit import numa_fit
from nova_numa_hugepages.nova_fit import translate

# An attribute of our own on the request, never saved or sent.
_SEEN = '_numa_hugepages_seen'


@dataclasses.dataclass(slots=True)
class CheckedHost:
    """A host, as it was read for a request.

    :ivar known: the facts that it reports, None if it runs the stock driver
    :ivar choice: where the guest would go; None if it doesn't fit, or has no
        NUMA topology
    :ivar near: the PCI devices that go with it
    """

    host: host_manager.HostState
    topology: numa.NUMATopology
    read: model.HostTopology
    ratios: model.Limits
    known: host_stats.HostStats | None
    choice: host_fit.Choice | None = None
    near: model.Devices | None = None

    def refreshed(self) -> CheckedHost:
        """Read the host again if another guest has come to it since then.

        Nova keeps on filtering hosts, which change, while it places several
        servers of one request, but only those that passed before.
        """
        topology = self.host.numa_topology
        if topology is self.topology or topology is None:
            return self
        return dataclasses.replace(
            self,
            topology=topology,
            read=translate.host_topology(topology, self.known),
            choice=None,
        )

    def small_mib(self) -> int | None:
        """Tell how much memory on small pages the whole host has left.

        :returns: None if nothing limits it, or the host hasn't reported yet
        """
        total = self.host.total_usable_ram_mb
        if not total or self.host.free_ram_mb is None:
            return None
        return host_memory.room_mib(
            self.read,
            total_mib=total,
            used_mib=total - self.host.free_ram_mb,
            ram_ratio=self.host.ram_allocation_ratio or 1.0,
        )

    def claimed(self, fitter: Fitter) -> host_fit.Choice | model.Plan | None:
        """Tell what the claim on this host will take.

        :returns: a choice where it takes what our fit chooses, a plan where
            it is another; None if the guest doesn't fit
        """
        choice = self.choice
        if choice is None:
            found = fitter.choose(self.read, limits=self.ratios)
            if isinstance(found, Rejection):
                return None
            choice = found
        if self.known is None:
            plan = numa_fit.stock_plan(
                fitter.request, self.read, self.ratios, self.near
            )
            return plan or choice
        return choice


class Asked(Protocol):
    """What is asked for; a `judge.Judge` tells it.

    :ivar fitter: the request; None if it has no NUMA topology
    :ivar farthest: what ``max_distance`` allows, None if anything
    """

    fitter: Fitter | None
    farthest: int | None


class RequestCache:
    """All hosts that were seen for a request.

    :ivar fitter: as in `Asked`
    :ivar farthest: as in `Asked`
    """

    def __init__(self, asked: Asked) -> None:
        self.fitter = asked.fitter
        self.farthest = asked.farthest
        self._hosts: dict[tuple[str, str], CheckedHost] = {}

    def add(self, sightings: Iterable[CheckedHost]) -> None:
        """Add hosts, or replace them by what was seen later."""
        for sighting in sightings:
            host = sighting.host
            self._hosts[host.host, host.nodename] = sighting

    def sightings(self) -> list[CheckedHost]:
        """List all hosts as they are now, in no order that matters."""
        for key, sighting in self._hosts.items():
            self._hosts[key] = sighting.refreshed()
        return list(self._hosts.values())

    def find(self, host: host_manager.HostState) -> CheckedHost | None:
        """Find what was seen of a host."""
        return self._hosts.get((host.host, host.nodename))


def remember(
    spec: request_spec.RequestSpec,
    asked: Asked,
    sightings: Iterable[CheckedHost],
) -> None:
    """Let what was seen for a request go with it."""
    seen = of(spec)
    if seen is None:
        seen = RequestCache(asked)
        setattr(spec, _SEEN, seen)
    seen.add(sightings)


def of(spec: request_spec.RequestSpec) -> RequestCache | None:
    """Get what `remember` left with a request."""
    return getattr(spec, _SEEN, None)
