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

"""The fit in place of Nova's.

Nova calls ``nova.virt.hardware.numa_fit_instance_to_host`` through its module
in three places: the scheduler's filter, ``HostState.consume_from_request`` and
the claim on the compute. `install` puts ours there, so that all of them come
to the same plan.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import inspect
import threading
from typing import Any

from nova import conf as nova_conf
from nova.objects import instance_numa
from nova.objects import numa
from nova.pci.stats import PciDeviceStats
from nova.virt import hardware as nova_hardware
from oslo_log import log as logging

from nova_numa_hugepages import conf
from nova_numa_hugepages import exception
from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.fit import fitter
from nova_numa_hugepages.core.fit import stock_replay
from nova_numa_hugepages.core.host_stats import HostStats
from nova_numa_hugepages.core.rejection import Rejection
from nova_numa_hugepages.nova_fit import pci_devices
from nova_numa_hugepages.nova_fit import translate

CONF = nova_conf.CONF
LOG = logging.getLogger(__name__)

conf.register_opts(CONF)

# Where a compute gets the stats of its own host from.
HostStatsSource = Callable[[numa.NUMATopology], HostStats | None]
# Where it gets its PCI devices from, if a claim doesn't pass them.
HostDevicesSource = Callable[[], PciDeviceStats | None]
# Where it gets its overcommit ratios from, likewise.
HostLimitsSource = Callable[[], model.Limits | None]

_NAME = 'numa_fit_instance_to_host'


class _Seam:
    """The state of `install`. There is one Nova in a process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stock: Callable[..., Any] | None = None
        self.host_stats: HostStatsSource | None = None
        self.host_devices: HostDevicesSource | None = None
        self.host_limits: HostLimitsSource | None = None


_SEAM = _Seam()


def numa_fit_instance_to_host(
    host_topology: numa.NUMATopology,
    instance_topology: instance_numa.InstanceNUMATopology,
    provider_mapping: dict[str, list[str]] | None,
    limits: numa.NUMATopologyLimits | None = None,
    pci_requests: Sequence[Any] | None = None,
    pci_stats: PciDeviceStats | None = None,
) -> instance_numa.InstanceNUMATopology | None:
    """Fit a guest's NUMA topology on a host's, as Nova's function does.

    No argument is changed. The same arguments give the same answer; where
    the distances of the host's cells are known (in the scheduler from the
    stats that the filter has read, on a compute from the host itself), near
    cells are taken.

    :param provider_mapping: request group to resource providers of an
        allocation candidate; None after the scheduler has chosen one
    :param limits: overcommit ratios, and the guest's networks
    :param pci_requests: the guest's requests for PCI devices
    :param pci_stats: the host's PCI devices, if it reports any
    :returns: a new topology whose cells carry host cell ids, page sizes and
        pinning; None if the guest does not fit
    """
    if not (host_topology and instance_topology):
        return None
    network_metadata = None
    if limits and 'network_metadata' in limits:
        network_metadata = limits.network_metadata
    request = translate.request(
        instance_topology,
        network_metadata=network_metadata,
        asks_devices=bool(pci_requests),
    )
    host = translate.host_topology(host_topology, _stats(host_topology))
    ratios = translate.limits(limits) if limits else None
    if pci_stats is None and _SEAM.host_devices is not None:
        pci_stats = _SEAM.host_devices()
    devices = (
        pci_devices.PciDevices(pci_stats, pci_requests, provider_mapping)
        if pci_stats
        else None
    )
    outcome = _fit(request, host, ratios, devices)
    uuid = translate.instance_uuid(instance_topology)
    if isinstance(outcome, Rejection):
        LOG.info(
            'Instance does not fit on this host: %s',
            outcome,
            instance_uuid=uuid,
        )
        return None
    if translate.runs_stock(host_topology):
        outcome = stock_plan(request, host, ratios, devices) or outcome
    _log_pinning(outcome, host, uuid)
    return translate.instance_topology(
        instance_topology, outcome, host_topology
    )


def _fit(
    request: model.Request,
    host: model.HostTopology,
    limits: model.Limits | None,
    devices: model.Devices | None,
) -> model.Plan | Rejection:
    """Fit a guest.

    Without limits a compute comes to the plan that the scheduler has found
    within its ratios. If there is none, an administrator may have sent the
    guest here in spite of them.
    """
    ratios = limits
    if limits is None and _SEAM.host_limits is not None:
        ratios = _SEAM.host_limits()
    for tried in dict.fromkeys((ratios, limits)):
        outcome = fitter.fit(
            request,
            host,
            limits=tried,
            strategy=strategy(),
            devices=devices,
        )
        if not isinstance(outcome, Rejection):
            break
    return outcome


