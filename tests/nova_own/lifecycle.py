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

"""Instances that start, stop and move, under our driver."""

from __future__ import annotations

import pathlib
from typing import Any

import fixtures
from nova import context
from nova import objects
import nova.conf

from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.hugepages import model
from tests.fixtures import nova_compat
from tests.nova_own.lifecycle_base import GIB_PAGES
from tests.nova_own.lifecycle_base import LifecycleTest
from tests.nova_own.lifecycle_base import POOL

CONF = nova.conf.CONF


class StartsAndStops(LifecycleTest):
    """Instances on one host."""

    HOSTS = ('one',)

    def test_spawn_and_delete(self) -> None:
        server = self.boot(cells=2)
        self.assert_runs(server)
        self._delete_server(server)
        self.assert_nothing()

    def test_the_host_reports_its_pages(self) -> None:
        server = self.boot()
        self.update()
        node = objects.ComputeNode.get_by_nodename(
            context.get_admin_context(), 'one'
        )
        stats = host_stats.parse(node.stats[host_stats.STATS_KEY])
        used_node = self.nodes_of(server)[0]
        assert dict(stats.distances) == {0: (10, 21), 1: (21, 10)}
        topology = objects.NUMATopology.obj_from_db_obj(node.numa_topology)
        for cell in topology.cells:
            pool = next(p for p in cell.mempages if p.size_kb == POOL)
            assert (GIB_PAGES if cell.id == used_node else 0) == pool.used
            assert pool.used + stats.allocatable[cell.id][POOL] == pool.total

    def test_stop_and_start(self) -> None:
        server = self.boot()
        host = self.host_of(server)
        self._stop_server(server)
        self.update()
        # It keeps its pages.
        assert host.total(0) + host.total(1) == GIB_PAGES
        self._start_server(server)
        self.assert_runs(server)

    def test_stop_and_start_with_pages_released(self) -> None:
        self.flags(powered_off_pages='release', group='numa_hugepages')
        self.restart_compute_service('one')
        server = self.boot()
        self._stop_server(server)
        self.assert_nothing()
        self._start_server(server)
        self.assert_runs(server)

    def test_hard_reboot(self) -> None:
        server = self.boot()
        self._reboot_server(server, hard=True)
        self.assert_runs(server)

    def test_suspend_and_resume(self) -> None:
        server = self.boot()
        self._suspend_server(server)
        self._resume_server(server)
        self.assert_runs(server)

    def test_rescue_and_unrescue(self) -> None:
        server = self.boot()
        (pathlib.Path(CONF.instances_path) / server['id']).mkdir()
        self._rescue_server(server)
        self.assert_runs(server)
        self._unrescue_server(server)
        self.assert_runs(server)

    def test_rebuild(self) -> None:
        server = self.boot()
        self._rebuild_server(server, '155d900f-4e14-4e4c-a73d-069cbf4541e6')
        self.assert_runs(server)

    def test_shelve_and_unshelve(self) -> None:
        self.flags(shelved_offload_time=0)
        server = self.boot()
        self._shelve_server(server)
        self.assert_nothing()
        self._unshelve_server(server)
        self.assert_runs(server)

    def test_a_guest_that_ends_by_itself(self) -> None:
        server = self.boot()
        host = self.host_of(server)
        host.kernel.stop_guest(server['id'])
        self.update()
        assert host.total(0) + host.total(1) == GIB_PAGES

    def test_a_restart_of_the_service(self) -> None:
        server = self.boot()
        self.restart_compute_service('one')
        self.assert_runs(server)

    def test_a_ledger_that_is_gone_is_rebuilt(self) -> None:
        server = self.boot()
        host = self.host_of(server)
        self.computes['one'].stop()
        for path in host.folder.glob('*.sqlite*'):
            path.unlink()
        self.restart_compute_service('one')
        planned = {(self.nodes_of(server)[0], POOL): GIB_PAGES}
        assert {'guest': planned} == host.held(server['id'])


