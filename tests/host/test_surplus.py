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

"""Pools of a node while another one has surplus pages."""

from __future__ import annotations

from tests.host import conftest
from tests.host import scene
from tests.host.rig import domains
from tests.host.rig import virtual

_OTHERS = [f'f1c7c1c5-0a0c-4b4e-8f8b-6f1d0c0c000{number}' for number in (1, 2)]


def test_surplus_pages_elsewhere_are_not_added(
    host: virtual.VirtualHost, service: conftest.Make
) -> None:
    """A pool gets what was asked for, also from kernels before 6.7."""
    guest = scene.Guest(host, domains.Cell(0, 128, [0, 1]))
    ours = service()
    ours.do(['hold', guest.uuid, guest.needs])
    guest.start()
    ours.do(['taken', guest.uuid])
    # The operator takes away the pages that it has.
    scene.set_pools(host, 0)
    assert scene.totals(host) == [64, 0, 0, 0]

    for other, pages in zip(_OTHERS, (20, 100), strict=True):
        refused, pools = ours.do(
            ['hold', other, [[0, 1, 2048, pages]]], ['pools']
        )
        assert refused == []
        assert scene.totals(host) == [64, pages, 0, 0]
        assert (pools['1']['floor'], pools['1']['grown']) == (0, pages)
        [_, pools] = ours.do(['release', other], ['pools'])
        assert pools['1']['floor'] == 0

    guest.destroy()
    _, pools = ours.do(['heal', []], ['pools'])
    assert scene.totals(host) == [0, 0, 0, 0]
    assert [pools[node]['floor'] for node in '0123'] == [0, 0, 0, 0]
