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

"""Life cycle operations: servers that stop, move or change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import TypeVar

from tempest import config
from tempest.common import compute

from nova_numa_hugepages.tempest import server_spec
from nova_numa_hugepages.tempest.tests import base

CONF = config.CONF

Test = TypeVar('Test', bound=Callable[..., Any])

_NEEDS = 'needs_compute_feature'


def needs(feature: str) -> Callable[[Test], Test]:
    """Skip a test where ``tempest.conf`` says that a feature is missing.

    :param feature: an option of the group ``compute-feature-enabled``
    :returns: a decorator for a test of :class:`BaseLifecycleTest`
    """

    def mark(test: Test) -> Test:
        setattr(test, _NEEDS, feature)
        return test

    return mark


class BaseLifecycleTest(base.BaseTest):
    """Has the operations; what is checked after them is in the tests."""

    def setUp(self) -> None:
        super().setUp()
        # Here, because options are not known at import, and before a server
        # is created.
        feature = getattr(getattr(self, self._testMethodName), _NEEDS, None)
        if feature and not CONF.compute_feature_enabled[feature]:
            self.skipTest(f'Not enabled: [compute-feature-enabled] {feature}')

    def larger(self) -> server_spec.ServerSpec:
        """Get the size of a resized server."""
        return self.make_spec(cell_memory_mib=2 * self.options.cell_memory_mib)

    def stop(self, server: str) -> None:
        """Power a server off."""
        self.servers_client.stop_server(server)
        self.wait_for(server, 'SHUTOFF')

    def start(self, server: str) -> None:
        """Power a server on."""
        self.servers_client.start_server(server)
        self.wait_for(server, 'ACTIVE')

    def reboot_hard(self, server: str) -> None:
        """Hard reboot a server."""
        self.servers_client.reboot_server(server, type='HARD')
        self.wait_for(server, 'ACTIVE')

    def suspend(self, server: str) -> None:
        """Suspend a server."""
        self.servers_client.suspend_server(server)
        self.wait_for(server, 'SUSPENDED')

    def resume(self, server: str) -> None:
        """Resume a suspended server."""
        self.servers_client.resume_server(server)
        self.wait_for(server, 'ACTIVE')

    def shelve(self, server: str) -> None:
        """Shelve a server, and remove it from its host."""
        compute.shelve_server(
            self.servers_client, server, force_shelve_offload=True
        )

    def unshelve(self, server: str) -> None:
        """Unshelve a server."""
        self.servers_client.unshelve_server(server)
        self.wait_for(server, 'ACTIVE')

    def rescue(self, server: str) -> None:
        """Boot a server from a rescue image."""
        self.servers_client.rescue_server(server)
        self.wait_for(server, 'RESCUE')

    def unrescue(self, server: str) -> None:
        """Boot a rescued server from its own disk."""
        self.servers_client.unrescue_server(server)
        self.wait_for(server, 'ACTIVE')

    def rebuild(self, server: str) -> None:
        """Rebuild a server from its image."""
        self.servers_client.rebuild_server(server, CONF.compute.image_ref)
        self.wait_for(server, 'ACTIVE')

    def resize(self, server: str, flavor: str) -> None:
        """Resize a server, without confirming it."""
        self.servers_client.resize_server(server, flavor)
        self.wait_for(server, 'VERIFY_RESIZE')

    def confirm_resize(self, server: str) -> None:
        """Confirm a resize."""
        self.servers_client.confirm_resize_server(server)
        self.wait_for(server, 'ACTIVE')

    def revert_resize(self, server: str) -> None:
        """Revert a resize."""
        self.servers_client.revert_resize_server(server)
        self.wait_for(server, 'ACTIVE')
