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

"""Every road on which a guest starts, stops and moves, under our driver.

On Nova's own functional tests: a whole Nova with a simulated libvirt, and a
pretended kernel under each compute.
"""

from __future__ import annotations

import pathlib
from typing import Any

import fixtures
from nova import context
from nova import objects
import nova.conf
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.tests.functional import integrated_helpers
from nova.tests.functional.libvirt import base

from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.hugepages import model
from tests.fixtures import novas
from tests.nova_own import pagehosts

CONF = nova.conf.CONF

_POOL = 2048
GIB_PAGES = 512


class _Roads(
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
        self.pages = self.useFixture(pagehosts.PageHosts())
        self.flags(
            page_pools='dynamic',
            node_free_memory_mib=64,
            grow_time_limit=1,
            group='numa_hugepages',
        )
        self.flags(allow_resize_to_same_host=False)
        self.flags(compute_driver=pagehosts.DRIVER)
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
                            [(4, 1024 * 1024), (_POOL, 0)]
                        )
                    ]
                    * 2,
                ),
            )

    def boot(self, cells: int = 1, **create: Any) -> dict[str, Any]:
        """Boot a guest of 1 GiB a cell on 2 MiB pages."""
        server: dict[str, Any] = self._create_server(
            flavor_id=self.flavor(cells), networks='none', **create
        )
        return server

    def flavor(self, cells: int = 1, gib: int = 1) -> str:
        """Make a flavor whose guest cells have memory on 2 MiB pages."""
        flavor: str = self._create_flavor(
            vcpu=cells,
            memory_mb=cells * gib * 1024,
            extra_spec={
                'hw:cpu_policy': 'dedicated',
                'hw:mem_page_size': str(_POOL),
                'hw:numa_nodes': str(cells),
            },
        )
        return flavor

    def host_of(self, server: dict[str, Any]) -> pagehosts.Host:
        """Give the host that a server is on."""
        return self.pages.hosts[self.name_of(server)]

    def name_of(self, server: dict[str, Any]) -> str:
        """Tell the name of the host that a server is on."""
        name: str = self.api.get_server(server['id'])['OS-EXT-SRV-ATTR:host']
        return name

    def other(self, name: str) -> str:
        """Tell the name of the other host."""
        return next(host for host in self.HOSTS if host != name)

    def nodes_of(self, server: dict[str, Any]) -> list[int]:
        """Tell which host cells Nova has planned for a server."""
        instance = objects.Instance.get_by_uuid(
            context.get_admin_context(),
            server['id'],
            expected_attrs=['numa_topology'],
        )
        return [cell.id for cell in instance.numa_topology.cells]

    def assert_runs(self, server: dict[str, Any]) -> None:
        """Check that a server has its pages, and the host no others."""
        host = self.host_of(server)
        planned = {(node, _POOL): GIB_PAGES for node in self.nodes_of(server)}
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
        """Have all computes do what they do each minute."""
        self._run_periodics()


def _power_off_only(
    driver: Any, context: Any, instance: Any, *args: Any, **kwargs: Any
) -> str:
    driver.power_off(instance)
    return '[]'


class StartsAndStops(_Roads):
    """Guests on one host."""

    HOSTS = ('one',)

    def test_spawn_and_delete(self) -> None:
        server = self.boot(cells=2)
        self.assert_runs(server)
        self._delete_server(server)
        self.assert_nothing()

    def test_the_scheduler_is_told(self) -> None:
        server = self.boot()
        self.update()
        node = objects.ComputeNode.get_by_nodename(
            context.get_admin_context(), 'one'
        )
        known = host_stats.parse(node.stats[host_stats.STATS_KEY])
        taken = self.nodes_of(server)[0]
        assert dict(known.distances) == {0: (10, 21), 1: (21, 10)}
        topology = objects.NUMATopology.obj_from_db_obj(node.numa_topology)
        for cell in topology.cells:
            pool = next(p for p in cell.mempages if p.size_kb == _POOL)
            assert (GIB_PAGES if cell.id == taken else 0) == pool.used
            assert pool.used + known.allocatable[cell.id][_POOL] == pool.total

    def test_stop_and_start(self) -> None:
        server = self.boot()
        host = self.host_of(server)
        self._stop_server(server)
        self.update()
        # It keeps its pages.
        assert host.total(0) + host.total(1) == GIB_PAGES
        self._start_server(server)
        self.assert_runs(server)

    def test_stop_and_start_with_pages_given_back(self) -> None:
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
        planned = {(self.nodes_of(server)[0], _POOL): GIB_PAGES}
        assert {'guest': planned} == host.held(server['id'])