def _stats(host_topology: numa.NUMATopology) -> HostStats | None:
    stats = translate.stats_of(host_topology)
    if stats is not None or translate.runs_stock(host_topology):
        return stats
    if _SEAM.host_stats is None:
        return None
    return _SEAM.host_stats(host_topology)


def stock_plan(
    request: model.Request,
    host: model.HostTopology,
    limits: model.Limits | None,
    devices: model.Devices | None,
) -> model.Plan | None:
    """Return the plan of a compute that runs the stock driver.

    The scheduler has to account what the claim there will take, so that it
    checks the next server of the same request against what is left.

    :returns: None where that claim comes to our plan, or to none
    """
    if stock_replay.plain(request) and stock_replay.usual(host):
        return None
    return stock_replay.replay(
        request,
        host,
        limits=limits,
        pack=strategy().pack,
        devices=devices,
        at_most=CONF.numa_hugepages.stock_claim_search_limit,
    ).plan()


def _log_pinning(
    plan: model.Plan, host: model.HostTopology, uuid: str | None
) -> None:
    """Log the pinning in the words of Nova, which operators look for.

    :param uuid: of the instance, None if it is not known
    """
    cells = {cell.id: cell for cell in host.cells}
    for planned in plan.cells:
        if not planned.pinning:
            continue
        taken = {cpu for _, cpu in planned.pinning}
        siblings = cells[planned.host_cell].siblings
        LOG.info(
            'Computed NUMA topology CPU pinning: usable pCPUs: '
            '%(usable_cores)s, vCPUs mapping: %(vcpus_pinning)s',
            {
                'usable_cores': [
                    sorted(core & taken) for core in siblings if core & taken
                ],
                'vcpus_pinning': list(planned.pinning),
            },
            instance_uuid=uuid,
        )


def strategy() -> model.Strategy:
    """Read from the configuration how the operator wants the fit to choose."""
    return model.Strategy(
        pack=CONF.compute.packing_host_numa_cells_allocation_strategy,
        account_small_pages=CONF.numa_hugepages.account_small_pages,
    )


def install(
    host_stats: HostStatsSource | None = None,
    host_devices: HostDevicesSource | None = None,
    host_limits: HostLimitsSource | None = None,
) -> None:
    """Put our fit in place of Nova's. Idempotent.

    :param host_stats: on a compute, returns the stats of the host, given its
        topology: the same that it reports, or the claim comes to another plan
        than the filter; a later call without it leaves it as it is
    :param host_devices: on a compute, returns the PCI devices of the host, for
        claims that don't pass them; a later call without it leaves it as it is
    :param host_limits: on a compute, returns the overcommit ratios of the
        host, likewise
    :raises exception.SignatureMismatch: if the installed Nova calls its fit
        in another way; nothing is then changed
    """
    with _SEAM.lock:
        check_signature()
        if host_stats is not None:
            _SEAM.host_stats = host_stats
        if host_devices is not None:
            _SEAM.host_devices = host_devices
        if host_limits is not None:
            _SEAM.host_limits = host_limits
        if _SEAM.stock is not None:
            return
        _SEAM.stock = getattr(nova_hardware, _NAME)
        setattr(nova_hardware, _NAME, numa_fit_instance_to_host)
    LOG.info('The NUMA fit of nova-numa-hugepages replaces the one of Nova.')


def uninstall() -> None:
    """Put Nova's fit back. Idempotent."""
    with _SEAM.lock:
        _SEAM.host_stats = None
        _SEAM.host_devices = None
        _SEAM.host_limits = None
        if _SEAM.stock is not None:
            setattr(nova_hardware, _NAME, _SEAM.stock)
            _SEAM.stock = None


def stock_fit() -> Callable[..., Any]:
    """Get Nova's own fit, whether ours is installed or not."""
    found: Callable[..., Any] = _SEAM.stock or getattr(nova_hardware, _NAME)
    return found


def check_signature(function: Callable[..., Any] | None = None) -> None:
    """Check that Nova calls its fit as ours expects to be called.

    Parameter names, their order and their defaults count; annotations differ
    between releases and don't.

    :param function: Nova's fit; the installed one if None
    :raises exception.SignatureMismatch: if it differs
    """
    expected = _signature(numa_fit_instance_to_host)
    found = _signature(function or stock_fit())
    if expected != found:
        raise exception.SignatureMismatch(expected, found)


def _signature(function: Callable[..., Any]) -> str:
    signature = inspect.signature(function)
    return str(
        signature.replace(
            parameters=[
                parameter.replace(annotation=inspect.Parameter.empty)
                for parameter in signature.parameters.values()
            ],
            return_annotation=inspect.Signature.empty,
        )
    )
