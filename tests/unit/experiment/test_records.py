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

import json
import pathlib
from typing import Any

import pytest

from nova_numa_hugepages.experiment import records
from nova_numa_hugepages.experiment.plan import Arm
from nova_numa_hugepages.experiment.plan import Plan
from nova_numa_hugepages.experiment.procedure import Decision
from nova_numa_hugepages.experiment.trial import Pair
from tests.unit.experiment import made

PLAN = Plan((Arm('control'), Arm('huge', '2048')), {'work': {'rounds': 3}})
PAIRS = [
    Pair(
        number,
        number < 1,
        'work',
        'idle',
        True,
        [made.trial('control', 1.0, 2.0), made.trial('huge', 3.0)],
    )
    for number in range(3)
]


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = records.Folder(tmp_path / 'new' / 'results')
    folder.begin(PLAN, made.SURROUNDINGS)
    folder.add(PAIRS[0])
    folder.begin(PLAN, made.SURROUNDINGS, Decision(2, 5))
    for pair in PAIRS[1:]:
        folder.add(pair)
    return folder.path


def test_what_is_written_is_read(path: pathlib.Path) -> None:
    found = records.read(path)

    assert found.pairs == PAIRS
    assert found.decision == Decision(2, 5)
    assert found.plan == PLAN
    assert found.is_complete


def test_a_line_that_was_being_written(path: pathlib.Path) -> None:
    file = path / 'pairs.jsonl'
    file.write_text(file.read_text()[:-10])
    found = records.read(path)

    assert found.pairs == PAIRS[:2]
    assert not found.is_complete


def test_a_folder_that_is_in_use(path: pathlib.Path) -> None:
    with pytest.raises(records.RecordsError, match='is not empty'):
        records.Folder(path)


def test_a_folder_that_cannot_be(tmp_path: pathlib.Path) -> None:
    (tmp_path / 'file').touch()

    with pytest.raises(records.RecordsError, match='cannot be used'):
        records.Folder(tmp_path / 'file' / 'results')


def test_a_folder_that_is_taken_away(path: pathlib.Path) -> None:
    folder = records.Folder(path.parent / 'other')
    folder.path.rmdir()

    with pytest.raises(
        records.RecordsError, match='cannot be written: No such'
    ):
        folder.add(PAIRS[0])
    with pytest.raises(
        records.RecordsError, match='cannot be written: No such'
    ):
        folder.begin(PLAN, made.SURROUNDINGS)


def test_no_results(tmp_path: pathlib.Path) -> None:
    with pytest.raises(
        records.RecordsError, match='No such file or directory'
    ):
        records.read(tmp_path)


@pytest.mark.parametrize(
    ('change', 'error'),
    [
        ({'version': 2}, 'has version 2, and this program reads 1'),
        ({'plan': {'arms': []}}, 'or they are damaged'),
        ({'plan': None}, 'or they are damaged'),
        ({'decision': {'pairs': 3}}, 'or they are damaged'),
    ],
)
def test_a_plan_that_cannot_be_read(
    path: pathlib.Path, change: dict[str, Any], error: str
) -> None:
    file = path / 'plan.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))

    with pytest.raises(records.RecordsError, match=error):
        records.read(path)


@pytest.mark.parametrize('text', ['{}\n', 'no JSON\n', '[1]\n'])
def test_pairs_that_cannot_be_read(path: pathlib.Path, text: str) -> None:
    (path / 'pairs.jsonl').write_text(text)

    with pytest.raises(records.RecordsError, match='or they are damaged'):
        records.read(path)
