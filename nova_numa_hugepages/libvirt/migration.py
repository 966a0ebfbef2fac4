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

"""Hooks of the driver for resize, cold migration and live migration."""

from __future__ import annotations

from collections.abc import Mapping
import contextlib
from typing import Any

from nova import exception as nova_exception
from nova import objects
from nova.virt.libvirt import driver

from nova_numa_hugepages import exception
from nova_numa_hugepages import extra_specs
from nova_numa_hugepages.hugepages import manager
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import fragmentation
from nova_numa_hugepages.libvirt import elastic_sizes
from nova_numa_hugepages.libvirt import migration_xml
from nova_numa_hugepages.libvirt import queries


class MigrationHooks(driver.LibvirtDriver):
    """The libvirt driver, with huge pages reserved for migrations.

    :ivar _manager: the manager of huge pages; None on a host that has none
    """

    _manager: manager.HugePageManager | None = None

    # Resize and cold migration.

    def migrate_disk_and_power_off(
        self,
        context: Any,
        instance: objects.Instance,
        *args: Any,
        **kwargs: Any,
    ) -> str:
        """Keep the pages until the resize is confirmed or reverted."""
        with self._restarting(instance):
            disk_info: str = super().migrate_disk_and_power_off(
                context, instance, *args, **kwargs
            )
            if self._manager is not None:
                self._manager.resized(instance.uuid)
        return disk_info

    def finish_revert_migration(
        self,
        context: Any,
        instance: objects.Instance,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Return the kept pages to the guest."""
        with self._restarting(instance):
            if self._manager is not None:
                self._manager.reverted(instance.uuid)
            super().finish_revert_migration(context, instance, *args, **kwargs)

    def confirm_migration(
        self,
        context: Any,
        migration: objects.Migration,
        instance: objects.Instance,
        network_info: Any,
    ) -> None:
        """Release the pages that were kept for a revert."""
        super().confirm_migration(context, migration, instance, network_info)
        if self._manager is not None:
            self._manager.release(instance.uuid, model.Purpose.RESIZE)

    # Live migration, at the destination.

    def post_claim_migrate_data(
        self,
        context: Any,
        instance: objects.Instance,
        migrate_data: Any,
        claim: Any,
    ) -> Any:
        """Hold the pages of a guest that will migrate to this host.

        :raises nova.exception.MigrationPreCheckError: if there are too few,
            so that Nova tries the next host
        """
        try:
            self._hold_incoming(instance, claim.claimed_numa_topology)
        except nova_exception.MigrationPreCheckError:
            # Nova doesn't abort the claim if this hook fails.
            claim.abort()
            raise
        try:
            return super().post_claim_migrate_data(
                context, instance, migrate_data, claim
            )
        except BaseException:
            if self._manager is not None:
                self._manager.release(instance.uuid, model.Purpose.INCOMING)
            raise

    def pre_live_migration(
        self,
        context: Any,
        instance: objects.Instance,
        block_device_info: Any,
        network_info: Any,
        disk_info: Any,
        migrate_data: Any,
    ) -> Any:
        """Hold the pages of the final plan, before memory is sent.

        :raises nova.exception.MigrationPreCheckError: if there are too few;
            Nova then rolls back
        """
        host_cells = _destination_cells(migrate_data)
        if host_cells:
            self._hold_incoming(instance, instance.numa_topology, host_cells)
        return super().pre_live_migration(
            context,
            instance,
            block_device_info,
            network_info,
            disk_info,
            migrate_data,
        )

    def post_live_migration_at_destination(
        self,
        context: Any,
        instance: objects.Instance,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Hand the held pages to the guest."""
        if self._manager is not None:
            self._manager.arrived(instance.uuid)
            self._manager.started(instance.uuid)
        super().post_live_migration_at_destination(
            context, instance, *args, **kwargs
        )

    def rollback_live_migration_at_destination(
        self,
        context: Any,
        instance: objects.Instance,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Release the pages of a guest that stays at the source."""
        with contextlib.ExitStack() as always:
            if self._manager is not None:
                always.callback(self._manager.gone, instance.uuid)
            # Runs first, as the API can change the instance by now.
            always.callback(_restore_source_plan, context, instance)
            super().rollback_live_migration_at_destination(
                context, instance, *args, **kwargs
            )

    # Live migration, at the source.

    def check_can_live_migrate_source(
        self, context: Any, instance: objects.Instance, *args: Any, **kw: Any
    ) -> Any:
        """Freeze the size of an elastic guest, and tell the destination.

        :raises nova.exception.MigrationPreCheckError: if that isn't possible
        """
        with contextlib.ExitStack() as undo:
            manager, uuid = self._manager, instance.uuid
            if manager is not None and any(
                hold.ceiling for hold in manager.held(uuid)
            ):
                undo.callback(manager.thaw, uuid)
                manager.freeze(uuid)
                try:
                    elastic_sizes.tell(
                        instance, manager.held(uuid), manager.sizes(uuid)
                    )
                except nova_exception.NovaException as error:
                    raise nova_exception.MigrationPreCheckError(
                        reason=str(error)
                    ) from error
            found = super().check_can_live_migrate_source(
                context, instance, *args, **kw
            )
            # It stays frozen until the migration is over.
            undo.pop_all()
        return found

    def live_migration(
        self, context: Any, instance: objects.Instance, *args: Any, **kw: Any
    ) -> None:
        """Let the size of an elastic guest change again when it is over."""
        try:
            super().live_migration(context, instance, *args, **kw)
        finally:
            if self._manager is not None:
                self._manager.thaw(instance.uuid)

    def post_live_migration_at_source(
        self, context: Any, instance: objects.Instance, network_info: Any
    ) -> None:
        """Release the pages of a guest that has left."""
        super().post_live_migration_at_source(context, instance, network_info)
        if self._manager is not None:
            self._manager.release(instance.uuid, model.Purpose.GUEST)

    def _live_migration_operation(
        self,
        context: Any,
        instance: objects.Instance,
        dest: str,
        block_migration: bool,
        migrate_data: Any,
        guest: Any,
        device_names: Any,
    ) -> None:
        """Migrate with the distances of the destination."""
        host_cells = _destination_cells(migrate_data)
        if host_cells and extra_specs.guest_distances(
            instance.flavor.extra_specs
        ):
            guest = migration_xml.with_destination_distances(
                guest,
                queries.destination_distances(
                    context,
                    instance,
                    dest,
                    [host_cells[cell] for cell in sorted(host_cells)],
                ),
            )
        super()._live_migration_operation(
            context,
            instance,
            dest,
            block_migration,
            migrate_data,
            guest,
            device_names,
        )

    def _hold_incoming(
        self,
        instance: objects.Instance,
        topology: objects.InstanceNUMATopology | None,
        host_cells: Mapping[int, int] | None = None,
    ) -> None:
        if self._manager is None:
            return
        try:
            incoming = elastic_sizes.of_incoming(
                instance, _page_needs(topology, host_cells)
            )
            self._manager.incoming(
                instance.uuid, incoming.needs, incoming.wanted_kib
            )
        except (
            exception.NUMAHugepagesError,
            nova_exception.NovaException,
        ) as error:
            raise nova_exception.MigrationPreCheckError(
                reason=str(error)
            ) from error

    def _restarting(
        self, instance: objects.Instance
    ) -> contextlib.AbstractContextManager[None]:
        """Keep the pages of a guest while this thread restarts it."""
        if self._manager is None:
            return contextlib.nullcontext()
        return self._manager.restarting(instance.uuid)


def _page_needs(
    topology: objects.InstanceNUMATopology | None,
    host_cells: Mapping[int, int] | None,
) -> list[model.PageNeed]:
    """Return the huge pages that a planned guest needs.

    :param topology: as the fit wrote it; None for a guest without one
    :param host_cells: number of a guest cell to its host cell, if that is not
        the one in the topology
    :returns: one need for each guest cell on huge pages
    """
    needs = []
    for index, cell in enumerate(topology.cells if topology else ()):
        size_kib = (cell.pagesize if 'pagesize' in cell else None) or 0
        if size_kib > fragmentation.BASE_KIB:
            node = cell.id if host_cells is None else host_cells[index]
            pages = -(-cell.memory * 1024 // size_kib)
            needs.append(model.PageNeed(index, node, size_kib, pages))
    return needs


def _destination_cells(migrate_data: Any) -> dict[int, int]:
    """Return the plan of a live migration.

    :param migrate_data: a ``nova.objects.LibvirtLiveMigrateData``
    :returns: number of each guest cell to its host cell at the destination;
        empty if the guest has no cells, or a service is too old to say
    """
    if not ('dst_numa_info' in migrate_data and migrate_data.dst_numa_info):
        return {}
    plan = migrate_data.dst_numa_info
    pins = plan.cell_pins if 'cell_pins' in plan else {}
    return {int(cell): min(host_cells) for cell, host_cells in pins.items()}


def _restore_source_plan(context: Any, instance: objects.Instance) -> None:
    """Store the plan of the source after a failed live migration to here.

    During the migration the instance carries the plan for this host, and Nova
    stores it when the guest's disks are deleted here. If the source is done
    by then, that plan stays, and the guest is accounted on other CPUs and
    NUMA nodes than it runs on. Any other stored plan is left alone: the
    instance may have been resized since.
    """
    if instance.migration_context is None:
        return
    try:
        stored = objects.InstanceNUMATopology.get_by_instance_uuid(
            context, instance.uuid
        )
        if _pinning(stored) != _pinning(
            instance.migration_context.new_numa_topology
        ):
            return
        with instance.mutated_migration_context(revert=True):
            instance.save()
    except (
        nova_exception.InstanceNotFound,
        nova_exception.NumaTopologyNotFound,
    ):
        # Deleted meanwhile.
        pass


def _pinning(topology: objects.InstanceNUMATopology | None) -> object:
    """Return the host cell of each guest cell, and the CPU of each vCPU."""
    return topology and [
        (cell.id, cell.cpu_pinning) for cell in topology.cells
    ]
