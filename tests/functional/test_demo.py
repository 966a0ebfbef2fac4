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


"""The demo in a process of its own."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 120

SCENARIO = """\
hosts:
  far-nodes:
    nodes: 2
    cores: 3
    memory_gib: 4
    pages: {2MiB: 1024}
    distances: [[10, 21], [21, 10]]
flavors:
  pair:
    vcpus: 4
    memory_mib: 1024
    extra_specs:
      hw:cpu_policy: dedicated
      hw:mem_page_size: 2MB
      hw:numa_nodes: 2
  near:
    vcpus: 2
    memory_mib: 1024
    extra_specs:
      hw:cpu_policy: dedicated
      hw:numa_nodes: 2
      numa_hugepages:max_distance: 20
guests:
  - name: couple
    flavor: pair
    count: 2
    compare: true
  - name: picky
    flavor: near
    expect: refused
"""

ROOMY = """\
hosts:
  roomy:
    nodes: 1
    cores: 5
    shared_cores: 1
    memory_gib: 16
    pages: {2MiB: 1024, 1GiB: 8}
  lean:
    nodes: 1
    cores: 2
    shared_cores: 1
    memory_gib: 4
    pages: {2MiB: 512}
flavors:
  database:
    vcpus: 8
    memory_mib: 8192
    extra_specs:
      hw:cpu_policy: dedicated
      hw:mem_page_size: 1GB
  small:
    vcpus: 2
    memory_mib: 1024
    extra_specs:
      hw:cpu_policy: dedicated
      hw:mem_page_size: 2MB
  floating:
    vcpus: 1
    memory_mib: 512
guests:
  - name: small
    flavor: small
    compare: true
  - name: floating
    flavor: floating
    compare: true
