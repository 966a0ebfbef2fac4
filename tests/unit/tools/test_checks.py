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


"""The lint check that keeps the core pure."""

import ast
import pathlib
import subprocess
import sys

import pytest

from tools import checks

ROOT = pathlib.Path(__file__).resolve().parents[3]


def findings(source, filename='nova_numa_hugepages/core/some.py'):
    return [
        (line, text)
        for line, _, text, _ in checks.CoreImports(
            ast.parse(source), filename
        ).run()
    ]


@pytest.mark.parametrize(
    'source',
    [
        'import dataclasses',
        'import collections.abc',
        'from __future__ import annotations',
        'from collections.abc import Sequence',
        'from nova_numa_hugepages.core import model',
        'from nova_numa_hugepages.core.model import Plan',
    ],
)
def test_the_standard_library_and_the_core_may_be_imported(source):
    assert findings(source) == []


@pytest.mark.parametrize(
    ('source', 'name'),
    [
        ('import nova', 'nova'),
        ('import nova.objects as n', 'nova.objects'),
        ('from oslo_log import log', 'oslo_log.log'),
        ('import networkx', 'networkx'),
        (
            'from nova_numa_hugepages import conf',
            'nova_numa_hugepages.conf',
        ),
        ('from nova_numa_hugepages import *', 'nova_numa_hugepages.*'),
        ('from .. import conf', '...conf'),
        ('import importlib', 'importlib'),
        ('__import__("nova")', '__import__'),
        ('def late():\n    import nova', 'nova'),
    ],
)
def test_anything_else_is_found(source, name):
    ((_, text),) = findings(source)

    assert text.startswith(f'NNH101 core imports {name}, ')


def test_other_modules_may_import_anything():
    assert (
        findings('import nova', 'nova_numa_hugepages/libvirt/setup.py') == []
    )
    assert findings('import nova', 'tests/unit/core/test_model.py') == []


def test_the_lint_runs_the_check_and_fails(tmp_path):
    # tox has it in the environment of the lint only.
    pytest.importorskip('flake8')
    # given: a core with one bad import
    core = tmp_path / 'nova_numa_hugepages' / 'core'
    core.mkdir(parents=True)
    bad = core / 'bad.py'
    bad.write_text('import os\n\nimport nova\n\nprint(os, nova)\n')

    # when: flake8 runs as in the lint
    done = subprocess.run(
        [sys.executable, '-m', 'flake8', '--select=NNH', str(bad)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    # then
    assert done.returncode == 1
    assert f'{bad}:3:1: NNH101 core imports nova' in done.stdout
