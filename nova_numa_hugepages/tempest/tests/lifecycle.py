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

# The status of a server after an operation, if it is not ACTIVE.
_STATUS = {
    'stop': 'SHUTOFF',
    'suspend': 'SUSPENDED',
    'rescue': 'RESCUE',
    'resize': 'VERIFY_RESIZE',
}


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

    def operate(
        self, operation: str, server: str, *arguments: Any, **more: Any
    ) -> None:
        """Do an operation on a server, and wait until it is done.

        :param operation: its name in Tempest's client, without ``_server``
        :param arguments: what the client takes beside the server
        """
        operate = getattr(self.servers_client, f'{operation}_server')
        operate(server, *arguments, **more)
        self.wait_for(server, _STATUS.get(operation, 'ACTIVE'))

    def shelve(self, server: str) -> None:
        """Shelve a server, and remove it from its host."""
        compute.shelve_server(
            self.servers_client, server, force_shelve_offload=True
        )

    def rebuild(self, server: str) -> None:
        """Rebuild a server from its image."""
        self.operate('rebuild', server, CONF.compute.image_ref)
