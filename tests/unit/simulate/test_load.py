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

import pytest

from nova_numa_hugepages.simulate import dump
from nova_numa_hugepages.simulate import load
from nova_numa_hugepages.simulate import scenario
from nova_numa_hugepages.yamlfile import errors

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
                scenario.Node(
                    cores=4,
                    threads=2,
                    shared_cores=0,
                    memory_mib=8192,
                    pages={2048: 1024, 1048576: 1},
                    reserved={},
                    socket=0,
                ),
                scenario.Node(
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
                scenario.Node(
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
    return load.load(path)


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


def test_arrivals_need_only_a_count() -> None:
    # Given arrivals of which only the count is told, when they are loaded,
    text = GOOD[: GOOD.index('arrivals')] + 'arrivals: {count: 7}\n'

    # then guests stay, and there is one sequence.
    assert read(text).arrivals == scenario.Arrivals(
        count=7, per_hour=60.0, mean_lifetime=None, warm_up=0, seeds=(1,)
    )


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
    found = load.load(path)

    # then the guests are those of the trace.
    assert found == dataclasses.replace(
        SCENARIO,
        file='other/scenario.yaml',
        arrivals=scenario.Arrivals(count=2),
        trace=(
            scenario.TraceEntry(at=0.0, flavor='small', lifetime=None),
            scenario.TraceEntry(at=2.0, flavor='plain', lifetime=60.0),
        ),
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
                arrivals=scenario.Arrivals(count=1, seeds=(2, 1)),
            ),
            id='odd-texts',
        ),
    ],
)
def test_what_is_written_is_read_back_equal(play: scenario.Scenario) -> None:
    # Given a scenario, when it is written and loaded,
    text = dump.to_yaml(play.hosts, play.flavors, play.arrivals)

    # then it is the same.
    assert read(text) == play


def test_suggested_arrivals_fill_the_fleet() -> None:
    # Given a fleet with CPUs for 100 guests and memory for more,
    hosts = [
        scenario.HostType(
            name='solo',
            count=10,
            nodes=(scenario.Node(20, 2, 0, 1 << 17, {}, {}, None),),
        )
    ]
    flavors = [scenario.Flavor('small', 4, 1024, {})]

    # when arrivals are chosen for it,
    found = dump.suggest_arrivals(hosts, flavors)

    # then about as many are there at a time.
    assert found == scenario.Arrivals(
        count=300, mean_lifetime=95.0, warm_up=130, seeds=(1, 2, 3)
    )


