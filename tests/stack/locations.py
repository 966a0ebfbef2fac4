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

"""The folders of the stack, and the addresses of its services."""

from __future__ import annotations

import pathlib

from tests.host.rig import folders

HERE = pathlib.Path(__file__).parent
PROJECT = folders.PROJECT

LOOPBACK = '127.0.0.1'
# As a virtual host sees the loopback of the machine that it runs on.
OUTSIDE = '10.0.2.2'

# No service has one of them by default, so services that the machine has for
# itself are not in the way.
PORTS = {
    'database': 23306,
    'broker': 25672,
    'broker-nodes': 25673,
    'epmd': 24369,
    'keystone': 25000,
    'placement': 28778,
    'glance': 29292,
    'neutron': 29696,
    'nova': 28774,
}
PASSWORD = 'secret'
REGION = 'RegionOne'


def folder() -> pathlib.Path:
    """The folder of what the stack keeps; ``STACK_STATE`` names another.

    What is shared with the tests of ``tests/host`` is in the folder of the
    rig: downloads and built images. Each virtual host has its sockets, whose
    paths must be short, in a ``/tmp/rig-*``.
    """
    return folders.cache_folder('stack', 'STACK_STATE')


def logs() -> pathlib.Path:
    """The folder of the logs; a compute host has a folder of its own there."""
    return folder() / 'logs'


def configuration(service: str = '') -> pathlib.Path:
    """The folder of the configuration of a service."""
    return folder() / 'etc' / service


def state(service: str = '') -> pathlib.Path:
    """The folder of what a service keeps."""
    return folder() / 'state' / service


def url(service: str, host: str = LOOPBACK) -> str:
    """Return where the API of a service is.

    :param host: ``OUTSIDE`` for those who are in a virtual host
    """
    path = {'keystone': '/v3', 'nova': '/v2.1'}.get(service, '')
    return f'http://{host}:{PORTS[service]}{path}'


def database(name: str) -> str:
    """Return the URL of a database."""
    return (
        f'mysql+pymysql://openstack:{PASSWORD}@{LOOPBACK}:'
        f'{PORTS["database"]}/{name}?charset=utf8mb3'
    )


def broker(host: str = LOOPBACK) -> str:
    """Return the URL of the message broker."""
    return f'rabbit://guest:guest@{host}:{PORTS["broker"]}/'
