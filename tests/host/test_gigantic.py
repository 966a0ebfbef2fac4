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

"""Pages of 1 GiB."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.host import scene
from tests.host.rig import domains
from tests.host.rig import virtual

pytestmark = pytest.mark.nightly

GIB = 1 << 20


@pytest.fixture(scope='module')
def large(rig: None) -> Iterator[virtual.VirtualHost]:
    """A virtual host with a page of 1 GiB on nodes 1 and 3."""
    with virtual.VirtualHost(
        'large',
        node_mib=2560,
        kernel_arguments='hugepagesz=1G hugepages=1:1,3:1',
    ) as host:
        yield host


def test_pages_of_the_command_line_are_held(
    large: virtual.VirtualHost,
) -> None:
    """A guest has its memory in the pages that the operator set up."""
    cells = (domains.Cell(1, 1024, [2, 3]), domains.Cell(3, 1024, [6, 7]))
    guest = scene.Guest(large, *cells, page_kib=GIB)
    ours = scene.Service(large, '/persist/service')

    refused, pools, other = ours.do(
        ['hold', guest.uuid, guest.needs],
        ['pools', GIB],
        ['hold', 'other', [[0, 3, GIB, 1]]],
    )
    assert not refused
    assert [pools[node]['promised'] for node in '0123'] == [0, 1, 0, 1]
    assert [pools[node]['floor'] for node in '0123'] == [0, 1, 0, 1]
    assert '1 promised to other instances' in other[0]

    guest.start()
    _, found = ours.do(['taken', guest.uuid], ['runs_on', guest.uuid])
    assert found == {'1': 1, '3': 1}

    guest.destroy()
    ours.do(['release', guest.uuid])
    assert [ours.do(['pools', GIB])[0][n]['total'] for n in '0123'] == [
        0,
        1,
        0,
        1,
    ]


def test_no_page_is_split_unless_it_is_allowed(
    large: virtual.VirtualHost,
) -> None:
    """Large pages make up for missing small ones, if the operator says so."""
    needs = [[0, 3, 2048, 900]]
    ours = scene.Service(large, '/persist/service', time_limit_s=1.0)
    assert ours.do(['hold', 'small', needs])[0]

    ours = scene.Service(
        large, '/persist/service', time_limit_s=1.0, demote=True
    )
    refused, small, gigantic = ours.do(
        ['hold', 'small', needs], ['pools'], ['pools', GIB]
    )
    assert not refused
    assert small['3']['promised'] == 900
    assert gigantic['3']['total'] == 0
    assert gigantic['1']['total'] == 1
    # What was set up as floor in one size stays that in the other.
    ours.do(['release', 'small'])
    assert ours.pools()['3']['total'] == 512
