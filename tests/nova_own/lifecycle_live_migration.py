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

"""Live migrations under our driver: source, destination, and a full host."""

from __future__ import annotations

from typing import Any

import fixtures
from nova import context
from nova import objects
from nova.tests.functional.api import client
import pytest

from tests.fixtures import nova_compat
from tests.nova_own.lifecycle_base import LifecycleTest


class LiveMigrations(LifecycleTest):
    """Live migrations of an instance with two cells."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.boot(cells=2)
        self.first = self.name_of(self.server)
        self.second = self.other(self.first)
        self.src = self.computes[self.first]
        self.dest = self.computes[self.second]

    def _migrate_as_libvirt_does(
        self, domain: Any, destination: str, params: Any, flags: int
    ) -> None:
        """Delete the domain at the source, which Nova's stub doesn't do."""
        self._migrate_stub(domain, destination, params, flags)
        source = self.src.driver._host.get_connection()
        gone = source.lookupByUUIDString(self.server['id'])
        gone.destroy()
        gone.undefine()

    def test_the_source_frees_its_pages(self) -> None:
        self.useFixture(
            fixtures.MonkeyPatch(
                'nova.tests.fixtures.libvirt.Domain.migrateToURI3',
                lambda domain, *args, **kwargs: self._migrate_as_libvirt_does(
                    domain, *args, **kwargs
                ),
            )
        )
        nova_compat.live_migrate(self, self.server, self.second)
        self.assert_runs(self.server)
        self.assert_nothing(self.first)

    def test_a_full_host_refuses_before_memory_moves(self) -> None:
        # Given a destination whose memory was fragmented since it reported,
        kernel = self.pages.hosts[self.second].kernel
        for node in (0, 1):
            kernel.fragment(node, 4 * 1024 * 1024, 0)
        # when the instance should migrate there, it is refused
        with pytest.raises(client.OpenStackApiException, match='NoValid'):
            self.api.post_server_action(
                self.server['id'],
                {
                    'os-migrateLive': {
                        'host': self.second,
                        'block_migration': 'auto',
                    }
                },
            )
        assert 'not enough huge pages' in self.stdlog.logger.output
        self._wait_for_migration_status(self.server, ['error'])
        self._wait_for_server_parameter(
            self.server, {'OS-EXT-STS:task_state': None, 'status': 'ACTIVE'}
        )
        assert not self.migrate_stub_ran
        # and keeps running; the other host holds and accounts nothing.
        assert self.name_of(self.server) == self.first
        self.assert_runs(self.server)
        self.assert_nothing(self.second)
        node = objects.ComputeNode.get_by_nodename(
            context.get_admin_context(), self.second
        )
        topology = objects.NUMATopology.obj_from_db_obj(node.numa_topology)
        assert [cell.memory_usage for cell in topology.cells] == [0, 0]
