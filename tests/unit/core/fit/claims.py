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


"""Hosts and claims for the tests of the replay."""

from nova_numa_hugepages.core.fit import stock_replay
from tests.unit.core.builders import giant
from tests.unit.core.builders import host
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import small

POOLS = (small(4096), huge(2048), giant(4))


def legacy(number=0, **others):
    """Make a host cell of [DEFAULT] vcpu_pin_set, pinned and floating."""
    cell = host_cell(number, pools=POOLS, **others)
    return cell._replace(shared_cpus=cell.dedicated_cpus)


def claim(guest, *cells, limits=None, pack=False, devices=None, at_most=5000):
    return stock_replay.replay(
        guest,
        host(*cells),
        limits=limits,
        pack=pack,
        devices=devices,
        at_most=at_most,
    ).verdict