class Moves(LifecycleTest):
    """Instances that move to another host."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.boot()
        self.first = self.name_of(self.server)
        self.second = self.other(self.first)
        self.src = self.computes[self.first]
        self.dest = self.computes[self.second]

    def test_cold_migration_confirmed(self) -> None:
        self._migrate_server(self.server)
        # Both hosts hold pages until it is confirmed.
        source = self.pages.hosts[self.first]
        assert list(source.held(self.server['id'])) == ['resize']
        assert source.total(0) + source.total(1) == GIB_PAGES
        self.assert_runs(self.server)
        self.update()
        assert list(source.held(self.server['id'])) == ['resize']
        self._confirm_resize(self.server)
        self.assert_nothing(self.first)
        self.assert_runs(self.server)

    def test_cold_migration_reverted(self) -> None:
        self._migrate_server(self.server)
        self._revert_resize(self.server)
        assert self.first == self.name_of(self.server)
        self.assert_runs(self.server)
        self.assert_nothing(self.second)

    def test_resize_on_the_same_host(self) -> None:
        self.flags(allow_resize_to_same_host=True)
        self.computes[self.second].stop()
        self.api.put_service_force_down(self._service(self.second), True)
        self._resize_server(self.server, self.flavor(gib=2))
        self._wait_for_state_change(self.server, 'VERIFY_RESIZE')
        host = self.host_of(self.server)
        assert [
            sum(counts.values())
            for _, counts in sorted(host.held(self.server['id']).items())
        ] == [2 * GIB_PAGES, GIB_PAGES]
        self._confirm_resize(self.server)
        assert host.total(0) + host.total(1) == 2 * GIB_PAGES

    def test_live_migration(self) -> None:
        nova_compat.live_migrate(self, self.server, self.second)
        assert self.migrate_stub_ran
        assert self.second == self.name_of(self.server)
        self.assert_runs(self.server)

    def test_live_migration_holds_before_memory_moves(self) -> None:
        held = []
        stub = self._migrate_stub

        def migrate(*args: Any, **kwargs: Any) -> None:
            held.append(self.pages.hosts[self.second].held(self.server['id']))
            stub(*args, **kwargs)

        self.useFixture(
            fixtures.MonkeyPatch(
                'nova.tests.fixtures.libvirt.Domain.migrateToURI3', migrate
            )
        )
        nova_compat.live_migrate(self, self.server, self.second)
        planned = {(self.nodes_of(self.server)[0], POOL): GIB_PAGES}
        assert [{'incoming': planned}] == held

    def test_live_migration_that_fails(self) -> None:
        def fail(domain: Any, *args: Any, **kwargs: Any) -> None:
            domain.fail_job()

        self.useFixture(
            fixtures.MonkeyPatch(
                'nova.tests.fixtures.libvirt.Domain.migrateToURI3', fail
            )
        )
        nova_compat.live_migrate(self, self.server, self.second, 'failed')
        self.update()
        self.assert_nothing(self.second)
        self.assert_runs(self.server)

    def test_evacuation(self) -> None:
        self.computes[self.first].stop()
        self.api.put_service_force_down(self._service(self.first), True)
        self._evacuate_server(self.server, expected_host=self.second)
        self._start_server(self.server)
        self.assert_runs(self.server)
        # The lost host comes back.
        self.restart_compute_service(self.first)
        self.update()
        self.assert_nothing(self.first)

    def _service(self, name: str) -> str:
        service: str = self.api.get_services(binary='nova-compute', host=name)[
            0
        ]['id']
        return service


class Shortage(LifecycleTest):
    """A host that has less than it reported."""

    def test_the_next_host_is_tried(self) -> None:
        # Given hosts whose memory was fragmented since they reported it.
        tried = []
        for name in self.HOSTS:
            kernel = self.pages.hosts[name].kernel

            def first_only(
                event: Any, name: str = name, kernel: Any = kernel
            ) -> None:
                if event.what.startswith('write_nr') and not tried:
                    tried.append(name)
                    for node in (0, 1):
                        kernel.fragment(node, 4 * 1024 * 1024, 0)

            kernel.hook = first_only
        # When an instance is booted, then it is on the other one,
        server = self.boot()
        assert self.other(tried[0]) == self.name_of(server)
        self.assert_runs(server)
        # and the first holds nothing.
        self.assert_nothing(tried[0])

    def test_pages_of_others_are_not_offered(self) -> None:
        host = self.pages.hosts['one']
        key = model.PoolKey(0, POOL)
        host.kernel.operator_writes(key, 100)
        host.kernel.take({key: 100})
        self.update()
        node = objects.ComputeNode.get_by_nodename(
            context.get_admin_context(), 'one'
        )
        stats = host_stats.parse(node.stats[host_stats.STATS_KEY])
        topology = objects.NUMATopology.obj_from_db_obj(node.numa_topology)
        pool = next(p for p in topology.cells[0].mempages if p.size_kb == POOL)
        assert stats.allocatable[0][POOL] == pool.total
