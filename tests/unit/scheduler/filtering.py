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


"""Hosts and requests for the tests of the scheduler filter."""

from tests.unit.core.builders import giant
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import small
from tests.unit.nova_builders import guest
from tests.unit.nova_builders import spec

FILTERS = 'nova_numa_hugepages.scheduler.filters'
POOLS = (small(4096), huge(1024), giant(4))


# What computes with the stock driver report.
STOCK = {'num_instances': '0'}


# Four cells on two sockets: 0 and 2, 1 and 3.
FAR_APART = {
    0: [10, 31, 20, 31],
    1: [31, 10, 31, 20],
    2: [20, 31, 10, 31],
    3: [31, 20, 31, 10],
}


def four_cells(**others):
    return [host_cell(number, pools=POOLS, **others) for number in range(4)]


def names(hosts):
    return [host.host for host in hosts]


def request(cells, **others):
    return spec(guest(*cells) if cells else None, **others)
