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

"""What the monitor serves over HTTP, and the command that asks for it."""

from __future__ import annotations

from collections.abc import Iterator
import json
import pathlib
import socket
import subprocess
import threading
from typing import Any
from urllib import error
from urllib import request
from wsgiref import simple_server

import pytest

from nova_numa_hugepages.cmd import main
from nova_numa_hugepages.monitor import alarms
from nova_numa_hugepages.monitor import service
from nova_numa_hugepages.monitor import web
from nova_numa_hugepages.monitor.thresholds import DEFAULTS
from tests.unit.hugepages import page_host
from tests.unit.monitor import watched
from tests.unit.monitor.watched import A


@pytest.fixture
def host(tmp_path: pathlib.Path) -> watched.Watched:
    return watched.Watched(tmp_path, page_host.grown(40), page_host.grown(40))


@pytest.fixture
def clock() -> watched.Clock:
    return watched.Clock()


@pytest.fixture
def monitor(host: watched.Watched, clock: watched.Clock) -> service.Monitor:
    return service.Monitor(
        host.look,
        alarms.load(DEFAULTS),
        host.analyst(),
        1000.0,
        ticks=clock,
    )


def look_twice(monitor: service.Monitor, clock: watched.Clock) -> None:
    """Look, and look again after longer than an alarm has to last."""
    monitor.step()
    clock.now += 1000.0
    monitor.step()


