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

"""Guests on huge pages of chosen nodes, from the first page to the last."""

from __future__ import annotations

from tests.host import conftest
from tests.host import scene
from tests.host.rig import virtual


def test_the_host_has_four_nodes(host: virtual.VirtualHost) -> None:
    """What all other tests stand on."""
    distances = host.run('cat /sys/devices/system/node/node*/distance').out
    assert distances.splitlines() == [
        '10 12 21 21',
        '12 10 21 21',
        '21 21 10 12',
        '21 21 12 10',
    ]
    assert host.virsh('capabilities').out.count('<cell id=') == virtual.NODES


def test_pages_grow_from_zero_and_go_back(
    host: virtual.VirtualHost, service: conftest.Make
) -> None:
    """A guest on nodes 1 and 3 gets its memory there and only there."""
    guest = scene.Guest(host, *scene.CELLS)
    ours = service()

    refused, held = ours.do(['hold', guest.uuid, guest.needs], ['pools'])
    assert not refused
    assert [held[node]['total'] for node in '0123'] == [0, 64, 0, 32]
    assert [held[node]['promised'] for node in '0123'] == [0, 64, 0, 32]
    assert [held[node]['available'] for node in '0123'] == [0, 0, 0, 0]

    guest.start()
    _, found, holds, taken = ours.do(
        ['taken', guest.uuid], ['runs_on', guest.uuid], ['holds'], ['pools']
    )
    assert found == {'1': 64, '3': 32}
    assert holds == scene.taken(guest)
    assert [taken[node]['free'] for node in '0123'] == [0, 0, 0, 0]
    assert [taken[node]['promised'] for node in '0123'] == [0, 0, 0, 0]
    assert [taken[node]['occupied'] for node in '0123'] == [0, 0, 0, 0]

    guest.destroy()
    _, holds = ours.do(['release', guest.uuid], ['holds'])
    assert holds == []
    assert scene.totals(host) == [0, 0, 0, 0]


def test_pools_go_back_to_the_floor(
    host: virtual.VirtualHost, service: conftest.Make
) -> None:
    """Pages that were there before are used first, and stay."""
    scene.set_pools(host, 5, 20, 0, 100)
    guest = scene.Guest(host, *scene.CELLS)
    ours = service()

    ours.do(['hold', guest.uuid, guest.needs])
    assert scene.totals(host) == [5, 64, 0, 100]
    guest.start()
    ours.do(['taken', guest.uuid])
    # A guest that is off has a right to its pages.
    guest.destroy()
    pools = ours.pools()
    assert [pools[node]['promised'] for node in '0123'] == [0, 64, 0, 32]

    ours.do(['release', guest.uuid])
    assert scene.totals(host) == [5, 20, 0, 100]


def test_release_while_the_guest_still_runs(
    host: virtual.VirtualHost, service: conftest.Make
) -> None:
    """Pages in use are not taken away; they go once they are free."""
    guest = scene.Guest(host, *scene.CELLS)
    ours = service()
    ours.do(['hold', guest.uuid, guest.needs])
    guest.start()

    ours.do(['taken', guest.uuid], ['release', guest.uuid])
    assert scene.totals(host) == [0, 64, 0, 32]
    guest.destroy()
    ours.do(['heal', []])
    assert scene.totals(host) == [0, 0, 0, 0]
