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

"""The base class of tests that read the compute host of a server."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from tempest import config
from tempest.lib import exceptions

from nova_numa_hugepages.tempest import server_spec
from nova_numa_hugepages.tempest.host import ANY
from nova_numa_hugepages.tempest.host import ComputeHost
from nova_numa_hugepages.tempest.host import reachable
from nova_numa_hugepages.tempest.readings import host_show
from nova_numa_hugepages.tempest.readings.kernel import Pool
from nova_numa_hugepages.tempest.tests import lifecycle

CONF = config.CONF


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a host at one time. Keys are node and page size."""

    kernel: Mapping[tuple[int, int], Pool]
    show: host_show.HostShow


class WhiteboxTest(lifecycle.BaseLifecycleTest):
    """Compares the APIs with the host.

    Servers belong to administrators, who may choose the host, if the options
    name one.
    """

    @classmethod
    def skip_checks(cls) -> None:
        super().skip_checks()
        options: Any = CONF.numa_hugepages
        if not options.whitebox:
            raise cls.skipException(
                'Access to compute hosts is off: [numa_hugepages] whitebox'
            )
        if not options.computes:
            raise cls.skipException(
                'No compute hosts are configured: [numa_hugepages] computes'
            )

    @classmethod
    def setup_clients(cls) -> None:
        super().setup_clients()
        cls.manager = cls.os_admin
        cls.servers_client = cls.manager.servers_client
        cls.named_host = next(
            (name for name in cls.options.computes if name != ANY),
            None,
        )

    def create_server_on_named_host(self, flavor: str) -> str:
        """Create a server on the host that ``computes`` names first.

        :returns: its uuid
        """
        where = (
            {'hypervisor_hostname': self.named_host} if self.named_host else {}
        )
        return self.create_server(flavor, **where)

    def host_of(self, server: str) -> ComputeHost:
        """Get the host of a server; skip the test if it has no command."""
        shown = self.admin_servers_client.show_server(server)['server']
        name = shown['OS-EXT-SRV-ATTR:hypervisor_hostname']
        if not reachable(name, self.options.computes):
            self.skipTest(f'{name} is not in [numa_hugepages] computes')
        return ComputeHost(name, self.options)

    def snapshot(self, host: ComputeHost) -> Snapshot:
        """Read the pools and the ledger of a host."""
        return Snapshot(host.pools(), host.show())

    def snapshot_before(self) -> tuple[ComputeHost, Snapshot]:
        """Read the host that servers will be created on.

        The test is skipped if the host isn't known.
        """
        if self.named_host is None:
            self.skipTest('No host is named in [numa_hugepages] computes')
        host = ComputeHost(self.named_host, self.options)
        return host, self.snapshot(host)

    def assert_on_host(
        self, server: str, wanted: server_spec.ServerSpec
    ) -> dict[tuple[int, int], int]:
        """Check that the host of a server agrees with the APIs.

        Compares the domain, the memory of its process, and the ledger.

        :returns: its pages, by node and page size
        """
        placed = self.assert_placed(server, wanted)
        host = self.host_of(server)
        nodes = placed.host_nodes
        cells = range(wanted.cells)

        domain = host.domain(server)
        self.assertEqual(
            {cell: frozenset([nodes[cell]]) for cell in cells}, domain.nodes
        )
        self.assertEqual(dict.fromkeys(cells, 'strict'), domain.modes)
        self.assertEqual(
            dict.fromkeys(cells, wanted.page_size_kib), domain.page_sizes_kib
        )
        if wanted.dedicated_cpus:
            self.assertEqual(
                {vcpu: frozenset([cpu]) for vcpu, cpu in placed.pins.items()},
                domain.pins,
            )

        expected = {
            (node, wanted.page_size_kib): wanted.cell_pages for node in nodes
        }
        self.assertEqual(expected, host.huge_pages(server))

        self.assertEqual(
            {
                (nodes[cell], wanted.page_size_kib): (
                    host_show.HoldRow(
                        'guest',
                        'taken',
                        (cell,),
                        wanted.cell_pages,
                        wanted.cell_pages,
                    ),
                )
                for cell in cells
            },
            host.show().holds(server),
        )
        return expected

    def assert_taken(
        self,
        before: Snapshot,
        after: Snapshot,
        taken: Mapping[tuple[int, int], int],
    ) -> None:
        """Check that pools grew by the missing pages, and by nothing else."""
        static = self.options.page_pools == 'static'
        for key in before.kernel.keys() | taken.keys():
            pages = taken.get(key, 0)
            was, now = before.kernel[key], after.kernel[key]
            available = before.show.pools[key].available
            grown = 0 if static or not pages else max(0, pages - available)
            self.assertEqual(
                (was.total + grown, was.used + pages, was.surplus),
                (now.total, now.used, now.surplus),
                f'node and page size {key}, {available} pages available',
            )

    def assert_released(
        self, host: ComputeHost, before: Snapshot, server: str
    ) -> None:
        """Check that nothing of a server is left on a host.

        Pools have to have their old size again, the warm margin aside.
        """
        try:
            self.eventually(
                lambda: self._is_restored(before, self.snapshot(host), server),
                f'{host.name} is as it was before {server}',
            )
        except exceptions.TimeoutException:
            self.fail(f'was: {before}; is: {self.snapshot(host)}')

    def _is_restored(
        self, before: Snapshot, now: Snapshot, server: str
    ) -> bool:
        margin_kib = self.options.warm_margin_mib * 1024
        if self.options.page_pools == 'static':
            margin_kib = 0
        for key, was in before.kernel.items():
            pool = now.kernel[key]
            idle = margin_kib // key[1]
            if not was.total <= pool.total <= was.total + idle:
                return False
            if pool.used != was.used or pool.surplus != was.surplus:
                return False
            if now.show.pools[key].held != before.show.pools[key].held:
                return False
        return server not in now.show.guests
