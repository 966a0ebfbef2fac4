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

"""Servers that stop, move or change: their placement afterwards."""

from __future__ import annotations

from tempest.lib import decorators

from nova_numa_hugepages.tempest.tests import lifecycle


class LifecycleTest(lifecycle.BaseLifecycleTest):
    """Asks the APIs where a server is after each operation."""

    def setUp(self) -> None:
        super().setUp()
        self.wanted = self.make_spec()
        self.server = self.create_server(self.create_flavor(self.wanted))
        self.assert_placed(self.server, self.wanted)

    @decorators.idempotent_id('85a94431-f8bd-4086-94a1-aadb686ac36f')
    def test_stop_and_start(self) -> None:
        self.operate('stop', self.server)
        self.assert_placed(self.server, self.wanted)

        self.operate('start', self.server)
        self.assert_placed(self.server, self.wanted)

    @decorators.idempotent_id('630adac5-bb59-41f6-a9a4-83f737c7f93a')
    def test_hard_reboot(self) -> None:
        self.operate('reboot', self.server, type='HARD')
        self.assert_placed(self.server, self.wanted)

    @decorators.idempotent_id('62e9b6d5-7a75-496c-b195-468571bfef0d')
    @lifecycle.needs('suspend')
    def test_suspend_and_resume(self) -> None:
        self.operate('suspend', self.server)
        self.assert_placed(self.server, self.wanted)

        self.operate('resume', self.server)
        self.assert_placed(self.server, self.wanted)

    @decorators.idempotent_id('bfb17c3b-e839-4f6d-9b74-c1601e17cee7')
    @lifecycle.needs('shelve')
    def test_shelve_and_unshelve(self) -> None:
        self.shelve(self.server)
        self.assert_nothing_allocated(self.server)

        self.operate('unshelve', self.server)
        self.assert_placed(self.server, self.wanted)

    @decorators.idempotent_id('19163e91-cd8a-4085-90be-8eca19515ade')
    @lifecycle.needs('rescue')
    def test_rescue_and_unrescue(self) -> None:
        self.operate('rescue', self.server)
        self.assert_placed(self.server, self.wanted)

        self.operate('unrescue', self.server)
        self.assert_placed(self.server, self.wanted)

    @decorators.idempotent_id('a3a23a67-777a-4f4e-b0cb-4bcb8111e15c')
    def test_rebuild(self) -> None:
        self.rebuild(self.server)
        self.assert_placed(self.server, self.wanted)

    @decorators.idempotent_id('e24c091d-957d-4708-a633-960779fcb697')
    @lifecycle.needs('resize')
    def test_resize_and_confirm(self) -> None:
        larger = self.larger()
        self.operate('resize', self.server, self.create_flavor(larger))
        self.assert_placed(self.server, larger)

        self.operate('confirm_resize', self.server)
        self.assert_placed(self.server, larger)

    @decorators.idempotent_id('998a8ed4-f479-4d17-90a8-076c11f4412c')
    @lifecycle.needs('resize')
    def test_resize_and_revert(self) -> None:
        larger = self.larger()
        self.operate('resize', self.server, self.create_flavor(larger))
        self.assert_placed(self.server, larger)

        self.operate('revert_resize', self.server)
        self.assert_placed(self.server, self.wanted)
