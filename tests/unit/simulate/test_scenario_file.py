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

"""Scenario files of a simulation: what they say, and what is wrong."""

from __future__ import annotations

import dataclasses
import pathlib
import re

import pytest

from nova_numa_hugepages.simulate import scenario
from nova_numa_hugepages.simulate import scenario_file
from nova_numa_hugepages.yamlfile import document
from nova_numa_hugepages.yamlfile import formats
from tests.fixtures import mistakes

EXAMPLES = pathlib.Path(__file__).parents[3] / 'etc' / 'nova-numa-hugepages'

GOOD = """\
hosts:
  duo:
    count: 50
    nodes: 2
    cores: [4, 2]
    memory_gib: 8
    pages: {2MiB: 1024, 1GiB: [1, 0]}
    reserved: {2MiB: [0, 24]}
    sockets: [0, 1]
    distances: [[10, 21], [21, 10]]
    compute: stock
    cpu_allocation_ratio: 4
    ram_allocation_ratio: 1.5
  solo: {nodes: 1, cores: 8, threads: 1, memory_mib: 8000}
flavors:
  small:
    vcpus: 4
    memory_mib: 8192
    share: 0.25
    extra_specs:
      hw:cpu_policy: dedicated
      hw:numa_nodes: 2
  plain: {vcpus: 1, memory_mib: 512}
arrivals:
  count: 2500
  per_hour: 120
  mean_lifetime: 760
  warm_up: 1000
  seeds: 3
"""

SCENARIO = scenario.Scenario(
    file='scenario.yaml',
    hosts=(
        scenario.HostType(
            name='duo',
            count=50,
            nodes=(
                scenario.HostNode(
                    cores=4,
                    threads=2,
                    shared_cores=0,
                    memory_mib=8192,
                    pages={2048: 1024, 1048576: 1},
                    reserved={},
                    socket=0,
                ),
                scenario.HostNode(
                    cores=2,
                    threads=2,
                    shared_cores=0,
                    memory_mib=8192,
                    pages={2048: 1024},
                    reserved={2048: 24},
                    socket=1,
                ),
            ),
            distances=((10, 21), (21, 10)),
            runs_us=False,
            cpu_ratio=4.0,
            ram_ratio=1.5,
        ),
        scenario.HostType(
            name='solo',
            count=1,
            nodes=(
                scenario.HostNode(
                    cores=8,
                    threads=1,
                    shared_cores=0,
                    memory_mib=8000,
                    pages={},
                    reserved={},
                    socket=None,
                ),
            ),
        ),
    ),
    flavors=(
        scenario.Flavor(
            name='small',
            vcpus=4,
            memory_mib=8192,
            extra_specs={'hw:cpu_policy': 'dedicated', 'hw:numa_nodes': '2'},
            share=0.25,
        ),
        scenario.Flavor(name='plain', vcpus=1, memory_mib=512, extra_specs={}),
    ),
    arrivals=scenario.Arrivals(
        count=2500,
        per_hour=120.0,
        mean_lifetime=760.0,
        warm_up=1000,
        seeds=(1, 2, 3),
    ),
)


@pytest.fixture(autouse=True)
def in_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of one's own, so that messages name files only."""
    monkeypatch.chdir(tmp_path)


def read(text: str | bytes, *, trace: str | None = None) -> scenario.Scenario:
    """Load a scenario of this text, with a trace beside it."""
    path = pathlib.Path('scenario.yaml')
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    if trace is not None:
        pathlib.Path('trace.csv').write_text(trace, encoding='utf-8')
    return scenario_file.load(path)


def changed(*changes: tuple[str, str]) -> str:
    """Give the good scenario with some of its text replaced."""
    text = GOOD
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def test_scenario_is_read() -> None:
    # Given a scenario with a value for each key, when it is loaded,
    found = read(GOOD)

    # then all values are there, those of nodes for each node, and those that
    # were left out have their defaults.
    assert found == SCENARIO


def test_seeds_can_be_named() -> None:
    # Given a list of seeds, when the scenario is loaded,
    found = read(changed(('seeds: 3', 'seeds: [7, 0, 4]')))

    # then they are taken in this order.
    assert found.arrivals.seeds == (7, 0, 4)


