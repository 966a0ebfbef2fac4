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


"""A cloud for each module of tests, on the hosts that the module names."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fixtures import cloud as embedded
from tests.fixtures import nova_compat

# What starts other processes can't wait for them under eventlet, and the demo
# can't run under it. tox starts the first of these by itself then.
collect_ignore = (
    []
    if nova_compat.services_can_be_native()
    else ['test_simulate_command.py', 'test_demo.py']
)

# Boots guests of a flavor that is made for them, and waits for them.
Boot = Callable[..., list[dict[str, Any]]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a module that share a cloud in one process."""
    for item in items:
        if 'cloud' in getattr(item, 'fixturenames', ()):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(scope='module')
def cloud(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[embedded.EmbeddedCloud]:
    """A Nova with the hosts of the module's ``HOSTS``.

    It is made with the arguments in the module's ``CLOUD``, if there are any.
    """
    # Else pytest would make it in the cloud's own folder, and miss it later.
    tmp_path_factory.getbasetemp()
    arguments = getattr(request.module, 'CLOUD', {})
    with embedded.EmbeddedCloud(request.module.HOSTS, **arguments) as running:
        yield running


@pytest.fixture
def boot(cloud: embedded.EmbeddedCloud) -> Iterator[Boot]:
    """Boot instances; at the end they are deleted and nothing is left."""
    servers: list[str] = []
    flavors: list[str] = []

    def boot_guests(
        *,
        vcpus: int,
        ram_mib: int,
        specs: dict[str, str] | None = None,
        count: int = 1,
    ) -> list[dict[str, Any]]:
        flavor = cloud.api.create_flavor(
            f'flavor-{len(flavors)}',
            vcpus=vcpus,
            ram_mib=ram_mib,
            extra_specs=specs,
        )
        flavors.append(flavor)
        ids = cloud.api.boot('guest', flavor=flavor, count=count)
        servers.extend(ids)
        return [cloud.api.wait(server_id) for server_id in ids]

    yield boot_guests
    for server_id in servers:
        # The test may have deleted it itself.
        cloud.api.delete(server_id, missing_ok=True)
    for flavor in flavors:
        cloud.api.delete_flavor(flavor)
    assert cloud.wait_until_empty() == []
