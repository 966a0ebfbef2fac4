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

"""The command that runs the monitor of a host."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import time
from urllib import request

from oslo_log import log as logging
from prometheus_client import parser
import pytest

from nova_numa_hugepages.cmd import main
from nova_numa_hugepages.cmd import monitor
from tests.unit.cmd.host import command_host

A_SAMPLE = 'numa_hugepages_pool_pages{node="0",page_size="2MiB"}'


@pytest.fixture
def host(tmp_path: pathlib.Path) -> command_host.Host:
    return command_host.two_guests(tmp_path)


def run(host: command_host.Host, *words: str) -> int:
    """Run it on a host."""
    options = ['--root', str(host.root), '--ledger', str(host.ledger)]
    return main.run(['monitor', *options, *words], host.machine)


def test_once(
    host: command_host.Host, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(host, '--once') == 0
    printed = capsys.readouterr().out
    assert A_SAMPLE in printed
    assert len(list(parser.text_string_to_metric_families(printed))) > 30


def test_once_into_a_file(
    host: command_host.Host,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(host, '--once', '--textfile', str(tmp_path)) == 0
    assert A_SAMPLE in (tmp_path / 'nova_numa_hugepages.prom').read_text()
    assert capsys.readouterr().out == ''


def test_the_page_as_a_file(
    host: command_host.Host,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / 'host.html'
    assert run(host, '--once', '--html', str(path)) == 0
    assert '<h3>Node 0' in path.read_text()
    out, err = capsys.readouterr()
    assert out == ''
    assert f'Wrote the page of this host to {path}.' in err
    assert run(host, '--once', '--html', '/no/folder/x') == 1
    assert '--html /no/folder/x: cannot be written' in capsys.readouterr().err


def test_a_history_that_cannot_be_used_is_told_and_the_rest_goes_on(
    host: command_host.Host,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / 'history'
    path.write_text('mine')
    assert run(host, '--once', '--history', str(path)) == 0
    out, err = capsys.readouterr()
    assert A_SAMPLE in out
    assert f'the history {path} cannot be read: it is no history' in err
    assert path.read_text() == 'mine'


def test_flavors_whose_slots_are_counted(
    host: command_host.Host,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / 'nova.conf'
    path.write_text(
        '[compute]\ncpu_dedicated_set = 0-3\n[numa_hugepages]\n'
        'slot_flavors = db:vcpus=2:ram=4:mem_page_size=2MB\n'
    )
    assert run(host, '--once', '--config-file', str(path)) == 0
    assert 'numa_hugepages_slots{flavor="db"}' in capsys.readouterr().out
    path.write_text('[numa_hugepages]\nslot_flavors = db:vcpus=x\n')
    assert run(host, '--once', '--config-file', str(path)) == 2
    assert 'slot_flavors: found ' in (err := capsys.readouterr().err)
    assert 'is not like NAME:vcpus=V' in err
    path.write_text('[compute]\ncpu_dedicated_set = a\n')
    assert run(host, '--once', '--config-file', str(path)) == 2
    assert 'cpu_dedicated_set' in capsys.readouterr().err


def test_a_host_that_cannot_be_read(
    host: command_host.Host, capsys: pytest.CaptureFixture[str]
) -> None:
    path = host.root / 'sys/devices/system/node/node0/distance'
    path.write_text('x')
    assert run(host, '--once') == 1
    assert A_SAMPLE not in capsys.readouterr().out


@pytest.mark.parametrize(
    ('words', 'problem'),
    [
        (['--textfile', '/no/folder'], '--textfile /no/folder: expected a'),
        (['--tls-key', __file__], '--tls-certificate and --tls-key belong'),
        (['--tls-client-ca', __file__], 'needs --tls-certificate'),
        (
            ['--tls-certificate', '/no/file', '--tls-key', __file__],
            '--tls-certificate /no/file: this user cannot read it',
        ),
        (['--html', '/tmp/x'], '--html needs --once'),
        (['--once', '--listen', '::1'], 'With --once nothing is served'),
        (['--once', '--port', '9000'], '--port and --once do not go'),
        (
            ['--textfile', '/tmp', '--listen', '::1'],
            '--listen needs --port',
        ),
        (['--history', '/tmp'], '--history /tmp: expected a file'),
        (['--history', '/no/folder/x'], 'there is no folder /no/folder'),
        (
            ['--tls-certificate', __file__, '--tls-key', __file__],
            'these are not a certificate, its key',
        ),
        (['--config-dir', '/no/folder'], '/no/folder: expected a folder'),
    ],
)
def test_options_that_are_not_right(
    host: command_host.Host,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    problem: str,
) -> None:
    assert run(host, *words) == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    ('words', 'problem'),
    [
        (['--port', '0'], 'expected 1 to 65535'),
        (['--port', '65536'], 'expected 1 to 65535'),
        (['--listen', 'localhost'], 'expected for example 127.0.0.1'),
        (['--interval', '0'], 'expected 1 to 60 seconds'),
        (['--interval', '61'], 'expected 1 to 60 seconds'),
    ],
)
def test_values_that_are_not_right(
    host: command_host.Host,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    problem: str,
) -> None:
    with pytest.raises(SystemExit, match='2'):
        run(host, *words)
    assert problem in capsys.readouterr().err


def test_a_port_that_is_taken(
    host: command_host.Host, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(('127.0.0.1', 0)) as other:
        port = other.getsockname()[1]
        assert run(host, '--port', str(port)) == 1
    assert 'choose another --port' in capsys.readouterr().err


def test_what_it_logs(
    host: command_host.Host, capsys: pytest.CaptureFixture[str]
) -> None:
    monitor._log_to_stderr()
    try:
        log = logging.getLogger('nova_numa_hugepages.monitor')
        log.info('It is %s', 'over', instance_uuid=command_host.ONE)
    finally:
        for handler in list(logging.getLogger(None).logger.handlers):
            logging.getLogger(None).logger.removeHandler(handler)
    line = capsys.readouterr().err
    assert ' INFO nova_numa_hugepages.monitor ' in line
    assert f'[instance: {command_host.ONE}] It is over' in line


def test_without_its_libraries(
    host: command_host.Host,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, 'prometheus_client', None)
    assert run(host, '--once') == 2
    assert "pip install 'nova-numa-hugepages[monitor]'" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize('tls', [False, True])
def test_it_serves_until_it_is_told_to_end(
    host: command_host.Host, tmp_path: pathlib.Path, tls: bool
) -> None:
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    words = ['--port', str(port), '--interval', '1']
    context = None
    if tls:
        key, certificate = tmp_path / 'key.pem', tmp_path / 'certificate.pem'
        subprocess.run(
            [
                *('openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes'),
                *('-keyout', str(key), '-out', str(certificate), '-days', '1'),
                *(
                    '-subj',
                    '/CN=test',
                    '-addext',
                    'subjectAltName=IP:127.0.0.1',
                ),
            ],
            check=True,
            capture_output=True,
        )
        words += ['--tls-certificate', str(certificate)]
        words += ['--tls-key', str(key)]
        context = ssl.create_default_context(cafile=str(certificate))
    process = subprocess.Popen(
        [
            *(sys.executable, '-m', 'nova_numa_hugepages.cmd.main', 'monitor'),
            *('--root', str(host.root), '--ledger', str(host.ledger), *words),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        url = f'http{"s" if tls else ""}://127.0.0.1:{port}/metrics'
        deadline = time.monotonic() + 60
        served = ''
        while A_SAMPLE not in served:
            assert time.monotonic() < deadline
            assert process.poll() is None
            try:
                with request.urlopen(url, context=context) as answer:
                    served = answer.read().decode()
            except OSError:
                time.sleep(0.05)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert f'Serving metrics on {url}' in process.stderr.read()
    finally:
        process.kill()
        process.communicate()
