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

"""The roads on which a server stops, or moves, and comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import TypeVar

from tempest import config
from tempest.common import compute

from nova_numa_hugepages.tempest import shape
from nova_numa_hugepages.tempest.tests import base

CONF = config.CONF

Test = TypeVar('Test', bound=Callable[..., Any])

_NEEDS = 'needs_compute_feature'


def needs(feature: str) -> Callable[[Test], Test]:
    """Skip a test where ``tempest.conf`` says that a feature is missing.

    :param feature: an option of the group ``compute-feature-enabled``
    :returns: a decorator for a test of :class:`RoadsTest`
    """

    def mark(test: Test) -> Test:
        setattr(test, _NEEDS, feature)
        return test

    return mark


class RoadsTest(base.BaseTest):
    """Takes servers along each road; what they are checked for is apart."""

    def setUp(self) -> None:
        super().setUp()
        # Here, because nothing is known of the options at import, and before
        # a server is created.
        feature = getattr(getattr(self, self._testMethodName), _NEEDS, None)
        if feature and not CONF.compute_feature_enabled[feature]:
            self.skipTest(f'Not enabled: [compute-feature-enabled] {feature}')

    def larger(self) -> shape.Shape:
        """Tell the shape of a server that was resized."""
        return self.make_shape(
            cell_memory_mib=2 * self.options.cell_memory_mib
        )

    def stop(self, server: str) -> None:
        """Power a server off."""
        self.servers_client.stop_server(server)
        self.wait_for(server, 'SHUTOFF')

    def start(self, server: str) -> None:
        """Power a server on."""
        self.servers_client.start_server(server)
        self.wait_for(server, 'ACTIVE')

    def reboot_hard(self, server: str) -> None:
        """Reboot a server as if by its power switch."""
        self.servers_client.reboot_server(server, type='HARD')
        self.wait_for(server, 'ACTIVE')

    def suspend(self, server: str) -> None:
        """Write the memory of a server to disk."""
        self.servers_client.suspend_server(server)
        self.wait_for(server, 'SUSPENDED')

    def resume(self, server: str) -> None:
        """Let a suspended server run."""
        self.servers_client.resume_server(server)
        self.wait_for(server, 'ACTIVE')

    def shelve(self, server: str) -> None:
        """Take a server off its host, and keep its disk as an image."""
        compute.shelve_server(
            self.servers_client, server, force_shelve_offload=True
        )

    def unshelve(self, server: str) -> None:
        """Give a shelved server a host."""
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
        """Write the image onto the disk of a server anew."""
        self.servers_client.rebuild_server(server, CONF.compute.image_ref)
        self.wait_for(server, 'ACTIVE')

    def resize(self, server: str, flavor: str) -> None:
        """Give a server another flavor, for a try."""
        self.servers_client.resize_server(server, flavor)
        self.wait_for(server, 'VERIFY_RESIZE')

    def confirm_resize(self, server: str) -> None:
        """Keep the new flavor."""
        self.servers_client.confirm_resize_server(server)
        self.wait_for(server, 'ACTIVE')

    def revert_resize(self, server: str) -> None:
        """Take the old flavor back."""
        self.servers_client.revert_resize_server(server)
        self.wait_for(server, 'ACTIVE')
