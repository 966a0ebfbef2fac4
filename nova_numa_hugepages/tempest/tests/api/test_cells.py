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

"""Servers with huge pages and dedicated CPUs: placed, and deleted."""

from __future__ import annotations

from tempest.lib import decorators

from nova_numa_hugepages.tempest.tests import base


class OneCellTest(base.BaseTest):
    """A server that is on one NUMA node."""

    @decorators.idempotent_id('6c1ef708-c74e-411b-8523-0890e1260d9f')
    def test_one_cell_is_placed_and_freed(self) -> None:
        wanted = self.make_spec()
        server = self.create_server(self.create_flavor(wanted))
        self.assert_placed(server, wanted)

        self.delete_server(server)

        self.assert_nothing_allocated(server)


class TwoCellsTest(base.BaseTest):
    """A server that spans two NUMA nodes."""

    cells_needed = 2

    @decorators.idempotent_id('7c9b0a69-3c0c-4f95-8082-46430cc26095')
    def test_two_cells_are_on_two_nodes(self) -> None:
        wanted = self.make_spec(cells=2)
        server = self.create_server(self.create_flavor(wanted))
        self.assert_placed(server, wanted)

        self.delete_server(server)

        self.assert_nothing_allocated(server)
