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

"""Runs Nova on the host that it is run on, with a guest on two nodes.

``python -m tests.host.compute FOLDER [URI]``: all services in one process,
but for the privileged ones; the compute's driver is ours, and its libvirt,
QEMU, disks and huge pages are real. What was seen is written as JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import json
import os
import pathlib
import sys
import time
import traceback
from typing import Any
from unittest import mock

# Has to come before all else of Nova.
from tests.fixtures import cloud

# isort: split
import fixtures
from nova import context
from nova import objects
from nova.compute import rpcapi
import nova.conf
from nova.tests import fixtures as nova_fixtures
from oslo_privsep import daemon

from nova_numa_hugepages import elastic_spec
from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.hugepages import domain_xml
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import processes
from tests.fixtures.cloud import computes
from tests.fixtures.cloud import embedded
from tests.fixtures.cloud import http

CONF = nova.conf.CONF

# Where nothing is as fast as Nova expects.
LIMIT_S = 600
HOST = 'here'
_HELPER = str(pathlib.Path(sys.executable).with_name('privsep-helper'))
_CONFIG = f"""
[numa_hugepages]
node_free_memory_mib = 64
[numa_hugepages_privileged]
helper_command = {_HELPER}
[nova_sys_admin]
helper_command = {_HELPER}
"""
_CHANNEL = daemon.RootwrapClientChannel


class RealCompute(fixtures.Fixture):
    """The compute service of this host.

    It stands where the cloud would have its computes on simulated hosts.
    """

    def __init__(self, _: object, cell: objects.CellMapping) -> None:
        self._cell = cell

    def _setUp(self) -> None:
        # The cloud has barred the way to privileged processes.
        self.useFixture(
            fixtures.MonkeyPatch(
                'oslo_privsep.daemon.RootwrapClientChannel', _CHANNEL
            )
        )
        self.useFixture(nova_fixtures.OSBrickFixture())
        self.useFixture(nova_fixtures.ConfPatcher(host=HOST))
        self.service = self.useFixture(
            nova_fixtures.ServiceFixture(
                'compute',
                HOST,
                cell=self._cell,
                topic_alt=rpcapi.RPC_TOPIC_ALT,
            )
        ).service
        admin = context.get_admin_context()
        objects.HostMapping(admin, host=HOST, cell_mapping=self._cell).create()
        self.node().save()

    def node(self) -> objects.ComputeNode:
        """Read what is known of this host."""
        admin = context.get_admin_context()
        with context.target_cell(admin, self._cell) as cell:
            node = objects.ComputeNode.get_by_service_id(
                cell, self.service.service_ref.id
            )
            node.mapped = 1
        return node


class Compute:
    """What is done with a Nova with one compute, on this host."""

    def __init__(self, running: cloud.EmbeddedCloud) -> None:
        self.nova = running
        self.fs = hostfs.HostFS()
        self._compute: RealCompute = running._computes
        running.glance._imagedata[http.IMAGE] = bytes(1 << 20)

    def facts(self) -> dict[str, Any]:
        """Return what the scheduler knows of this host."""
        stats = self._compute.node().stats
        found: dict[str, Any] = json.loads(stats[host_stats.STATS_KEY])
        return found

    def boot(self, name: str, *cells_mib: int, **specs: str) -> str:
        """Have a guest with a cell for each number.

        :param specs: extra specs of the namespace ``numa_hugepages``
        """
        cells = {
            f'hw:numa_mem.{number}': str(mib)
            for number, mib in enumerate(cells_mib)
        } | {
            f'hw:numa_cpus.{number}': str(number)
            for number in range(len(cells_mib))
        }
        flavor = self.nova.api.create_flavor(
            name,
            vcpus=len(cells_mib),
            ram_mib=sum(cells_mib),
            disk_gib=1,
            extra_specs={
                'hw:mem_page_size': '2048',
                'hw:cpu_policy': 'dedicated',
                'hw:numa_nodes': str(len(cells_mib)),
                **cells,
                **{
                    f'numa_hugepages:{name}': value
                    for name, value in specs.items()
                },
            },
        )
        [server] = self.nova.api.boot(name, flavor=flavor)
        return server

    def wait(self, server: str, *until: str) -> str:
        """Wait until a server has a state."""
        found: str = self.nova.api.wait(server, until=until, timeout=LIMIT_S)[
            'status'
        ]
        return found

    def act(
        self, server: str, action: str, *until: str, **options: str
    ) -> str:
        """Have the API do something with a server, and wait for it."""
        self.nova.api.request(
            'POST', f'/servers/{server}/action', {action: options or None}
        )
        time.sleep(1)
        return self.wait(server, *until)

    def placement(self, server: str) -> dict[str, int]:
        """Return the pages of a guest by node."""
        process = processes.running(self.fs)[server]
        text = processes.MapsFile(self.fs)(process.pid)
        return {
            str(key.node): count
            for key, count in sorted(processes.pages_of(text).items())
        }

    def pools(self) -> list[int]:
        """Return how many pages of 2 MiB each node has."""
        kernel = hugetlb.Hugetlb(self.fs, hugetlb.refusing(''))
        return [
            pool.total
            for key, pool in sorted(kernel.pools().items())
            if key.size_kib == 2048
        ]

    def elastic(self, server: str) -> list[list[int]]:
        """Return base, held and ceiling of each elastic cell, and requested.

        In pages; the last is what libvirt says.
        """
        driver = self._compute.service.manager.driver
        domain = driver._host.get_connection().lookupByUUIDString(server)
        devices = domain_xml.memory_devices(domain.XMLDesc(0))
        return [
            [
                hold.base,
                hold.pages,
                hold.ceiling,
                devices[hold.cell].requested // (hold.size_kib * 1024),
            ]
            for hold in driver._manager.held(server)
        ]

    def set_size(self, server: str, pages: int) -> None:
        """Do what ``host elastic --set`` does."""
        driver = self._compute.service.manager.driver
        kib = pages * driver._manager.held(server)[0].size_kib
        driver._manager._pools.put_size(
            server, 0, model.Size(kib, time.time(), 'a test wants it')
        )

    def until(self, wanted: object, read: Callable[[], object]) -> object:
        """Wait until something has a value; return what it has then."""
        deadline = time.monotonic() + LIMIT_S
        while (found := read()) != wanted and time.monotonic() < deadline:
            time.sleep(1)
        return found

    def tick(self) -> None:
        """Do what the service does once a minute."""
        self._compute.service.manager.update_available_resource(
            context.get_admin_context()
        )


def options(folder: str, uri: str, cpus: int) -> dict[Any, Any]:
    """The options of that Nova."""
    return {
        (None, 'compute_driver'): 'numa_hugepages.NUMAHugepagesDriver',
        (None, 'state_path'): folder,
        (None, 'instances_path'): f'{folder}/instances',
        (None, 'reserved_host_memory_mb'): 64,
        (None, 'service_down_time'): LIMIT_S,
        # The guest has nothing that would answer.
        (None, 'shutdown_timeout'): 0,
        ('numa_hugepages', 'elastic_interval'): 1,
        ('compute', 'cpu_dedicated_set'): f'0-{cpus - 1}',
        ('libvirt', 'virt_type'): 'qemu',
        ('libvirt', 'connection_uri'): uri,
        ('libvirt', 'images_type'): 'raw',
        ('libvirt', 'disk_cachemodes'): ['file=writeback'],
        ('libvirt', 'hw_machine_type'): ['x86_64=q35'],
        ('vnc', 'enabled'): False,
    }


def main(folder: str, uri: str = '') -> None:
    """Run it, and write what was seen."""
    pathlib.Path(folder, 'instances').mkdir(parents=True, exist_ok=True)
    with (
        mock.patch.object(computes, 'ComputeHosts', RealCompute),
        # The nodes are small.
        mock.patch.object(elastic_spec, 'LEAST_BOOT_MIB', 128),
        cloud.EmbeddedCloud(
            [],
            numa_filter=embedded.STOCK_FILTER,
            options=options(folder, uri, os.cpu_count() or 1),
            config=_CONFIG,
        ) as running,
    ):
        try:
            seen = dict(story(Compute(running)))
            json.dump(seen, sys.stdout)
            status = 0
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        # The thread that hears libvirt's events never ends.
        os._exit(status)


def story(compute: Compute) -> Iterator[tuple[str, Any]]:
    """Start a guest, and return what is seen of it."""
    began = time.monotonic()
    for name, value in _story(compute):
        took = time.monotonic() - began
        print(f'{took:.0f} s {name}: {value}', file=sys.stderr, flush=True)
        yield name, value


def _story(compute: Compute) -> Iterator[tuple[str, Any]]:
    api = compute.nova.api
    yield 'facts', compute.facts()
    nodes = len(compute.pools())
    server = compute.boot('guest', *((128, 64) if nodes > 1 else (128,)))
    yield 'started', compute.wait(server, 'ACTIVE', 'ERROR')
    yield 'fault', api.server(server).get('fault')
    yield 'placement', compute.placement(server)
    yield 'pools', compute.pools()
    large = compute.boot('too-large', 1 << 20)
    yield 'too large', compute.wait(large, 'ACTIVE', 'ERROR')
    yield 'stopped', compute.act(server, 'os-stop', 'SHUTOFF', 'ERROR')
    yield 'pools when off', compute.pools()
    yield 'restarted', compute.act(server, 'os-start', 'ACTIVE', 'ERROR')
    yield 'placement again', compute.placement(server)
    compute.tick()
    yield 'facts then', compute.facts()
    elastic = compute.boot('elastic', 384, elastic_base_percent='50')
    yield 'elastic', compute.wait(elastic, 'ACTIVE', 'ERROR')
    yield 'elastic fault', api.server(elastic).get('fault')
    yield 'elastic at first', compute.elastic(elastic)
    yield 'elastic placement', compute.placement(elastic)
    compute.set_size(elastic, 192)
    # Nothing in it would take the memory.
    larger = [[128, 192, 192, 64]]
    yield (
        'elastic larger',
        compute.until(larger, lambda: compute.elastic(elastic)),
    )
    yield (
        'elastic rebooted',
        compute.act(elastic, 'reboot', 'ACTIVE', 'ERROR', type='HARD'),
    )
    yield 'elastic then', compute.elastic(elastic)
    for guest in (server, large, elastic):
        api.delete(guest, timeout=LIMIT_S)
    yield 'pools at last', compute.pools()


if __name__ == '__main__':
    main(*sys.argv[1:])
