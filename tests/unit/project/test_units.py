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

"""The units and drop-ins of systemd that are shipped, read by systemd."""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
SHIPPED = ROOT / 'etc/nova-numa-hugepages/systemd'
MONITOR = 'nova-numa-hugepages-monitor.service'
PROGRAM = '/usr/local/bin/nova-numa-hugepages'

pytestmark = pytest.mark.skipif(
    shutil.which('systemd-analyze') is None, reason='needs systemd-analyze'
)


def complaints(folder: pathlib.Path, unit: str) -> str:
    """Have systemd read a unit; return what it has to say."""
    done = subprocess.run(
        ['systemd-analyze', 'verify', '--man=no', unit],
        env={**os.environ, 'SYSTEMD_UNIT_PATH': f'{folder}:'},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.fixture
def monitor(tmp_path: pathlib.Path) -> pathlib.Path:
    """The unit of the monitor, with a program that is there."""
    text = (SHIPPED / MONITOR).read_text()
    assert PROGRAM in text
    (tmp_path / MONITOR).write_text(text.replace(PROGRAM, '/bin/true'))
    return tmp_path


def test_the_monitor(monitor: pathlib.Path) -> None:
    assert complaints(monitor, MONITOR) == ''


def test_a_slip_in_it_would_be_seen(monitor: pathlib.Path) -> None:
    text = (monitor / MONITOR).read_text()
    (monitor / MONITOR).write_text(text.replace('Protect', 'Protekt', 1))

    assert 'Unknown key' in complaints(monitor, MONITOR)


def test_the_drop_in_of_nova_compute(tmp_path: pathlib.Path) -> None:
    unit = 'nova-compute.service'
    (tmp_path / unit).write_text('[Service]\nExecStart=/bin/true\n')
    (tmp_path / f'{unit}.d').mkdir()
    shutil.copy(
        SHIPPED / 'nova-compute.conf',
        tmp_path / f'{unit}.d' / 'numa-hugepages.conf',
    )

    assert complaints(tmp_path, unit) == ''
