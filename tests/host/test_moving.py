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

"""Live migration between two virtual hosts."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import pathlib
import shutil
import tempfile

import pytest

from tests.host import scene
from tests.host.rig import domains
from tests.host.rig import virtual

pytestmark = pytest.mark.nightly

THERE = (domains.Cell(1, 128, [2]), domains.Cell(3, 128, [6]))
HERE = (domains.Cell(0, 128, [0]), domains.Cell(2, 128, [4]))
CONSOLE = pathlib.PurePath('/tmp/console.log')
FOLDER = '/persist/service'

# Two hosts on TCG, with a guest on TCG inside.
BOOT_S = 600


@pytest.fixture(scope='module')
def pair(
    rig: None,
) -> Iterator[tuple[virtual.VirtualHost, virtual.VirtualHost]]:
    """Two virtual hosts on a link of their own."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix='rig-'))
    link = folder / 'link.socket'
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        source = stack.enter_context(
            virtual.VirtualHost('source', address='192.168.77.1', link=link)
        )
        target = stack.enter_context(
            virtual.VirtualHost('target', address='192.168.77.2', link=link)
        )
        yield source, target


def test_pages_are_held_before_a_guest_comes(
    pair: tuple[virtual.VirtualHost, virtual.VirtualHost],
) -> None:
    """The guest goes from nodes 1 and 3 to pages held on nodes 0 and 2."""
    source, target = pair
    guest = scene.Guest(source, *THERE, console=CONSOLE)
    there = scene.Service(source, FOLDER)
    here = scene.Service(target, FOLDER)
    there.do(['hold', guest.uuid, guest.needs])
    guest.start()
    there.do(['taken', guest.uuid])
    scene.wait_for_beat(source, CONSOLE, 1, BOOT_S)

    coming = scene.Guest(target, *HERE)
    refused, pools = here.do(
        ['hold', guest.uuid, coming.needs, 'incoming'], ['pools']
    )
    assert not refused
    assert [pools[node]['promised'] for node in '0123'] == [64, 0, 64, 0]
    assert [pools[node]['available'] for node in '0123'] == [0, 0, 0, 0]

    guest.migrate(target, *HERE)
    _, found, holds, pools = here.do(
        ['arrived', guest.uuid],
        ['runs_on', guest.uuid],
        ['holds'],
        ['pools'],
    )
    assert found == {'0': 64, '2': 64}
    assert holds == [
        [guest.uuid, 'taken', 0, 64],
        [guest.uuid, 'taken', 2, 64],
    ]
    assert [pools[node]['promised'] for node in '0123'] == [0, 0, 0, 0]
    assert [pools[node]['occupied'] for node in '0123'] == [0, 0, 0, 0]
    there.do(['release', guest.uuid])
    assert scene.totals(source) == [0, 0, 0, 0]
    scene.wait_for_beat(target, CONSOLE, 2, BOOT_S)

    guest.destroy()
    here.do(['release', guest.uuid])
    assert scene.totals(target) == [0, 0, 0, 0]


def test_pages_of_a_guest_that_never_came_go_back(
    pair: tuple[virtual.VirtualHost, virtual.VirtualHost],
) -> None:
    """A destination finds out by itself that nothing is coming."""
    _, target = pair
    here = scene.Service(target, FOLDER)
    coming = scene.Guest(target, *HERE)
    here.do(['hold', coming.uuid, coming.needs, 'incoming'])
    assert scene.totals(target) == [64, 0, 64, 0]
    here.do(['heal', []])
    assert scene.totals(target) == [0, 0, 0, 0]
