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

from nova_numa_hugepages.experiment import plan_file
from nova_numa_hugepages.experiment.plan import Arm
from nova_numa_hugepages.yamlfile import document
from tests.fixtures import mistakes

GOOD = """\
arms:
  small pages: {pages: small}
  huge: {pages: 2 MiB, memory: far}
workloads:
  chase: {mib: 64}
  sort:
loads: [idle, cpu]
difference_percent: 5
confidence_percent: 95
pairs: 20
seed: 7
"""


def test_a_plan(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'plan.yaml'
    path.write_text(GOOD)
    plan = plan_file.load(path)

    assert plan.arms == (
        Arm('small pages', 'small'),
        Arm('huge', '2048', far=True),
    )
    assert plan.workloads == {'chase': {'mib': 64}, 'sort': {}}
    assert plan.loads == ('idle', 'cpu')
    assert (plan.difference, plan.confidence) == (0.05, 0.95)
    assert (plan.pairs, plan.seed) == (20, 7)


def test_the_example(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'plan.yaml'
    path.write_text(plan_file.example())

    assert plan_file.load(path).arms == plan_file.default(quick=False).arms


@pytest.mark.parametrize(('old', 'new', 'problem'), mistakes.read(__file__))
def test_a_mistake(
    tmp_path: pathlib.Path, old: str, new: str, problem: str
) -> None:
    path = tmp_path / 'plan.yaml'
    path.write_text(GOOD.replace(old, new))
    assert path.read_text() != GOOD

    with pytest.raises(document.FileError) as caught:
        plan_file.load(path)
    assert str(caught.value) == f'{path}:{problem}'