def test_how_elastic_instances_use_their_memory_is_read() -> None:
    use = 'use: {idle_percent: 20.5, busy_hours: [0.5, 2]}\narrivals:'
    found = read(changed(('arrivals:', use))).use
    assert found == scenario.Use(idle_percent=20.5, busy_hours=(0.5, 2))
    assert read(changed()).use == scenario.Use()


@pytest.mark.parametrize(
    ('use', 'problem'),
    [
        ('{busy_percent: [95, 60]}', 'expected the lower one first'),
        ('{busy_percent: 60}', "60 is not of type 'array'"),
        ('{busy_hours: [0, 1]}', 'less than or equal to the minimum of 0'),
        ('{office_busy_percent: 100}', 'greater than the maximum of 99'),
        ('{office_hours: [8, 18, 20]}', 'too long'),
        ('{idle: 5}', 'use.idle: unknown key'),
        ('30', "30 is not of type 'object'"),
    ],
)
def test_use_that_has_no_meaning(use: str, problem: str) -> None:
    with pytest.raises(document.FileError, match=re.escape(problem)):
        read(changed(('arrivals:', f'use: {use}\narrivals:')))


def test_latencies_are_read_by_distance() -> None:
    given = 'latency_ns: {10: 90, 21: 140.5}\narrivals:'
    found = read(changed(('arrivals:', given))).latency_ns
    assert found == {10: 90.0, 21: 140.5}


@pytest.mark.parametrize(
    ('given', 'problem'),
    [
        ('{9: 90}', 'a distance from 10 to 255'),
        ('{256: 90}', 'a distance from 10 to 255'),
        ('{near: 90}', 'a distance from 10 to 255'),
        ('{10: 0}', 'less than or equal to the minimum of 0'),
        ('{}', 'latency_ns'),
    ],
)
def test_latencies_that_have_no_meaning(given: str, problem: str) -> None:
    with pytest.raises(document.FileError, match=re.escape(problem)):
        read(changed(('arrivals:', f'latency_ns: {given}\narrivals:')))


def test_arrivals_need_only_a_count() -> None:
    # Given arrivals of which only the count is told, when they are loaded,
    text = GOOD[: GOOD.index('arrivals')] + 'arrivals: {count: 7}\n'

    # then guests stay, and there is one sequence.
    assert read(text).arrivals == scenario.Arrivals(
        count=7, per_hour=60.0, mean_lifetime=None, warm_up=0, seeds=(1,)
    )


def test_keys_are_text() -> None:
    # Given flavors with names that YAML takes for other values,
    text = changed(
        ('  small:\n', '  42:\n'),
        ('  plain: {vcpus: 1', '  no: {vcpus: 1'),
    )

    # when the scenario is loaded, then the names are as written.
    assert read(text).flavors == tuple(
        dataclasses.replace(flavor, name=name)
        for flavor, name in zip(SCENARIO.flavors, ('42', 'no'), strict=True)
    )


def test_extra_specs_are_text() -> None:
    # Given extra specs that YAML takes for other values, and one that is
    # said to be text,
    text = changed(
        ('hw:cpu_policy: dedicated', 'hw:mem_page_size: !!str 2048'),
        ('hw:numa_nodes: 2', 'trait:ONE: y\n      hw:cpu_realtime: no'),
    )

    # when the file is read,
    path = pathlib.Path('scenario.yaml')
    path.write_text(text, encoding='utf-8')
    found = document.read(path, {}, lambda data: iter(()))

    # then they are what OpenStack reads.
    assert formats.extra_specs(found.data['flavors']['small']) == {
        'hw:mem_page_size': '2048',
        'trait:ONE': 'y',
        'hw:cpu_realtime': 'false',
    }


def test_trace_is_looked_for_beside_the_file() -> None:
    # Given a scenario in another folder, with a trace beside it,
    pathlib.Path('other').mkdir()
    path = pathlib.Path('other/scenario.yaml')
    path.write_text(
        GOOD[: GOOD.index('arrivals')] + 'trace: day.csv\n', encoding='utf-8'
    )
    pathlib.Path('other/day.csv').write_text(
        'time,flavor,lifetime\n5,small,\n7,plain,60\n', encoding='utf-8'
    )

    # when it is loaded,
    found = scenario_file.load(path)

    # then the guests are those of the trace.
    assert found == dataclasses.replace(
        SCENARIO,
        file='other/scenario.yaml',
        arrivals=scenario.Arrivals(count=2),
        trace=(
            scenario.TraceEntry(at=0.0, flavor='small', lifetime=None),
            scenario.TraceEntry(at=2.0, flavor='plain', lifetime=60.0),
        ),
        trace_file=pathlib.Path('other/day.csv'),
    )


