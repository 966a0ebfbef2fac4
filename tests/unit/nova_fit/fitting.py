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


"""Hosts for the tests of the fit in place of Nova's."""

from nova_numa_hugepages.nova_fit import numa_fit
from tests.unit.core.builders import giant
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import small

fit = numa_fit.numa_fit_instance_to_host
POOLS = (small(4096), huge(1024), giant(4))


def four_cells(**others):
    return [host_cell(number, pools=POOLS, **others) for number in range(4)]


def two_by_two(**others):
    """Make four cells on two sockets: 0 and 1, 2 and 3."""
    return [
        host_cell(number, pools=POOLS, socket=number // 2, **others)
        for number in range(4)
    ]


def cells_of(found):
    return found and [cell.id for cell in found.cells]
