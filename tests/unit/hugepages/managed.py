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

"""Instances that start, stop and move, as the driver has them do it."""

import dataclasses

from nova_numa_hugepages.hugepages.manager import HugePageManager
from tests.unit.hugepages import page_host

ONE = page_host.guest(1)
TWO = page_host.guest(2)
NEEDS = page_host.needs((0, 10), (1, 20))
ALL = {page_host.pool(0): 10, page_host.pool(1): 20}
NONE = dict.fromkeys(ALL, 0)


def start(manager, rig, needs=NEEDS, counts=ALL, after_resize=False):
    """Start a guest as the driver does."""
    with manager.starting(
        ONE, needs, is_defined=lambda: False, after_resize=after_resize
    ):
        rig.kernel.start_guest(ONE, counts)
        manager.started(ONE)


def restarted(rig, ticks, **policy):
    """Start the service again with another policy."""
    rig.policy = dataclasses.replace(rig.policy, **policy)
    rig.start()
    return HugePageManager(rig.pools, ticks=ticks)
