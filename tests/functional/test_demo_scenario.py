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


"""Scenario files: mistakes are reported with its line."""

from __future__ import annotations

import pathlib
import textwrap

import pytest

from nova_numa_hugepages.simulate.scenario import HostType
from nova_numa_hugepages.yamlfile import document
from nova_numa_hugepages.yamlfile import formats
from tools.demo import __main__ as command
from tools.demo import demo_scenario

GOOD = """\
hosts:
  host:
    nodes: 2
    cores: [4, 2]
    memory_gib: 8
    pages: {2MiB: 1024, 1GiB: [1, 0]}
    reserved: {2MiB: [0, 24]}
    distances: [[10, 21], [21, 10]]
flavors:
  small:
    vcpus: 1
    memory_mib: 512
    extra_specs:
      hw:numa_nodes: 1
      hw:cpu_policy: dedicated
guests:
  - name: guest
    flavor: small
"""


def load(tmp_path: pathlib.Path, text: str) -> demo_scenario.DemoScenario:
    """Load a scenario of this text."""
    path = tmp_path / 'scenario.yaml'
    path.write_text(text, encoding='utf-8')
    return demo_scenario.read(path)


def test_scenario_is_read(tmp_path: pathlib.Path) -> None:
    # Given a scenario that leaves out what has a default,
    # when it is loaded,
    found = load(tmp_path, GOOD)

    # then all values are there, those of nodes for each node.
    assert found.hosts == (
        HostType(
            name='host',
            count=1,
            nodes=(
                formats.HostNode(
                    cores=4,
                    threads=2,
                    shared_cores=0,
                    memory_mib=8192,
                    pages={2048: 1024, 1048576: 1},
                    reserved={},
                    socket=None,
                ),
                formats.HostNode(
                    cores=2,
                    threads=2,
                    shared_cores=0,
                    memory_mib=8192,
                    pages={2048: 1024},
                    reserved={2048: 24},
                    socket=None,
                ),
            ),
            distances=((10, 21), (21, 10)),
            runs_us=True,
        ),
    )
    assert found.flavors == (
        demo_scenario.DemoFlavor(
            name='small',
            vcpus=1,
            memory_mib=512,
            extra_specs={
                'hw:numa_nodes': '1',
                'hw:cpu_policy': 'dedicated',
            },
            line=10,
        ),
    )
    assert found.guests == (
        demo_scenario.DemoGuest(
            name='guest',
            flavor='small',
            count=1,
            refused=False,
            compare=False,
            note='',
            line=17,
        ),
    )


def test_default_scenario_is_right() -> None:
    # Given the scenario that is shipped, when it is loaded,
    found = demo_scenario.read(command.DEFAULT)

    # then there are hosts of 1, 2, 4 and 8 nodes.
    assert {len(host.nodes) for host in found.hosts} == {1, 2, 4, 8}


@pytest.mark.parametrize(
    ('old', 'new', 'problem'),
    [
        pytest.param(
            'nodes: 2',
            'nodes: 17',
            '3: hosts.host.nodes: 17 is greater than the maximum of 16',
            id='too-large',
        ),
        pytest.param(
            '    memory_gib: 8\n',
            '',
            "2: hosts.host: 'memory_gib' is a required property",
            id='missing-key',
        ),
        pytest.param(
            'nodes: 2',
            'nodes: 2\n    memory: 8',
            '4: hosts.host.memory: unknown key, expected one of nodes, '
            'cores, threads, shared_cores, memory_gib, pages, reserved, '
            'sockets, distances, compute',
            id='unknown-key',
        ),
        pytest.param(
            'flavor: small',
            'flavor: large',
            "18: guests[0].flavor: unknown flavor 'large', expected one of "
            'small',
            id='unknown-flavor',
        ),
        pytest.param(
            'flavor: small\n',
            'flavor: small\n    expect: fine\n',
            "19: guests[0].expect: 'fine' is not one of ['placed', 'refused']",
            id='not-one-of',
        ),
        pytest.param(
            'flavor: small\n',
            'flavor: small\n  - name: guest\n    flavor: small\n',
            "19: guests[1].name: found 'guest' again, which is the name of "
            'guests[0]',
            id='name-twice',
        ),
        pytest.param(
            'flavor: small\n',
            'flavor: small\n    count: 20\n  - name: a\n    flavor: small\n  '
            '  count: 20\n  - name: b\n    flavor: small\n    count: 20\n',
            '16: guests: found 60 guests, expected 52 or fewer',
            id='too-many-guests',
        ),
    ],
)
def test_mistake_is_reported_with_its_line(
    tmp_path: pathlib.Path, old: str, new: str, problem: str
) -> None:
    # Given a scenario with one mistake,
    assert GOOD.count(old) == 1
    text = GOOD.replace(old, new)

    # when it is loaded,
    with pytest.raises(document.FileError) as error:
        load(tmp_path, text)

    # then the error names the file and the line.
    assert str(error.value) == f'{tmp_path}/scenario.yaml:{problem}'


def test_command_reports_the_mistake_before_it_starts(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given a scenario with a mistake,
    path = tmp_path / 'scenario.yaml'
    path.write_text(
        textwrap.dedent(GOOD).replace('nodes: 2', 'nodes: two'),
        encoding='utf-8',
    )

    # when the command is run with it,
    code = command.main([str(path)])

    # then it fails with the line, on the error output alone.
    output = capsys.readouterr()
    assert code == command.EXIT_BAD_SCENARIO
    assert output.out == ''
    assert output.err == (
        f"{path}:3: hosts.host.nodes: 'two' is not of type 'integer'\n"
    )
