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


"""Scenario files: what is wrong is told with its line."""

from __future__ import annotations

import pathlib
import textwrap

import pytest

from nova_numa_hugepages.yamlfile import errors
from nova_numa_hugepages.yamlfile import host_format
from tools.demo import __main__ as command
from tools.demo import loading
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
    return loading.load(path)


def test_scenario_is_read(tmp_path: pathlib.Path) -> None:
    # Given a scenario that leaves out what has a default,
    # when it is loaded,
    found = load(tmp_path, GOOD)

    # then all values are there, those of nodes for each node.
    assert found.hosts == (
        demo_scenario.DemoHost(
            name='host',
            nodes=(
                host_format.HostNode(
                    cores=4,
                    threads=2,
                    shared_cores=0,
                    memory_mib=8192,
                    pages={2048: 1024, 1048576: 1},
                    reserved={},
                    socket=None,
                ),
                host_format.HostNode(
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
    found = loading.load(command.DEFAULT)

    # then there are hosts of 1, 2, 4 and 8 nodes.
    assert {len(host.nodes) for host in found.hosts} == {1, 2, 4, 8}


@pytest.mark.parametrize(
    ('old', 'new', 'line', 'problem'),
    [
        pytest.param(
            'nodes: 2',
            'nodes: two',
            3,
            "hosts.host.nodes: found 'two', expected an integer",
            id='wrong-type',
        ),
        pytest.param(
            'nodes: 2',
            'nodes: 0',
            3,
            'hosts.host.nodes: found 0, expected 1 or more',
            id='too-small',
        ),
        pytest.param(
            'nodes: 2',
            'nodes: 17',
            3,
            'hosts.host.nodes: found 17, expected 16 or less',
            id='too-large',
        ),
        pytest.param(
            'cores: [4, 2]',
            'cores: [4, 2.5]',
            4,
            'hosts.host.cores[1]: found 2.5, expected an integer',
            id='wrong-type-in-list',
        ),
        pytest.param(
            'cores: [4, 2]',
            'cores: [4, 2.0]',
            4,
            'hosts.host.cores[1]: found 2.0, expected an integer',
            id='float-in-list',
        ),
        pytest.param(
            'cores: [4, 2]',
            'cores: [4]',
            4,
            'hosts.host.cores: found a list of 1, expected one value for '
            'each of the 2 nodes',
            id='list-too-short',
        ),
        pytest.param(
            '    memory_gib: 8\n',
            '',
            2,
            "hosts.host: found no 'memory_gib', expected it here",
            id='missing-key',
        ),
        pytest.param(
            'nodes: 2',
            'nodes: 2\n    memory: 8',
            4,
            "hosts.host: found the key 'memory', expected one of nodes, "
            'cores, threads, shared_cores, memory_gib, pages, reserved, '
            'sockets, distances, compute',
            id='unknown-key',
        ),
        pytest.param(
            'pages: {2MiB',
            'pages: {2M',
            6,
            "hosts.host.pages: found the key '2M', expected a page size "
            'such as 2MiB or 1GiB',
            id='bad-page-size',
        ),
        pytest.param(
            '1GiB: [1, 0]',
            '2048KiB: 1',
            6,
            'hosts.host.pages: found 2048KiB, which is 2MiB again, expected '
            'each page size once',
            id='page-size-twice',
        ),
        pytest.param(
            '1GiB: [1, 0]',
            '4KiB: 1',
            6,
            'hosts.host.pages: found 4KiB, expected a size above the 4 KiB '
            'of small pages',
            id='small-pages',
        ),
        pytest.param(
            '1GiB: [1, 0]',
            '1GiB: [7, 0]',
            6,
            'hosts.host.pages: found 9216 MiB of pages for node 0, expected '
            'its 8192 MiB or less',
            id='more-pages-than-memory',
        ),
        pytest.param(
            '[0, 24]',
            '[0, 1025]',
            7,
            'hosts.host.reserved: found 1025 pages of 2 MiB for node 1, '
            'expected its 1024 or fewer',
            id='more-reserved-than-pages',
        ),
        pytest.param(
            '[21, 10]]',
            '[21, 9]]',
            8,
            'hosts.host.distances[1][1]: found 9, expected 10 or more',
            id='distance-too-small',
        ),
        pytest.param(
            '[21, 10]]',
            '[21, 11]]',
            8,
            'hosts.host.distances[1]: found 11 as the distance of node 1 to '
            'itself, expected 10',
            id='distance-to-itself',
        ),
        pytest.param(
            '[21, 10]]',
            '[21]]',
            8,
            'hosts.host.distances[1]: found 1 distances, expected one to '
            'each of the 2 nodes',
            id='distances-too-few',
        ),
        pytest.param(
            'flavor: small',
            'flavor: large',
            18,
            "guests[0]: found the flavor 'large', expected one of small",
            id='unknown-flavor',
        ),
        pytest.param(
            'flavor: small\n',
            'flavor: small\n    expect: fine\n',
            19,
            "guests[0].expect: found 'fine', expected placed or refused",
            id='not-one-of',
        ),
        pytest.param(
            'flavor: small\n',
            'flavor: small\n  - name: guest\n    flavor: small\n',
            19,
            "guests[1]: found the name 'guest' again, expected another one "
            'than in line 17',
            id='name-twice',
        ),
        pytest.param(
            'flavor: small\n',
            'flavor: small\n    count: 20\n  - name: a\n'
            '    flavor: small\n    count: 20\n  - name: b\n'
            '    flavor: small\n    count: 20\n',
            16,
            'guests: found 60 guests, expected 52 or fewer',
            id='too-many-guests',
        ),
        pytest.param(
            'hw:numa_nodes: 1',
            'hw:numa_nodes: [1]',
            14,
            'flavors.small.extra_specs.hw:numa_nodes: found a list of 1, '
            'expected text or an integer or true or false',
            id='bad-extra-spec',
        ),
        pytest.param(
            'vcpus: 1',
            'vcpus: 1\n    vcpus: 2',
            12,
            "found 'vcpus' twice, first in line 11",
            id='key-twice',
        ),
        pytest.param(
            'cores: [4, 2]',
            'cores: [4, 2',
            5,
            'not YAML: while parsing a flow sequence, expected ',
            id='yaml-bracket',
        ),
        pytest.param(
            'cores: [4, 2]',
            '\tcores: [4, 2]',
            4,
            'not YAML: ',
            id='yaml-tab',
        ),
        pytest.param(
            'cores: [4, 2]',
            'cores: *four',
            4,
            'found the alias *four, expected the value itself',
            id='yaml-alias',
        ),
        pytest.param(
            'flavor: small',
            'flavor: small\n---\n',
            19,
            'not YAML: ',
            id='yaml-two-documents',
        ),
    ],
)
def test_mistake_is_told_with_its_line(
    tmp_path: pathlib.Path, old: str, new: str, line: int, problem: str
) -> None:
    # Given a scenario with one mistake,
    assert GOOD.count(old) == 1
    text = GOOD.replace(old, new)

    # when it is loaded,
    with pytest.raises(errors.FileError) as error:
        load(tmp_path, text)

    # then the error tells the file, the line, and what was expected.
    assert len(error.value.problems) == 1
    assert str(error.value).startswith(
        f'{tmp_path}/scenario.yaml:{line}: {problem}'
    )


def test_all_mistakes_are_told_at_once(tmp_path: pathlib.Path) -> None:
    # Given a scenario with two mistakes,
    text = GOOD.replace('nodes: 2', 'nodes: x').replace('vcpus: 1', 'vcpus: y')

    # when it is loaded,
    with pytest.raises(errors.FileError) as error:
        load(tmp_path, text)

    # then both are told, by line.
    assert [line for line, _ in error.value.problems] == [3, 11]


@pytest.mark.parametrize(
    ('content', 'problem'),
    [
        (b'', ':1: found nothing, expected a mapping'),
        (b'- 1\n', ':1: found a list of 1, expected a mapping'),
        (b'a: 1\nb: \xff\n', ':2: found bytes that are no UTF-8'),
        (b'a: 1\nb: \x00\n', ':2: not YAML: found the character'),
        (b'1: 2\n', ":1: found the key '1', expected one of hosts"),
        (b'? [a]\n: 1\n', ':1: found a list as a key, expected text'),
    ],
)
def test_file_that_is_no_scenario(
    tmp_path: pathlib.Path, content: bytes, problem: str
) -> None:
    # Given a file of something else, when it is loaded,
    path = tmp_path / 'other.yaml'
    path.write_bytes(content)
    with pytest.raises(errors.FileError) as error:
        loading.load(path)

    # then the error says what it is.
    assert f'{path}{problem}' in str(error.value)


def test_missing_file(tmp_path: pathlib.Path) -> None:
    # Given no file, when it is loaded,
    with pytest.raises(errors.FileError) as error:
        loading.load(tmp_path / 'none.yaml')

    # then the error says so.
    assert str(error.value) == (
        f'{tmp_path}/none.yaml: cannot read it: No such file or directory'
    )


def test_command_tells_the_mistake_before_it_starts(
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
        f"{path}:3: hosts.host.nodes: found 'two', expected an integer\n"
    )
