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

"""Compute hosts that really have four NUMA nodes, and their service."""

from __future__ import annotations

import datetime
import pathlib
import signal

from tests.host.rig import channel
from tests.host.rig import virtual
from tests.stack import cloud_setup
from tests.stack import configuration
from tests.stack import locations
from tests.stack import processes
from tests.stack import services
from tests.stack import ssh

# What a Python process takes until it has loaded Nova, under emulation.
START_S = 300.0
# How often a host reports to the scheduler.
REPORT_S = 150
# Longer than any test.
_FOREVER_S = 24 * 3600.0
STATE = '/persist/nova'
_NETWORK = '10.98.0'


class ComputeHost:
    """A virtual host with a compute service. A context manager.

    :param number: 1, 2, …; for its name and its address
    :param driver: the ``compute_driver`` that its service starts with
    :ivar options: what names the configuration of the service that was
        started last
    :ivar is_on: whether it is powered on
    """

    def __init__(self, number: int, link: pathlib.Path, driver: str) -> None:
        self.name = f'node{number}'
        self.driver = driver
        self.options: list[str] = []
        self.is_on = True
        self.machine = virtual.VirtualHost(
            self.name,
            address=f'{_NETWORK}.{number}',
            link=link,
            outside=True,
            logs=locations.logs(),
        )
        self._service: channel.Process | None = None
        self._starts = 0
        self._started = datetime.datetime.now(datetime.UTC)

    def __enter__(self) -> ComputeHost:
        self.machine.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._service = None
        self.machine.__exit__()

    @property
    def is_served(self) -> bool:
        """Whether its service was started, and not stopped since."""
        return self._service is not None

    @property
    def log(self) -> str:
        """What its service has logged, since the stack was started."""
        return self.machine.service_log.read_text(errors='replace')

    def start_service(self) -> None:
        """Start the compute service; it takes a minute to report."""
        self._starts += 1
        self._started = datetime.datetime.now(datetime.UTC)
        # What was read once is not read again in a virtual host, so each
        # start has a file of its own.
        name = f'{self.name}-{self._starts}'
        address = self.machine.address
        assert address is not None
        configuration.write_compute(
            name,
            locations.OUTSIDE,
            self.driver,
            {
                'DEFAULT': {
                    'host': self.name,
                    'my_ip': address,
                    'state_path': STATE,
                    'update_resources_interval': REPORT_S,
                    # More at a time take longer, as all are emulated.
                    'max_concurrent_builds': 3,
                },
                'compute': {
                    # One CPU of each node for guests that float.
                    'cpu_shared_set': '0,2,4,6',
                    'cpu_dedicated_set': '1,3,5,7',
                },
                'libvirt': {
                    'virt_type': 'qemu',
                    'cpu_mode': 'none',
                    'images_type': 'raw',
                    # Snapshots are as small as what is in them.
                    'snapshot_image_format': 'qcow2',
                    'disk_cachemodes': 'file=writeback',
                    'hw_machine_type': 'x86_64=q35',
                    'live_migration_scheme': 'tcp',
                    'live_migration_inbound_addr': address,
                },
                # Nova takes the kernel of a guest that moves for a disk.
                'workarounds': {'disable_deep_image_inspection': True},
                'numa_hugepages': {
                    'node_free_memory_mib': 64,
                    'node_ceiling_percent': 50,
                },
                'oslo_concurrency': {'lock_path': f'{STATE}/lock'},
            },
        )
        command = services.nova_compute(name)
        self.options = services.nova_options(name)
        self.machine.wait_for_libvirt()
        ssh.start(self.machine)
        environment = ' '.join(
            f'{key}={value}' for key, value in processes.environment().items()
        )
        self._service = self.machine.spawn(
            f'mkdir -p {STATE}/instances; cd /; unset PYTHONPATH; '
            f'exec env {environment} {" ".join(command)} '
            f'>{virtual.SERVICE_LOG} 2>&1',
            timeout=_FOREVER_S,
        )

    def wait_for_service(self) -> None:
        """Wait until the service that was started last reports.

        :raises processes.Failed: if it doesn't
        """
        cloud_setup.wait_for_computes(
            {self.name: self.machine.service_log},
            lambda: cloud_setup.reported(self._started),
            START_S,
        )

    def power_off(self) -> None:
        """Cut the power of the host."""
        self._service = None
        self.is_on = False
        self.machine.power_off()

    def boot(self) -> None:
        """Boot the host, without the service."""
        self.machine.boot()
        self.is_on = True

    def stop_service(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to the service, and wait for its end. Idempotent."""
        service, self._service = self._service, None
        if service is not None:
            service.kill(number)

    def restart_service(self, driver: str | None = None) -> None:
        """Stop the service and start it, and wait until it reports.

        :param driver: its ``compute_driver`` from now on
        """
        self.stop_service()
        self.driver = driver or self.driver
        self.start_service()
        self.wait_for_service()
