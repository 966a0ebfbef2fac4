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

"""An experiment on this machine, with huge pages that it allocates."""

from __future__ import annotations

from collections.abc import Iterator
import json
import pathlib
import signal
import time

import pytest

from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from tests.functional import commands
from tests.host import scene
from tests.host.rig import folders
from tests.host.rig import local

PLAN = commands.EXPERIMENT
RUN = (
    *('experiment', 'run', '--local', 'plan.yaml', '--output', 'out'),
    '--allocate-pages',
)
POOLS = hugetlb.Hugetlb(hostfs.HostFS(), hugetlb.write_number)


@pytest.fixture(autouse=True)
def _pages(machine: local.LocalHost) -> Iterator[None]:
    """Some pages of the operator's, which are too few, and stay."""
    scene.set_pools(machine, 3)
    before = POOLS.pools()
    yield
    assert POOLS.pools() == before
    scene.set_pools(machine, 0)


def test_each_arm_has_what_it_says(tmp_path: pathlib.Path) -> None:
    (tmp_path / 'plan.yaml').write_text(PLAN)
    code, _, err = commands.command(tmp_path, *RUN)

    assert code == 0, err
    lines = (tmp_path / 'out' / 'pairs.jsonl').read_text().splitlines()
    assert len(lines) == 12
    for line in lines:
        trials = {trial['arm']: trial for trial in json.loads(line)['trials']}
        # What it allocates by malloc may take one more.
        huge_kib = trials['huge']['in_place']['huge_kib']
        assert huge_kib in ({'2048': 18432}, {'2048': 20480})
        assert trials['small']['in_place']['huge_kib'] == {}
        assert not any(trial['problems'] for trial in trials.values())


def test_an_interrupt(tmp_path: pathlib.Path) -> None:
    (tmp_path / 'plan.yaml').write_text(
        PLAN.replace('pairs: 12', 'pairs: 1000')
    )
    with commands.started(tmp_path, *RUN) as process:
        pairs = tmp_path / 'out' / 'pairs.jsonl'
        deadline = time.monotonic() + 60
        while not pairs.exists() or pairs.read_text().count('\n') < 13:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)

    assert process.returncode == 130, err
    assert 'Interrupted.\nWhat was measured counts.' in err
    assert 'It was ended early' in out
    report = json.loads((tmp_path / 'out' / 'report.json').read_text())
    assert report['comparisons'][0]['ratio'] is not None


GUESTS = """\
arms:
  small: {pages: small}
  huge: {pages: 2MiB}
workloads:
  chase: {mib: [1, 32], seconds: 0.05, rounds: 4}
  lookups: {rows: 20000, lookups: 20000}
pairs: 12
"""


@pytest.mark.nightly
def test_guests(machine: local.LocalHost, tmp_path: pathlib.Path) -> None:
    (tmp_path / 'plan.yaml').write_text(GUESTS)
    code, _, err = commands.command(
        tmp_path,
        *('experiment', 'run', 'plan.yaml', '--output', 'out'),
        *('--libvirt', machine.uri, '--virt-type', 'qemu'),
        '--allocate-pages',
        *('--kernel', str(folders.folder() / 'images' / 'kernel')),
        limit_s=1200,
    )

    assert code == 0, err
    lines = (tmp_path / 'out' / 'pairs.jsonl').read_text().splitlines()
    assert len(lines) == 24
    for line in lines:
        trials = {trial['arm']: trial for trial in json.loads(line)['trials']}
        assert trials['huge']['in_place']['huge_kib'].keys() == {'2048'}
        assert trials['small']['in_place']['huge_kib'] == {}
        assert not any(trial['problems'] for trial in trials.values())
        assert all(trial['cpu_s'] > 0 for trial in trials.values())
    report = json.loads((tmp_path / 'out' / 'report.json').read_text())
    assert 'This machine is emulated' in report['warnings'][0]
    assert machine.virsh('list', '--name').out.strip() == ''


@pytest.mark.nightly
def test_guests_that_do_not_boot(
    machine: local.LocalHost, tmp_path: pathlib.Path
) -> None:
    (tmp_path / 'plan.yaml').write_text(GUESTS)
    (tmp_path / 'kernel').write_text('This is no kernel.')
    code, _, err = commands.command(
        tmp_path,
        *('experiment', 'run', 'plan.yaml', '--output', 'out'),
        *('--libvirt', machine.uri, '--virt-type', 'qemu'),
        '--allocate-pages',
        *('--kernel', 'kernel'),
    )

    assert code == 1
    assert 'libvirt did not start the guest of the arm' in err
    assert machine.virsh('list', '--name').out.strip() == ''


def test_a_load_beside(tmp_path: pathlib.Path) -> None:
    plan = PLAN.replace('pairs: 12', 'pairs: 12\nloads: [cpu]')
    (tmp_path / 'plan.yaml').write_text(plan)
    code, out, err = commands.command(tmp_path, *RUN)

    if 'Missing programs: stress-ng' in err:
        pytest.skip('stress-ng is not installed')
    assert code == 0, err
    assert 'chase, cpu, latency, 16 MiB, huge: ' in out
