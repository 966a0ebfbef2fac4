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

"""What a new cloud is filled with, through its own APIs."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import datetime
import functools
import pathlib
import time

import openstack
from openstack import connection

from tests.host.rig import folders
from tests.stack import locations
from tests.stack import processes

# The names of images: one boots a kernel that prints what it sees on its
# console, which takes a while. The others have nothing to boot.
BOOTS = 'boots'
EMPTY = 'empty'
OTHER = 'other'
# Flavors ask for the topology of servers, and servers for no network.
MICROVERSION = '2.95'

_KINDS = {
    'placement': 'placement',
    'glance': 'image',
    'neutron': 'network',
    'nova': 'compute',
}
_DISK_BYTES = 1 << 20


@functools.cache
def connect() -> connection.Connection:
    """Return a connection of the administrator, once there is a catalogue."""
    return _connect()


def _connect() -> connection.Connection:
    return openstack.connect(
        load_yaml_config=False,
        load_envvars=False,
        auth_url=locations.url('keystone'),
        username='admin',
        password=locations.PASSWORD,
        project_name='admin',
        user_domain_id='default',
        project_domain_id='default',
        region_name=locations.REGION,
        compute_default_microversion=MICROVERSION,
        placement_default_microversion='1.39',
    )


def make_catalogue() -> None:
    """Make the services' users and endpoints."""
    identity = _connect().identity
    roles = {role.name: role for role in identity.roles()}
    project = identity.create_project(name='service', domain_id='default')
    for name, kind in _KINDS.items():
        user = identity.create_user(
            name=name, password=locations.PASSWORD, domain_id='default'
        )
        for role in ('admin', 'service'):
            identity.assign_project_role_to_user(project, user, roles[role])
        service = identity.create_service(name=name, type=kind)
        identity.create_endpoint(
            service_id=service.id,
            interface='public',
            url=locations.url(name),
            region_id=locations.REGION,
        )


def make_images() -> None:
    """Upload the images."""
    cloud = connect()
    folder = folders.folder() / 'images'
    disk = locations.folder() / 'disk.raw'
    with disk.open('wb') as file:
        file.truncate(_DISK_BYTES)
    parts = {}
    for name, path, kind in (
        ('kernel', folder / 'kernel', 'aki'),
        ('ramdisk', folder / 'guest.img', 'ari'),
    ):
        parts[f'{name}_id'] = cloud.create_image(
            name,
            filename=str(path),
            disk_format=kind,
            container_format=kind,
            visibility='public',
            wait=True,
        ).id
    boot = {
        **parts,
        'os_command_line': 'console=ttyS0 quiet panic=-1 mitigations=off '
        'memhp_default_state=online_movable',
    }
    for name, properties in ((BOOTS, boot), (EMPTY, {}), (OTHER, {})):
        cloud.create_image(
            name,
            filename=str(disk),
            disk_format='raw',
            container_format='bare',
            visibility='public',
            wait=True,
            hw_machine_type='q35',
            **properties,
        )


def make_zones(members: Mapping[str, Iterable[str]]) -> None:
    """Make availability zones of hosts.

    :param members: the hosts of each zone
    """
    compute = connect().compute
    for zone, hosts in members.items():
        aggregate = compute.create_aggregate(name=zone, availability_zone=zone)
        for host in hosts:
            compute.add_host_to_aggregate(aggregate, host)


def wait_for_computes(
    logs: Mapping[str, pathlib.Path],
    there: Callable[[], Iterable[str]],
    seconds: float,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Wait until compute services are there.

    :param logs: the log of each, by the name of its host
    :param there: returns those that are there: `known` or `reported`
    :param check: raises if there is no use in waiting
    :raises processes.Failed: if the time is over
    """
    deadline = time.monotonic() + seconds
    while missing := sorted(logs.keys() - set(there())):
        if time.monotonic() > deadline:
            files = dict.fromkeys(str(logs[name]) for name in missing)
            raise processes.Failed(
                f'The compute services of {", ".join(missing)} did not report '
                f'in {seconds:.0f} s; see {", ".join(files)}'
            )
        time.sleep(1)
        check()


def known() -> list[str]:
    """The hosts that the scheduler knows."""
    hypervisors = connect().compute.hypervisors(details=True)
    return [found.service_details['host'] for found in hypervisors]


def reported(since: datetime.datetime) -> list[str]:
    """The hosts whose compute service has reported since then."""
    return [
        service.host
        for service in connect().compute.services(binary='nova-compute')
        if service.updated_at
        and datetime.datetime.fromisoformat(service.updated_at).replace(
            tzinfo=datetime.UTC
        )
        > since
    ]
