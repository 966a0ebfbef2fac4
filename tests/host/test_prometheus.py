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

"""A real Prometheus scrapes the monitor of this machine, and alerts."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import time
from typing import Any
from urllib import error
from urllib import parse
from urllib import request

import pytest

from nova_numa_hugepages.monitor import metrics
from nova_numa_hugepages.monitor.metric import PREFIX
from tests.host.rig import folders
from tests.host.rig import packages

_RULES = (
    folders.PROJECT / 'etc' / 'nova-numa-hugepages' / 'prometheus/rules.yml'
)
_TESTS = folders.PROJECT / 'tests' / 'host' / 'prometheus_rules_test.yml'
_DASHBOARD = (
    folders.PROJECT
    / 'etc'
    / 'nova-numa-hugepages'
    / 'grafana/nova-numa-hugepages.json'
)
# On a host without instances and others, whose pools are empty and which is
# all right, but for libvirt.
_EMPTY_HERE = {
    'Huge pages of others',
    'Huge pages: free',
    'Huge pages: promised and free',
    'Instances: pages in place',
    'Instances: pages promised',
    'Instances: pages where none were promised',
    'Instances: read back from swap',
    'Instances: share of memory used inside',
    'Instances: vCPUs off their plan',
    'Promised, and had by others or leaked',
    'Room for more instances',
    'Share of the NUMA node that new instances can have',
    'Time until a NUMA node is exhausted',
    'What new instances can have',
}
_LIMIT_S = 60.0

_CONF = """
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: [rules.yml]
scrape_configs:
  - job_name: numa
    static_configs:
      - targets: ['127.0.0.1:{port}']
"""

Query = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope='module')
def programs(rig: None) -> pathlib.Path:
    """Prometheus and promtool, unpacked and not installed."""
    folder = folders.folder() / 'prometheus'
    packages.unpack_once('prometheus', 'libc6', folder)
    return folder / 'usr' / 'bin'


def _free_port() -> int:
    with socket.create_server(('127.0.0.1', 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextlib.contextmanager
def _running(*command: str, cwd: pathlib.Path) -> Iterator[None]:
    """Run a program in the background, and end it."""
    with (cwd / f'{pathlib.Path(command[0]).name}.log').open('w') as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=cwd
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope='module')
def query(
    programs: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Query]:
    """Ask a Prometheus that scrapes a monitor of this machine."""
    tmp_path = tmp_path_factory.mktemp('prometheus')
    watched, asked = _free_port(), _free_port()
    conf = tmp_path / 'nova.conf'
    conf.write_text(
        '[DEFAULT]\n'
        f'state_path = {tmp_path}\n'
        '[libvirt]\n'
        f'connection_uri = qemu+unix:///system?socket={tmp_path}/none\n'
    )
    (tmp_path / 'prometheus.yml').write_text(_CONF.format(port=watched))
    shutil.copy(_RULES, tmp_path)

    def ask(expression: str) -> list[dict[str, Any]]:
        url = f'http://127.0.0.1:{asked}/api/v1/query?' + parse.urlencode(
            {'query': expression}
        )
        try:
            with request.urlopen(url, timeout=10) as answer:
                found = json.loads(answer.read())
        except error.HTTPError as problem:
            pytest.fail(f'{expression}: {problem.read().decode()}')
        except OSError:
            # It has not started yet.
            return []
        assert found['status'] == 'success'
        rows: list[dict[str, Any]] = found['data']['result']
        return rows

    with (
        _running(
            *(sys.executable, '-m', 'nova_numa_hugepages.cmd.main'),
            *('monitor', '--port', str(watched), '--interval', '1'),
            *('--config-file', str(conf)),
            cwd=tmp_path,
        ),
        _running(
            str(programs / 'prometheus'),
            '--config.file=prometheus.yml',
            '--storage.tsdb.path=data',
            f'--web.listen-address=127.0.0.1:{asked}',
            cwd=tmp_path,
        ),
    ):
        yield ask


def _wait_for(query: Query, expression: str) -> list[dict[str, Any]]:
    deadline = time.monotonic() + _LIMIT_S
    while not (found := query(expression)):
        assert time.monotonic() < deadline, expression
        time.sleep(0.5)
    return found


def test_the_rules(programs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Each alerts when it should, and not when it shouldn't."""
    for path in (_RULES, _TESTS):
        shutil.copy(path, tmp_path)
    done = subprocess.run(
        [str(programs / 'promtool'), 'test', 'rules', _TESTS.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_metrics_and_alerts(query: Query) -> None:
    """What the monitor shows Prometheus has, and alerts on."""
    rows = _wait_for(query, 'numa_hugepages_node_memory_bytes')
    meminfo = pathlib.Path('/sys/devices/system/node/node0/meminfo')
    total_kib = int(meminfo.read_text().split('MemTotal:')[1].split()[0])
    by_node = {row['metric']['node']: row['value'][1] for row in rows}
    assert float(by_node['0']) == total_kib * 1024
    (alarm,) = _wait_for(query, 'numa_hugepages_alarm{alarm="libvirt_silent"}')
    assert alarm['metric']['severity'] == 'critical'
    (alert,) = _wait_for(query, 'ALERTS{alarm="libvirt_silent"}')
    assert alert['metric']['alertname'] == 'NUMAHugepagesAlarmCritical'
    assert alert['metric']['alertstate'] == 'pending'
    assert query('ALERTS{alertstate="firing"}') == []
    names = {
        row['metric']['__name__']
        for row in query('{__name__=~"numa_hugepages_.+"}')
    }
    always = {
        f'{PREFIX}{metric.name}'
        for metric in metrics.METRICS
        if metric.name.startswith(('node_memory', 'node_cpus', 'monitor_'))
    }
    assert always <= names


def test_the_dashboard(query: Query) -> None:
    """Prometheus answers all that Grafana asks it for."""
    _wait_for(query, 'numa_hugepages_alarm')
    # Rates need two scrapes.
    _wait_for(query, 'rate(numa_hugepages_node_allocations_total[5m])')
    board = json.loads(_DASHBOARD.read_text())
    empty = set()
    for panel in board['panels']:
        for target in panel['targets']:
            expression = target['expr'].replace('$host', '.*')
            assert '$' not in expression
            if not query(expression):
                empty.add(panel['title'])
    assert empty == _EMPTY_HERE
