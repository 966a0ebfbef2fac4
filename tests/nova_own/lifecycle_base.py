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

"""A functional test of Nova with two computes under our driver.

A whole Nova with a simulated libvirt, and a fake kernel under each compute.
"""

from __future__ import annotations

from typing import Any

import fixtures
from nova import context
from nova import objects
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.tests.functional import integrated_helpers
from nova.tests.functional.libvirt import base

from tests.nova_own import fake_hosts

POOL = 2048
GIB_PAGES = 512


class LifecycleTest(
    base.LibvirtMigrationMixin,
    base.ServersTestBase,
    integrated_helpers.InstanceHelperMixin,
):
    microversion = 'latest'
    ADMIN_API = True
    ADDITIONAL_FILTERS = ['NUMATopologyFilter']
    HOSTS = ('one', 'two')

    def setUp(self) -> None:
        super().setUp()
        self.pages = self.useFixture(fake_hosts.FakeHosts())
        self.flags(
            page_pools='dynamic',
            node_free_memory_mib=64,
            grow_time_limit=1,
            group='numa_hugepages',
        )
        self.flags(allow_resize_to_same_host=False)
        self.flags(compute_driver=fake_hosts.DRIVER)
        self.flags(cpu_dedicated_set='0-7', group='compute')
        self.useFixture(
            fixtures.MonkeyPatch(
                'nova.virt.libvirt.driver.LibvirtDriver.'
                'migrate_disk_and_power_off',
                _power_off_only,
            )
        )
        for name in self.HOSTS:
            self.start_compute(
                hostname=name,
                host_info=fakelibvirt.HostInfo(
                    cpu_nodes=2,
                    cpu_sockets=1,
                    cpu_cores=4,
                    cpu_threads=1,
                    kB_mem=8 * 1024 * 1024,
                    mempages=[
                        fakelibvirt.create_mempages(
                            [(4, 1024 * 1024), (POOL, 0)]
                        )
                    ]
                    * 2,
                ),
            )

    def boot(self, cells: int = 1, **create: Any) -> dict[str, Any]:
        """Boot an instance with 1 GiB of 2 MiB pages in each cell."""
        server: dict[str, Any] = self._create_server(
            flavor_id=self.flavor(cells), networks='none', **create
        )
        return server

    def flavor(self, cells: int = 1, gib: int = 1) -> str:
        """Create a flavor whose cells have their memory on 2 MiB pages."""
        flavor: str = self._create_flavor(
            vcpu=cells,
            memory_mb=cells * gib * 1024,
            extra_spec={
                'hw:cpu_policy': 'dedicated',
                'hw:mem_page_size': str(POOL),
                'hw:numa_nodes': str(cells),
            },
        )
        return flavor

    def host_of(self, server: dict[str, Any]) -> fake_hosts.FakeHost:
        """Return the host that a server is on."""
        return self.pages.hosts[self.name_of(server)]

    def name_of(self, server: dict[str, Any]) -> str:
        """Return the name of the host that a server is on."""
        name: str = self.api.get_server(server['id'])['OS-EXT-SRV-ATTR:host']
        return name

    def other(self, name: str) -> str:
        """Return the name of the other host."""
        return next(host for host in self.HOSTS if host != name)

    def nodes_of(self, server: dict[str, Any]) -> list[int]:
        """Return the host cells that Nova has planned for a server."""
        instance = objects.Instance.get_by_uuid(
            context.get_admin_context(),
            server['id'],
            expected_attrs=['numa_topology'],
        )
        return [cell.id for cell in instance.numa_topology.cells]

    def assert_runs(self, server: dict[str, Any]) -> None:
        """Check that a server has its pages, and the host no others."""
        host = self.host_of(server)
        planned = {(node, POOL): GIB_PAGES for node in self.nodes_of(server)}
        assert planned == host.has(server['id'])
        assert {'guest': planned} == host.held(server['id'])
        assert sum(planned.values()) == host.total(0) + host.total(1)

    def assert_nothing(self, *names: str) -> None:
        """Check that hosts hold nothing and have no pages."""
        for name in names or self.HOSTS:
            host = self.pages.hosts[name]
            assert host.holds() == []
            assert (host.total(0), host.total(1)) == (0, 0)

    def update(self) -> None:
        """Run the periodic tasks of all computes."""
        self._run_periodics()


def _power_off_only(
    driver: Any, context: Any, instance: Any, *args: Any, **kwargs: Any
) -> str:
    driver.power_off(instance)
    return '[]'
