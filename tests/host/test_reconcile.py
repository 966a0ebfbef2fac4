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

"""Processes that are killed, hosts that reboot, operators who step in."""

from __future__ import annotations

import pytest

from tests.host import conftest
from tests.host import scene
from tests.host.rig import virtual

OTHER = 'f1c7c1c5-0a0c-4b4e-8f8b-6f1d0c0c0001'


def test_killed_between_growth_and_start(
    host: virtual.VirtualHost, service: conftest.Make
) -> None:
    """What a guest that never started held is given back."""
    guest = scene.Guest(host, *scene.CELLS)
    ours = service()
    ours.die(
        ['hold', guest.uuid, guest.needs],
        ['die_in', 'set_state'],
        ['taken', guest.uuid],
    )
    assert scene.totals(host) == [0, 64, 0, 32]

    # The next guest gets other pages.
    _, pools = ours.do(['hold', OTHER, [[0, 1, 2048, 10]]], ['pools'])
    assert pools['1'] == {
        'total': 74,
        'free': 74,
        'floor': 0,
        'grown': 74,
        'promised': 74,
        'occupied': 0,
        'available': 0,
    }

    healed, holds = ours.do(['heal', [OTHER]], ['holds'])
    assert any(guest.uuid in sentence for sentence in healed)
    assert holds == [[OTHER, 'held', 1, 10]]
    assert scene.totals(host) == [0, 10, 0, 0]


@pytest.mark.parametrize('operation', ['settle', 'replace_holds'])
def test_killed_in_the_middle_of_a_hold(
    host: virtual.VirtualHost, service: conftest.Make, operation: str
) -> None:
    """Pages that were made for a hold that was never written are found."""
    scene.set_pools(host, 0, 20, 0, 0)
    guest = scene.Guest(host, *scene.CELLS)
    ours = service()
    ours.die(['die_in', operation], ['hold', guest.uuid, guest.needs])
    assert scene.totals(host)[1] == 64

    _, holds = ours.do(['heal', []], ['holds'])
    assert holds == []
    assert scene.totals(host) == [0, 20, 0, 0]


def test_killed_after_the_guest_has_started(
    host: virtual.VirtualHost, service: conftest.Make
) -> None:
    """A guest that runs keeps what it has."""
    guest = scene.Guest(host, *scene.CELLS)
    ours = service()
    ours.do(['hold', guest.uuid, guest.needs])
    guest.start()
    ours.die(['die_in', 'set_state'], ['taken', guest.uuid])

    _, holds, pools = ours.do(['heal', [guest.uuid]], ['holds'], ['pools'])
    assert holds == scene.taken(guest)
    assert [pools[node]['promised'] for node in '0123'] == [0, 0, 0, 0]
    guest.destroy()
    ours.do(['heal', []])
    assert scene.totals(host) == [0, 0, 0, 0]


def test_ledger_that_was_lost(
    host: virtual.VirtualHost, service: conftest.Make
) -> None:
    """Guests that run are found, and what they have is never taken."""
    guest = scene.Guest(host, *scene.CELLS)
    ours = service()
    ours.do(['hold', guest.uuid, guest.needs])
    guest.start()
    host.run(['rm', '-r', ours.folder])

    _, holds = ours.do(['heal', [guest.uuid]], ['holds'])
    assert holds == scene.taken(guest)


def test_operator_changes_pools_by_hand(
    host: virtual.VirtualHost, service: conftest.Make
) -> None:
    """What an operator writes is what the pools keep."""
    ours = service()
    ours.do(['hold', OTHER, [[0, 1, 2048, 50], [1, 3, 2048, 50]]])
    scene.set_pools(host, 0, 80, 0, 40)

    healed, pools = ours.do(['heal', [OTHER]], ['pools'])
    assert any(
        '2 MiB on NUMA node 1 was set from 50 to 80 pages' in line
        for line in healed
    )
    assert (pools['1']['floor'], pools['1']['grown']) == (80, 0)
    # The ten that were taken are promised, and allocated again.
    assert (pools['3']['floor'], pools['3']['grown']) == (40, 10)
    assert [pools[node]['promised'] for node in '0123'] == [0, 50, 0, 50]
    assert min(pools[node]['available'] for node in '0123') == 0

    ours.do(['release', OTHER])
    assert scene.totals(host) == [0, 80, 0, 40]


def test_reboot(host: virtual.VirtualHost, service: conftest.Make) -> None:
    """After a reboot the guests that are still defined get their pages."""
    guest = scene.Guest(host, *scene.CELLS)
    ours = service()
    ours.do(
        ['hold', guest.uuid, guest.needs], ['hold', OTHER, [[0, 0, 2048, 9]]]
    )
    guest.start()
    ours.do(['taken', guest.uuid])

    host.reboot()
    assert scene.totals(host) == [0, 0, 0, 0]
    healed, pools, holds = ours.do(
        ['heal', [guest.uuid]], ['pools'], ['holds']
    )
    assert any('rebooted' in sentence for sentence in healed)
    assert [pools[node]['grown'] for node in '0123'] == [0, 64, 0, 32]
    assert [pools[node]['floor'] for node in '0123'] == [0, 0, 0, 0]
    assert holds == scene.taken(guest)

    guest.start()
    assert ours.do(['runs_on', guest.uuid]) == [{'1': 64, '3': 32}]
    guest.destroy()
    ours.do(['release', guest.uuid])
    assert scene.totals(host) == [0, 0, 0, 0]
