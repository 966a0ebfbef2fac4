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

"""Runs tempest on the cloud: ``python -m tests.stack.tempest_run [REGEX]``.

Without REGEX, the tests of this project's plugin and those of tempest's own
that are listed in ``tempest-tests.txt``.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys

from tests.stack import api
from tests.stack import cloud_setup
from tests.stack import command_server
from tests.stack import hosts
from tests.stack import ini
from tests.stack import install
from tests.stack import locations
from tests.stack import processes
from tests.stack import stack

LIST = pathlib.Path(__file__).with_name('tempest-tests.txt')
_BIN = pathlib.Path(sys.executable).parent
_TIMEOUT_S = 400


def write(folder: pathlib.Path, cloud: stack.Stack) -> pathlib.Path:
    """Write the configuration of tempest.

    :returns: its path
    """
    client = api.Client()
    path = folder / 'tempest.conf'
    ini.write(
        path,
        {
            'DEFAULT': {'log_file': locations.logs() / 'tempest.log'},
            'oslo_concurrency': {'lock_path': folder / 'lock'},
            'auth': {
                'use_dynamic_credentials': True,
                'create_isolated_networks': False,
                'admin_username': 'admin',
                'admin_password': locations.PASSWORD,
                'admin_project_name': 'admin',
                'admin_domain_name': 'Default',
                'tempest_roles': 'member',
            },
            'identity': {
                'uri_v3': locations.url('keystone'),
                'auth_version': 'v3',
                'region': locations.REGION,
                'default_domain_id': 'default',
            },
            'service_available': {
                # Tests that need it skip otherwise; there are no networks.
                'neutron': True,
                'cinder': False,
                'swift': False,
            },
            'compute': {
                'image_ref': client.image(cloud_setup.EMPTY),
                'image_ref_alt': client.image(cloud_setup.OTHER),
                'flavor_ref': client.flavor(mib=64, disk_gib=1),
                'flavor_ref_alt': client.flavor(mib=96, disk_gib=1),
                'min_microversion': '2.1',
                'max_microversion': 'latest',
                'hypervisor_type': 'QEMU',
                'build_timeout': _TIMEOUT_S,
                'build_interval': 1,
            },
            'compute-feature-enabled': {
                'resize': True,
                'rescue': True,
                'shelve': True,
                'suspend': True,
                'vnc_console': False,
                'config_drive': False,
                'metadata_service': False,
                'interface_attach': False,
                'personality': False,
                # The image has nothing to boot.
                'console_output': False,
            },
            # Guests have no network and nothing to log in to.
            'validation': {'run_validation': False},
            'numa_hugepages': {
                'host_nodes': 4,
                'distances_known': True,
                'availability_zone': stack.REAL,
                'servers_at_once': 10,
                'fill_cell_memory_mib': 512,
                'fill_servers': 4,
                'whitebox': True,
                'computes': ','.join(
                    f'{name}:{command_server.command(name)}'
                    for name in cloud.nodes
                ),
                'host_command': (
                    f'{_BIN / "nova-numa-hugepages"} host show -f json '
                    f'--state-path {hosts.STATE}'
                ),
                'command_timeout': 300,
            },
        },
    )
    return path


def run(cloud: stack.Stack, regex: str | None) -> int:
    """Run tempest.

    :returns: its exit code
    """
    folder = locations.folder() / 'tempest'
    folder.mkdir(exist_ok=True)
    configuration = write(folder, cloud)
    top = subprocess.run(
        [
            sys.executable,
            '-c',
            'import tempest; print(tempest.__path__[0])',
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    ini.write(
        folder / '.stestr.conf',
        {
            'DEFAULT': {
                'test_path': f'{top}/test_discover',
                'top_dir': pathlib.Path(top).parent,
            }
        },
    )
    chosen = ['--regex', regex] if regex else ['--include-list', str(LIST)]
    return subprocess.run(
        [
            str(_BIN / 'tempest'),
            'run',
            *('--config-file', str(configuration)),
            *('--concurrency', '1'),
            *chosen,
        ],
        cwd=folder,
        env={**processes.environment(), 'PYTHONPATH': ''},
    ).returncode


def main() -> int:
    """Run it.

    :returns: the exit code
    """
    install.prepare()
    regex = sys.argv[1] if len(sys.argv) > 1 else None
    try:
        with stack.Stack(alone=True) as cloud:
            return run(cloud, regex)
    except processes.Failed as problem:
        print(problem, file=sys.stderr)
    except KeyboardInterrupt:
        print('Interrupted.', file=sys.stderr)
    return 1


if __name__ == '__main__':
    sys.exit(main())
