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

"""Real hosts for the tests: this machine, and virtual ones."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import pathlib
import time
from typing import Any

import pytest

from tests.host import scene
from tests.host.rig import local
from tests.host.rig import setup
from tests.host.rig import virtual

Make = Callable[..., scene.Service]


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks of these tests."""
    config.addinivalue_line(
        'markers', 'nightly: takes minutes; run by make test-nightly'
    )


@pytest.fixture(scope='session')
def rig() -> None:
    """All that virtual hosts boot from is there."""
    try:
        setup.prepare()
    except SystemExit as reason:
        pytest.exit(str(reason), returncode=1)


@pytest.fixture(scope='session')
def booted(
    rig: None, pytestconfig: pytest.Config
) -> Iterator[virtual.VirtualHost]:
    """A virtual host with four nodes, booted once for all tests."""
    began = time.monotonic()
    with virtual.VirtualHost() as host:
        # Nothing else shows where to look, if a test hangs.
        capture = pytestconfig.pluginmanager.get_plugin('capturemanager')
        with capture.global_and_fixture_disabled():
            print(
                '\nA virtual host with four nodes booted in '
                f'{time.monotonic() - began:.0f} s; logs are in {host.logs}',
                flush=True,
            )
        host.wait_for_libvirt()
        yield host


@pytest.fixture
def host(booted: virtual.VirtualHost) -> Iterator[virtual.VirtualHost]:
    """The virtual host, without guests and without huge pages."""
    yield booted
    _clear(booted)


@pytest.fixture
def service(host: virtual.VirtualHost, tmp_path: pathlib.Path) -> Make:
    """Make the service's part on the virtual host, with a new ledger."""

    def make(**policy: Any) -> scene.Service:
        return scene.Service(host, f'/persist{tmp_path}', **policy)

    return make


@pytest.fixture(scope='session')
def machine(rig: None) -> Iterator[local.LocalHost]:
    """This machine, with a libvirt of its own."""
    with local.LocalHost() as found:
        yield found


def _clear(host: virtual.VirtualHost) -> None:
    host.run(
        'for name in $(virsh --quiet list --name); do'
        ' virsh --quiet destroy "$name"; done; '
        'echo 0 >/proc/sys/vm/nr_hugepages; '
        'echo 1 >/proc/sys/vm/compact_unevictable_allowed'
    )
