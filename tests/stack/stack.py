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

"""The whole cloud: all services on this machine, and its compute hosts."""

from __future__ import annotations

from concurrent import futures
import contextlib
import pathlib
import shutil
import signal

from tests.host.rig import folders
from tests.stack import broker
from tests.stack import cloud_setup
from tests.stack import command_server
from tests.stack import configuration
from tests.stack import database
from tests.stack import hosts
from tests.stack import install
from tests.stack import locations
from tests.stack import processes
from tests.stack import progress
from tests.stack import services
from tests.stack import simulated_hosts
from tests.stack import status

# Availability zones.
REAL = 'real'
SIMULATED = 'simulated'

_APIS = ('placement', 'glance', 'neutron')


class Stack:
    """A cloud. A context manager: it is there, empty, until the end.

    :param alone: whether it has one compute host only
    :ivar processes: its services
    :ivar nodes: its compute hosts with four nodes, by name
    """

    def __init__(self, *, alone: bool = False) -> None:
        self._numbers = (1,) if alone else (1, 2)
        self._simulated = () if alone else sorted(simulated_hosts.NAMES)
        self.processes = processes.Processes()
        self.nodes: dict[str, hosts.ComputeHost] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Stack:
        with contextlib.ExitStack() as stack:
            # make stack-down sends it, whatever this process is.
            before = signal.signal(signal.SIGTERM, processes.interrupt)
            stack.callback(signal.signal, signal.SIGTERM, before)
            self._lock(stack)
            stack.enter_context(status.noted())
            self._check_ports()
            # What failed in the run before is looked for when the next one
            # has begun.
            kept = locations.logs().with_name('logs.before')
            if locations.logs().exists():
                shutil.rmtree(kept, ignore_errors=True)
                locations.logs().rename(kept)
            for name in ('etc', 'logs', 'state'):
                shutil.rmtree(locations.folder() / name, ignore_errors=True)
                (locations.folder() / name).mkdir()
            stack.callback(self.processes.stop_all)
            progress.say(
                f'Logs are in {locations.logs()}, those of the run before in '
                f'{kept.name}'
            )
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with progress.step('Stopping everything'):
            self._stack.close()

    def _start(self, stack: contextlib.ExitStack) -> None:
        with progress.step('Installing this project from its wheel'):
            version = install.install_wheel()
        progress.say(f'nova-numa-hugepages {version}')
        configuration.write()
        with progress.step('MariaDB and RabbitMQ'):
            broker.start(self.processes)
            database.start(self.processes)
        with progress.step('Virtual compute hosts boot'):
            self._boot(stack)
        # They take so long to load that all else is there before them.
        broker.wait(self.processes)
        for host in self.nodes.values():
            host.start_service()
        with (
            progress.step('Databases, keystone and its catalogue'),
            futures.ThreadPoolExecutor() as pool,
        ):
            jobs = [pool.submit(job) for job in services.set_up_databases()]
            services.set_up_keystone(self.processes)
            for job in jobs:
                job.result()
        with progress.step('Placement, glance, neutron, Nova'):
            for name in (*_APIS, 'nova'):
                services.start_api(self.processes, name)
            for name in services.WORKERS:
                services.start_worker(self.processes, name)
            services.wait(self.processes, *_APIS, 'nova')
        with progress.step('Compute services, under emulation'):
            if self._simulated:
                simulated_hosts.start(self.processes)
            cloud_setup.make_images()
            cloud_setup.wait_for_computes(
                self._compute_logs(),
                cloud_setup.known,
                hosts.START_S,
                self.processes.check,
            )
            cloud_setup.make_zones(
                {REAL: self.nodes, SIMULATED: self._simulated}
            )

    def _boot(self, stack: contextlib.ExitStack) -> None:
        link = locations.folder() / 'link.socket'
        link.unlink(missing_ok=True)
        for number in self._numbers:
            host = hosts.ComputeHost(number, link, configuration.OUR_DRIVER)
            stack.enter_context(host)
            stack.enter_context(command_server.CommandServer(host.machine))
            self.nodes[host.name] = host

    def _compute_logs(self) -> dict[str, pathlib.Path]:
        return {
            **{
                name: host.machine.service_log
                for name, host in self.nodes.items()
            },
            **dict.fromkeys(
                self._simulated, processes.log(simulated_hosts.NAME)
            ),
        }

    def _lock(self, stack: contextlib.ExitStack) -> None:
        lock = folders.alone(locations.folder() / 'lock')
        if lock is None:
            raise processes.Failed(
                'A stack is up already. make stack-status shows it, make '
                'stack-down ends it.'
            )
        stack.enter_context(lock)

    def _check_ports(self) -> None:
        for name, port in locations.PORTS.items():
            if processes.listens(port):
                raise processes.Failed(
                    f'Something else listens at port {port} of '
                    f'{locations.LOOPBACK}, where the {name} of the stack '
                    f'would. "ss -ltnp sport = :{port}" shows what it is.'
                )
