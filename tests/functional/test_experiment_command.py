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

"""The command ``nova-numa-hugepages experiment`` as a user runs it.

Its programs, and the memory that they have, are real.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
from typing import Any

import jsonschema
import pytest

from nova_numa_hugepages.hugepages.kernel import hostfs
from tests.functional import commands

PLAN = commands.EXPERIMENT
NAMES = ['pairs.jsonl', 'plan.json', 'report.html', 'report.json', 'report.md']
THP = pathlib.Path('/sys/kernel/mm/transparent_hugepage/enabled')

pytestmark = [
    # Each has two CPUs.
    pytest.mark.xdist_group('experiment'),
    pytest.mark.skipif(
        shutil.which('cc') is None, reason='needs a C compiler'
    ),
]


def run(folder: pathlib.Path, plan: str, *more: str) -> tuple[int, str, str]:
    (folder / 'plan.yaml').write_text(plan)
    return commands.command(
        folder,
        *('experiment', 'run', '--local', 'plan.yaml', '--output', 'out'),
        *more,
    )


def report(folder: pathlib.Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (folder / 'out' / 'report.json').read_text()
    )
    return found


@pytest.mark.skipif(
    not THP.exists() or '[never]' in THP.read_text(),
    reason='this machine has no transparent huge pages',
)
def test_transparent_huge_pages(tmp_path: pathlib.Path) -> None:
    # Given arms with small and with transparent huge pages,
    plan = PLAN.replace('2MiB', 'thp') + 'seed: 3\n'

    # when they are compared,
    code, out, err = run(tmp_path, plan)

    # then there is a report, for which each pair counts that was as it says,
    assert code == 0, err
    assert sorted(os.listdir(tmp_path / 'out')) == NAMES
    found = report(tmp_path)
    assert found['complete']
    assert [each['measure'] for each in found['comparisons']] == [
        'latency, 1 MiB',
        'latency, 16 MiB',
    ]
    assert all(each['control'] > 0 for each in found['comparisons'])
    assert '12 pairs of each kind were planned' in out
    # and it can be made again from the raw data, the same to the last digit.
    before = [(tmp_path / 'out' / name).read_text() for name in NAMES]
    assert commands.command(tmp_path, 'experiment', 'report', 'out')[0] == 0
    assert before == [(tmp_path / 'out' / name).read_text() for name in NAMES]


@pytest.mark.skipif(
    not hostfs.HostFS().size_folder(2048).exists(),
    reason='this machine has no huge pages of 2 MiB',
)
def test_too_few_pages(tmp_path: pathlib.Path) -> None:
    plan = PLAN.replace('mib: [1, 16]', 'mib: 900000')
    code, out, err = run(tmp_path, plan)

    assert (code, out) == (1, '')
    assert 'It takes 585002 free huge pages of 2 MiB on NUMA node 0' in err
    assert '--allocate-pages' in err
    assert 'It takes about 2700192 MiB of memory on NUMA node 0' in err
    assert not (tmp_path / 'out').exists()


def test_pages_that_this_machine_does_not_have(tmp_path: pathlib.Path) -> None:
    code, _, err = run(tmp_path, PLAN.replace('2MiB', '16KiB'))

    assert code == 1
    assert err.splitlines()[0] == (
        'This machine has no huge pages of 16 KiB. Leave out the arms with '
        'them.'
    )


@pytest.mark.skipif(
    len(hostfs.HostFS().online()) > 1, reason='this machine has far memory'
)
def test_far_memory_that_is_not_there(tmp_path: pathlib.Path) -> None:
    code, _, err = run(tmp_path, PLAN.replace('2MiB', 'small, memory: far'))

    assert code == 1
    assert 'This machine has one NUMA node, so no memory is far.' in err


def test_programs_that_are_missing(tmp_path: pathlib.Path) -> None:
    (tmp_path / 'plan.yaml').write_text(
        PLAN.replace('2MiB', 'thp').replace('chase:', 'sort: {}\n  chase:')
    )
    code, _, err = commands.command(
        tmp_path,
        *('experiment', 'run', '--local', 'plan.yaml', '--output', 'out'),
        PATH=str(tmp_path),
    )

    assert code == 1
    assert err.startswith(
        'Missing programs: cc, sort. On Debian and Ubuntu: apt-get install '
        'coreutils gcc libc6-dev.'
    )


def test_a_result_that_is_expected(tmp_path: pathlib.Path) -> None:
    plan = PLAN.replace('2MiB', 'thp')
    ratio = 'huge/chase/latency, 16 MiB'
    code, _, err = run(tmp_path, plan, '--expect', f'{ratio} < 1000')
    assert code == 0, err

    code, _, err = commands.command(
        tmp_path, 'experiment', 'report', 'out', '--expect', f'{ratio}>1000'
    )
    assert code == 3
    assert 'Not as expected: huge/chase/latency, 16 MiB, idle: ' in err
    assert 'expected > 1000' in err


def test_two_experiments(tmp_path: pathlib.Path) -> None:
    assert run(tmp_path, PLAN.replace('2MiB', 'thp'))[0] == 0
    code, out, _ = commands.command(
        tmp_path, 'experiment', 'compare', 'out', 'out', COLUMNS='200'
    )

    assert code == 0
    assert out.count('latency, ') == 2
    assert out.count('do not differ for certain') == 2


@pytest.mark.parametrize(
    ('arguments', 'text'),
    [
        ((), 'Give either --local'),
        (('--local', '--libvirt', 'qemu:///x'), 'Give either --local'),
        (('--local', '--kernel', 'x'), '--kernel goes with --libvirt only'),
        (('--local', 'plan.yaml', '--quick'), '--quick does not go with'),
        (('--local', 'none.yaml'), 'none.yaml: cannot read it: No such file'),
        (('--local', 'plan.yaml', '--expect', 'faster'), "--expect 'faster'"),
        (
            ('--local', 'plan.yaml', '--expect', 'small/chase/x<1'),
            "no arm to compare 'small' in the plan, which has huge.",
        ),
        (
            ('--local', 'plan.yaml', '--expect', 'huge/sort/time<1'),
            "no workload 'sort' in the plan, which has chase.",
        ),
        (
            ('--local', 'plan.yaml', '--expect', 'huge/chase/time<1'),
            "chase does not measure 'time', but latency, 1 MiB; latency, 16",
        ),
    ],
)
def test_bad_options(
    tmp_path: pathlib.Path, arguments: tuple[str, ...], text: str
) -> None:
    (tmp_path / 'plan.yaml').write_text(PLAN)
    code, out, err = commands.command(
        tmp_path, 'experiment', 'run', *arguments
    )

    assert (code, out) == (2, '')
    assert text in err


def test_a_folder_in_use(tmp_path: pathlib.Path) -> None:
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'mine').touch()
    code, _, err = run(tmp_path, PLAN.replace('2MiB', 'thp'))

    assert code == 1
    assert 'out is not empty. Name a new folder' in err


def test_reports_of_nothing(tmp_path: pathlib.Path) -> None:
    code, _, err = commands.command(tmp_path, 'experiment', 'report', '.')

    assert code == 1
    assert 'plan.json: No such file or directory' in err


def test_the_schema_and_the_example(tmp_path: pathlib.Path) -> None:
    schema = json.loads(
        commands.command(tmp_path, 'experiment', 'run', '--schema')[1]
    )
    jsonschema.Draft202012Validator.check_schema(schema)
    _, example, _ = commands.command(
        tmp_path, 'experiment', 'run', '--example'
    )

    assert example.startswith('# A plan for "nova-numa-hugepages experiment')
