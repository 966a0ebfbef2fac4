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

"""Nova's functional tests of its libvirt driver, with ours in its place.

Each compute gets a fake kernel with the pools that its simulated libvirt
reports. The pools keep their size (``page_pools = static``), because Nova's
tests rely on the pages that they set up.
"""

from __future__ import annotations

from typing import Any

from nova.tests.functional.libvirt import base

from nova_numa_hugepages.libvirt import driver
from tests.nova_own import fake_hosts


def install() -> None:
    """Make Nova's tests start computes with our driver."""
    case = base.ServersTestBase
    set_up = case.setUp

    def set_up_kernels(self: Any) -> None:
        set_up(self)
        self.useFixture(fake_hosts.FakeHosts())
        self.flags(page_pools='static', group='numa_hugepages')

    def choose_driver(self: Any) -> None:
        self.flags(compute_driver=fake_hosts.DRIVER)

    case.setUp = set_up_kernels
    case._setup_compute_service = choose_driver
    start = case.start_compute

    def start_compute(self: Any, *args: Any, **kwargs: Any) -> str:
        name: str = start(self, *args, **kwargs)
        # The tests would pass with another driver, too, and prove nothing.
        loaded = self.computes[name].driver
        if not isinstance(loaded, driver.NUMAHugepagesDriver):
            raise RuntimeError(f'{name} has the driver {loaded!r}')
        return name

    case.start_compute = start_compute
