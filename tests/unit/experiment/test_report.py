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

import dataclasses
import json
from typing import Any

import pytest

from nova_numa_hugepages.experiment import analysis
from nova_numa_hugepages.experiment import report
from nova_numa_hugepages.experiment import report_page
from nova_numa_hugepages.experiment import workload
from nova_numa_hugepages.experiment import workloads
from nova_numa_hugepages.experiment.plan import Arm
from nova_numa_hugepages.experiment.plan import Plan
from nova_numa_hugepages.experiment.procedure import Decision
from nova_numa_hugepages.experiment.records import Records
from nova_numa_hugepages.experiment.trial import Pair
from nova_numa_hugepages.experiment.trial import Trial
from tests.unit.experiment import made

PLAN = Plan(
    (Arm('control'), Arm('huge', '2048'), Arm('far & huge', '2048', far=True)),
    {'chase': {'mib': [1, 64]}},
    pairs=14,
)
TIMES = {
    'control': (2.0, 100.0),
    'huge': (2.0, 60.0),
    'far & huge': (3.0, 150.0),
}


def trial(arm: str, number: int) -> Trial:
    # Each arm has another noise.
    noise = 1 + (number * (1 + len(arm)) % 7 - 3) / 1000
    small, large = (value * noise for value in TIMES[arm])
    return dataclasses.replace(
        made.trial(arm),
        values={'latency, 1 MiB': [small], 'latency, 64 MiB': [large]},
    )


@pytest.fixture
def records() -> Records:
    pairs = [
        Pair(
            number,
            False,
            'chase',
            'idle',
            True,
            [trial('control', number), trial(arm.name, number)],
        )
        for number in range(14)
        for arm in PLAN.treatments
    ]
    return Records(PLAN, made.SURROUNDINGS, Decision(14, 14), pairs)


def test_what_it_shows(records: Records) -> None:
    text = report.text(records, report.comparisons(records))

    assert text.splitlines() == [
        '14 pairs of each kind were planned before the first one that counts. '
        'Intervals hold all together with 99 % confidence.',
        'Both arms of a pair ran at the same time, on CPUs of one NUMA node, '
        'and took turns on them.',
        'The arm far & huge differs from control in pages and memory: which '
        'of them makes the difference is not told here.',
        '',
        'chase, idle, latency, 1 MiB, huge: no difference shown; it is 0.3 % '
        'at most',
        'chase, idle, latency, 64 MiB, huge: 40.0 % less: better',
        'chase, idle, latency, 1 MiB, far & huge: 50.0 % more: worse',
        'chase, idle, latency, 64 MiB, far & huge: 50.0 % more: worse',
    ]


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        ({'decision': None}, 'It ended before it was known how many pairs'),
        (
            {'decision': Decision(14, 300)},
            'To find a difference of 3 % everywhere it would take 300 pairs',
        ),
        ({'decision': Decision(15, 15)}, 'It was ended early'),
    ],
)
def test_an_experiment_that_did_not_come_to_its_end(
    records: Records, change: dict[str, Any], sentence: str
) -> None:
    records = dataclasses.replace(records, **change)

    assert sentence in ' '.join(report.facts(records))


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        ({'emulated': True, 'virtual': True}, 'This machine is emulated'),
        ({'virtual': True}, 'This is a virtual machine'),
        ({'governor': 'powersave'}, '(governor powersave)'),
        ({'numa_balancing': '1'}, 'The kernel may move memory'),
        (
            {'nodes': made.SURROUNDINGS['nodes'][:1]},  # type: ignore[index]
            'There is one NUMA node',
        ),
    ],
)
def test_what_makes_it_worth_less(
    records: Records, change: dict[str, Any], sentence: str
) -> None:
    around = {**made.SURROUNDINGS, **change}
    records = dataclasses.replace(records, surroundings=around)

    assert sentence in report.warnings(records)[0]


def test_pairs_that_do_not_count(records: Records) -> None:
    first = records.pairs[0]
    wrong = dataclasses.replace(first.trials[1], problems=['it has no pages'])
    pair = dataclasses.replace(first, trials=[first.trials[0], wrong])
    records = dataclasses.replace(records, pairs=[pair, *records.pairs[1:]])
    found = report.comparisons(records)

    assert report.left_out(records) == [
        '1 of chase in the arm huge did not count: it has no pages.'
    ]
    assert [each.left_out for each in found] == [1, 1, 0, 0]


def test_json(records: Records) -> None:
    found = json.loads(report.as_json(records, report.comparisons(records)))
    second = found['comparisons'][1]

    assert found['version'] == 1
    assert found['complete']
    assert second['ratio'] == pytest.approx(0.6, abs=0.005)
    assert second['low'] < second['ratio'] < second['high']
    assert (second['pairs'], second['left_out']) == (14, 0)
    assert second['better'] is True
    assert found['comparisons'][0]['better'] is None
    assert found['comparisons'][2]['better'] is False


def test_the_page(records: Records) -> None:
    page = report_page.render(records, report.comparisons(records))

    assert 'far &amp; huge' in page
    assert 'far & huge' not in page
    assert page.count('<polyline') == 3
    assert page.count('<circle') == 4
    assert 'http' not in page.replace('http-equiv', '')


def test_a_page_without_figures(records: Records) -> None:
    records = dataclasses.replace(records, pairs=[], decision=None)
    page = report_page.render(records, report.comparisons(records))

    assert 'too few pairs' in page
    assert '<polyline' not in page


def test_markdown(records: Records) -> None:
    text = report.markdown(records, report.comparisons(records))

    assert text.startswith('# Experiment on node1, 2023-11-14 22:13 UTC\n')
    assert '\n- control (control): small pages, near its CPUs\n' in text
    assert (
        '\n| chase | idle | latency, 64 MiB | huge | 100 ns | 60 ns | 0.600 ('
        in text
    )
    assert '\n- NUMA node 1: CPUs 4-7, 4096 MiB, distances 21, 10\n' in text


def test_a_workload_that_is_not_installed(records: Records) -> None:
    plan = dataclasses.replace(PLAN, workloads={'mine': {}})

    with pytest.raises(
        workload.UnknownWorkload, match='The workload mine of this experiment'
    ):
        report.comparisons(dataclasses.replace(records, plan=plan))


@pytest.mark.parametrize(
    ('number', 'text'),
    [
        (1.0, 'the same'),
        (0.877, '12.3 % less'),
        (1.5, '50.0 % more'),
        (2.5, '2.50 times'),
    ],
)
def test_a_ratio_in_words(number: float, text: str) -> None:
    assert report.percent(number) == text


def test_cpu_time_is_compared_where_the_work_is_fixed() -> None:
    names = [each.name for each in analysis.measures(workloads.Sort())]

    assert names == ['time', 'CPU time']