@pytest.mark.parametrize(
    ('old', 'new', 'problem'),
    [
        pytest.param(
            'count: 50',
            'count: true',
            '3: hosts.duo.count: found true, expected an integer',
            id='boolean-for-a-number',
        ),
        pytest.param(
            'count: 50',
            'count: 20001',
            '3: hosts.duo.count: found 20001, expected 20000 or less',
            id='too-many-hosts-of-a-type',
        ),
        pytest.param(
            'count: 50',
            'count: 20000',
            '1: hosts: found 20001 hosts in all, expected 20000 or fewer',
            id='too-many-hosts',
        ),
        pytest.param(
            'pages: {2MiB: 1024, 1GiB: [1, 0]}',
            'pages: {2MiB: 1024, 2048KiB: 8}',
            '7: hosts.duo.pages: found 2048KiB, which is 2MiB again, '
            'expected each page size once',
            id='page-size-twice',
        ),
        pytest.param(
            'pages: {2MiB: 1024, 1GiB: [1, 0]}',
            'pages: {4KiB: 1, 2MiB: 1024}',
            '7: hosts.duo.pages: found 4KiB, expected a size above the '
            '4 KiB of small pages',
            id='small-pages',
        ),
        pytest.param(
            'sockets: [0, 1]',
            'sockets: [0]',
            '9: hosts.duo.sockets: found a list of 1, expected one value for '
            'each of the 2 nodes',
            id='list-too-short',
        ),
        pytest.param(
            'threads: 1, ',
            'threads: [1, 1], ',
            '14: hosts.solo.threads: found a list of 2, expected one value '
            'for each of the 1 nodes',
            id='list-too-long',
        ),
        pytest.param(
            'compute: stock',
            'compute: theirs',
            "11: hosts.duo.compute: found 'theirs', expected ours or stock",
            id='not-one-of',
        ),
        pytest.param(
            'cpu_allocation_ratio: 4',
            'cpu_allocation_ratio: 0',
            '12: hosts.duo.cpu_allocation_ratio: found 0, expected more '
            'than 0',
            id='not-positive',
        ),
        pytest.param(
            'ram_allocation_ratio: 1.5',
            'ram_allocation_ratio: .inf',
            '13: hosts.duo.ram_allocation_ratio: found inf, expected a number',
            id='infinite',
        ),
        pytest.param(
            ', memory_mib: 8000}',
            '}',
            "14: hosts.solo: found no 'memory_gib', expected it here",
            id='no-memory',
        ),
        pytest.param(
            ', memory_mib: 8000}',
            ', memory_mib: 8000, memory_gib: 8}',
            "14: hosts.solo: found 'memory_gib' and 'memory_mib', expected "
            'one of them',
            id='memory-twice',
        ),
        pytest.param(
            '  solo:',
            '  "so\\nlo":',
            "14: hosts: found the key 'so\\nlo', expected up to 300 "
            'characters that can be printed',
            id='name-of-two-lines',
        ),
        pytest.param(
            'share: 0.25',
            'share: .nan',
            '19: flavors.small.share: found nan, expected a number',
            id='not-a-number',
        ),
        pytest.param(
            'share: 0.25',
            'share: -1',
            '19: flavors.small.share: found -1, expected more than 0',
            id='negative-share',
        ),
        pytest.param(
            'vcpus: 4',
            f'vcpus: 1{60 * "0"}',
            f'17: flavors.small.vcpus: found 1{39 * "0"}…, expected 1024 or '
            'less',
            id='huge-integer',
        ),
        pytest.param(
            'vcpus: 4',
            f'vcpus: 1{5000 * "0"}',
            '17: not YAML: Exceeds the limit (4300 digits) for integer string '
            'conversion: value has 5001 digits; use '
            'sys.set_int_max_str_digits() to increase the limit',
            id='endless-integer',
        ),
        pytest.param(
            'vcpus: 4',
            f'vcpus: 0x{5000 * "f"}',
            '17: not YAML: found an integer of over 4300 digits',
            id='endless-hexadecimal',
        ),
        pytest.param(
            'hw:numa_nodes: 2',
            'hw:numa_nodes: 3',
            "22: flavors.small.extra_specs.hw:numa_nodes: found '3', expected "
            'what Nova takes: Instance CPUs and/or memory cannot be evenly '
            'distributed across instance NUMA nodes. Explicit assignment of '
            'CPUs and memory to nodes is required',
            id='cells-of-no-whole-cpus',
        ),
        pytest.param(
            'hw:cpu_policy: dedicated',
            'hw:cpu_policy: mine',
            "21: flavors.small.extra_specs.hw:cpu_policy: found 'mine', "
            "expected what Nova takes: 'mine' is not one of: dedicated, "
            'shared, mixed.',
            id='unknown-value-of-an-extra-spec',
        ),
        pytest.param(
            'hw:numa_nodes: 2',
            'hw:numa_node: 2',
            "22: flavors.small.extra_specs.hw:numa_node: found '2', expected "
            "what Nova takes: extra spec 'hw:numa_node' does not appear to be "
            'a valid extra spec.',
            id='unknown-extra-spec',
        ),
        pytest.param(
            'hw:numa_nodes: 2',
            'numa_hugepages:max_distance: 9',
            '22: flavors.small.extra_specs.numa_hugepages:max_distance: found '
            "'9', expected what Nova takes: '9' is less than the min value of "
            "'10'.",
            id='extra-spec-of-ours',
        ),
        pytest.param(
            'hw:numa_nodes: 2',
            'hw:numa_cpus.0: 0-99999999999',
            '22: flavors.small.extra_specs.hw:numa_cpus.0: found '
            "'0-99999999999', expected what Nova takes: a CPU has a number of "
            'up to four digits.',
            id='list-of-very-many-cpus',
        ),
        pytest.param(
            'hw:numa_nodes: 2',
            'hw:numa_nodes: 1.5',
            '22: flavors.small.extra_specs.hw:numa_nodes: found 1.5, expected '
            'text or an integer or true or false',
            id='extra-spec-of-another-type',
        ),
        pytest.param(
            'count: 2500',
            'count: 1000001',
            '25: arrivals.count: found 1000001, expected 1000000 or less',
            id='too-many-arrivals',
        ),
        pytest.param(
            'per_hour: 120',
            'per_hour: many',
            "26: arrivals.per_hour: found 'many', expected a number",
            id='text-for-a-number',
        ),
        pytest.param(
            'mean_lifetime: 760',
            'mean_lifetime: 0.0',
            '27: arrivals.mean_lifetime: found 0.0, expected more than 0',
            id='no-lifetime',
        ),
        pytest.param(
            'warm_up: 1000',
            'warm_up: 2500',
            '28: arrivals.warm_up: found 2500, expected fewer than the 2500 '
            'arrivals',
            id='all-warm-up',
        ),
        pytest.param(
            'seeds: 3',
            'seeds: [1, 2.0]',
            '29: arrivals.seeds[1]: found 2.0, expected an integer',
            id='seed-of-another-type',
        ),
        pytest.param(
            'seeds: 3',
            'seeds: [1, 2, 1]',
            '29: arrivals.seeds[2]: found 1 again, expected each seed once',
            id='seed-twice',
        ),
        pytest.param(
            'seeds: 3',
            'seeds: []',
            '29: arrivals.seeds: found a list of 0, expected 1 items or more',
            id='no-seed',
        ),
        pytest.param(
            'arrivals:\n',
            'arrivals: 5\nmore:\n',
            '24: arrivals: found 5, expected a mapping\n'
            "scenario.yaml:25: found the key 'more', expected one of hosts, "
            'flavors, arrivals, trace',
            id='two-mistakes',
        ),
        pytest.param(
            'seeds: 3\n',
            'seeds: 3\ntrace: none.csv\n',
            "30: trace: found 'none.csv', expected a file that can be read: "
            'No such file or directory',
            id='no-such-trace',
        ),
        pytest.param(
            'seeds: 3\n',
            'seeds: 3\ntrace: .\n',
            "30: trace: found '.', expected a file that can be read: "
            'Is a directory',
            id='trace-is-a-folder',
        ),
        pytest.param(
            'seeds: 3\n',
            'seeds: 3\ntrace: "a\\0b"\n',
            "30: trace: found 'a\\x00b', expected up to 300 characters that "
            'can be printed',
            id='trace-with-a-nul-in-its-name',
        ),
    ],
)
def test_mistake_is_told_with_its_line(
    old: str, new: str, problem: str
) -> None:
    # Given a scenario with a mistake,
    text = changed((old, new))

    # when it is loaded,
    with pytest.raises(errors.FileError) as error:
        read(text)

    # then the error tells the file, the line, and what was expected.
    assert str(error.value) == f'scenario.yaml:{problem}'


