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

"""Several servers that are requested at once."""

from __future__ import annotations

from collections import Counter

from tempest.lib import decorators

from nova_numa_hugepages.tempest.tests import base


@decorators.serial
class AtOnceTest(base.BaseTest):
    """Each is placed or refused; no two get the same CPUs."""

    @decorators.idempotent_id('3149925f-d6ed-4225-81ea-ccbdc956f1cf')
    def test_each_is_placed_or_refused(self) -> None:
        options = self.options
        room = options.fill_servers if options.fill_cell_memory_mib else 0
        wanted = (
            self.make_spec(cell_memory_mib=options.fill_cell_memory_mib)
            if room
            else self.make_spec()
        )
        flavor = self.create_flavor(wanted)

        # One request each: a single one for all has to fit as a whole.
        servers = [
            self.request_server(flavor) for _ in range(options.servers_at_once)
        ]
        outcomes = {
            server: self.outcome(server)['status'] for server in servers
        }

        active = [name for name in servers if outcomes[name] == 'ACTIVE']
        for server in servers:
            if server in active:
                self.assert_placed(server, wanted)
            else:
                self.assert_refused(server)
        self.assertTrue(active, outcomes)
        self._assert_apart(active)
        if room:
            self.assertEqual(min(room, len(servers)), len(active), outcomes)

        for server in servers:
            self.delete_server(server)
        for server in servers:
            self.assert_nothing_allocated(server)

    def _assert_apart(self, servers: list[str]) -> None:
        """Check that no CPU of a host is promised twice."""
        promised: Counter[tuple[str, int]] = Counter()
        for server in servers:
            shown = self.admin_servers_client.show_server(server)['server']
            host = shown['OS-EXT-SRV-ATTR:hypervisor_hostname']
            pins = self.show_topology(server).pins
            promised.update((host, cpu) for cpu in pins.values())
        twice = [key for key, count in promised.items() if count > 1]
        self.assertEqual([], twice)
