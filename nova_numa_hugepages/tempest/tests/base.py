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

"""The base class of all tests: servers of one size, and their placement."""

from __future__ import annotations

from collections import Counter
import json
from typing import Any
from typing import ClassVar

from tempest import config
from tempest.common import compute
from tempest.common import waiters
from tempest.lib import exceptions
from tempest.lib.common import api_version_utils
from tempest.lib.common.utils import data_utils
from tempest.lib.common.utils import test_utils
import tempest.test

from nova_numa_hugepages.tempest import server_spec
from nova_numa_hugepages.tempest.readings import topology

CONF = config.CONF

_QUOTAS = ('cores', 'ram', 'instances')

# Nova's words for "no host fits", and for "those that fitted didn't take it".
_REFUSED = r'No valid host was found|Exceeded maximum number of retries'


class BaseTest(
    api_version_utils.BaseMicroversionTest, tempest.test.BaseTestCase
):
    """Creates servers, and checks what the APIs say about them.

    :cvar cells_needed: NUMA nodes that each compute host has to have
    :cvar distances_needed: whether compute hosts have to report distances
    """

    credentials: ClassVar[list[str]] = ['primary', 'admin']

    # Extra specs are validated from here on. Topologies, and servers without
    # networks, came earlier.
    min_microversion = '2.86'

    cells_needed = 1
    distances_needed = False

    options: Any
    servers_client: Any
    admin_servers_client: Any
    flavors_client: Any
    placement_client: Any

    @classmethod
    def skip_checks(cls) -> None:
        super().skip_checks()
        if not CONF.service_available.nova:
            raise cls.skipException('Nova is not available')
        if not CONF.service_available.numa_hugepages:
            raise cls.skipException(
                'NUMAHugepagesFilter is not available: [service_available] '
                'numa_hugepages'
            )
        api_version_utils.check_skip_with_microversion(
            cls.min_microversion,
            cls.max_microversion,
            CONF.compute.min_microversion,
            CONF.compute.max_microversion,
        )
        if CONF.numa_hugepages.host_nodes < cls.cells_needed:
            raise cls.skipException(
                f'Needs hosts with {cls.cells_needed} nodes: [numa_hugepages] '
                'host_nodes'
            )
        if cls.distances_needed and not CONF.numa_hugepages.distances_known:
            raise cls.skipException(
                'Needs hosts that report distances: [numa_hugepages] '
                'distances_known'
            )

    @classmethod
    def setup_credentials(cls) -> None:
        # No server here has a network.
        cls.set_network_resources()
        super().setup_credentials()

    @classmethod
    def setup_clients(cls) -> None:
        super().setup_clients()
        cls.options = CONF.numa_hugepages
        cls.manager = cls.os_primary
        cls.servers_client = cls.manager.servers_client
        cls.admin_servers_client = cls.os_admin.servers_client
        cls.flavors_client = cls.os_admin.flavors_client
        cls.placement_client = cls.os_admin.placement_client

    @classmethod
    def resource_setup(cls) -> None:
        super().resource_setup()
        cls.setup_api_microversion_fixture(
            compute_microversion=api_version_utils.select_request_microversion(
                cls.min_microversion, CONF.compute.min_microversion
            )
        )
        cls._lift_quotas()

    @classmethod
    def _lift_quotas(cls) -> None:
        """Lift the quotas of the project, so that hosts decide."""
        if CONF.compute_feature_enabled.unified_limits:
            return
        client = cls.os_admin.quotas_client
        project = cls.servers_client.project_id
        before = client.show_quota_set(project)['quota_set']
        cls.addClassResourceCleanup(
            client.update_quota_set,
            project,
            **{name: before[name] for name in _QUOTAS},
        )
        client.update_quota_set(project, **dict.fromkeys(_QUOTAS, -1))

    def make_spec(
        self, cells: int = 1, **changes: Any
    ) -> server_spec.ServerSpec:
        """Get the server that the options describe, with changes."""
        return server_spec.ServerSpec.of(self.options, cells=cells, **changes)

    @staticmethod
    def _name() -> str:
        """Get a name that Tempest's own cleanup finds."""
        name: str = data_utils.rand_name(
            'numa-hugepages', prefix=CONF.resource_name_prefix
        )
        return name

    def create_flavor(self, wanted: server_spec.ServerSpec) -> str:
        """Create a flavor for servers of one size.

        :returns: its id
        """
        flavor: str = self.flavors_client.create_flavor(
            name=self._name(),
            vcpus=wanted.vcpus,
            ram=wanted.memory_mib,
            disk=self.options.flavor_disk_gib,
        )['flavor']['id']
        self.addCleanup(
            test_utils.call_and_ignore_notfound_exc,
            self.flavors_client.delete_flavor,
            flavor,
        )
        self.flavors_client.set_flavor_extra_spec(flavor, **wanted.extra_specs)
        return flavor

    def request_server(self, flavor: str, **request: Any) -> str:
        """Request a server, and return at once.

        :returns: its uuid
        """
        if self.options.availability_zone:
            request.setdefault(
                'availability_zone', self.options.availability_zone
            )
        server: str = compute.create_test_server(
            self.manager,
            name=self._name(),
            flavor=flavor,
            networks='none',
            **request,
        )[0]['id']
        self.addCleanup(self.delete_server, server)
        return server

    def create_server(self, flavor: str, **request: Any) -> str:
        """Create a server, and wait until it is active.

        :returns: its uuid
        """
        server = self.request_server(flavor, **request)
        self.wait_for(server, 'ACTIVE')
        return server

    def create_refused_server(self, flavor: str) -> None:
        """Request a server that no host can take, and check that none does."""
        server = self.request_server(flavor)
        self.assertEqual('ERROR', self.outcome(server)['status'])
        self.assert_refused(server)

    def delete_server(self, server: str) -> None:
        """Delete a server, and wait until it is gone. Idempotent."""
        try:
            self.servers_client.delete_server(server)
        except exceptions.NotFound:
            return
        waiters.wait_for_server_termination(
            self.servers_client, server, ignore_error=True
        )

    def wait_for(self, server: str, status: str) -> None:
        """Wait until a server has a status and no task is running."""
        waiters.wait_for_server_status(self.servers_client, server, status)

    def outcome(self, server: str) -> dict[str, Any]:
        """Wait until a server is active or in error.

        :returns: the server
        """
        found: dict[str, Any] = {}

        def is_settled() -> bool:
            found.update(self.servers_client.show_server(server)['server'])
            return found['status'] in ('ACTIVE', 'ERROR')

        self.eventually(is_settled, f'server {server} is active or in error')
        return found

    def eventually(self, check: Any, what: str) -> None:
        """Wait until a check succeeds.

        :raises tempest.lib.exceptions.TimeoutException: if that takes longer
            than ``[compute] build_timeout``
        """
        if not test_utils.call_until_true(
            check,
            CONF.compute.build_timeout,
            CONF.compute.build_interval,
        ):
            raise exceptions.TimeoutException(
                f'Waited {CONF.compute.build_timeout} s: {what}'
            )

    def show_topology(self, server: str) -> topology.Topology:
        """Get the host nodes of the cells of a server."""
        _, body = self.admin_servers_client.get(f'servers/{server}/topology')
        return topology.read(json.loads(body))

    def allocated(self, server: str) -> dict[str, int]:
        """Get the resources of a server in Placement, of all hosts."""
        answer = self.placement_client.list_allocations(server)
        total: Counter[str] = Counter()
        for provider in answer['allocations'].values():
            total.update(provider['resources'])
        return dict(total)

    def assert_placed(
        self, server: str, wanted: server_spec.ServerSpec
    ) -> topology.Topology:
        """Check that a server is placed as its flavor says.

        :returns: the placement of its cells
        """
        placed = self.show_topology(server)
        self.assertEqual(wanted.page_size_kib, placed.page_size_kib)
        self.assertEqual(
            [(wanted.cell_memory_mib, wanted.cell_vcpus)] * wanted.cells,
            [(cell.memory_mib, len(cell.vcpus)) for cell in placed.cells],
        )
        self.assertGreaterEqual(min(placed.host_nodes), 0)
        self.assertEqual(
            wanted.cells,
            len(set(placed.host_nodes)),
            f'cells are not on nodes of their own: {placed.host_nodes}',
        )
        for cell in placed.cells:
            pinned = cell.vcpus if wanted.dedicated_cpus else frozenset()
            self.assertEqual(pinned, set(cell.pins))
        self.assertEqual(
            len(placed.pins),
            len(set(placed.pins.values())),
            f'two vCPUs are on one CPU: {placed.pins}',
        )
        allocated = self.allocated(server)
        allocated.pop('DISK_GB', None)
        self.assertEqual(wanted.resources, allocated)
        return placed

    def assert_refused(self, server: str) -> None:
        """Check that a server is in error because no host fits."""
        shown = self.admin_servers_client.show_server(server)['server']
        self.assertRegex(shown['fault']['message'], _REFUSED)
        self.assert_nothing_allocated(server)

    def assert_nothing_allocated(self, server: str) -> None:
        """Check that a server has no allocations in Placement any more."""
        # Nova removes the allocations after the server is gone.
        self.eventually(
            lambda: not self.allocated(server),
            f'Placement has no allocations of {server}',
        )
