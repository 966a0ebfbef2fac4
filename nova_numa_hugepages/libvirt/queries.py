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

"""Queries to libvirt and Nova: domains, instances, migrations, devices.

Where the releases of Nova differ, the installed one is looked at. The numbers
in comments only say which release that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from nova.compute import task_states
from nova.objects import fields
from nova.pci import stats as pci_stats
from nova.virt.libvirt import host as libvirt_host
from oslo_log import log as logging

from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.core import model
from nova_numa_hugepages.libvirt import guest_config

LOG = logging.getLogger(__name__)


def is_defined(host: libvirt_host.Host, instance: objects.Instance) -> bool:
    """Return whether libvirt has a domain of an instance.

    :returns: True if libvirt doesn't answer, so that a guest that may exist
        keeps what it has
    """
    try:
        host.get_guest(instance)
    except nova_exception.InstanceNotFound:
        return False
    except nova_exception.InternalError:
        pass
    return True


def defined_domains(host: libvirt_host.Host) -> frozenset[str] | None:
    """Return the uuids of all domains, running or not.

    :returns: None if libvirt doesn't answer
    """
    try:
        return frozenset(
            guest.uuid for guest in host.list_guests(only_running=False)
        )
    except Exception as error:
        LOG.warning(
            'Could not list libvirt domains; keeping all reservations: %s',
            error,
        )
        return None


def migrating_instances(host: str, node: str) -> frozenset[str] | None:
    """Return the uuids of instances that migrate to or from a host.

    Those whose resize or cold migration failed are included until an operator
    or user resolves it, as Nova still accounts for them. Live migrations are
    not whose instance is at rest: Nova leaves their record as it was when a
    service is killed.

    :param host: the name of the compute service
    :param node: the name of the compute node
    :returns: None if Nova's database doesn't answer
    """
    try:
        migrations = objects.MigrationList.get_in_progress_and_error(
            nova_context.get_admin_context(), host, node
        )
        return frozenset(
            migration.instance_uuid
            for migration in migrations
            if _is_in_progress(migration)
        )
    except Exception as error:
        LOG.warning(
            'Could not list in-progress migrations; keeping their '
            'reservations: %s',
            error,
        )
        return None


def _is_in_progress(migration: objects.Migration) -> bool:
    if migration.migration_type in (
        fields.MigrationType.MIGRATION,
        fields.MigrationType.RESIZE,
    ):
        return True
    if migration.status == 'error':
        return False
    if migration.migration_type != fields.MigrationType.LIVE_MIGRATION:
        return True
    try:
        task_state = migration.instance.task_state
    except nova_exception.InstanceNotFound:
        return False
    return bool(task_state == task_states.MIGRATING)


def instances_on(host: str, node: str) -> frozenset[str] | None:
    """Return the uuids of instances that Nova has on a host.

    :param host: the name of the compute service
    :param node: the name of the compute node
    :returns: None if Nova's database doesn't answer
    """
    try:
        instances = objects.InstanceList.get_by_host_and_node(
            nova_context.get_admin_context(), host, node, expected_attrs=[]
        )
    except Exception as error:
        LOG.warning(
            'Could not list the instances of this host; keeping all '
            'reservations: %s',
            error,
        )
        return None
    return frozenset(instance.uuid for instance in instances)


def destination_distances(
    context: nova_context.RequestContext,
    instance: objects.Instance,
    host: str,
    host_cells: Sequence[int],
) -> list[list[int]] | None:
    """Return the distances between an instance's cells on another host.

    :param host: the name of the compute service there
    :param host_cells: the host cell there of each guest cell
    :returns: None if that host doesn't report them
    """
    try:
        node = objects.ComputeNode.get_first_node_by_host_for_old_compat(
            context, host
        )
        stats = host_stats.parse((node.stats or {})[host_stats.STATS_KEY])
    except (nova_exception.NovaException, KeyError, ValueError) as error:
        LOG.warning(
            'Could not get the NUMA node distances of host %(host)s: '
            '%(error)s',
            {'host': host, 'error': error},
            instance=instance,
        )
        return None
    return guest_config.guest_distances(stats, host_cells)


def claim_devices(virtapi: Any) -> pci_stats.PciDeviceStats | None:
    """Return the PCI devices of this host.

    The scheduler keeps an instance that asks for no device away from host
    cells that have some. Up to Nova 33 the claim doesn't pass the devices for
    such an instance, and would come to another plan.

    :param virtapi: the ``ComputeVirtAPI`` of the compute service
    :returns: None until the service knows them
    """
    pci_tracker = getattr(_resource_tracker(virtapi), 'pci_tracker', None)
    return None if pci_tracker is None else pci_tracker.stats


def claim_limits(virtapi: Any) -> model.Limits | None:
    """Return the overcommit ratios of this host, as the scheduler has them.

    Up to Nova 33 the claim of a live migration passes none, and would come to
    another plan.

    :param virtapi: the ``ComputeVirtAPI`` of the compute service
    :returns: None until the service knows them
    """
    # By name of the compute node, of which a host with libvirt has one.
    found = getattr(_resource_tracker(virtapi), 'compute_nodes', {})
    for node in found.values():
        return model.Limits(
            node.cpu_allocation_ratio, node.ram_allocation_ratio
        )
    return None


def accounted(virtapi: Any) -> frozenset[str] | None:
    """Return the instances whose resources Nova accounts for on this host.

    :param virtapi: the ``ComputeVirtAPI`` of the compute service
    :returns: their uuids; None until the service knows them
    """
    tracker = _resource_tracker(virtapi)
    if not getattr(tracker, 'compute_nodes', None):
        return None
    return frozenset(tracker.tracked_instances) | frozenset(
        tracker.tracked_migrations
    )


def _resource_tracker(virtapi: Any) -> Any:
    return getattr(getattr(virtapi, '_compute', None), 'rt', None)
