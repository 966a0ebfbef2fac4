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

"""The services of OpenStack, and how each is started."""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
import pathlib
import sys

from tests.stack import cloud_setup
from tests.stack import configuration
from tests.stack import locations
from tests.stack import processes

_MODULES = {
    'keystone': 'keystone.wsgi.api',
    'placement': 'placement.wsgi.api',
    'glance': 'glance.wsgi.api',
    'neutron': 'neutron.wsgi.api',
    'nova': 'nova.wsgi.osapi_compute',
}
WORKERS = ('nova-conductor', 'nova-scheduler')
_SERVE = pathlib.Path(__file__).with_name('serve.py')


def set_up_keystone(running: processes.Processes) -> None:
    """Start keystone, with all users and endpoints."""
    manage = ['keystone-manage', *_config_file('keystone', 'keystone.conf')]
    as_root = ['--keystone-user', 'root', '--keystone-group', 'root']
    url = locations.url('keystone')
    for arguments in (
        ['db_sync'],
        ['fernet_setup', *as_root],
        ['credential_setup', *as_root],
        [
            'bootstrap',
            *('--bootstrap-password', locations.PASSWORD),
            *('--bootstrap-region-id', locations.REGION),
            *('--bootstrap-public-url', url),
            *('--bootstrap-internal-url', url),
        ],
    ):
        _run(*manage, *arguments)
    start_api(running, 'keystone')
    wait(running, 'keystone')
    cloud_setup.make_catalogue()


def set_up_databases() -> list[Callable[[], None]]:
    """Give what makes the tables of the other services, each in parallel."""
    return [
        lambda: _run(
            'glance-manage',
            *_config_file('glance', 'glance-api.conf'),
            'db_sync',
        ),
        lambda: _run(
            'neutron-db-manage',
            *_config_file('neutron', 'neutron.conf'),
            *('upgrade', 'head'),
        ),
        lambda: _run(
            'placement-manage',
            *_config_file('placement', 'placement.conf'),
            *('db', 'sync'),
        ),
        _set_up_nova,
    ]


def _set_up_nova() -> None:
    manage = ['nova-manage', *nova_options()]
    _run(*manage, 'api_db', 'sync')
    cell0 = locations.database('nova_cell0')
    _run(*manage, 'cell_v2', 'map_cell0', '--database_connection', cell0)
    _run(*manage, 'cell_v2', 'create_cell', '--name', 'cell1')
    with futures.ThreadPoolExecutor() as pool:
        syncs = [
            pool.submit(_run, *manage, 'db', 'sync', '--local_cell', env=env)
            for env in ({}, {'OS_DATABASE__CONNECTION': cell0})
        ]
        for sync in syncs:
            sync.result()


def start_api(running: processes.Processes, name: str) -> None:
    """Start the API of a service; see `wait`."""
    folder = str(locations.configuration(name))
    env = {f'OS_{name.upper()}_CONFIG_DIR': folder}
    if name == 'neutron':
        env['OS_NEUTRON_CONFIG_FILES'] = 'neutron.conf'
    if name == 'nova':
        files = ['api-paste.ini', *nova_options()[1::2]]
        env['OS_NOVA_CONFIG_FILES'] = ';'.join(
            pathlib.Path(file).name for file in files
        )
    running.start(
        name,
        [
            sys.executable,
            str(_SERVE),
            _MODULES[name],
            str(locations.PORTS[name]),
        ],
        env=env,
    )


def start_worker(running: processes.Processes, name: str) -> None:
    """Start the conductor or the scheduler."""
    running.start(name, worker(name))


def worker(name: str) -> list[str]:
    """The command that runs the conductor or the scheduler."""
    return [_script(name), *nova_options()]


def wait(running: processes.Processes, *names: str) -> None:
    """Wait until APIs take requests."""
    for name in names:
        running.wait_until(
            lambda port=locations.PORTS[name]: processes.listens(port), name
        )


def nova_compute(name: str) -> list[str]:
    """The command that runs the compute service of a host.

    Its configuration has to be written before.
    """
    return [_script('nova-compute'), *nova_options(name)]


def _run(*command: str, env: dict[str, str] | None = None) -> None:
    program, *arguments = command
    processes.run('set-up', [_script(program), *arguments], env=env)


def _script(name: str) -> str:
    return str(pathlib.Path(sys.executable).with_name(name))


def _config_file(service: str, name: str) -> tuple[str, str]:
    return '--config-file', str(locations.configuration(service) / name)


def nova_options(name: str = 'nova') -> list[str]:
    return [
        word
        for file in configuration.nova_files(name)
        for word in ('--config-file', str(file))
    ]
