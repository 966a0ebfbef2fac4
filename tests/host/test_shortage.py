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

"""Too few pages: refused with numbers, and nothing is left behind."""

from __future__ import annotations

import re
import sys

import pytest

from tests.host import conftest
from tests.host import scene
from tests.host.rig import folders
from tests.host.rig import virtual

OCCUPY = str(folders.PROJECT / 'tests' / 'host' / 'occupy.py')


def test_fragmented_memory_falls_short_and_is_undone(
    host: virtual.VirtualHost, service: conftest.Make
) -> None:
    """Growth that falls short on one node is undone on all of them."""
    scene.set_pools(host, 0, 7, 3, 0)
    ours = service()
    needs = [[0, 1, 2048, 50], [1, 2, 2048, 300]]
    with scene.scattered(host, 2):
        meminfo = host.read('/sys/devices/system/node/node2/meminfo')
        free = re.search(r'MemFree:\s+(\d+) kB', meminfo)
        assert free is not None
        assert int(free[1]) > 700 * 1024
        refused, holds = ours.do(['hold', 'a', needs], ['holds'])
    assert len(refused) == 1
    numbers = re.match(
        r'(\d+) of 300 pages of 2 MiB on NUMA node 2 are missing', refused[0]
    )
    assert numbers is not None, refused
    assert 200 < int(numbers[1]) < 300
    assert 'blocks that are too small' in refused[0]
    assert holds == []
    assert scene.totals(host) == [0, 7, 3, 0]

    # With the memory in one piece again it works.
    assert ours.do(['hold', 'a', needs]) == [[]]
    assert scene.totals(host) == [0, 50, 300, 0]
    ours.do(['release', 'a'])
    assert scene.totals(host) == [0, 7, 3, 0]


def test_two_race_for_the_last_pages(
    host: virtual.VirtualHost, service: conftest.Make
) -> None:
    """Of processes that want the same pages at once, one gets them."""
    ours = service(ceiling_percent=60)
    _race(host, ours, {'a': 300, 'b': 300}, winners=1)
    assert scene.totals(host) == [0, 300, 0, 0]


@pytest.mark.nightly
def test_four_race_for_a_static_pool(
    host: virtual.VirtualHost, service: conftest.Make
) -> None:
    """Three of four fit, whichever they are."""
    scene.set_pools(host, 0, 100, 0, 0)
    ours = service(dynamic=False)
    _race(host, ours, dict.fromkeys('abcd', 30), winners=3)
    pools = ours.pools()
    assert pools['1']['promised'] == 90
    assert pools['1']['available'] == 10


def _race(
    host: virtual.VirtualHost,
    ours: scene.Service,
    wanted: dict[str, int],
    *,
    winners: int,
) -> None:
    go = f'{ours.folder}/go'
    ours.do()
    racers = {
        holder: ours.start(
            ['wait_for', go], ['hold', holder, [[0, 1, 2048, count]]]
        )
        for holder, count in wanted.items()
    }
    for racer in racers.values():
        racer.wait_for('waiting')
    host.write(go, '')
    refused = {}
    for holder, racer in racers.items():
        ended = racer.wait()
        assert ended.status == 0, ended
        refused[holder] = scene.results(ended)[1]
    won = [holder for holder, why in refused.items() if not why]
    assert len(won) == winners, refused
    assert ours.do(['holds']) == [
        [[holder, 'held', 1, wanted[holder]] for holder in sorted(won)]
    ]
    for why in refused.values():
        if why:
            assert re.match(r'\d+ of \d+ pages .* are missing', why[0])


def test_pages_of_others_are_never_promised(
    host: virtual.VirtualHost, service: conftest.Make
) -> None:
    """A program with huge pages keeps them, wherever its pages come from."""
    scene.set_pools(host, 0, 0, 0, 40)
    ours = service(dynamic=False)
    other = host.spawn([sys.executable, '-I', OCCUPY, '3', '30', 'dpdk'])
    other.wait_for('occupied')

    many, few, pools = ours.do(
        ['hold', 'a', [[0, 3, 2048, 11]]],
        ['hold', 'b', [[0, 3, 2048, 10]]],
        ['pools'],
    )
    assert '30 used by others' in many[0]
    assert few == []
    assert pools['3']['occupied'] == 30
    assert pools['3']['available'] == 0

    ours.do(['release', 'b'])
    assert scene.totals(host) == [0, 0, 0, 40]
    other.kill()


def test_pages_that_others_took_of_ours_stay(
    host: virtual.VirtualHost, service: conftest.Make
) -> None:
    """A page that we made and another program took is given back later."""
    ours = service()
    ours.do(['hold', 'a', [[0, 3, 2048, 40]]])
    other = host.spawn([sys.executable, '-I', OCCUPY, '3', '30'])
    other.wait_for('occupied')

    ours.do(['release', 'a'])
    assert scene.totals(host) == [0, 0, 0, 30]
    other.kill()
    ours.do(['heal', []])
    assert scene.totals(host) == [0, 0, 0, 0]