class Moves(_Roads):
    """Guests that go from host to host."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.boot()
        self.first = self.name_of(self.server)
        self.second = self.other(self.first)
        self.src = self.computes[self.first]
        self.dest = self.computes[self.second]

    def test_cold_migration_confirmed(self) -> None:
        self._migrate_server(self.server)
        # Both hosts hold the pages until it is confirmed.
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
        novas.live_migrate(self, self.server, self.second)
        assert self.migrate_stub_ran
        assert self.second == self.name_of(self.server)
        self.assert_runs(self.server)

    def test_live_migration_holds_before_memory_moves(self) -> None:
        seen = []
        stub = self._migrate_stub

        def look(*args: Any, **kwargs: Any) -> None:
            seen.append(self.pages.hosts[self.second].held(self.server['id']))
            stub(*args, **kwargs)

        self.useFixture(
            fixtures.MonkeyPatch(
                'nova.tests.fixtures.libvirt.Domain.migrateToURI3', look
            )
        )
        novas.live_migrate(self, self.server, self.second)
        planned = {(self.nodes_of(self.server)[0], _POOL): GIB_PAGES}
        assert [{'incoming': planned}] == seen

    def test_live_migration_that_fails(self) -> None:
        def fail(domain: Any, *args: Any, **kwargs: Any) -> None:
            domain.fail_job()

        self.useFixture(
            fixtures.MonkeyPatch(
                'nova.tests.fixtures.libvirt.Domain.migrateToURI3', fail
            )
        )
        novas.live_migrate(self, self.server, self.second, 'failed')
        self.update()
        self.assert_nothing(self.second)
        self.assert_runs(self.server)

    def test_evacuation(self) -> None:
        self.computes[self.first].stop()
        self.api.put_service_force_down(self._service(self.first), True)
        self._evacuate_server(self.server, expected_host=self.second)
        self._start_server(self.server)
        self.assert_runs(self.server)
        # The host that was lost comes back.
        self.restart_compute_service(self.first)
        self.update()
        self.assert_nothing(self.first)

    def _service(self, name: str) -> str:
        service: str = self.api.get_services(binary='nova-compute', host=name)[
            0
        ]['id']
        return service


class Shortage(_Roads):
    """A host that has less than it had told."""

    def test_the_next_host_is_tried(self) -> None:
        # Given hosts whose memory was broken up since they reported it.
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
        # When a guest is booted, Then it is on the other one,
        server = self.boot()
        assert self.other(tried[0]) == self.name_of(server)
        self.assert_runs(server)
        # And nothing stays held on the first.
        self.assert_nothing(tried[0])

    def test_pages_of_others_are_not_offered(self) -> None:
        host = self.pages.hosts['one']
        key = model.PoolKey(0, _POOL)
        host.kernel.operator_writes(key, 100)
        host.kernel.take({key: 100})
        self.update()
        node = objects.ComputeNode.get_by_nodename(
            context.get_admin_context(), 'one'
        )
        known = host_stats.parse(node.stats[host_stats.STATS_KEY])
        topology = objects.NUMATopology.obj_from_db_obj(node.numa_topology)
        pool = next(
            p for p in topology.cells[0].mempages if p.size_kb == _POOL
        )
        assert known.allocatable[0][_POOL] == pool.total
