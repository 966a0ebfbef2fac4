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

"""Nova's libvirt driver, with huge pages that are made ready for its guests.

``compute_driver = numa_hugepages.NUMAHugepagesDriver`` loads it. Hooks only:
what a hook does is in ``keeper.py``, and what the host offers in
``hostview.py``.

Every start of a domain passes `_create_guest`, and every end for good passes
`_undefine_domain`. What passes neither, as a guest that ends by itself or a
service that is killed, is found when Nova asks for the host's resources, once
a minute, and when the service starts.
"""

from __future__ import annotations

import functools
from typing import Any

from nova import conf as nova_conf
from nova import exception as nova_exception
from nova import objects
from nova.compute import task_states
from nova.objects import numa
from nova.virt import event as virtevent
from oslo_log import log as logging

from nova_numa_hugepages import conf
from nova_numa_hugepages import exception
from nova_numa_hugepages import extra_specs
from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.hugepages import snapshot
from nova_numa_hugepages.libvirt import domain_xml
from nova_numa_hugepages.libvirt import guest_config
from nova_numa_hugepages.libvirt import migration
from nova_numa_hugepages.libvirt import novas
from nova_numa_hugepages.libvirt import queries
from nova_numa_hugepages.libvirt import resources
from nova_numa_hugepages.libvirt import setup
from nova_numa_hugepages.nova_fit import numa_fit

CONF = nova_conf.CONF
LOG = logging.getLogger(__name__)

# libvirt knows the threads that take a guest's memory from this version on.
MIN_LIBVIRT_PREALLOC_THREADS = (8, 2, 0)

_REBUILDING = (
    task_states.REBUILDING,
    task_states.REBUILD_BLOCK_DEVICE_MAPPING,
    task_states.REBUILD_SPAWNING,
)


