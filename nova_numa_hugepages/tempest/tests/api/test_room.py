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

"""Servers that no host has room for, and room that is freed."""

from __future__ import annotations

from typing import Any

from tempest import config
from tempest.lib import decorators

from nova_numa_hugepages.tempest import server_spec
from nova_numa_hugepages.tempest.tests import base

CONF = config.CONF


class LargeCellTest(base.BaseTest):
    """A cell that fits onto a host, and onto none of its nodes."""

    cells_needed = 2

    @classmethod
    def setup_clients(cls) -> None:
        super().setup_clients()
        cls.providers_client = cls.os_admin.resource_providers_client
        cls.zones_client = cls.os_admin.availability_zone_client
        cls.hypervisors_client = cls.os_admin.hypervisor_client

    @decorators.idempotent_id('aa3e82bc-0cb9-4448-ad0c-d962dced94cf')
    def test_cell_larger_than_any_node_is_refused(self) -> None:
        # Placement accepts it, so that the filter has to refuse it.
        page_mib = max(1, self.options.page_size_kib // 1024)
        memory_mib = self._most_memory_mib() // page_mib * page_mib
        if memory_mib <= self.options.cell_memory_mib:
            self.skipTest('No host has memory left')
        wanted = self.make_spec(cell_memory_mib=memory_mib, cell_vcpus=1)

        self.create_refused_server(self.create_flavor(wanted))

    def _most_memory_mib(self) -> int:
        """Get the memory that Placement has left on the emptiest host."""
        names = self._names()
        found = self.providers_client.list_resource_providers()
        return max(
            (
                self._free_memory_mib(provider['uuid'])
                for provider in found['resource_providers']
                if provider['name'] in names
            ),
            default=0,
        )

    def _names(self) -> set[str]:
        """Get the names of the hosts that these servers may be on."""
        zone = self.options.availability_zone
        zones = self.zones_client.list_availability_zones(detail=True)
        hosts = {
            host
            for found in zones['availabilityZoneInfo']
            if not zone or found['zoneName'] == zone
            for host, services in (found['hosts'] or {}).items()
            if 'nova-compute' in services
        }
        hypervisors = self.hypervisors_client.list_hypervisors(detail=True)
        return {
            hypervisor['hypervisor_hostname']
            for hypervisor in hypervisors['hypervisors']
            if hypervisor['service']['host'] in hosts
        }

    def _free_memory_mib(self, provider: str) -> int:
        client = self.providers_client
        memory = client.list_resource_provider_inventories(provider)[
            'inventories'
        ].get('MEMORY_MB')
        if memory is None:
            return 0
        offered = (memory['total'] - memory['reserved']) * memory[
            'allocation_ratio'
        ]
        used = client.list_resource_provider_usages(provider)['usages']
        return min(memory['max_unit'], int(offered) - used.get('MEMORY_MB', 0))


class DistancesTest(base.BaseTest):
    """Servers whose nodes may be only so far apart."""

    cells_needed = 2
    distances_needed = True

    def _within(self, distance: int) -> server_spec.ServerSpec:
        return self.make_spec(
            cells=2, specs={'numa_hugepages:max_distance': str(distance)}
        )

    @decorators.idempotent_id('c18e0f6d-6ac4-4d59-baf6-090e3afd8fa2')
    def test_nearer_than_any_two_nodes_is_refused(self) -> None:
        self.create_refused_server(self.create_flavor(self._within(10)))

    @decorators.idempotent_id('8f2f2240-ab7c-4c6c-820c-fbdc5e4c2112')
    def test_any_distance_is_placed(self) -> None:
        wanted = self._within(255)

        server = self.create_server(self.create_flavor(wanted))

        self.assert_placed(server, wanted)


@decorators.serial
class FilledCloudTest(base.BaseTest):
    """A cloud that is filled until nothing more fits."""

    @classmethod
    def skip_checks(cls) -> None:
        super().skip_checks()
        options: Any = CONF.numa_hugepages
        if not (options.fill_servers and options.fill_cell_memory_mib):
            raise cls.skipException(
                'Not known what fills the cloud: [numa_hugepages] '
                'fill_servers, fill_cell_memory_mib'
            )

    @decorators.idempotent_id('5174cceb-00dd-4810-93a3-e46b7ffe4242')
    def test_room_is_freed_when_a_server_is_deleted(self) -> None:
        wanted = self.make_spec(
            cell_memory_mib=self.options.fill_cell_memory_mib
        )
        flavor = self.create_flavor(wanted)
        servers = [
            self.create_server(flavor)
            for _ in range(self.options.fill_servers)
        ]
        self.create_refused_server(flavor)

        self.delete_server(servers[0])
        self.assert_nothing_allocated(servers[0])

        self.assert_placed(self.create_server(flavor), wanted)
