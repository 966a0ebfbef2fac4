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

"""The service that looks at a host again and again."""

from __future__ import annotations

from collections.abc import Iterator
import logging
import pathlib
import threading

from prometheus_client import exposition
import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import sample
from nova_numa_hugepages.monitor import alarms
from nova_numa_hugepages.monitor import labels
from nova_numa_hugepages.monitor import service
from nova_numa_hugepages.monitor.insight import Insight
from nova_numa_hugepages.monitor.thresholds import DEFAULTS
from tests.unit.hugepages import page_host
from tests.unit.monitor import watched


@pytest.fixture
def host(tmp_path: pathlib.Path) -> watched.Watched:
    return watched.Watched(tmp_path, page_host.grown(40))


def shown(monitor: service.Monitor) -> str:
    return exposition.generate_latest(monitor.registry).decode()


class Always(alarms.Alarm):
    """An alarm that is raised."""

    name = 'always'
    after_s = 0.0

    def check(
        self, sample: sample.HostSample, insight: Insight
    ) -> Iterator[alarms.Finding]:
        yield alarms.Finding(labels.Subject(), 1.0)


def test_it_goes_on_until_it_is_stopped(host: watched.Watched) -> None:
    stop = threading.Event()
    looks = 0

    def look() -> sample.HostSample:
        nonlocal looks
        looks += 1
        if looks == 3:
            stop.set()
        return host.look()

    service.Monitor(look, [], host.analyst(), 0.001).run(stop)
    assert looks == 3


def test_what_fails_is_not_shown_as_if_it_were_new(
    host: watched.Watched, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    works = True

    def look() -> sample.HostSample:
        if not works:
            raise exception.KernelError('/sys/node', 'nothing', 'nodes')
        return host.look()

    monitor = service.Monitor(look, [], host.analyst(), 1.0)
    assert monitor.step()
    assert 'numa_hugepages_pool_pages{' in shown(monitor)
    works = False
    assert not monitor.step()
    assert not monitor.step()
    assert 'numa_hugepages_pool_pages{' not in shown(monitor)
    assert 'numa_hugepages_monitor_failures_total 2.0' in shown(monitor)
    works = True
    assert monitor.step()
    # Each is logged once, and once when it is over.
    assert [record.getMessage() for record in caplog.records] == [
        'The monitor is hindered: /sys/node: expected nodes, found nothing',
        'The monitor is not hindered any more: /sys/node: expected nodes, '
        'found nothing',
    ]


def test_alarms_are_not_over_because_a_sample_fails(
    host: watched.Watched,
) -> None:
    works = True
    now = 0.0

    def look() -> sample.HostSample:
        if not works:
            raise exception.KernelError('/sys/node', 'nothing', 'nodes')
        return host.look()

    monitor = service.Monitor(
        look, [Always(DEFAULTS)], host.analyst(), 1.0, ticks=lambda: now
    )
    monitor.step()
    assert 'numa_hugepages_alarm{alarm="always"' in shown(monitor)
    works = False
    now += 1.0
    monitor.step()
    assert 'numa_hugepages_alarm{alarm="always"' in shown(monitor)
    now += 60.0
    assert 'numa_hugepages_alarm{' not in shown(monitor)


def test_a_folder_that_cannot_be_cleaned_up_is_told(
    host: watched.Watched,
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stop = threading.Event()
    (tmp_path / service.TEXTFILE).mkdir()
    stop.set()
    service.Monitor(host.look, [], host.analyst(), 1.0, tmp_path).run(stop)

    assert 'cannot be removed, and goes on being read' in caplog.text


def test_an_error_of_another_kind_ends_nothing(
    host: watched.Watched, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> sample.HostSample:
        raise ZeroDivisionError('odd')

    monitor = service.Monitor(fail, [], host.analyst(), 1.0)
    assert not monitor.step()
    assert not monitor.step()
    assert 'numa_hugepages_monitor_failures_total 2.0' in shown(monitor)
    assert caplog.text.count('Traceback') == 1
    assert 'ZeroDivisionError: odd' in caplog.text


def test_the_file_is_removed_at_the_end(
    host: watched.Watched, tmp_path: pathlib.Path
) -> None:
    stop = threading.Event()
    path = tmp_path / service.TEXTFILE
    there = []

    def look() -> sample.HostSample:
        there.append(path.exists())
        if len(there) == 2:
            stop.set()
        return host.look()

    service.Monitor(look, [], host.analyst(), 0.001, tmp_path).run(stop)
    assert there == [False, True]
    assert not path.exists()


def test_a_file_for_node_exporter(
    host: watched.Watched, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / 'textfile'
    folder.mkdir()
    assert service.Monitor(host.look, [], host.analyst(), 1.0, folder).step()
    # Nothing half-written is left beside it.
    assert [path.name for path in folder.iterdir()] == [service.TEXTFILE]
    text = (folder / service.TEXTFILE).read_text()
    assert 'numa_hugepages_pool_pages{' in text
    # node_exporter has such of its own.
    assert 'process_cpu' not in text


def test_a_file_that_cannot_be_written(
    host: watched.Watched,
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monitor = service.Monitor(
        host.look, [], host.analyst(), 1.0, tmp_path / 'none'
    )
    assert not monitor.step()
    assert 'No such file' in caplog.text
    # The sample is there all the same.
    assert 'numa_hugepages_pool_pages{' in shown(monitor)
