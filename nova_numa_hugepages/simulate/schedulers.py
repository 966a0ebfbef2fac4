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
import copy
from typing import Any
from typing import NamedTuple
from typing import TypeAlias

from nova import conf as nova_conf
from nova import objects
from nova.scheduler import host_manager
from nova.scheduler import utils
from nova.scheduler import weights as nova_weights
from nova.scheduler.filters import numa_topology_filter
import numpy as np
from numpy import typing as npt
import os_traits

from nova_numa_hugepages.nova_fit import numa_fit
from nova_numa_hugepages.scheduler import demand
from nova_numa_hugepages.scheduler import filters
from nova_numa_hugepages.scheduler import weights
from nova_numa_hugepages.simulate import kept_weigher
from nova_numa_hugepages.simulate import results

CONF = nova_conf.CONF

_State: TypeAlias = host_manager.HostState
_Array: TypeAlias = npt.NDArray[Any]

RESOURCES = ('VCPU', 'PCPU', 'MEMORY_MB')


class Scheduler:
    """A filter and weighers, and the fit of this process, of one policy.

    Next to nothing of a fleet changes from one guest to the next. What the
    filter and the weighers have found of a host is kept by flavor until the
    host changes, and holds for those that are alike; the choice is the same
    as if they looked at all again.

    :param learned: the demand, for ours
    :param hosts: all of the fleet
    :param types: a number for each of these empty hosts, from 0, the same for
        those that are alike
    """

    def __init__(
        self,
        policy: results.PlacementPolicy,
        learned: demand.Demand,
        hosts: Sequence[_State],
        types: Sequence[int],
    ) -> None:
        self._hosts = hosts
        self._alike = np.array(types)
        self._places = {host.host: place for place, host in enumerate(hosts)}
        kinds = nova_weights.HostWeightHandler().get_matching_classes(
            CONF.filter_scheduler.weight_classes
        )
        self._weighers = [
            kind()
            for kind in kinds
            if not issubclass(kind, weights.NUMAHugepagesWeigher)
        ]
        self._ours: kept_weigher.KeptWeigher | None = None
        self._filter: Any
        if policy is results.PlacementPolicy.STOCK:
            numa_fit.uninstall()
            self._filter = numa_topology_filter.NUMATopologyFilter()
        else:
            numa_fit.install()
            self._ours = kept_weigher.KeptWeigher(learned, hosts, self._alike)
            self._filter = filters.NUMAHugepagesFilter(learned)
        self._found: dict[str, _Found] = {}

    def changed(self, host: _State) -> None:
        """Forget what was found of a host."""
        place = self._places[host.host]
        # No other has this number.
        self._alike[place] = -1 - place
        for found in self._found.values():
            found.known[place] = False
        if self._ours is not None:
            self._ours.changed(place)

    def select(
        self, candidates: _Array, spec: objects.RequestSpec
    ) -> list[_State]:
        """Choose hosts for a guest.

        :param candidates: places of the hosts that Placement proposes
        :returns: those that pass, the best one first
        """
        found = self._found.setdefault(spec.flavor.name, self._nothing_found())
        self._look(found, candidates[~found.known[candidates]], spec)
        passing = candidates[found.passes[candidates]]
        if len(passing) > 1:
            total = np.zeros(len(passing))
            for weigher in self._weighers:
                self._add(found, weigher, passing, total, spec)
            if self._ours is not None:
                raw = self._ours.weigh(candidates, passing, spec)
                total += self._ours.weight_multiplier(
                    self._hosts[0]
                ) * _normal(self._ours, raw)
            passing = passing[np.argsort(-total, kind='stable')]
        # The claim takes what the filter leaves with a host.
        chosen = passing[: CONF.scheduler.max_attempts]
        self._judge(chosen[self._alike[chosen] >= 0], spec)
        return [self._hosts[place] for place in passing]

    def _nothing_found(self) -> _Found:
        count = len(self._hosts)
        return _Found(
            np.zeros(count, bool),
            np.zeros(count, bool),
            {
                weigher: np.zeros(count)
                for weigher in self._weighers
                if _looks_at_one_host(weigher)
            },
        )

    def _look(
        self, found: _Found, places: _Array, spec: objects.RequestSpec
    ) -> None:
        """Let the filter and Nova's weighers look at some hosts.

        The filter counts the guest for the demand even if there is no host.
        """
        asked, copies = kept_weigher.one_of_each(places, self._alike)
        passing = self._judge(asked, spec)
        good = [self._places[host.host] for host in passing]
        found.passes[asked] = False
        found.passes[good] = True
        weighed = [nova_weights.WeighedHost(host, 0.0) for host in passing]
        for weigher, raw in found.raw.items():
            raw[good] = weigher.weigh_objects(weighed, spec)
        for array in (found.passes, *found.raw.values()):
            array[places] = array[copies]
        found.known[places] = True

    def _judge(
        self, places: _Array, spec: objects.RequestSpec
    ) -> list[_State]:
        """Return the hosts that pass the filter."""
        hosts = [self._hosts[place] for place in places]
        for host in hosts:
            host.allocation_candidates = [{'mappings': {}}]
        if self._ours is None:
            _copy_less(spec)
        return list(self._filter.filter_all(hosts, spec))

    def _add(
        self,
        found: _Found,
        weigher: nova_weights.BaseHostWeigher,
        passing: _Array,
        total: _Array,
        spec: objects.RequestSpec,
    ) -> None:
        """Add the weights of one weigher, as Nova does."""
        if weigher in found.raw:
            # No host is in an aggregate, which could have another multiplier.
            multiplier = weigher.weight_multiplier(self._hosts[0])
            raw = found.raw[weigher][passing]
        else:
            hosts = [self._hosts[place] for place in passing]
            weighed = [nova_weights.WeighedHost(host, 0.0) for host in hosts]
            raw = np.array(weigher.weigh_objects(weighed, spec), float)
            multiplier = np.array(list(map(weigher.weight_multiplier, hosts)))
        total += multiplier * _normal(weigher, raw)


