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

"""The check of one request on host states.

Everything that doesn't depend on a host is read from the request once, and
each host's objects are read once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nova import conf as nova_conf
from nova.objects import fields
from nova.objects import numa
from nova.objects import request_spec
from nova.scheduler import host_manager
from oslo_log import log as logging

from nova_numa_hugepages import elastic_spec
from nova_numa_hugepages import exception
from nova_numa_hugepages import extra_specs
from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.fit import host_memory
from nova_numa_hugepages.core.fit import stock_replay
from nova_numa_hugepages.core.fit.fitter import Fitter
from nova_numa_hugepages.core.rejection import Reason
from nova_numa_hugepages.core.rejection import Rejection
from nova_numa_hugepages.nova_fit import numa_fit
from nova_numa_hugepages.nova_fit import pci_devices
from nova_numa_hugepages.nova_fit import translate
from nova_numa_hugepages.scheduler import request_cache

CONF = nova_conf.CONF
LOG = logging.getLogger(__name__)

_UNKNOWN = host_stats.HostStats()


class StatsReader:
    """Reads the stats that hosts report, and warns once of a bad value.

    It warns of a host again only after that has reported a good value. The
    last value of each host is kept, since it mostly comes again.
    """

    def __init__(self) -> None:
        self._read: dict[
            tuple[str, str], tuple[str, host_stats.HostStats]
        ] = {}

    def read(
        self, host: host_manager.HostState
    ) -> host_stats.HostStats | None:
        """Read the stats of a host.

        :returns: None if the host runs the stock driver; empty ones if their
            value can't be read
        """
        stats: Mapping[str, str] = getattr(host, 'stats', None) or {}
        value = stats.get(host_stats.STATS_KEY)
        if value is None:
            return None
        key = (host.host, host.nodename)
        last, parsed = self._read.get(key, (None, None))
        if last == value:
            return parsed
        try:
            parsed = host_stats.parse(value)
        except ValueError as error:
            if parsed is not _UNKNOWN:
                LOG.warning(
                    'Ignoring the huge page stats of %(host)s, %(node)s: '
                    '%(error)s. Until it reports another value, its NUMA '
                    'distances count as equal.',
                    {
                        'host': key[0],
                        'node': key[1],
                        'error': exception.InvalidStats(str(error)),
                    },
                )
            parsed = _UNKNOWN
        self._read[key] = value, parsed
        return parsed


class HostCheck:
    """Checks one request on hosts, one after the other.

    :param spec: the request; not changed and not cloned
    :param reader: kept from one request to the next
    :ivar fitter: the request, None if it has no NUMA topology
    :ivar farthest: what ``max_distance`` allows, None if anything
    :ivar refused: why the guest fits nowhere, None if that isn't known
    :ivar hosts: the hosts that were read
    """

    def __init__(
        self, spec: request_spec.RequestSpec, reader: StatsReader
    ) -> None:
        self._reader = reader
        self._strategy = numa_fit.strategy()
        self._memory_mib: int = spec.flavor.memory_mb
        self._requires_threads = _requires_threads(spec)
        self._network_metadata = (
            spec.network_metadata if 'network_metadata' in spec else None
        )
        asked = spec.pci_requests if 'pci_requests' in spec else None
        self._pci_requests = list(asked.requests) if asked else []
        self.hosts: list[request_cache.CheckedHost] = []
        self.refused: Rejection | None = None
        self.farthest: int | None = None
        specs = translate.extra_specs(spec.flavor)
        self._elastic = _ElasticCheck(spec, specs)
        try:
            self.farthest = extra_specs.max_distance(specs)
        except exception.InvalidExtraSpec as error:
            self.refused = Rejection(Reason.EXTRA_SPEC, detail=str(error))
        else:
            self.refused = self._elastic.check()
        self.fitter: Fitter | None = None
        if spec.numa_topology:
            self.fitter = Fitter(
                translate.request(
                    spec.numa_topology,
                    network_metadata=self._network_metadata,
                    asks_devices=bool(self._pci_requests),
                ),
                self._strategy,
            )
        self._plain = self.fitter is not None and stock_replay.plain(
            self.fitter.request
        )
        self._networks = self.fitter is not None and bool(
            self.fitter.request.physnets or self.fitter.request.tunneled
        )
        self._limits: dict[
            tuple[Any, Any], tuple[numa.NUMATopologyLimits, model.Limits]
        ] = {}

    def check(self, host: host_manager.HostState) -> Rejection | None:
        """Check one host; prune its candidates and set its limits if it fits.

        :returns: why the guest does not fit, None if it does
        """
        if self.refused:
            return self.refused
        topology = host.numa_topology
        if topology is None:
            if self.fitter is None:
                return None
            return Rejection(Reason.NO_TOPOLOGY)
        if self.fitter is None and not (
            self._requires_threads or self._strategy.account_small_pages
        ):
            return None
        checked = self.read(host, topology)
        self.hosts.append(checked)
        cells = checked.topology.cells
        if not cells and self.fitter is not None:
            return Rejection(Reason.NO_TOPOLOGY)
        if self._requires_threads and not any(
            len(siblings) > 1 for cell in cells for siblings in cell.siblings
        ):
            return Rejection(Reason.SMT)
        if self.fitter is None:
            if not self._strategy.account_small_pages:
                return None
            return host_memory.miss(self._memory_mib, checked.small_mib())
        translate.remember_stats(topology, checked.stats)
        rejection = self._check_candidates(self.fitter, checked)
        if rejection is None:
            host.limits['numa_topology'], _ = self._limits_of(host)
        return rejection

    def read(
        self, host: host_manager.HostState, topology: numa.NUMATopology
    ) -> request_cache.CheckedHost:
        """Read a host that has a NUMA topology."""
        stats = self._reader.read(host)
        _, limits = self._limits_of(host)
        return request_cache.CheckedHost(
            host,
            topology,
            translate.host_topology(topology, stats, networks=self._networks),
            limits,
            stats,
        )

    def _check_candidates(
        self, fitter: Fitter, checked: request_cache.CheckedHost
    ) -> Rejection | None:
        """Check each allocation candidate of Placement on a host.

        They differ in the devices that they stand for; without any, one
        answer holds for all.
        """
        candidates = checked.host.allocation_candidates
        good = []
        rejections = []
        for candidate in candidates if self._pci_requests else candidates[:1]:
            rejection = self._check_candidate(
                fitter, checked, candidate['mappings']
            )
            if rejection is None:
                good.append(candidate)
            else:
                rejections.append(rejection)
        if good and not self._pci_requests:
            good = candidates
        checked.host.allocation_candidates = good
        if good:
            return None
        # The one that came furthest is the nearest miss.
        return max(
            rejections,
            key=lambda rejection: rejection.reason,
            default=Rejection(Reason.CANDIDATES),
        )

    def _check_candidate(
        self,
        fitter: Fitter,
        checked: request_cache.CheckedHost,
        mappings: dict[str, list[str]],
    ) -> Rejection | None:
        host = checked.host
        devices = None
        if host.pci_stats and (self._pci_requests or host.pci_stats.pools):
            devices = pci_devices.PciDevices(
                host.pci_stats, self._pci_requests, mappings
            )
        choice = fitter.choose(
            checked.topology, limits=checked.limits, devices=devices
        )
        if isinstance(choice, Rejection):
            return choice
        if self.farthest is not None and choice.farthest > self.farthest:
            return Rejection(
                Reason.DISTANCE, needed=self.farthest, best=choice.farthest
            )
        if self._strategy.account_small_pages:
            needed = host_memory.needed_mib(
                fitter.request,
                checked.topology,
                choice.cells,
                choice.common_size_kib,
                ram_ratio=checked.limits.ram_ratio,
            )
            miss = needed and host_memory.miss(needed, checked.small_mib())
            if miss:
                return miss
        if checked.stats is None and not (
            self._plain and stock_replay.usual(checked.topology, choice.cells)
        ):
            rejection = self._stock_rejection(fitter, checked, devices)
            if rejection:
                return rejection
        if choice.common_size_kib is not None:
            rejection = self._elastic.check(choice.common_size_kib)
            if rejection:
                return rejection
        if checked.choice is None:
            # Nova claims the first candidate that is left.
            checked.choice = choice
            checked.devices = devices
        return None

    def _stock_rejection(
        self,
        fitter: Fitter,
        checked: request_cache.CheckedHost,
        devices: model.Devices | None,
    ) -> Rejection | None:
        at_most = CONF.numa_hugepages.stock_claim_search_limit
        verdict = stock_replay.replay(
            fitter.request,
            checked.topology,
            limits=checked.limits,
            pack=self._strategy.pack,
            devices=devices,
            at_most=at_most,
        ).verdict
        if verdict is stock_replay.ClaimVerdict.ACCEPTS:
            return None
        if verdict is stock_replay.ClaimVerdict.REFUSES:
            return Rejection(Reason.STOCK_CLAIM)
        return Rejection(Reason.STOCK_SEARCH, needed=at_most)

    def _limits_of(
        self, host: host_manager.HostState
    ) -> tuple[numa.NUMATopologyLimits, model.Limits]:
        """Get the limits, for the claim and for the fit.

        Hosts with equal ratios share them.
        """
        key = (host.cpu_allocation_ratio, host.ram_allocation_ratio)
        if key not in self._limits:
            limits = numa.NUMATopologyLimits(
                cpu_allocation_ratio=key[0] or 1.0,
                ram_allocation_ratio=key[1] or 1.0,
            )
            if self._network_metadata:
                limits.network_metadata = self._network_metadata
            self._limits[key] = limits, translate.limits(limits)
        return self._limits[key]


class _ElasticCheck:
    """Checks that the memory of a guest can be elastic, if that is asked."""

    def __init__(
        self, spec: request_spec.RequestSpec, specs: Mapping[str, str]
    ) -> None:
        self._specs = specs
        self._properties: Any = spec.image.properties if spec.image else {}
        self._cells = [
            (cell.memory, (cell.pagesize if 'pagesize' in cell else None) or 0)
            for cell in (
                spec.numa_topology.cells if spec.numa_topology else ()
            )
        ]
        self._checked: dict[int | None, Rejection | None] = {}

    def check(self, common_size_kib: int | None = None) -> Rejection | None:
        """Check it.

        :param common_size_kib: what stands for ``large`` and ``any``; None if
            that isn't known yet
        :returns: why it can't be
        """
        if common_size_kib not in self._checked:
            known = []
            for mib, size_kib in self._cells:
                if size_kib not in model.SEVERAL_SIZES:
                    known.append((mib, size_kib))
                elif common_size_kib is not None:
                    known.append((mib, common_size_kib))
            rejection = None
            try:
                if len(known) == len(self._cells):
                    elastic_spec.check(self._specs, self._properties, known)
                elif extra_specs.elastic_base(self._specs) is not None:
                    elastic_spec.check_combination(
                        self._specs, self._properties
                    )
            except (
                exception.InvalidExtraSpec,
                exception.ElasticRefused,
            ) as error:
                rejection = Rejection(Reason.EXTRA_SPEC, detail=str(error))
            self._checked[common_size_kib] = rejection
        return self._checked[common_size_kib]


def _requires_threads(spec: request_spec.RequestSpec) -> bool:
    """Check whether the flavor or the image asks for thread siblings."""
    properties = spec.image.properties if spec.image else {}
    flavor = translate.extra_specs(spec.flavor)
    policies = (flavor.get('hw:cpu_policy'), properties.get('hw_cpu_policy'))
    threads = (
        flavor.get('hw:cpu_thread_policy'),
        properties.get('hw_cpu_thread_policy'),
    )
    return (
        fields.CPUAllocationPolicy.DEDICATED in policies
        and fields.CPUThreadAllocationPolicy.REQUIRE in threads
    )
