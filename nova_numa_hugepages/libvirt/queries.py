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

"""What libvirt and Nova know of guests beyond this driver."""

from __future__ import annotations

from collections.abc import Sequence

from nova import context as nova_context
from nova import exception as nova_exception
from nova import objects
from nova.objects import fields
from nova.virt.libvirt import host as libvirt_host
from oslo_log import log as logging

from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.libvirt import guest_config

LOG = logging.getLogger(__name__)


def is_defined(host: libvirt_host.Host, instance: objects.Instance) -> bool:
    """Tell whether there is a domain of an instance."""
    try:
        host.get_guest(instance)
    except nova_exception.InstanceNotFound:
        return False
    except nova_exception.InternalError:
        # It can't be told, so what the guest may have is left to it.
        return True
    return True


def defined(host: libvirt_host.Host) -> frozenset[str] | None:
    """List the uuids of all domains, running or not.

    :returns: None if libvirt doesn't answer
    """
    try:
        return frozenset(
            guest.uuid for guest in host.list_guests(only_running=False)
        )
    except Exception as error:
        LOG.warning(
            'libvirt does not list its domains, so no guest counts as gone: '
            '%s',
            error,
        )
        return None


def migrating(host: str, node: str) -> frozenset[str] | None:
    """List the uuids of instances that are moved to or from this host.

    Nova counts what was resized or cold-migrated with an error, too, until
    somebody decides what is to become of it.

    :param host: the name of the service
    :param node: the name of the compute node
    :returns: None if Nova's database can't be asked
    """
    try:
        found = objects.MigrationList.get_in_progress_and_error(
            nova_context.get_admin_context(), host, node
        )
    except Exception as error:
        LOG.warning(
            'Nova does not tell which migrations are in progress, so none '
            'counts as ended: %s',
            error,
        )
        return None
    return frozenset(
        migration.instance_uuid
        for migration in found
        if migration.status != 'error'
        or migration.migration_type
        in (
            fields.MigrationType.MIGRATION,
            fields.MigrationType.RESIZE,
        )
    )


def here(host: str, node: str) -> frozenset[str] | None:
    """List the uuids of instances that Nova has on this host.

    :param host: the name of the service
    :param node: the name of the compute node
    :returns: None if Nova's database can't be asked
    """
    try:
        found = objects.InstanceList.get_by_host_and_node(
            nova_context.get_admin_context(), host, node, expected_attrs=[]
        )
    except Exception as error:
        LOG.warning(
            'Nova does not tell which instances are on this host, so none '
            'counts as gone: %s',
            error,
        )
        return None
    return frozenset(instance.uuid for instance in found)


def distances_at(
    context: nova_context.RequestContext,
    host: str,
    cells: Sequence[int],
) -> list[list[int]] | None:
    """Tell how far a guest's cells are from each other on another host.

    :param host: the name of its compute service
    :param cells: the host cell there of each guest cell
    :returns: None if that host does not tell
    """
    try:
        node = objects.ComputeNode.get_first_node_by_host_for_old_compat(
            context, host
        )
        known = host_stats.parse((node.stats or {})[host_stats.STATS_KEY])
    except (nova_exception.NovaException, KeyError, ValueError) as error:
        LOG.warning(
            'The distances between the NUMA nodes of %(host)s are not known: '
            '%(error)s',
            {'host': host, 'error': error},
        )
        return None
    return guest_config.guest_distances(known, cells)
