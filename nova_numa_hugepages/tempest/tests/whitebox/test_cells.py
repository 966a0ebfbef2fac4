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

"""Servers with huge pages: their pages on the host, and afterwards."""

from __future__ import annotations

import itertools

from tempest.lib import decorators

from nova_numa_hugepages.tempest import server_spec
from nova_numa_hugepages.tempest.tests.whitebox import base


@decorators.serial
class OneCellTest(base.WhiteboxTest):
    """A server on one NUMA node."""

    @decorators.idempotent_id('28a63942-286d-4ccd-bea2-292449320513')
    def test_pages_are_on_the_node_and_freed(self) -> None:
        host, before = self.snapshot_before()
        wanted = self.make_spec()

        server = self.create_server_on_named_host(self.create_flavor(wanted))
        taken = self.assert_on_host(server, wanted)
        self.assert_taken(before, self.snapshot(host), taken)

        self.delete_server(server)
        self.assert_released(host, before, server)


@decorators.serial
class TwoCellsTest(base.WhiteboxTest):
    """A server on two NUMA nodes."""

    cells_needed = 2

    @decorators.idempotent_id('77d8c5ef-2414-47c0-8a60-27cd41ca46e1')
    def test_pages_are_on_both_nodes_and_freed(self) -> None:
        host, before = self.snapshot_before()
        wanted = self.make_spec(cells=2)

        server = self.create_server_on_named_host(self.create_flavor(wanted))
        taken = self.assert_on_host(server, wanted)
        self.assert_taken(before, self.snapshot(host), taken)

        self.delete_server(server)
        self.assert_released(host, before, server)


@decorators.serial
class DistancesTest(base.WhiteboxTest):
    """A server on two NUMA nodes whose distances are known."""

    cells_needed = 2
    distances_needed = True

    def _two_cells(self, **specs: str) -> server_spec.ServerSpec:
        return self.make_spec(
            cells=2,
            specs={
                f'numa_hugepages:{name}': value
                for name, value in specs.items()
            },
        )

    @decorators.idempotent_id('1fa41dcb-d807-40f4-b69c-90c1442ac3b1')
    def test_nearest_nodes_of_an_idle_host_are_taken(self) -> None:
        _, before = self.snapshot_before()
        if before.show.guests:
            self.skipTest('There are instances on the host')
        far = before.show.distances
        nearest = min(far[a][b] for a, b in itertools.combinations(far, 2))
        wanted = self._two_cells(max_distance=str(nearest))

        server = self.create_server_on_named_host(self.create_flavor(wanted))

        self.assert_on_host(server, wanted)
        first, second = self.show_topology(server).host_nodes
        self.assertEqual(nearest, far[first][second])

    @decorators.idempotent_id('af2cf8e5-2847-426e-bc5a-2232a0bbcaf5')
    def test_server_sees_its_distances(self) -> None:
        wanted = self._two_cells(guest_distances='true')

        server = self.create_server_on_named_host(self.create_flavor(wanted))

        self.assert_on_host(server, wanted)
        host = self.host_of(server)
        far = host.show().distances
        nodes = self.show_topology(server).host_nodes
        self.assertEqual(
            {
                cell: {
                    other: far[node][nodes[other]]
                    for other in range(len(nodes))
                }
                for cell, node in enumerate(nodes)
            },
            host.domain(server).distances,
        )
