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

"""MariaDB, with an empty database for each service."""

from __future__ import annotations

import contextlib
import pathlib

from tests.stack import install
from tests.stack import locations
from tests.stack import processes

NAMES = (
    'keystone',
    'placement',
    'glance',
    'neutron',
    'nova_api',
    'nova_cell0',
    'nova',
)
NAME = 'database'


def start(running: processes.Processes) -> None:
    """Start it, with nothing in it, and wait until it takes connections."""
    data = locations.state('database')
    socket = locations.folder() / 'database.socket'
    processes.run(
        NAME,
        [
            install.program('mariadb-install-db'),
            '--no-defaults',
            '--user=root',
            f'--datadir={data}',
            '--skip-test-db',
            '--auth-root-authentication-method=normal',
        ],
    )
    running.start(
        NAME,
        [
            install.program('mariadbd'),
            '--no-defaults',
            '--user=root',
            f'--datadir={data}',
            f'--socket={socket}',
            f'--pid-file={data / "pid"}',
            f'--bind-address={locations.LOOPBACK}',
            f'--port={locations.PORTS[NAME]}',
            '--skip-log-bin',
            '--skip-name-resolve',
            '--max-connections=500',
            '--character-set-server=utf8mb3',
            # What is lost in a crash is of no use to anybody.
            '--innodb-flush-log-at-trx-commit=0',
        ],
    )
    running.wait_until(lambda: _fill(socket), NAME)


def _fill(socket: pathlib.Path) -> bool:
    """Make the user and the databases.

    :returns: False if it takes no connections yet
    """
    import pymysql

    try:
        connection = pymysql.connect(unix_socket=str(socket), user='root')
    except pymysql.OperationalError:
        return False
    with contextlib.closing(connection), connection.cursor() as cursor:
        user = f"openstack@'{locations.LOOPBACK}'"
        cursor.execute(
            f"CREATE USER {user} IDENTIFIED BY '{locations.PASSWORD}'"
        )
        cursor.execute(f'GRANT ALL ON *.* TO {user}')
        for name in NAMES:
            cursor.execute(f'CREATE DATABASE {name}')
    return True
