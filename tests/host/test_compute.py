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

"""Nova itself, with our driver on real libvirt, QEMU and huge pages."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

import pytest

from tests.host import scene
from tests.host.rig import local
from tests.host.rig import setup
from tests.host.rig import virtual

pytestmark = pytest.mark.nightly

# Inside a virtual host importing Nova alone takes a minute.
LIMIT_S = 1500


@pytest.fixture(scope='module', autouse=True)
def _libvirt_python(rig: None) -> None:
    """What Nova speaks with libvirt through is there."""
    setup.prepare(with_nova=True)


def test_on_this_machine(
    machine: local.LocalHost, tmp_path: pathlib.Path
) -> None:
    """A guest with one cell on node 0."""
    before = scene.totals(machine)
    seen = _run(machine, str(tmp_path), machine.uri)
    assert seen['placement'] == {'0': 64}
    assert seen['pools'][0] == max(before[0], 64)
    _check(seen, before)


def test_in_a_virtual_host(
    host: virtual.VirtualHost, tmp_path: pathlib.Path
) -> None:
    """A guest with cells of 128 and 64 MiB on nodes of their own."""
    seen = _run(host, f'/persist{tmp_path}')
    cells = seen['facts']['cells']
    assert [cells[node]['distances'] for node in '0123'] == [
        [10, 12, 21, 21],
        [12, 10, 21, 21],
        [21, 21, 10, 12],
        [21, 21, 12, 10],
    ]
    for cell in cells.values():
        assert cell['pages']['2048']['free'] == 0
        assert cell['pages']['2048']['allocatable'] > 100
    assert sorted(seen['placement'].values()) == [32, 64]
    assert seen['pools'] == [seen['placement'].get(node, 0) for node in '0123']
    _check(seen, [0, 0, 0, 0])


def _check(seen: dict[str, Any], before: list[int]) -> None:
    assert seen['started'] == 'ACTIVE', seen['fault']
    assert seen['too large'] == 'ERROR'
    assert seen['stopped'] == 'SHUTOFF'
    assert seen['pools when off'] == seen['pools']
    assert seen['restarted'] == 'ACTIVE'
    assert seen['placement again'] == seen['placement']
    assert seen['elastic'] == 'ACTIVE', seen['elastic fault']
    assert seen['elastic at first'] == [[128, 128, 192, 0]]
    assert sum(seen['elastic placement'].values()) == 128
    assert seen['elastic larger'] == [[128, 192, 192, 64]]
    # It comes back as large as it was.
    assert seen['elastic rebooted'] == 'ACTIVE'
    assert seen['elastic then'] == [[128, 192, 192, 64]]
    assert seen['pools at last'] == before


def _run(host: scene.Host, folder: str, *uri: str) -> dict[str, Any]:
    ended = host.run(
        [sys.executable, '-m', 'tests.host.compute', folder, *uri],
        timeout=LIMIT_S,
    )
    seen: dict[str, Any] = json.loads(ended.out)
    return seen