@pytest.mark.parametrize(
    ('name', 'extra', 'hosts'),
    [
        ('simulate.yaml', '', [6, 6]),
        ('simulate.yaml', 'trace: trace.csv\n', [6, 6]),
        ('simulate-trace.yaml', '', [2, 1]),
    ],
)
def test_examples_are_right(name: str, extra: str, hosts: list[int]) -> None:
    # Given a scenario that is shipped, and the trace that is,
    text = (EXAMPLES / name).read_text(encoding='utf-8')
    trace = (EXAMPLES / 'trace.csv').read_text(encoding='utf-8')

    # when they are loaded,
    found = read(text + extra, trace=trace)

    # then there are two types of hosts, seven flavors whose shares make a
    # whole, and each of them is in the trace.
    assert [host.count for host in found.hosts] == hosts
    assert len(found.flavors) == 7
    assert sum(f.share for f in found.flavors) == pytest.approx(1)
    if found.trace is not None:
        assert {entry.flavor for entry in found.trace} == {
            flavor.name for flavor in found.flavors
        }


@pytest.mark.parametrize(
    'play',
    [
        pytest.param(SCENARIO, id='all-values'),
        pytest.param(
            dataclasses.replace(
                SCENARIO,
                hosts=(
                    dataclasses.replace(
                        SCENARIO.hosts[1],
                        name='type1 (a-host-with-a-long-name and 11 more)',
                        ram_ratio=1.1,
                    ),
                ),
                flavors=(
                    dataclasses.replace(
                        SCENARIO.flavors[0],
                        name='42',
                        share=1e-7,
                        extra_specs={
                            'hw:cpu_policy': 'dedicated',
                            'hw:cpu_realtime': 'no',
                            ':': '- "\'#\u00e4',
                        },
                    ),
                ),
            ),
            id='odd-texts',
        ),
    ],
)
def test_what_is_written_is_read_back_equal(play: scenario.Scenario) -> None:
    # Given a scenario, when it is written and loaded,
    text = scenario_file.to_yaml(play)

    # then it is the same.
    assert read(text) == play


def test_suggested_arrivals_fill_the_fleet() -> None:
    # Given a fleet with CPUs for 100 guests and memory for more,
    hosts = [
        scenario.HostType(
            name='solo',
            count=10,
            nodes=(scenario.HostNode(20, 2, 0, 1 << 17, {}, {}, None),),
        )
    ]
    flavors = [scenario.Flavor('small', 4, 1024, {})]

    # when arrivals are chosen for it,
    found = scenario_file.suggest_arrivals(hosts, flavors)

    # then about as many are there at a time.
    assert found == scenario.Arrivals(
        count=300, mean_lifetime=95.0, warm_up=130, seeds=(1, 2, 3)
    )


@pytest.mark.parametrize(
    ('old', 'new', 'problem'),
    [
        *mistakes.read(__file__),
        (
            'vcpus: 4',
            f'vcpus: 0x{5000 * "f"}',
            f"17: not YAML: bad value '0x{10 * 'f'}...{13 * 'f'}': Exceeds "
            'the limit (4300 digits) for integer string conversion; use '
            'sys.set_int_max_str_digits() to increase the limit (column 12)',
        ),
        (
            'vcpus: 4',
            f'vcpus: 1{5000 * "0"}',
            f"17: not YAML: bad value '1{11 * '0'}...{13 * '0'}': Exceeds "
            'the limit (4300 digits) for integer string conversion: value has '
            '5001 digits; use sys.set_int_max_str_digits() to increase the '
            'limit (column 12)',
        ),
    ],
)
def test_mistake_is_reported_with_its_line(
    old: str, new: str, problem: str
) -> None:
    # Given a scenario with a mistake,
    text = changed((old, new))

    # when it is loaded,
    with pytest.raises(document.FileError) as error:
        read(text)

    # then the error names the file and the line, and says what is wrong.
    assert str(error.value) == f'scenario.yaml:{problem}'


