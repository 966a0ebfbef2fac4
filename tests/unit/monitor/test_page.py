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

"""What the page shows, as JSON and as HTML."""

from __future__ import annotations

import json
import pathlib
import re
from xml.etree import ElementTree

import pytest

from nova_numa_hugepages.monitor import alarms
from nova_numa_hugepages.monitor import page
from nova_numa_hugepages.monitor import service
from nova_numa_hugepages.monitor.thresholds import DEFAULTS
from tests.unit.hugepages import page_host
from tests.unit.monitor import page_scene
from tests.unit.monitor import watched
from tests.unit.monitor.watched import A
from tests.unit.monitor.watched import C


@pytest.fixture(scope='module')
def scene(tmp_path_factory: pytest.TempPathFactory) -> page_scene.Scene:
    return page_scene.Scene(tmp_path_factory.mktemp('host'), '<b>"db"</b>')


def test_the_json_of_a_host(scene: page_scene.Scene) -> None:
    found = scene.view()
    assert json.loads(json.dumps(found)) is not None
    assert found['version'] == 1
    assert found['host'] == 'compute-1'
    assert found['problems'] == []
    third = found['nodes'][3]
    assert third['memory_kib'] == {
        'total': 4096 * 1024,
        'instances': 0,
        'others': 100 * 2048,
        'promised': 150 * 2048,
        'idle': 50 * 2048,
        'small': 600 * 1024,
        'free': (4096 - 600 - 600) * 1024,
        'reclaimable': third['memory_kib']['reclaimable'],
        'available': third['memory_kib']['available'],
    }
    assert third['distances'] == {'0': 21, '1': 32, '2': 21, '3': 10}
    pinned = {
        cpu['cpu']: cpu['instances']
        for cpu in found['nodes'][0]['cpus']
        if cpu['instances']
    }
    assert pinned[2] == [A]
    assert len(third['past']) == 96
    (router,) = [one for one in found['instances'] if one['uuid'] == C]
    assert router['cells'] == [
        {'node': 1, 'page_size': '2MiB', 'promised': 300, 'in_place': 260},
        {'node': 2, 'page_size': '2MiB', 'promised': 0, 'in_place': 40},
    ]
    assert router['astray_kib'] == 40 * 2048
    assert router['alarms'] == ['memory_misplaced']
    assert found['others'] == [
        {
            'cgroup': '/system.slice/ovs-vswitchd.service',
            'node': 3,
            'page_size': '2MiB',
            'pages': 100,
        }
    ]
    (slots,) = found['slots']
    assert slots['lost'] >= 1
    assert found['remedy']


def test_the_page_is_well_formed_and_escapes_what_users_write(
    scene: page_scene.Scene,
) -> None:
    text = page.render(scene.view(), 30)
    assert '<b>"db"</b>' not in text
    assert '&lt;b&gt;' in text
    assert 'http-equiv="refresh" content="30"' in text
    body = text[text.index('<body>') : text.index('</body>') + 7]
    ElementTree.fromstring(body.replace('&nbsp;', ' '))
    # Nothing from outside, no script, and no style but the sheet's.
    assert not re.search(r'<script|<img|<iframe|<link|\sstyle=|https?:', text)
    assert page.policy() in text.replace('&#39;', "'")


def test_the_sizes_of_an_elastic_instance(tmp_path: pathlib.Path) -> None:
    host = watched.Watched(tmp_path, page_host.grown(40), dynamic=False)
    host.spawn_elastic(A, 15, 10, 40)
    host.rig.pools.put_waits(A, {0: 20 * 2048})
    monitor = service.Monitor(
        host.look,
        alarms.load(DEFAULTS),
        host.analyst(),
        1000.0,
        ticks=lambda: host.ticks,
        name='compute-1',
    )
    assert monitor.step()
    found = monitor.view()
    assert found is not None
    assert found['instances'][0]['elastic'] == [
        {
            'node': 0,
            'page_size': '2MiB',
            'cell': 0,
            'base_kib': 10 * 2048,
            'held_kib': 15 * 2048,
            'ceiling_kib': 40 * 2048,
            'waits_kib': 20 * 2048,
        }
    ]
    text = page.render(found, 30)
    assert (
        'Its NUMA node 0 is elastic: from 20 MiB to 80 MiB, now 30 MiB.'
        in text
    )
    assert 'It needs 40 MiB more, and there is none for it.' in text


def test_bars_do_not_outgrow_what_they_are_in() -> None:
    assert page._bar([('a', 30), ('b', 0), ('c', 90)], 100) == [
        ('a', 0, 300),
        ('c', 300, 700),
    ]
    assert page._bar([('a', 30)], 0) == []


def test_curves_end_now_and_begin_a_day_ago() -> None:
    now = 1_000_000.0
    points = [(now - 90_000, 1.0), (now - 43_200, 5.0), (now, 20.0)]
    assert page._curve(points, now, 10) == '120.0,20.0 240.0,0.0'
    assert page._curve([(now, 1.0)], now, 0) == '240.0,40.0'


@pytest.mark.parametrize(
    ('kib', 'text'),
    [
        (None, '–'),
        (0, '0 KiB'),
        (1536, '1.5 MiB'),
        (200 * 1024, '200 MiB'),
        (5 << 31, '10 TiB'),
    ],
)
def test_amounts(kib: float | None, text: str) -> None:
    assert page._kib(kib) == text


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [(None, ''), (120, '2 min'), (7200, '2 h'), (400_000, '5 days')],
)
def test_times(seconds: float | None, text: str) -> None:
    assert page._span(seconds) == text


def test_a_host_without_anything(tmp_path: pathlib.Path) -> None:
    scene = page_scene.Scene(tmp_path)
    for uuid in list(scene.host.kernel.guests()):
        scene.host.kernel.stop_guest(uuid)
    scene.host.collector = scene.host.watch(tmp_path / 'none')
    scene.monitor.step()
    text = page.render(scene.view())
    assert 'None run here.' in text
    assert 'no ledger here' in text
