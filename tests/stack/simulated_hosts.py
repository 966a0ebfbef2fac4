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

"""Compute services on simulated hosts, for the scheduler to choose among."""

from __future__ import annotations

import sys

from tests.host.rig import folders
from tests.stack import configuration
from tests.stack import locations
from tests.stack import processes

NAME = 'simulated'
# Stock computes, each with so many nodes.
NODES = {'sim1': 1, 'sim2': 2, 'sim3': 2, 'sim4': 4}
NAMES = frozenset(NODES)


def start(running: processes.Processes) -> None:
    """Start them in one process; they report after some seconds."""
    configuration.write_compute(
        NAME,
        locations.LOOPBACK,
        configuration.STOCK_DRIVER,
        {
            'libvirt': {'virt_type': 'qemu', 'cpu_mode': 'none'},
            'DEFAULT': {'state_path': locations.state(NAME)},
        },
    )
    locations.state(NAME).mkdir()
    running.start(
        NAME,
        [
            *(sys.executable, '-m', 'tests.stack.run_simulated_hosts'),
            *map(str, configuration.nova_files(NAME)),
        ],
        env={'PYTHONPATH': folders.python_path()},
    )