class NUMAHugepagesDriver(migration.MovingGuests):
    """The libvirt driver, which holds huge pages for its guests."""

    def __init__(self, virtapi: Any, read_only: bool = False) -> None:
        super().__init__(virtapi, read_only)
        conf.register_opts(CONF)
        # None until it is known that there are guests to take care of.
        self._access: setup.Access | None = None
        self._view: snapshot.HostSnapshot | None = None
        self._cell_ids: list[int] = []
        self._service_host = CONF.host
        self._claim_devices = novas.claim_devices(virtapi)

    # The service.

    def init_host(self, host: str) -> None:
        """Start: check, open the ledger, and heal what has come apart."""
        conf.validate(CONF)
        self._service_host = host
        super().init_host(host)
        if CONF.libvirt.virt_type not in ('kvm', 'qemu'):
            LOG.warning(
                'NUMAHugepagesDriver takes care of huge pages for guests of '
                'virt_type kvm or qemu only. With %s it does what '
                'LibvirtDriver does.',
                CONF.libvirt.virt_type,
            )
            return
        numa_fit.install(
            host_stats=lambda topology: self._facts,
            host_devices=self._claim_devices,
        )
        self._access = setup.host()
        self._keeper = setup.keeper(CONF, self._access)
        try:
            self._look(starting=True)
        except exception.KernelError as error:
            LOG.error(
                'What the host has in huge pages is not known: %s', error
            )

    def cleanup_host(self, host: str) -> None:
        """Stop: close the ledger."""
        super().cleanup_host(host)
        if self._keeper is not None:
            self._keeper.close()

    def emit_event(self, event: virtevent.InstanceEvent) -> None:
        """See guests that power themselves off."""
        super().emit_event(event)
        if (
            isinstance(event, virtevent.LifecycleEvent)
            and event.transition == virtevent.EVENT_LIFECYCLE_STOPPED
        ):
            self._stopped(event.uuid)

    # Guests that start.

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
            few, or some can't be made for want of a helper, so that Nova tries
            the next host
        """
        keeper = self._keeper
        starts = power_on or pause
        if keeper is None or not (starts or keeper.keeps_powered_off):
            return super()._create_guest(
                context, xml, instance, power_on, pause, post_xml_callback
            )
        try:
            with keeper.starting(
                instance.uuid,
                domain_xml.needs(xml),
                is_defined=functools.partial(
                    queries.is_defined, self._host, instance
                ),
                comes_new=instance.task_state == task_states.RESIZE_FINISH,
            ):
                guest = super()._create_guest(
                    context, xml, instance, power_on, pause, post_xml_callback
                )
                if starts:
                    keeper.started(instance.uuid)
        except (exception.NotEnoughPages, exception.PoolsReadOnly) as error:
            LOG.warning('%s', error, instance=instance)
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
        """Keep the pages between taking the domain away and defining it."""
        with self._restarting(instance):
            super()._hard_reboot(context, instance, *args, **kwargs)

    def resume(
        self,
        context: Any,
        instance: objects.Instance,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Keep the pages if the guest can't be started."""
        with self._restarting(instance):
            super().resume(context, instance, *args, **kwargs)

    def _soft_reboot(self, instance: objects.Instance) -> bool:
        """Keep the pages while the guest is down."""
        with self._restarting(instance):
            done: bool = super()._soft_reboot(instance)
        return done

    # Guests that stop.

    def _undefine_domain(
        self, instance: objects.Instance, *args: Any, **kwargs: Any
    ) -> None:
        """Release the pages of a domain that is gone.

        A guest that is rebuilt or resized comes back, and keeps them.
        """
        super()._undefine_domain(instance, *args, **kwargs)
        if self._keeper is None:
            return
        if (
            instance.task_state in _REBUILDING
            and instance.host == self._service_host
        ):
            self._keeper.expect(instance.uuid)
        elif instance.task_state == task_states.RESIZE_MIGRATING:
            self._keeper.resized(instance.uuid)
        else:
            self._keeper.gone(instance.uuid)

    def power_off(
        self,
        instance: objects.Instance,
        timeout: int = 0,
        retry_interval: int = 0,
    ) -> None:
        """Give the pages back, if guests that are off don't keep them."""
        super().power_off(instance, timeout, retry_interval)
        if instance.task_state not in _REBUILDING:
            self._stopped(instance.uuid)

    def suspend(self, context: Any, instance: objects.Instance) -> None:
        """Give the pages back, if guests that are off don't keep them."""
        super().suspend(context, instance)
        self._stopped(instance.uuid)

    # What the domain is described as.

    def _get_guest_memory_backing_config(
        self, inst_topology: Any, numatune: Any, flavor: Any, image_meta: Any
    ) -> Any:
        """Have QEMU take huge pages with several threads."""
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
        return guest_config.MemoryBacking(backing, threads)

    def _guest_add_memory_balloon(self, guest: Any) -> None:
        """Have a guest on huge pages keep those that are free inside."""
        super()._guest_add_memory_balloon(guest)
        if guest.membacking is not None and guest.membacking.hugepages:
            guest_config.keep_free_pages(guest.devices)

    def _get_guest_numa_config(
        self, instance_numa_topology: Any, flavor: Any, image_meta: Any
    ) -> Any:
        """Tell the guest how far its cells are from each other, if wanted."""
        config = super()._get_guest_numa_config(
            instance_numa_topology, flavor, image_meta
        )
        if (
            config.numaconfig
            and config.numatune
            and self._facts
            and extra_specs.guest_distances(flavor.extra_specs)
        ):
            guest_config.set_distances(
                config.numaconfig.cells,
                guest_config.guest_distances(
                    self._facts, [c.id for c in instance_numa_topology.cells]
                ),
            )
        return config

    # What the scheduler is told.

    def get_available_resource(self, nodename: str) -> dict[str, Any]:
        """Add the facts of this host to its stats."""
        try:
            self._look()
        except exception.NUMAHugepagesError as error:
            LOG.error('What was known of huge pages is told anew: %s', error)
        found: dict[str, Any] = super().get_available_resource(nodename)
        if self._view is not None:
            self._facts = resources.host_facts(self._view, self._cell_ids)
            found['stats'] = {
                **found['stats'],
                host_stats.STATS_KEY: self._facts.dump(),
            }
        return found

    def _get_host_numa_topology(self) -> numa.NUMATopology | None:
        """Report the pages that there are now, and those that can be made."""
        topology = super()._get_host_numa_topology()
        view = self._view
        if topology is not None and view is not None:
            self._cell_ids = [cell.id for cell in topology.cells]
            resources.set_totals(
                topology, functools.partial(resources.totals, view)
            )
        return topology

    def _look(self, *, starting: bool = False) -> None:
        """Heal what has come apart, and see what the host has."""
        if self._keeper is not None:
            node = self._host.get_hostname()
            try:
                self._keeper.heal(
                    lambda: queries.defined(self._host),
                    lambda: queries.migrating(self._service_host, node),
                    lambda: queries.here(self._service_host, node),
                    starting=starting,
                )
            finally:
                self._view = self._keeper.survey()
        elif self._access is not None:
            self._view = resources.without_pools(self._access.fs)

    def _stopped(self, uuid: str) -> None:
        if self._keeper is not None:
            self._keeper.stopped(uuid)