def test_all_mistakes_in_flavors_are_reported_at_once() -> None:
    # Given two flavors that Nova refuses,
    text = changed(
        ('hw:cpu_policy: dedicated', 'hw:cpu_thread_policy: isolate'),
        (
            'memory_mib: 512}',
            'memory_mib: 512, extra_specs: {hw:mem_page_size: 1X}}',
        ),
    )

    # when they are loaded,
    with pytest.raises(document.FileError) as error:
        read(text)

    # then both are reported.
    assert error.value.problems == (
        (
            21,
            'flavors.small.extra_specs.hw:cpu_thread_policy: Nova refuses '
            "'isolate': Cannot set cpu thread pinning policy in a non "
            'dedicated cpu pinning policy',
        ),
        (
            23,
            "flavors.plain.extra_specs.hw:mem_page_size: Nova refuses '1X': "
            "'1X' is not of the format "
            r"'(large|small|any|\d+([kKMGT]i?)?(b|bit|B)?)'.",
        ),
    )


def test_mistake_in_the_trace_is_reported_with_its_file() -> None:
    # Given a trace with a flavor that the scenario does not have,
    text = GOOD + 'trace: trace.csv\n'
    trace = 'time,flavor,lifetime\n0,large,\n'

    # when the scenario is loaded,
    with pytest.raises(document.FileError) as error:
        read(text, trace=trace)

    # then the error is one of the trace.
    assert str(error.value) == (
        "trace.csv:2: flavor: found 'large', expected one of small, plain"
    )


def test_neither_arrivals_nor_trace() -> None:
    # Given a scenario without guests, when it is loaded,
    with pytest.raises(document.FileError) as error:
        read(GOOD[: GOOD.index('arrivals')])

    # then the error names the two ways to have some.
    assert str(error.value) == (
        "scenario.yaml:1: expected 'arrivals' or 'trace', found neither"
    )


@pytest.mark.parametrize(
    ('content', 'problem'),
    [
        (b'', ":1: an empty value is not of type 'object'"),
        (b'- 1\n', ":1: [1] is not of type 'object'"),
        (
            b'a: 1\nb: \xff\n',
            ':2: not UTF-8: save the file as UTF-8 text',
        ),
        (
            b'a: 1\nb: \x00\n',
            ":2: not YAML: character '\\x00' is not allowed",
        ),
        (
            b'flavors: {}\nhosts: {}\n',
            ':1: flavors: {} should be non-empty\n'
            'scenario.yaml:2: hosts: {} should be non-empty',
        ),
        *(
            (
                depth * b'[' + depth * b']',
                ':1: not YAML: nested too deeply (column 51)',
            )
            for depth in (51, 100, 150, 300, 10_000)
        ),
    ],
)
def test_file_that_is_no_scenario(content: bytes, problem: str) -> None:
    # Given a file of something else, when it is loaded,
    with pytest.raises(document.FileError) as error:
        read(content)

    # then the error says what it is.
    assert str(error.value) == f'scenario.yaml{problem}'


@pytest.mark.parametrize(
    ('name', 'problem'),
    [
        ('none.yaml', 'none.yaml: cannot read it: No such file or directory'),
        ('/', '/: cannot read it: Is a directory'),
        ('a\0b', 'a\0b: cannot read it: embedded null byte'),
    ],
)
def test_file_that_cannot_be_read(name: str, problem: str) -> None:
    # Given a name of no file, when it is loaded,
    with pytest.raises(document.UnreadableError) as error:
        scenario_file.load(pathlib.Path(name))

    # then the error says why.
    assert str(error.value) == problem


def test_nodes_without_cpus_or_memory_and_memory_that_is_reserved() -> None:
    # Given a host with a node of memory only, and one of CPUs only,
    text = GOOD.replace(
        'solo: {nodes: 1, cores: 8, threads: 1, memory_mib: 8000}',
        'solo: {nodes: 2, cores: [0, 8], threads: 1, memory_mib: [8000, 0], '
        'reserved_host_memory_mb: 512}',
    )

    # when it is read, written, and read again,
    found = read(text)
    again = read(scenario_file.to_yaml(found))

    # then it is there.
    solo = found.hosts[1]
    assert again.hosts[1] == solo
    assert [node.cores for node in solo.nodes] == [0, 8]
    assert [node.memory_mib for node in solo.nodes] == [8000, 0]
    assert solo.reserved_memory_mib == 512
