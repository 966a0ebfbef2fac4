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

"""Instances that come back after a failure or a revert, with their pages."""

from __future__ import annotations

from typing import Any

import fixtures
from nova import exception as nova_exception
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.tests.functional.api import client
import pytest

from nova_numa_hugepages.hugepages import model
from tests.fixtures import nova_compat
from tests.nova_own.lifecycle_base import GIB_PAGES
from tests.nova_own.lifecycle_base import LifecycleTest


class OnOneHost(LifecycleTest):
    """Instances that stay on their host."""

    HOSTS = ('one',)

    def test_a_resize_that_is_reverted(self) -> None:
        self.flags(allow_resize_to_same_host=True)
        server = self.boot()
        self._resize_server(server, self.flavor(gib=2))
        self._wait_for_state_change(server, 'VERIFY_RESIZE')
        self._revert_resize(server)
        self.assert_runs(server)

    def test_a_resume_that_fails(self) -> None:
        server = self.boot()
        self._suspend_server(server)

        def fail(*args: Any) -> None:
            raise fakelibvirt.libvirtError('no')

        broken = fixtures.MonkeyPatch(
            'nova.tests.fixtures.libvirt.Domain.createWithFlags', fail
        )
        with broken, pytest.raises(client.OpenStackApiException):
            self.api.post_server_action(server['id'], {'resume': {}})
        # Nova still accounts for it, so its pages stay held.
        host = self.host_of(server)
        self.update()
        assert list(host.held(server['id'])) == ['guest']
        self._delete_server(server)
        self.assert_nothing()

    def test_a_service_that_is_killed_in_a_hard_reboot(self) -> None:
        server = self.boot()
        host = self.host_of(server)

        def die(*args: Any, **kwargs: Any) -> None:
            raise nova_exception.NovaException('killed')

        with fixtures.MonkeyPatch(
            'nova.virt.libvirt.driver.LibvirtDriver._get_guest_xml', die
        ):
            # The call fails, and the domain is deleted.
            with pytest.raises(client.OpenStackApiException):
                self._reboot_server(server, hard=True)
            self.restart_compute_service('one')
            self.update()
        assert list(host.held(server['id'])) == ['guest']
        self._reboot_server(server, hard=True)
        self.assert_runs(server)


class OnTwoHosts(LifecycleTest):
    """Instances that migrate more than once."""

    def test_a_live_migration_after_an_abandoned_one(self) -> None:
        server = self.server = self.boot()
        first = self.name_of(server)
        second = self.other(first)
        self.src, self.dest = self.computes[first], self.computes[second]
        # Given pages that are still held for an abandoned plan,
        other_node = 1 - self.nodes_of(server)[0]
        manager = self.pages.hosts[second].manager
        assert manager is not None
        manager.incoming(
            server['id'],
            [model.PageNeed(0, other_node, 2048, GIB_PAGES)],
        )
        # when it is migrated, then it has the pages of the new plan,
        nova_compat.live_migrate(self, server, second)
        planned = {(self.nodes_of(server)[0], 2048): GIB_PAGES}
        assert self.host_of(server).held(server['id']) == {'guest': planned}
        # and the others are freed.
        self.update()
        self.assert_runs(server)
