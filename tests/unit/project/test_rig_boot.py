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

"""Virtual hosts of the tests whose emulator gives up while they boot."""

from __future__ import annotations

import pathlib
import re
import sys

import pytest

from tests.host.rig import children
from tests.host.rig import export
from tests.host.rig import packages
from tests.host.rig import virtual

# Ends as each of its starts is set to, or greets as the agent does.
_QEMU = """#!{python}
import os, pathlib, re, signal, socket, sys, time
ends = pathlib.Path({ends!r})
first, *others = ends.read_text().split() or ['greets']
ends.write_text(' '.join(others))
words = ' '.join(sys.argv)
link = re.search(r'server=on,addr.type=unix,addr.path=(\\S+)', words)
if link:
    pathlib.Path(link[1]).touch()
if first == 'aborts':
    os.abort()
if first == 'segfaults':
    os.kill(os.getpid(), signal.SIGSEGV)
if first == 'exits':
    sys.exit(1)
listener = socket.socket(socket.AF_UNIX)
listener.bind(re.search('id=agent,path=([^,]+)', words)[1])
listener.listen()
agent, _ = listener.accept()
if first == 'hangs':
    time.sleep(60)
agent.sendall(b'{{"id": 0}}\\n')
time.sleep(60)
"""


@pytest.fixture
def host(monkeypatch, tmp_path):
    """Make a virtual host whose QEMU ends as asked, before it boots."""
    qemu = tmp_path / 'qemu'
    ends = tmp_path / 'ends'
    qemu.write_text(_QEMU.format(python=sys.executable, ends=str(ends)))
    qemu.chmod(0o755)

    def program(name: str) -> str:
        return 'true' if name == 'mkfs.ext4' else str(qemu)

    def serve(folder: pathlib.Path, logs: pathlib.Path):
        process = children.start(['sleep', '60'], logs / 'serve.log')
        return process, folder / 'root.socket'

    monkeypatch.setattr(packages, 'program', program)
    monkeypatch.setattr(export, 'serve', serve)

    def made(*how: str) -> virtual.VirtualHost:
        ends.write_text(' '.join(how))
        return virtual.VirtualHost(
            'one',
            address='10.1.0.1',
            link=tmp_path / 'link',
            logs=tmp_path / 'logs',
        )

    return made


@pytest.mark.parametrize(
    ('how', 'signal'), [('aborts', 'SIGABRT'), ('segfaults', 'SIGSEGV')]
)
def test_an_emulator_that_crashes_is_started_again(
    host, capsys, tmp_path, how, signal
):
    with host(how) as one:
        assert (tmp_path / 'link').exists()
        assert one.logs == tmp_path / 'logs' / 'one'
    printed = capsys.readouterr().err
    assert re.findall(
        r'QEMU was ended by (\w+): booting it again', printed
    ) == [signal]
    assert not (tmp_path / 'link').exists()


def test_a_kernel_that_hangs_is_booted_again(host, capsys, monkeypatch):
    monkeypatch.setattr(virtual, '_BOOT_S', 2.0)
    monkeypatch.setattr(virtual, '_END_S', 0.1)

    with host('hangs', 'greets'):
        pass

    assert (
        'Its agent has not answered within 2 s: booting it again.'
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    'how',
    [['exits'], ['aborts'] * 2, ['aborts', 'segfaults'], ['hangs', 'hangs']],
)
def test_a_host_that_does_not_boot_is_told(host, monkeypatch, how):
    monkeypatch.setattr(virtual, '_BOOT_S', 2.0)
    monkeypatch.setattr(virtual, '_END_S', 0.1)

    with pytest.raises(RuntimeError, match='the virtual host one does not'):
        host(*how).__enter__()