class _Found(NamedTuple):
    """What is known of each host of the fleet, for guests of one flavor.

    :ivar known: whether anything is
    :ivar passes: whether it passes the filter
    :ivar raw: its weight by each weigher that looks at one host at a time, if
        it passes
    """

    known: _Array
    passes: _Array
    raw: dict[nova_weights.BaseHostWeigher, _Array]


def _looks_at_one_host(weigher: nova_weights.BaseHostWeigher) -> bool:
    """Check whether a weight depends on the flavor and the host alone.

    Nova's do. An operator may have others.
    """
    kind = type(weigher)
    return (
        kind.__module__.startswith(f'{nova_weights.__name__}.')
        and kind.weigh_objects is nova_weights.BaseHostWeigher.weigh_objects
    )


def _copy_less(spec: objects.RequestSpec) -> None:
    """Make a request copy no more of itself than the filter changes.

    Stock Nova's filter copies the request for each host, as its fit changes
    the NUMA topology in it. That takes longer than the fit.
    """

    def clone() -> objects.RequestSpec:
        copied = copy.copy(spec)
        copied.numa_topology = copy.deepcopy(spec.numa_topology)
        return copied

    spec.obj_clone = clone


def _normal(weigher: nova_weights.BaseHostWeigher, raw: _Array) -> _Array:
    """Return weights as `nova.weights.normalize` does."""
    least, most = weigher.minval, weigher.maxval
    least = float(raw.min() if least is None else least)
    most = float(raw.max() if most is None else most)
    if least == most:
        return np.zeros(len(raw))
    return (raw - least) / (most - least)


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
    # No host of a simulation has others.
    resources = {
        name: amount
        for name, amount in request.merged_resources().items()
        if name in RESOURCES
    }
    return PlacementRequest(resources, siblings)


class PlacementService:
    """Placement: inventories, and what is used of them."""

    def __init__(self, hosts: Sequence[_State]) -> None:
        self._places = {host.host: place for place, host in enumerate(hosts)}
        self._free = {
            name: np.array(amounts)
            for name, *amounts in zip(
                RESOURCES, *map(_inventory, hosts), strict=True
            )
        }
        self._siblings = np.array(
            [host.numa_topology.has_threads for host in hosts], bool
        )

    def candidates(self, wanted: PlacementRequest) -> _Array:
        """List the places of the hosts that have what a guest asks for."""
        fits = np.ones(len(self._places), bool)
        if wanted.siblings is not None:
            fits &= self._siblings == wanted.siblings
        for name, amount in wanted.resources.items():
            fits &= self._free[name] >= amount
        return np.flatnonzero(fits)

    def allocate(
        self, host: _State, wanted: PlacementRequest, sign: int = 1
    ) -> None:
        """Take resources of a host; with a sign of -1 free them."""
        place = self._places[host.host]
        for name, amount in wanted.resources.items():
            self._free[name][place] -= sign * amount

    def add_memory(self, host: _State, mib: int) -> None:
        """Change how much memory a host offers."""
        self._free['MEMORY_MB'][self._places[host.host]] += mib


def _inventory(host: _State) -> tuple[int, int, int]:
    """Return the amounts of `RESOURCES`."""
    shared = sum(len(cell.cpuset) for cell in host.numa_topology.cells)
    dedicated = sum(len(cell.pcpuset) for cell in host.numa_topology.cells)
    return (
        int(shared * host.cpu_allocation_ratio),
        dedicated,
        # Of an empty host, all but what is reserved.
        int(host.free_ram_mb * host.ram_allocation_ratio),
    )
