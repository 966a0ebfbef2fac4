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

"""What samples and the history tell together."""

from __future__ import annotations

import pathlib

import pytest

from nova_numa_hugepages.monitor import history
from tests.unit.hugepages import page_host
from tests.unit.monitor import watched
from tests.unit.monitor.watched import A


@pytest.fixture
def host(tmp_path: pathlib.Path) -> watched.Watched:
    found = watched.Watched(tmp_path, page_host.grown(400))
    found.collector = found.watch(tmp_path / 'none.sqlite')
    found.now = 3600.0 * 1000
    return found


def test_time_left(host: watched.Watched) -> None:
    past = history.History(None, clock=lambda: host.now)
    analyst = host.analyst(past)
    left = []
    for _ in range(14):
        host.kernel.take({page_host.pool(0): 10})
        left.append(analyst.look(host.look()).time_left_s.get(0))
        host.now += 300
        host.ticks += 300
    # Not before there is a trend.
    assert left[:5] == [None] * 5
    assert left[-1] == pytest.approx(26 * 300, rel=0.2)


def test_kinds_survive_a_restart(
    host: watched.Watched, tmp_path: pathlib.Path
) -> None:
    host.spawn(A, (0, 10))
    path = tmp_path / 'history.sqlite'
    past = history.History(path, clock=lambda: host.now)
    assert host.analyst(past).look(host.look()).slots['db.large'].now == 39
    host.kernel.stop_guest(A)
    host.rig.pools.release(A)
    past.close()
    again = history.History(path, clock=lambda: host.now)
    assert host.analyst(again).look(host.look()).slots['db.large'].now == 40
    again.close()


def test_kinds_that_were_kept_and_cannot_be_read(
    host: watched.Watched, caplog: pytest.LogCaptureFixture
) -> None:
    past = history.History(None, clock=lambda: host.now)
    past.keep('kinds', [['x']])
    assert host.analyst(past).look(host.look()).slots == {}
    assert 'kinds' in caplog.text


def test_what_is_kept(host: watched.Watched) -> None:
    host.spawn(A, (0, 10))
    host.kernel.take({page_host.pool(0): 30})
    past = history.History(None, clock=lambda: host.now)
    host.analyst(past).look(host.look())
    host.now += 60
    past.add(host.now, {})
    found = {
        series: points[0].mean
        for series, points in past.minutes(lambda one: True, 0).items()
    }
    assert found[history.Series('pool_free_pages', '', '0', '2MiB')] == 360
    assert found[history.Series('instance_in_place_kib', A)] == 20 * 1024
    assert found[history.Series('slots', 'db.large')] == 36
    assert found[history.Series('node_available_kib', node='0')] == 360 * 2048
