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

import pathlib

import pytest

from nova_numa_hugepages.experiment import workload
from nova_numa_hugepages.experiment import workloads


@pytest.mark.parametrize(
    ('found', 'output', 'values'),
    [
        (
            workloads.Chase({'mib': [1, 64]}),
            'ready\n1 2.5\n1 2.25\n64 90.0\n',
            {'latency, 1 MiB': [2.5, 2.25], 'latency, 64 MiB': [90.0]},
        ),
        (workloads.Stream(), 'ready\n5.25\n5.5\n', {'bandwidth': [5.25, 5.5]}),
        (
            workloads.Lookups({'lookups': 1000}),
            '50000\nRun Time: real 0.500 user 0.4 sys 0.0\n',
            {'rows': [2000.0]},
        ),
        (
            workloads.Sysbench(),
            'Total operations: 8 (    7.73 per second)\n',
            {'passes': [7.73]},
        ),
        (
            workloads.Fio(),
            'note\n{"jobs": [{"read": {"iops": 12.5}}]}',
            {'reads': [12.5]},
        ),
        (workloads.Sort(), '', {}),
    ],
)
def test_reading(
    found: workload.Workload, output: str, values: dict[str, list[float]]
) -> None:
    assert found.read(output) == values


@pytest.mark.parametrize(
    ('found', 'output'),
    [
        (workloads.Chase(), ''),
        (workloads.Chase({'mib': [1, 64]}), '1 2.5\n'),
        (workloads.Stream(), 'ready\n0.0\n'),
        (workloads.Lookups(), 'Error: out of memory'),
        (workloads.Sysbench(), 'FATAL: no such option'),
        (workloads.Fio(), 'fio: failed'),
        (workloads.Fio(), '{"jobs": []}'),
        (workloads.Fio(), '{"jobs": [{"read": null}]}'),
    ],
)
def test_output_that_is_none(found: workload.Workload, output: str) -> None:
    with pytest.raises(
        workload.OutputError,
        match=f'The workload {found.name} wrote something else',
    ):
        found.read(output)


def test_those_that_are_installed_have_their_names() -> None:
    found = workload.classes()

    assert {name: each.name for name, each in found.items()} == {
        name: name
        for name in ('chase', 'fio', 'lookups', 'sort', 'stream', 'sysbench')
    }
    for each in found.values():
        assert each.defaults.keys() == each.properties.keys()
        assert each.quick.keys() <= each.defaults.keys()


def test_lines_are_the_same_each_time(tmp_path: pathlib.Path) -> None:
    sort = workloads.Sort({'lines': 1000})
    sort.prepare(tmp_path)
    before = (tmp_path / 'lines').read_text()
    sort.prepare(tmp_path)

    assert (tmp_path / 'lines').read_text() == before
    assert len(before.splitlines()) == 1000
