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

"""Nova's libvirt driver, with huge pages reserved for its guests.

``compute_driver = numa_hugepages.NUMAHugepagesDriver`` loads it. This file has
hooks only: ``hugepages/manager.py`` carries them out, and ``resources.py``
builds what the scheduler gets.

Every start of a domain passes `_create_guest`, and every deletion passes
`_undefine_domain`. The rest, such as a guest that powers itself off or a
service that is killed, is found by the reconciliation: when the service
starts, and once a minute, when Nova asks for the resources of the host.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

from nova import conf as nova_conf
from nova import exception as nova_exception
from nova import objects
from nova.compute import task_states
from nova.objects import numa
from nova.virt import event as virtevent
import os_resource_classes as orc
from oslo_log import log as logging

from nova_numa_hugepages import conf
from nova_numa_hugepages import exception
from nova_numa_hugepages import extra_specs
from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.hugepages import domain_xml
from nova_numa_hugepages.hugepages.assembly import KernelAccess
from nova_numa_hugepages.hugepages.elastic import Marks
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.snapshot import HostSnapshot
from nova_numa_hugepages.libvirt import elastic
from nova_numa_hugepages.libvirt import elastic_sizes
from nova_numa_hugepages.libvirt import guest_agent
from nova_numa_hugepages.libvirt import guest_config
from nova_numa_hugepages.libvirt import migration
from nova_numa_hugepages.libvirt import queries
from nova_numa_hugepages.libvirt import resources
from nova_numa_hugepages.libvirt import setup
from nova_numa_hugepages.nova_fit import numa_fit

CONF = nova_conf.CONF
LOG = logging.getLogger(__name__)

# The first libvirt with <allocation threads=.../>.
MIN_LIBVIRT_PREALLOC_THREADS = (8, 2, 0)
# The first with virtio-mem, and with a machine type that can have it.
MIN_LIBVIRT_VIRTIO_MEM = (7, 9, 0)
MIN_QEMU_VIRTIO_MEM = (7, 0, 0)

_REBUILDING = (
    task_states.REBUILDING,
    task_states.REBUILD_BLOCK_DEVICE_MAPPING,
    task_states.REBUILD_SPAWNING,
)


class NUMAHugepagesDriver(migration.MigrationHooks):
    """The libvirt driver, with huge pages reserved for its guests.

    :param kernel: access to the kernel; without it, to that of this host
    """

    def __init__(
        self,
        virtapi: Any,
        read_only: bool = False,
        kernel: KernelAccess | None = None,
    ) -> None:
        super().__init__(virtapi, read_only)
        conf.register_opts(CONF)
        self._kernel = kernel
        self._exit_stack = contextlib.ExitStack()
        # None unless this driver has guests to care for.
        self._fs: hostfs.HostFS | None = None
        self._snapshot: HostSnapshot | None = None
        # What the scheduler last got.
        self._stats: host_stats.HostStats | None = None
        self._cell_ids: list[int] = []
        self._service_host = CONF.host

    # The service.

    def init_host(self, host: str) -> None:
        """Check the options, open the ledger, and reconcile."""
        conf.validate(CONF)
        conf.warn_of_unknown_names(CONF)
        self._service_host = host
        super().init_host(host)
        if CONF.libvirt.virt_type not in ('kvm', 'qemu'):
            LOG.warning(
                'NUMAHugepagesDriver manages huge pages for [libvirt] '
                'virt_type kvm and qemu only; with %s it behaves like '
                'LibvirtDriver.',
                CONF.libvirt.virt_type,
            )
            return
        numa_fit.install(
            host_stats=lambda topology: self._stats,
            host_devices=lambda: queries.claim_devices(self.virtapi),
            host_limits=lambda: queries.claim_limits(self.virtapi),
        )
        if not _guests_get_huge_pages():
            LOG.warning(
                'No huge pages are reported, and none are allocated: with '
                '[libvirt] file_backed_memory Nova refuses to start instances '
                'on huge pages. Remove that option, or give such instances '
                'other hosts.'
            )
        kernel = self._kernel or setup.kernel_access()
        self._fs = kernel.fs
        self._manager = setup.open_manager(CONF, kernel, self._exit_stack)
        try:
            self._reconcile(starting=True)
        except exception.KernelError as error:
            LOG.error(
                'Could not read the huge page state of this host: %s', error
            )
        if self._manager is not None:
            guests = elastic.ElasticGuests(
                self._host,
                self._manager,
                Marks.read(CONF.numa_hugepages),
                migrating=lambda: queries.migrating_instances(
                    self._service_host, self._host.get_hostname()
                ),
                return_limit_s=CONF.numa_hugepages.elastic_return_limit,
                ask_agent=guest_agent.ask_by(self._host)
                if CONF.numa_hugepages.elastic_guest_agent
                else None,
            )
            guests.start(CONF.numa_hugepages.elastic_interval)
            self._exit_stack.callback(guests.stop)

    def cleanup_host(self, host: str) -> None:
        """Close the ledger, and release the lock of the service."""
        with self._exit_stack:
            super().cleanup_host(host)

    def emit_event(self, event: virtevent.InstanceEvent) -> None:
        """Notice a guest that powered itself off."""
        super().emit_event(event)
        if (
            isinstance(event, virtevent.LifecycleEvent)
            and event.transition == virtevent.EVENT_LIFECYCLE_STOPPED
        ):
            self._stopped(event.uuid)

    # Starting a guest.

    def _create_guest(
        self,
        context: Any,
        xml: str,
        instance: objects.Instance,
        power_on: bool = True,
        pause: bool = False,
        post_xml_callback: Any = None,
    ) -> Any:
        """Hold the pages that the domain needs, before it is defined.

        :raises nova.exception.ComputeResourcesUnavailable: if there are too
            few, or some can't be allocated without the privileged helper, so
            that Nova tries the next host
        """
        manager = self._manager
        starts = power_on or pause
        if manager is None or not (starts or manager.keeps_powered_off):
            return super()._create_guest(
                context, xml, instance, power_on, pause, post_xml_callback
            )
        try:
            with manager.starting(
                instance.uuid,
                domain_xml.page_needs(xml),
                is_defined=functools.partial(
                    queries.is_defined, self._host, instance
                ),
                after_resize=instance.task_state == task_states.RESIZE_FINISH,
            ):
                guest = super()._create_guest(
                    context, xml, instance, power_on, pause, post_xml_callback
                )
                if starts:
                    manager.started(instance.uuid)
        except (exception.NotEnoughPages, exception.PoolsReadOnly) as error:
            LOG.warning(
                'Could not reserve huge pages: %s', error, instance=instance
            )
            raise nova_exception.ComputeResourcesUnavailable(
                reason=str(error)
            ) from error
        return guest

    def _hard_reboot(
        self,
        context: Any,
        instance: objects.Instance,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Keep the pages until the domain is defined again."""
        with self._restarting(instance):
            super()._hard_reboot(context, instance, *args, **kwargs)

    def resume(
        self,
        context: Any,
        instance: objects.Instance,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Keep the pages even if the guest fails to start."""
        with self._restarting(instance):
            super().resume(context, instance, *args, **kwargs)

    def _soft_reboot(self, instance: objects.Instance) -> bool:
        """Keep the pages while the guest is down."""
        with self._restarting(instance):
            if self._manager is not None:
                elastic_sizes.keep_for_next_start(
                    self._host,
                    self._host.get_guest(instance),
                    self._manager.held(instance.uuid),
                )
            done: bool = super()._soft_reboot(instance)
        return done

    # Stopping a guest.

    def _undefine_domain(
        self, instance: objects.Instance, *args: Any, **kwargs: Any
    ) -> None:
        """Release the pages of a deleted domain.

        A guest that is rebuilt or resized comes back, and keeps them.
        """
        super()._undefine_domain(instance, *args, **kwargs)
        if self._manager is None:
            return
        if (
            instance.task_state in _REBUILDING
            and instance.host == self._service_host
        ):
            self._manager.expect(instance.uuid)
        elif instance.task_state == task_states.RESIZE_MIGRATING:
            self._manager.resized(instance.uuid)
        else:
            self._manager.gone(instance.uuid)

    def power_off(
        self,
        instance: objects.Instance,
        timeout: int = 0,
        retry_interval: int = 0,
    ) -> None:
        """Release the pages, if powered-off guests don't keep them."""
        super().power_off(instance, timeout, retry_interval)
        if instance.task_state not in _REBUILDING:
            self._stopped(instance.uuid)

    def suspend(self, context: Any, instance: objects.Instance) -> None:
        """Release the pages, if powered-off guests don't keep them."""
        super().suspend(context, instance)
        self._stopped(instance.uuid)

    # The XML of a guest.

    def _get_guest_memory_backing_config(
        self, inst_topology: Any, numatune: Any, flavor: Any, image_meta: Any
    ) -> Any:
        """Make QEMU allocate huge pages with several threads."""
        backing = super()._get_guest_memory_backing_config(
            inst_topology, numatune, flavor, image_meta
        )
        threads = CONF.numa_hugepages.prealloc_threads
        if (
            not threads
            or backing is None
            or not backing.hugepages
            or not self._host.has_min_version(MIN_LIBVIRT_PREALLOC_THREADS)
        ):
            return backing
        return guest_config.with_prealloc_threads(backing, threads)

    def _get_guest_config(
        self,
        instance: objects.Instance,
        network_info: Any,
        image_meta: objects.ImageMeta,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Make the memory of the guest elastic, if the flavor asks.

        :raises nova.exception.InvalidInput: if it can't be
        """
        guest = super()._get_guest_config(
            instance, network_info, image_meta, *args, **kwargs
        )
        if self._manager is None:
            return guest
        cells = elastic_sizes.asked_for(instance, image_meta)
        if cells is not None and any(cell.elastic for cell in cells):
            if any(vif.get('vnic_type') == 'vdpa' for vif in network_info):
                raise nova_exception.InvalidInput(
                    reason='elastic memory is not possible with a vDPA port. '
                    'Take one of them away.'
                )
            if not self._host.has_min_version(
                MIN_LIBVIRT_VIRTIO_MEM, MIN_QEMU_VIRTIO_MEM
            ):
                raise nova_exception.ComputeResourcesUnavailable(
                    reason='elastic memory needs libvirt 7.9 and QEMU 7.0'
                )
            page_kib = instance.numa_topology.cells[0].pagesize
            guest_config.make_elastic(
                guest,
                cells,
                page_kib,
                elastic_sizes.requested(
                    cells, page_kib, self._manager.held(instance.uuid)
                ),
            )
        return guest

    def _guest_add_memory_balloon(self, guest: Any) -> None:
        """Make a guest on huge pages keep those that are free inside it."""
        super()._guest_add_memory_balloon(guest)
        if guest.membacking is not None and guest.membacking.hugepages:
            guest_config.disable_free_page_reporting(guest.devices)

    def _get_guest_numa_config(
        self, instance_numa_topology: Any, flavor: Any, image_meta: Any
    ) -> Any:
        """Add the distances between guest cells, if the flavor asks."""
        config = super()._get_guest_numa_config(
            instance_numa_topology, flavor, image_meta
        )
        if (
            config.numaconfig
            and config.numatune
            and self._stats
            and extra_specs.guest_distances(flavor.extra_specs)
        ):
            guest_config.set_distances(
                config.numaconfig.cells,
                guest_config.guest_distances(
                    self._stats, [c.id for c in instance_numa_topology.cells]
                ),
            )
        return config

    # Resources for the scheduler.

    def get_available_resource(self, nodename: str) -> dict[str, Any]:
        """Reconcile, and add this host's huge pages to its stats."""
        try:
            self._reconcile()
        except exception.NUMAHugepagesError as error:
            LOG.error(
                'Huge page reconciliation failed; reporting the last known '
                'state: %s',
                error,
            )
        available: dict[str, Any] = super().get_available_resource(nodename)
        if self._snapshot is not None:
            self._stats = resources.build_stats(
                self._snapshot,
                self._cell_ids,
                huge_pages=_guests_get_huge_pages(),
            )
            available['stats'] = {
                **available['stats'],
                host_stats.STATS_KEY: self._stats.dump(),
            }
        return available

    def update_provider_tree(
        self, provider_tree: Any, nodename: str, allocations: Any = None
    ) -> None:
        """Let Placement accept what lending allows."""
        super().update_provider_tree(provider_tree, nodename, allocations)
        lendable_mib = (
            resources.lendable_mib(self._snapshot)
            if self._snapshot is not None
            else 0
        )
        if lendable_mib:
            inventory = provider_tree.data(nodename).inventory
            memory = inventory[orc.MEMORY_MB]
            # Not the ratio, which Nova would take over from Placement.
            memory['total'] += lendable_mib
            provider_tree.update_inventory(nodename, inventory)

    def _get_host_numa_topology(self) -> numa.NUMATopology | None:
        """Report the pages that exist, and those that can be allocated."""
        topology = super()._get_host_numa_topology()
        if topology is None:
            return None
        resources.describe_partial_nodes(topology)
        if self._snapshot is not None:
            self._cell_ids = [cell.id for cell in topology.cells]
            resources.set_page_totals(
                topology,
                self._snapshot,
                huge_pages=_guests_get_huge_pages(),
                accounted=queries.accounted(self.virtapi),
            )
        return topology

    def _reconcile(self, *, starting: bool = False) -> None:
        """Reconcile ledger, domains and pools, and take a snapshot."""
        if self._manager is not None:
            service = self._service_host
            node = self._host.get_hostname()
            try:
                self._manager.reconcile(
                    lambda: queries.defined_domains(self._host),
                    lambda: queries.migrating_instances(service, node),
                    lambda: queries.instances_on(service, node),
                    starting=starting,
                )
            finally:
                self._snapshot = self._manager.snapshot()
        elif self._fs is not None:
            self._snapshot = resources.snapshot_without_pools(self._fs)

    def _stopped(self, uuid: str) -> None:
        if self._manager is not None:
            self._manager.stopped(uuid)


def _guests_get_huge_pages() -> bool:
    """Return whether Nova gives guests huge pages on this host at all."""
    return not CONF.libvirt.file_backed_memory
