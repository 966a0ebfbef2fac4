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

"""What is up, and how people get at it."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
import pathlib
import select
import sys

from tests.host.rig import folders
from tests.stack import command_server
from tests.stack import locations
from tests.stack import processes

_PID = 'pid'
_OPENRC = 'openrc'
_CREDENTIALS = {
    'OS_AUTH_URL': locations.url('keystone'),
    'OS_USERNAME': 'admin',
    'OS_PASSWORD': locations.PASSWORD,
    'OS_PROJECT_NAME': 'admin',
    'OS_USER_DOMAIN_ID': 'default',
    'OS_PROJECT_DOMAIN_ID': 'default',
    'OS_REGION_NAME': locations.REGION,
    'OS_IDENTITY_API_VERSION': '3',
    'OS_COMPUTE_API_VERSION': '2.95',
}


@contextlib.contextmanager
def noted() -> Iterator[None]:
    """Write down that this process holds the stack, and how to use it."""
    pid, openrc = locations.folder() / _PID, locations.folder() / _OPENRC
    pid.write_text(str(os.getpid()))
    lines = [
        f'export {name}={value}\n' for name, value in _CREDENTIALS.items()
    ]
    openrc.write_text(''.join(lines))
    try:
        yield
    finally:
        pid.unlink()
        openrc.unlink()


def holder() -> int | None:
    """Find the process that holds the stack.

    :returns: a descriptor of it, None if there is none
    """
    lock = folders.alone(locations.folder() / 'lock')
    if lock is not None:
        lock.close()
        return None
    try:
        return os.pidfd_open(int((locations.folder() / _PID).read_text()))
    except (OSError, ValueError):
        return None


def wait_for_end(process: int) -> None:
    """Wait until a process has ended.

    :param process: a descriptor of it
    """
    select.select([process], [], [])


def show() -> int:
    """Print what is up.

    :returns: the exit code: 0 if all is
    """
    if holder() is None:
        print('No stack is up; make stack-up brings one up.')
        return 1
    silent = 0
    for name, port in locations.PORTS.items():
        up = processes.listens(port)
        silent += not up
        print(f'{name:<13} {"up" if up else "DOWN":<5} port {port}')
    for path in sorted(locations.folder().glob('*.commands')):
        command = command_server.command(path.stem)
        print(f'{path.stem:<13} {command} "virsh list"')
    print(f'logs          {locations.logs()}')
    print(
        f'client        . {locations.folder() / _OPENRC}; '
        f'{pathlib.Path(sys.executable).with_name("openstack")} server list'
    )
    return 1 if silent else 0
