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

"""Hooks for guests that are moved: resized, migrated, migrated alive."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from typing import Any

from nova import exception as nova_exception
from nova import objects
from nova.virt.libvirt import driver

from nova_numa_hugepages import exception
from nova_numa_hugepages import extra_specs
from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.hugepages import manager
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.libvirt import guest_config
from nova_numa_hugepages.libvirt import queries
from nova_numa_hugepages.libvirt import resources


class MovingGuests(driver.LibvirtDriver):
    """The libvirt driver, whose guests keep their pages where they move.

    :ivar _keeper: takes care of huge pages; None where there are none
    :ivar _facts: what the scheduler was last told of this host
    """

    _keeper: manager.HugePageManager | None = None
    _facts: host_stats.HostStats | None = None

    # Guests that are resized or migrated while they are off.

    def migrate_disk_and_power_off(
        self,
        context: Any,
        instance: objects.Instance,
        *args: Any,
        **kwargs: Any,
    ) -> str:
        """Keep the pages until the move is confirmed or reverted."""
        with self._restarting(instance):
            disk_info: str = super().migrate_disk_and_power_off(
                context, instance, *args, **kwargs
            )
            if self._keeper is not None:
                self._keeper.resized(instance.uuid)
        return disk_info

    def finish_revert_migration(
        self,
        context: Any,
        instance: objects.Instance,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Let the guest have the pages back that were kept for it."""
        with self._restarting(instance):
            if self._keeper is not None:
                self._keeper.reverted(instance.uuid)
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
        if self._keeper is not None:
            self._keeper.release(instance.uuid, model.Purpose.RESIZE)

    # Guests that are live migrated: the destination.

    def post_claim_migrate_data(
        self,
        context: Any,
        instance: objects.Instance,
        migrate_data: Any,
        claim: Any,
    ) -> Any:
        """Hold the pages of a guest that is to come here.

        :raises nova.exception.MigrationPreCheckError: if there are too few,
            so that Nova tries the next host
        """
        try:
            self._hold_incoming(
                instance,
                resources.needs(
                    claim.claimed_numa_topology, resources.BASE_KIB
                ),
            )
        except exception.NUMAHugepagesError as error:
            # Nova has no way back from here that gives the claim up.
            claim.abort()
            raise nova_exception.MigrationPreCheckError(
                reason=str(error)
            ) from error
        try:
            return super().post_claim_migrate_data(
                context, instance, migrate_data, claim
            )
        except BaseException:
            if self._keeper is not None:
                self._keeper.release(instance.uuid, model.Purpose.INCOMING)
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
        """Make sure of the pages, before memory is sent.

        :raises nova.exception.MigrationPreCheckError: if there are too few;
            Nova then rolls back
        """
        planned = resources.planned_cells(migrate_data)
        if planned:
            try:
                self._hold_incoming(
                    instance,
                    resources.needs(
                        instance.numa_topology, resources.BASE_KIB, planned
                    ),
                )
            except exception.NUMAHugepagesError as error:
                raise nova_exception.MigrationPreCheckError(
                    reason=str(error)
                ) from error
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
        """Let the guest have the pages that were held for it."""
        if self._keeper is not None:
            self._keeper.arrived(instance.uuid)
            self._keeper.started(instance.uuid)
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
        """Release the pages of a guest that doesn't come."""
        with contextlib.ExitStack() as always:
            if self._keeper is not None:
                always.callback(self._keeper.gone, instance.uuid)
            # First of these, as the guest is in the API's hands by now.
            always.callback(_store_what_it_had, context, instance)
            super().rollback_live_migration_at_destination(
                context, instance, *args, **kwargs
            )

    # Guests that are live migrated: the source.

    def post_live_migration_at_source(
        self, context: Any, instance: objects.Instance, network_info: Any
    ) -> None:
        """Release the pages of a guest that has gone."""
        super().post_live_migration_at_source(context, instance, network_info)
        if self._keeper is not None:
            self._keeper.release(instance.uuid, model.Purpose.GUEST)

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
        """Have the destination keep distances that are true there."""
        planned = resources.planned_cells(migrate_data)
        if planned and extra_specs.guest_distances(
            instance.flavor.extra_specs
        ):
            guest = guest_config.arriving_with(
                guest,
                queries.distances_at(
                    context, dest, [planned[cell] for cell in sorted(planned)]
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
        self, instance: objects.Instance, needs: list[model.PageNeed]
    ) -> None:
        if self._keeper is not None:
            self._keeper.incoming(instance.uuid, needs)

    @contextlib.contextmanager
    def _restarting(self, instance: objects.Instance) -> Iterator[None]:
        if self._keeper is None:
            yield
            return
        with self._keeper.restarting(instance.uuid):
            yield


def _store_what_it_had(context: Any, instance: objects.Instance) -> None:
    """Store where a guest is whose live migration to this host has failed.

    Nova has the plan for this host in the instance meanwhile, and stores the
    instance when it has deleted the guest's disks here. If the source is done
    by then, the plan stays, and the guest is accounted for on other CPUs and
    nodes than those that it runs on. Any other plan that is stored is left
    alone: the guest may have been resized since.
    """
    if instance.migration_context is None:
        return
    try:
        stored = objects.InstanceNUMATopology.get_by_instance_uuid(
            context, instance.uuid
        )
        if _places(stored) != _places(
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


def _places(topology: objects.InstanceNUMATopology | None) -> object:
    """Tell on which node each cell is, and on which CPU each vCPU."""
    return topology and [
        (cell.id, cell.cpu_pinning) for cell in topology.cells
    ]