def free_port() -> int:
    with socket.create_server(('127.0.0.1', 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture
def url(monitor: service.Monitor) -> str:
    port = free_port()
    web.serve(monitor, '127.0.0.1', port)
    return f'http://127.0.0.1:{port}'


def run(*words: str) -> int:
    return main.run(['host', 'alarms', *words])


def test_metrics(monitor: service.Monitor, url: str) -> None:
    monitor.step()
    with request.urlopen(f'{url}/metrics') as answer:
        text = answer.read().decode()
    assert 'numa_hugepages_pool_pages{' in text


def test_alarms(
    host: watched.Watched,
    monitor: service.Monitor,
    clock: watched.Clock,
    url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run('--url', url) == 1
    assert 'has not been looked at' in capsys.readouterr().err
    monitor.step()
    assert run('--url', url) == 0
    assert capsys.readouterr().out == 'No alarms.\n'
    assert run('--url', url, '-f', 'json') == 0
    assert json.loads(capsys.readouterr().out) == []
    host.spawn(A, (0, 10), elsewhere=[(1, 10)])
    look_twice(monitor, clock)
    with request.urlopen(f'{url}/alarms') as answer:
        assert answer.headers['Content-Security-Policy'] == (
            "default-src 'none'"
        )
        (found,) = json.loads(answer.read())
    assert (found['alarm'], found['resource']) == ('memory_misplaced', A)
    with request.urlopen(f'{url}/metrics') as answer:
        assert (
            'numa_hugepages_alarm{alarm="memory_misplaced",node="",'
            f'page_size="",resource="{A}",severity="critical"}} 1.0'
        ) in answer.read().decode()
    capsys.readouterr()
    assert run('--url', url, '-f', 'json') == 3
    (row,) = json.loads(capsys.readouterr().out)
    assert row['resource'] == A
    assert row['since'].startswith('1970-01-01T00:16:40')
    assert run('--url', url) == 3
    assert 'hard reboot' in capsys.readouterr().out.replace('\n', '')


def test_a_host_that_was_looked_at_long_ago(
    monitor: service.Monitor, clock: watched.Clock, url: str
) -> None:
    monitor.step()
    clock.now += 4000.0
    assert run('--url', url) == 0
    clock.now += 1.0
    assert run('--url', url) == 1


def test_severity(
    host: watched.Watched,
    monitor: service.Monitor,
    clock: watched.Clock,
    url: str,
) -> None:
    host.spawn(A, (0, 10))
    host.kernel.discard(A, page_host.pool(0), 3)
    look_twice(monitor, clock)
    assert run('--url', url) == 3
    assert run('--url', url, '--severity', 'warning') == 0


@pytest.mark.parametrize(
    ('path', 'method', 'status'),
    [
        ('/nothing', 'GET', 404),
        ('/alarms/', 'GET', 404),
        ('/metrics', 'POST', 405),
        ('/../etc/passwd', 'GET', 404),
    ],
)
def test_what_is_not_served(
    url: str, path: str, method: str, status: int
) -> None:
    with pytest.raises(error.HTTPError) as caught:
        request.urlopen(request.Request(url + path, method=method))
    assert caught.value.code == status


@pytest.mark.parametrize('path', ['/', '/status.json', '/alarms'])
def test_nothing_old_is_shown(
    monitor: service.Monitor, clock: watched.Clock, url: str, path: str
) -> None:
    with pytest.raises(error.HTTPError, match='503'):
        request.urlopen(url + path)
    monitor.step()
    request.urlopen(url + path).close()
    clock.now += 4001.0
    with pytest.raises(error.HTTPError, match='503'):
        request.urlopen(url + path)


def test_the_page_and_its_json(monitor: service.Monitor, url: str) -> None:
    monitor.step()
    with request.urlopen(url) as answer:
        policy = answer.headers['Content-Security-Policy']
        text = answer.read().decode()
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert policy.endswith("frame-ancestors 'none'")
    assert 'Node 1' in text
    with request.urlopen(f'{url}/status.json') as answer:
        assert json.loads(answer.read())['nodes'][1]['node'] == 1


def test_a_client_that_says_nothing_stops_no_other(
    monitor: service.Monitor, url: str
) -> None:
    monitor.step()
    port = int(url.rpartition(':')[2])
    with (
        socket.create_connection(('127.0.0.1', port)),
        request.urlopen(url, timeout=10) as answer,
    ):
        assert answer.status == 200


def test_clients_need_a_certificate_if_they_are_asked_for_one(
    monitor: service.Monitor,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    key, certificate = tmp_path / 'key.pem', tmp_path / 'certificate.pem'
    subprocess.run(
        [
            *('openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes'),
            *('-keyout', str(key), '-out', str(certificate), '-days', '1'),
            *('-subj', '/CN=test', '-addext', 'subjectAltName=IP:127.0.0.1'),
        ],
        check=True,
        capture_output=True,
    )
    ports = free_port(), free_port()
    for port, client_ca in zip(ports, (None, certificate), strict=True):
        web.serve(
            monitor,
            '127.0.0.1',
            port,
            certificate=certificate,
            key=key,
            client_ca=client_ca,
        )
    monitor.step()
    words = '--ca-file', str(certificate)
    assert run('--url', f'https://127.0.0.1:{ports[0]}', *words) == 0
    assert run('--url', f'https://127.0.0.1:{ports[1]}', *words) == 1
    mine = '--certificate', str(certificate), '--key', str(key)
    assert run('--url', f'https://127.0.0.1:{ports[1]}', *words, *mine) == 0
    assert run('--url', f'https://127.0.0.1:{ports[0]}') == 1
    assert 'certificate' in capsys.readouterr().err


class TestOddServers:
    """What listens there may be anything."""

    @pytest.fixture
    def odd(self) -> Iterator[str]:
        def answer(environ: dict[str, Any], start: Any) -> list[bytes]:
            start('200 OK', [])
            return [self.text]

        self.text = b''
        with simple_server.make_server('127.0.0.1', 0, answer) as server:
            threading.Thread(target=server.serve_forever).start()
            yield f'http://127.0.0.1:{server.server_port}'
            server.shutdown()

    @pytest.mark.parametrize(
        'text',
        [
            b'',
            b'<html>',
            b'{}x',
            b'[1]',
            b'7',
            b'[{}]',
            b'[{"severity": "odd"}]',
            b'[{"severity": "info"}]',
            b'\xff\xfe',
        ],
    )
    def test_odd_answers(
        self, odd: str, text: bytes, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.text = text
        assert run('--url', odd) == 1
        assert 'expected alarms as JSON' in capsys.readouterr().err

    def test_another_protocol(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with socket.create_server(('127.0.0.1', 0)) as server:

            def greet() -> None:
                client, _ = server.accept()
                with client:
                    client.sendall(b'SSH-2.0-OpenSSH\r\n')
                    client.recv(1000)

            thread = threading.Thread(target=greet)
            thread.start()
            port = server.getsockname()[1]
            assert run('--url', f'http://127.0.0.1:{port}') == 1
            thread.join()
        assert 'see whether nova-numa-hugepages' in capsys.readouterr().err

    def test_no_proxy_is_asked(
        self, odd: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.text = b'[]'
        monkeypatch.setenv('http_proxy', 'http://127.0.0.1:9')
        assert run('--url', odd) == 0

    def test_nobody_listens(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run('--url', f'http://127.0.0.1:{free_port()}') == 1
        assert 'see whether nova-numa-hugepages monitor runs' in (
            capsys.readouterr().err
        )

    @pytest.mark.parametrize(
        'words',
        [
            ('--url', 'file:///etc/passwd'),
            ('--url', 'http://[::1'),
            ('--url', 'http://127.0.0.1:x'),
            ('--ca-file', '/no/file'),
        ],
    )
    def test_bad_options(
        self, words: tuple[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(*words) == 2
        assert words[1] in capsys.readouterr().err
