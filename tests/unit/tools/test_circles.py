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

"""The check that no modules import each other in a circle."""

import itertools
import pathlib
import subprocess
import sys

import pytest

from tools import circles

ROOT = pathlib.Path(__file__).resolve().parents[3]


def write(folder, **sources):
    """Write modules of a package; `__` in a name stands for a folder."""
    for name, source in sources.items():
        path = folder / 'nova_numa_hugepages' / f'{name.replace("__", "/")}.py'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)


def run(folder):
    return subprocess.run(
        [sys.executable, '-m', 'tools.circles'],
        cwd=folder,
        env={'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_modules_that_import_downwards_only(tmp_path):
    write(
        tmp_path,
        top='from nova_numa_hugepages.sub import low\nimport os\n',
        sub__low='from dataclasses import dataclass\n',
    )

    done = run(tmp_path)

    assert (done.returncode, done.stderr) == (0, '')


@pytest.mark.parametrize(
    'back',
    [
        'from nova_numa_hugepages.top import NAME\n',
        'import nova_numa_hugepages.top\n',
        'def late():\n    from nova_numa_hugepages import top\n',
        'if TYPE_CHECKING:\n    from nova_numa_hugepages import top\n',
    ],
)
def test_a_circle_is_named(tmp_path, back):
    write(
        tmp_path,
        top='from nova_numa_hugepages.sub import low\n',
        sub__low=back,
    )

    done = run(tmp_path)

    assert done.returncode == 1
    top, low = 'nova_numa_hugepages.top', 'nova_numa_hugepages.sub.low'
    assert done.stderr in {
        f'circular import: {top} -> {low} -> {top}\n',
        f'circular import: {low} -> {top} -> {low}\n',
    }


def test_a_circle_goes_from_what_imports_to_what_is_imported():
    graph = {'a': {'b'}, 'b': {'c'}, 'c': {'a'}, 'd': set()}

    found = circles.circle(graph)

    assert found[0] == found[-1]
    assert all(
        after in graph[before] for before, after in itertools.pairwise(found)
    )


def test_a_folder_without_modules_is_an_error(tmp_path):
    done = run(tmp_path)

    assert done.returncode == 1
    assert 'no modules in' in done.stderr
