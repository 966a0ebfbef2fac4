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

"""RabbitMQ, from a package that is unpacked and not installed."""

from __future__ import annotations

from tests.stack import install
from tests.stack import locations
from tests.stack import processes

NAME = 'broker'
_NODES = 'epmd'
_CONFIGURATION = f"""
listeners.tcp.local = {locations.LOOPBACK}:{locations.PORTS['broker']}
disk_free_limit.absolute = 50MB
"""


def start(running: processes.Processes) -> None:
    """Start it, with nothing in it; see `wait`."""
    folder = locations.state('broker')
    folder.mkdir(parents=True)
    configuration = locations.configuration('rabbitmq') / 'rabbitmq.conf'
    configuration.parent.mkdir(parents=True)
    configuration.write_text(_CONFIGURATION)
    epmd_port = str(locations.PORTS[_NODES])
    # Else the broker would start one, which would stay.
    running.start(
        _NODES,
        [
            install.program('epmd'),
            *('-address', locations.LOOPBACK, '-port', epmd_port),
        ],
    )
    running.start(
        NAME,
        [str(install.broker())],
        env={
            'HOME': str(folder),
            # Else its script would stay as the parent of the broker, and
            # end alone if this process is killed.
            'RUNNING_UNDER_SYSTEMD': 'true',
            'ERL_EPMD_ADDRESS': locations.LOOPBACK,
            'ERL_EPMD_PORT': epmd_port,
            'RABBITMQ_NODENAME': 'stack@localhost',
            'RABBITMQ_CONF_ENV_FILE': '/dev/null',
            'RABBITMQ_CONFIG_FILE': str(configuration),
            'RABBITMQ_ENABLED_PLUGINS_FILE': str(folder / 'plugins'),
            'RABBITMQ_MNESIA_BASE': str(folder / 'mnesia'),
            'RABBITMQ_LOG_BASE': str(folder),
            'RABBITMQ_DIST_PORT': str(locations.PORTS['broker-nodes']),
            'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS': (
                '-kernel inet_dist_use_interface {127,0,0,1}'
            ),
        },
    )


def wait(running: processes.Processes) -> None:
    """Wait until it takes connections."""
    running.wait_until(
        lambda: processes.listens(locations.PORTS[NAME]), _NODES, NAME
    )
