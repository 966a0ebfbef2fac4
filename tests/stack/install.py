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

"""Installs what the stack is made of: programs, a broker, a wheel.

The Python packages are in the environment that ``make`` sets up.
"""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

from tests.host.rig import packages
from tests.host.rig import setup
from tests.stack import locations
from tests.stack import processes
from tests.stack import ssh

# As `packages.PROGRAMS`. The packages with the programs alone start nothing.
PROGRAMS = {
    'mariadbd': ('mariadb-server-core',),
    'mariadb-install-db': ('mariadb-server-core',),
    'my_print_defaults': ('mariadb-client-core',),
    'epmd': ('erlang-base',),
}
_BROKER = 'rabbitmq-server'


def program(name: str) -> str:
    """Find a program.

    :raises processes.Failed: if it isn't there
    """
    found = packages.program(name)
    if found is None:
        raise processes.Failed(f'{name} is not installed')
    return found


def broker() -> pathlib.Path:
    """Find the script that starts the broker."""
    folder = locations.folder() / 'packages' / _BROKER
    return next(folder.glob('usr/lib/rabbitmq/lib/*/sbin/rabbitmq-server'))


def prepare() -> None:
    """Install what is missing. Idempotent, and quick if nothing is.

    :raises SystemExit: with what to do, if it can't be done
    """
    setup.prepare(with_nova=True)
    packages.install(PROGRAMS)
    ssh.prepare()
    folder = locations.folder() / 'packages'
    packages.unpack_once(_BROKER, 'erlang-', folder / _BROKER)


def install_wheel() -> str:
    """Install this project from its wheel beside Nova.

    :returns: its version
    """
    dist = locations.folder() / 'dist'
    shutil.rmtree(dist, ignore_errors=True)
    pip = [sys.executable, '-m', 'pip']
    for arguments in (
        [
            'wheel',
            '--no-deps',
            '--wheel-dir',
            str(dist),
            str(locations.PROJECT),
        ],
        ['install', '--no-deps', '--force-reinstall', '--no-index'],
    ):
        wheels = [] if arguments[0] == 'wheel' else _wheels(dist)
        processes.run('install', [*pip, *arguments, *wheels])
    shown = subprocess.run(
        [*pip, 'show', 'nova-numa-hugepages'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return shown.split('Version: ')[1].split()[0]


def _wheels(folder: pathlib.Path) -> list[str]:
    return [str(path) for path in folder.glob('*.whl')]
