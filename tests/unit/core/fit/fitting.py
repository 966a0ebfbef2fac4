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


"""Hosts and plans for the tests of the fit."""

from nova_numa_hugepages.core.model import Plan
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import small

# Four free cells on two sockets: 0 and 2 on one, 1 and 3 on the other.
TWO_SOCKETS = (
    (10, 31, 20, 31),
    (31, 10, 31, 20),
    (20, 31, 10, 31),
    (31, 20, 31, 10),
)


def cells_of(outcome):
    """List the host cells of a plan; a rejection fails the test."""
    assert isinstance(outcome, Plan), str(outcome)
    return [cell.host_cell for cell in outcome.cells]


def four_free_cells(**others):
    return tuple(
        host_cell(number, pools=(small(4096), huge(2048)), **others)
        for number in range(4)
    )
