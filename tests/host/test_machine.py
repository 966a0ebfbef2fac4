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

"""This machine's kernel, with real libvirt and QEMU."""

from __future__ import annotations

import pathlib

import pytest

from tests.host import scene
from tests.host.rig import domains
from tests.host.rig import local

_BOOT_S = 120.0


def test_pages_grow_for_a_guest_and_go_back(
    machine: local.LocalHost, tmp_path: pathlib.Path
) -> None:
    """A guest has its memory where it was held, and the pool is as before."""
    before = scene.totals(machine)
    guest = scene.Guest(machine, domains.Cell(0, 128, [0]))
    ours = scene.Service(machine, str(tmp_path))

    refused, held = ours.do(['hold', guest.uuid, guest.needs], ['pools'])
    assert not refused
    assert held['0']['promised'] == 64
    guest.start()
    _, found = ours.do(['taken', guest.uuid], ['runs_on', guest.uuid])
    assert found == {'0': 64}
    assert ours.pools()['0']['promised'] == 0

    guest.destroy()
    ours.do(['release', guest.uuid])
    assert scene.totals(machine) == before


def test_more_than_there_is(
    machine: local.LocalHost, tmp_path: pathlib.Path
) -> None:
    """What can't be had leaves the pool as it was."""
    before = scene.totals(machine)
    ours = scene.Service(machine, str(tmp_path), time_limit_s=1.0)
    refused, holds = ours.do(['hold', 'a', [[0, 0, 2048, 1 << 24]]], ['holds'])
    assert 'are missing' in refused[0]
    assert holds == []
    assert scene.totals(machine) == before


def test_killed_while_pages_are_held(
    machine: local.LocalHost, tmp_path: pathlib.Path
) -> None:
    """What a killed process held is given back."""
    before = scene.totals(machine)
    ours = scene.Service(machine, str(tmp_path))
    ours.die(
        ['hold', 'a', [[0, 0, 2048, 100]]],
        ['die_in', 'set_state'],
        ['taken', 'a'],
    )
    ours.do(['heal', []])
    assert scene.totals(machine) == before


@pytest.mark.parametrize(
    ('balloon', 'returns'), [('on', True), ('off', False)]
)
def test_what_a_guest_returns_stays_its_own(
    machine: local.LocalHost,
    tmp_path: pathlib.Path,
    balloon: str,
    returns: bool,
) -> None:
    """Its kernel reports free memory, which QEMU then gives to the pool."""
    before = scene.totals(machine)
    console = tmp_path / 'console'
    console.touch()
    guest = scene.Guest(
        machine,
        domains.Cell(0, 256, [0]),
        console=console,
        balloon=balloon,
    )
    ours = scene.Service(machine, str(tmp_path))
    ours.do(['hold', guest.uuid, guest.needs])
    guest.start()
    ours.do(['taken', guest.uuid])

    # It reports two seconds after it has found its balloon.
    scene.wait_for_beat(machine, console, 4, _BOOT_S)
    _, pools = ours.do(['heal', [guest.uuid]], ['pools'])

    pool = pools['0']
    assert (pool['free'] > 0) == returns
    assert pool['promised'] == pool['free']
    assert (pool['total'], pool['occupied']) == (128, 0)
    guest.destroy()
    ours.do(['release', guest.uuid])
    assert scene.totals(machine) == before