"""


def start(
    tmp_path: pathlib.Path, scenario: str, **environment: str
) -> subprocess.Popen[str]:
    """Start the demo on a scenario, its output piped.

    :param environment: variables to set for it
    """
    path = tmp_path / 'scenario.yaml'
    path.write_text(scenario, encoding='utf-8')
    page = tmp_path / 'page' / 'host.html'
    return subprocess.Popen(
        [sys.executable, '-m', 'tools.demo', str(path), f'--page={page}'],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding='utf-8',
    )


def test_demo_shows_where_guests_go_and_why(tmp_path: pathlib.Path) -> None:
    # Given a host whose two nodes are far from each other,
    # when the demo boots two pairs there and a guest that wants near nodes,
    with start(tmp_path, SCENARIO) as demo:
        output, errors = demo.communicate(timeout=TIMEOUT_SECONDS)

    # then it ends well, and without noise,
    assert (demo.returncode, errors) == (0, '')
    # as plain text,
    assert re.search(r'[^\n\x20-\x7e\xa0-\uffff]', output) is None
    # which shows where the pairs are,
    # with the monitor's page of a host as a file,
    page = (tmp_path / 'page' / 'host.html').read_text(encoding='utf-8')
    assert 'promised 8 GiB · in place 8 GiB' in page
    words = ' '.join(output.split())
    assert 'couple-1 [a] is on far-nodes, distance 21' in words
    assert 'couple-2 [b] is on far-nodes, distance 21' in words
    assert 'guest cell 1 on node 1: vCPUs' in words
    assert '256 pages of 2 MiB' in words
    # what stock Nova says of them,
    assert 'stock Nova accepts the same host' in words
    # why the other guest is nowhere,
    assert 'picky is refused: No valid host was found' in words
    assert (
        'NUMAHugepagesFilter rejected 1 of 1 hosts: 1 host: fitting NUMA '
        'nodes are farther apart than 20 (nearest: 21)'
    ) in words
    # what the host looks like,
    assert '2 MiB #####..... 512 512 0' in words
    # and that all is given back.
    assert '2 guests deleted' in words
    assert 'Placement counts no usage' in words


def test_demo_shows_what_the_weigher_does(tmp_path: pathlib.Path) -> None:
    # Given a small host, and a roomy one that has all pages of 1 GiB,
    # when the demo boots small guests that fit on both,
    with start(tmp_path, ROOMY) as demo:
        output, errors = demo.communicate(timeout=TIMEOUT_SECONDS)

    # then it ends well,
    assert (demo.returncode, errors) == (0, '')
    words = ' '.join(output.split())
    # shows what our weigher goes by and takes,
    assert 'our weigher takes the one on which it costs least' in words
    assert 'fits on roomy, lean; the weighers take lean' in words
    assert 'lean costs 6 % of what is scarce, roomy 54 %' in words
    # and for a guest without a NUMA wish,
    assert 'lean holds 0 % of what is scarce, roomy 76 %' in words
    # and what stock Nova would have done.
    assert (
        words.count(
            'stock Nova accepts the same hosts; its weighers take roomy'
        )
        == 2
    )
    assert 'decided otherwise than by stock Nova: small, floating' in words


def test_refused_extra_spec_is_reported_with_its_flavor(
    tmp_path: pathlib.Path,
) -> None:
    # Given a scenario whose second flavor has a value that cannot be,
    scenario = SCENARIO.replace('max_distance: 20', 'max_distance: nearby')

    # when the demo is run,
    with start(tmp_path, scenario) as demo:
        _, errors = demo.communicate(timeout=TIMEOUT_SECONDS)

    # then it fails with the flavor, its line, and the words of the API.
    assert demo.returncode == 2
    assert errors == (
        f"{tmp_path}/scenario.yaml:16: the API refuses the flavor 'near' "
        "(HTTP 400: Validation failed; 'nearby' is not a valid integer "
        'value.)\n'
    )


@pytest.mark.parametrize(
    ('old', 'new', 'problem'),
    [
        pytest.param(
            '    expect: refused\n',
            '',
            "28: guest 'picky' is refused, expected it to be placed",
            id='refused',
        ),
        pytest.param(
            '    count: 2\n',
            '    expect: refused\n',
            "24: guest 'couple' is placed, expected it to be refused",
            id='placed',
        ),
    ],
)
def test_guest_that_goes_elsewhere_fails_the_demo(
    tmp_path: pathlib.Path, old: str, new: str, problem: str
) -> None:
    # Given a scenario that expects otherwise than it comes,
    scenario = SCENARIO.replace(old, new)

    # when the demo is run,
    with start(tmp_path, scenario) as demo:
        output, errors = demo.communicate(timeout=TIMEOUT_SECONDS)

    # then it is shown to its end, and fails with the guest and its line.
    assert 'Placement counts no usage' in ' '.join(output.split())
    assert demo.returncode == 1
    assert errors == f'{tmp_path}/scenario.yaml:{problem}\n'


def test_interrupt_ends_the_demo(tmp_path: pathlib.Path) -> None:
    # Given a demo that has its cloud,
    with start(tmp_path, SCENARIO) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if line.startswith('A Nova'):
                break

        # when it is interrupted,
        demo.send_signal(signal.SIGINT)
        _, errors = demo.communicate(timeout=TIMEOUT_SECONDS)

    # then it says so, and no more.
    assert demo.returncode == 130
    assert errors == '\ninterrupted; nothing is left behind\n'


@pytest.mark.parametrize('seconds', [2.0, 3.0, 4.5])
def test_interrupt_while_services_start(
    tmp_path: pathlib.Path, seconds: float
) -> None:
    # Given a demo that is still on its way to a cloud, with a temporary
    # folder of its own,
    temporary = tmp_path / 'temporary'
    temporary.mkdir()
    with start(tmp_path, SCENARIO, TMPDIR=str(temporary)) as demo:
        time.sleep(seconds)

        # when it is interrupted, twice,
        demo.send_signal(signal.SIGINT)
        demo.send_signal(signal.SIGINT)
        _, errors = demo.communicate(timeout=TIMEOUT_SECONDS)

    # then it ends at once and leaves nothing.
    assert (demo.returncode, errors) == (
        130,
        '\ninterrupted; nothing is left behind\n',
    )
    assert list(temporary.iterdir()) == []
