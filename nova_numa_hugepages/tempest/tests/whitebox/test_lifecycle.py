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

"""Servers that stop, move or change: their pages afterwards."""

from __future__ import annotations

from tempest.lib import decorators

from nova_numa_hugepages.tempest.tests import lifecycle
from nova_numa_hugepages.tempest.tests.whitebox import base


@decorators.serial
class LifecycleTest(base.WhiteboxTest):
    """Reads the host of a server after each operation.

    In the end the server is deleted, and the host has to be as before.
    """

    def setUp(self) -> None:
        super().setUp()
        self.host, self.before = self.snapshot_before()
        self.wanted = self.make_spec()
        self.server = self.create_server_on_named_host(
            self.create_flavor(self.wanted)
        )
        self.assert_on_host(self.server, self.wanted)

    def _assert_leaves_nothing(self) -> None:
        self.delete_server(self.server)
        self.assert_released(self.host, self.before, self.server)

    @decorators.idempotent_id('ce0a9477-3c0e-4d67-a0db-19d142c013b6')
    def test_stop_and_start(self) -> None:
        self.operate('stop', self.server)
        self.operate('start', self.server)

        self.assert_on_host(self.server, self.wanted)
        self._assert_leaves_nothing()

    @decorators.idempotent_id('ed46865b-592e-44a4-8fd9-f1c393ad6a18')
    def test_hard_reboot(self) -> None:
        self.operate('reboot', self.server, type='HARD')

        self.assert_on_host(self.server, self.wanted)
        self._assert_leaves_nothing()

    @decorators.idempotent_id('4353ef11-8c7e-44df-b7e1-5afacb623a5b')
    @lifecycle.needs('suspend')
    def test_suspend_and_resume(self) -> None:
        self.operate('suspend', self.server)
        self.operate('resume', self.server)

        self.assert_on_host(self.server, self.wanted)
        self._assert_leaves_nothing()

    @decorators.idempotent_id('53cea08c-d080-49c8-b024-c581de37bd3d')
    @lifecycle.needs('shelve')
    def test_shelve_and_unshelve(self) -> None:
        self.shelve(self.server)
        self.assert_released(self.host, self.before, self.server)

        self.operate('unshelve', self.server)
        self.assert_on_host(self.server, self.wanted)
        self._assert_leaves_nothing()

    @decorators.idempotent_id('1698da52-e9fc-491e-93d0-5b2d76e5d092')
    @lifecycle.needs('rescue')
    def test_rescue_and_unrescue(self) -> None:
        self.operate('rescue', self.server)
        self.assert_on_host(self.server, self.wanted)

        self.operate('unrescue', self.server)
        self.assert_on_host(self.server, self.wanted)
        self._assert_leaves_nothing()

    @decorators.idempotent_id('ffd1289d-1359-49fe-bb05-806da868913a')
    def test_rebuild(self) -> None:
        self.rebuild(self.server)

        self.assert_on_host(self.server, self.wanted)
        self._assert_leaves_nothing()

    @decorators.idempotent_id('de24e1dc-348c-4b4f-a8ed-171d8600eaf5')
    @lifecycle.needs('resize')
    def test_resize_and_confirm(self) -> None:
        larger = self.larger()
        self.operate('resize', self.server, self.create_flavor(larger))
        self.operate('confirm_resize', self.server)

        self.assert_on_host(self.server, larger)
        self._assert_leaves_nothing()

    @decorators.idempotent_id('a21204e8-ecca-4cc9-b038-4a5beb623cca')
    @lifecycle.needs('resize')
    def test_resize_and_revert(self) -> None:
        larger = self.larger()
        self.operate('resize', self.server, self.create_flavor(larger))
        self.operate('revert_resize', self.server)

        self.assert_on_host(self.server, self.wanted)
        self._assert_leaves_nothing()