def test_all_mistakes_in_flavors_are_told_at_once() -> None:
    # Given two flavors that Nova refuses,
    text = changed(
        ('hw:cpu_policy: dedicated', 'hw:cpu_thread_policy: isolate'),
        (
            'memory_mib: 512}',
            'memory_mib: 512, extra_specs: {hw:mem_page_size: 1X}}',
        ),
    )

    # when they are loaded,
    with pytest.raises(errors.FileError) as error:
        read(text)

    # then both are told.
    assert error.value.problems == (
        (
            21,
            'flavors.small.extra_specs.hw:cpu_thread_policy: found '
            "'isolate', expected what Nova takes: Cannot set cpu thread "
            'pinning policy in a non dedicated cpu pinning policy',
        ),
        (
            23,
            "flavors.plain.extra_specs.hw:mem_page_size: found '1X', expected "
            "what Nova takes: '1X' is not of the format "
            r"'(large|small|any|\d+([kKMGT]i?)?(b|bit|B)?)'.",
        ),
    )


def test_mistake_in_the_trace_is_told_with_its_file() -> None:
    # Given a trace with a flavor that the scenario does not have,
    text = GOOD + 'trace: trace.csv\n'
    trace = 'time,flavor,lifetime\n0,large,\n'

    # when the scenario is loaded,
    with pytest.raises(errors.FileError) as error:
        read(text, trace=trace)

    # then the error is one of the trace.
    assert str(error.value) == (
        "trace.csv:2: flavor: found 'large', expected one of small, plain"
    )


def test_neither_arrivals_nor_trace() -> None:
    # Given a scenario without guests, when it is loaded,
    with pytest.raises(errors.FileError) as error:
        read(GOOD[: GOOD.index('arrivals')])

    # then the error tells the two ways to have some.
    assert str(error.value) == (
        "scenario.yaml:1: found neither 'arrivals' nor 'trace', expected one "
        'of them'
    )


@pytest.mark.parametrize(
    ('content', 'problem'),
    [
        (b'', ':1: found nothing, expected a mapping'),
        (b'- 1\n', ':1: found a list of 1, expected a mapping'),
        (b'.nan\n', ':1: found nan, expected a mapping'),
        (
            b'a: 1\nb: \xff\n',
            ':2: found bytes that are no UTF-8, expected text',
        ),
        (
            b'flavors: {}\nhosts: {}\n',
            ':1: flavors: found a mapping, expected 1 entry or more\n'
            'scenario.yaml:2: hosts: found a mapping, expected 1 entry or '
            'more',
        ),
        (
            b'a: 1\nb: !!bool maybe\n',
            ":2: not YAML: found 'maybe', which is no !!bool",
        ),
        (b'a: 1\nb: !!int ""\n', ":2: not YAML: found '', which is no !!int"),
        (
            b'a: 1\n"b\\ud800": 1\n',
            ":2: not YAML: found 'b\\ud800', which is half a character",
        ),
        (600 * b'[' + 600 * b']', ': not YAML: nested too deeply'),
    ],
)
def test_file_that_is_no_scenario(content: bytes, problem: str) -> None:
    # Given a file of something else, when it is loaded,
    with pytest.raises(errors.FileError) as error:
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
    with pytest.raises(errors.UnreadableError) as error:
        load.load(pathlib.Path(name))

    # then the error says why.
    assert str(error.value) == problem
