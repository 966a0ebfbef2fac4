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


"""The schedulers that are compared: Nova's own classes, in two settings.

Both run the filter for NUMA topologies and the weighers that the configuration
enables, as `nova.scheduler.manager` calls them. The other filters, which don't
look at what this is about, are left out. Placement's part is played by its
arithmetic: hosts without enough vCPUs, dedicated CPUs or memory are never
candidates, nor are hosts with thread siblings for guests that isolate theirs,
and hosts without for those that require them. Other traits don't count.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple
from typing import TypeAlias

from nova import conf as nova_conf
from nova import objects
from nova.scheduler import host_manager
from nova.scheduler import utils
from nova.scheduler import weights as nova_weights
from nova.scheduler.filters import numa_topology_filter
import os_traits

from nova_numa_hugepages.nova_fit import numa_fit
from nova_numa_hugepages.scheduler import demand
from nova_numa_hugepages.scheduler import filters
from nova_numa_hugepages.scheduler import weights
from nova_numa_hugepages.simulate import results

CONF = nova_conf.CONF

_State: TypeAlias = host_manager.HostState


class Scheduler:
    """A filter and weighers, and the fit of this process, of one policy.

    :param learned: the demand, for ours
    """

    def __init__(
        self, policy: results.PlacementPolicy, learned: demand.Demand
    ) -> None:
        self._handler = nova_weights.HostWeightHandler()
        self._weighers: list[Any] = [
            weigher()
            for weigher in self._handler.get_matching_classes(
                CONF.filter_scheduler.weight_classes
            )
            if not issubclass(weigher, weights.NUMAHugepagesWeigher)
        ]
        self._stock = policy is results.PlacementPolicy.STOCK
        self._filter: Any
        if self._stock:
            numa_fit.uninstall()
            self._filter = numa_topology_filter.NUMATopologyFilter()
        else:
            numa_fit.install()
            self._weighers.append(weights.NUMAHugepagesWeigher(learned))
            self._filter = filters.NUMAHugepagesFilter(learned)
        self._verdicts: dict[tuple[str, str], tuple[Any, bool]] = {}

    def select(
        self, hosts: Sequence[_State], spec: objects.RequestSpec
    ) -> list[_State]:
        """Choose hosts for a guest.

        :param hosts: those that Placement proposes
        :returns: those that pass, the best one first
        """
        for host in hosts:
            host.allocation_candidates = [{'mappings': {}}]
        if self._stock:
            passing = [host for host in hosts if self._passes(host, spec)]
        else:
            passing = list(self._filter.filter_all(hosts, spec))
        weighed = self._handler.get_weighed_objects(
            self._weighers, passing, spec
        )
        return [host.obj for host in weighed]

    def _passes(self, host: _State, spec: objects.RequestSpec) -> bool:
        """Return whether a host passes stock Nova's filter.

        It judges each host for itself, and takes a millisecond for it. Hosts
        on which nothing has changed since the last guest of the same flavor
        are not judged again.
        """
        key = host.host, spec.flavor.name
        seen, verdict = self._verdicts.get(key, (None, False))
        if seen is not host.numa_topology:
            verdict = bool(list(self._filter.filter_all([host], spec)))
            self._verdicts[key] = host.numa_topology, verdict
        return verdict


class PlacementRequest(NamedTuple):
    """The resources that a guest asks Placement for.

    :ivar resources: resource class to amount
    :ivar siblings: whether the host has to have thread siblings, or must not
        have any; None if that doesn't matter
    """

    resources: Mapping[str, int]
    siblings: bool | None


def placement_request(spec: objects.RequestSpec) -> PlacementRequest:
    """Return what a guest asks Placement for, as Nova translates it."""
    request = utils.ResourceRequest.from_request_spec(spec)
    group = request.get_request_group(None)
    siblings = None
    if os_traits.HW_CPU_HYPERTHREADING in group.required_traits:
        siblings = True
    elif os_traits.HW_CPU_HYPERTHREADING in group.forbidden_traits:
        siblings = False
    return PlacementRequest(request.merged_resources(), siblings)


class PlacementService:
    """Placement: inventories, and what is used of them."""

    def __init__(self, hosts: Sequence[_State]) -> None:
        self._free = {host.host: _inventory(host) for host in hosts}
        self._siblings = {
            host.host: host.numa_topology.has_threads for host in hosts
        }

    def candidates(
        self, hosts: Sequence[_State], wanted: PlacementRequest
    ) -> list[_State]:
        """List the hosts that have what a guest asks for."""
        resources = list(wanted.resources.items())
        return [
            host
            for host in hosts
            if wanted.siblings in (None, self._siblings[host.host])
            and all(
                self._free[host.host].get(name, 0) >= amount
                for name, amount in resources
            )
        ]

    def allocate(
        self, host: _State, wanted: PlacementRequest, sign: int = 1
    ) -> None:
        """Take resources of a host; with a sign of -1 free them."""
        free = self._free[host.host]
        for name, amount in wanted.resources.items():
            free[name] -= sign * amount


def _inventory(host: _State) -> dict[str, int]:
    shared = sum(len(cell.cpuset) for cell in host.numa_topology.cells)
    dedicated = sum(len(cell.pcpuset) for cell in host.numa_topology.cells)
    return {
        'VCPU': int(shared * host.cpu_allocation_ratio),
        'PCPU': dedicated,
        'MEMORY_MB': int(host.total_usable_ram_mb * host.ram_allocation_ratio),
    }
