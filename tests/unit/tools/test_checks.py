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

"""The lint checks of what the folders of the package may import."""

import ast
import pathlib
import subprocess
import sys

import pytest

from tools import checks

ROOT = pathlib.Path(__file__).resolve().parents[3]


def findings(source, filename):
    found = checks.Imports(ast.parse(source), filename).run()
    return [text for _, _, text, _ in found]


def in_folder(source, folder):
    return findings(source, f'nova_numa_hugepages/{folder}/kernel/some.py')


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
@pytest.mark.parametrize('folder', ['core', 'hugepages', 'scheduler'])
def test_the_standard_library_and_the_core_may_be_imported(source, folder):
    assert in_folder(source, folder) == []


@pytest.mark.parametrize(
    ('source', 'name'),
    [
        ('import nova', 'nova'),
        ('import nova.objects as n', 'nova.objects'),
        ('from oslo_log import log', 'oslo_log.log'),
        ('import networkx', 'networkx'),
        ('from nova_numa_hugepages import conf', 'nova_numa_hugepages.conf'),
        ('from nova_numa_hugepages import *', 'nova_numa_hugepages.*'),
        ('from .. import conf', '...conf'),
        ('import importlib', 'importlib'),
        ('__import__("nova")', '__import__'),
        ('def late():\n    import nova', 'nova'),
    ],
)
def test_the_core_imports_nothing_else(source, name):
    assert in_folder(source, 'core') == [
        f'NNH101 core imports {name}, which is neither in the standard '
        'library nor in core'
    ]


@pytest.mark.parametrize(
    'source',
    [
        'from oslo_log import log as logging',
        'from oslo_concurrency import processutils',
        'from nova_numa_hugepages import exception',
        'from nova_numa_hugepages.hugepages.kernel import hostfs',
    ],
)
def test_hugepages_may_import_itself_and_libraries(source):
    assert in_folder(source, 'hugepages') == []


@pytest.mark.parametrize(
    ('source', 'name'),
    [
        ('import nova', 'nova'),
        ('from nova.virt import hardware', 'nova.virt.hardware'),
        ('import libvirt', 'libvirt'),
        (
            'from nova_numa_hugepages.nova_fit import translate',
            'nova_numa_hugepages.nova_fit.translate',
        ),
        (
            'from nova_numa_hugepages import libvirt',
            'nova_numa_hugepages.libvirt',
        ),
        ('from .. import conf', '...conf'),
        ('def late():\n    import nova', 'nova'),
    ],
)
def test_hugepages_imports_nothing_of_nova(source, name):
    assert in_folder(source, 'hugepages') == [
        f'NNH102 hugepages imports {name}, which is not among what works '
        'without Nova'
    ]


def test_the_monitor_changes_nothing():
    source = (
        'import prometheus_client\n'
        'from oslo_log import log as logging\n'
        'from nova_numa_hugepages.hugepages import sample\n'
        'from nova_numa_hugepages.hugepages import pools\n'
        'from nova_numa_hugepages.hugepages.pools import Pools\n'
        'from nova_numa_hugepages.libvirt import driver\n'
        'import nova\n'
    )

    assert in_folder(source, 'monitor') == [
        f'NNH104 monitor imports {name}, which is not among what works '
        'without Nova and changes nothing'
        for name in (
            'nova_numa_hugepages.hugepages.pools',
            'nova_numa_hugepages.hugepages.pools.Pools',
            'nova_numa_hugepages.libvirt.driver',
            'nova',
        )
    ]


def test_the_experiment_needs_no_nova():
    source = (
        'import numpy\n'
        'from nova_numa_hugepages import exception\n'
        'from nova_numa_hugepages.hugepages.kernel import hugetlb\n'
        'from nova_numa_hugepages.hugepages import manager\n'
        'from nova_numa_hugepages.simulate import runner\n'
        'from nova import objects\n'
    )

    assert in_folder(source, 'experiment') == [
        f'NNH105 experiment imports {name}, which is not among what works '
        'without Nova and its driver'
        for name in (
            'nova_numa_hugepages.hugepages.manager',
            'nova_numa_hugepages.simulate.runner',
            'nova.objects',
        )
    ]


@pytest.mark.parametrize('folder', ['nova_fit', 'scheduler'])
def test_the_scheduler_imports_nothing_of_the_driver(folder):
    source = (
        'from nova import objects\n'
        'from nova_numa_hugepages.hugepages import pools\n'
        'from nova_numa_hugepages import libvirt\n'
    )

    assert in_folder(source, folder) == [
        f'NNH103 {folder} imports {name}, which belongs to the driver'
        for name in (
            'nova_numa_hugepages.hugepages.pools',
            'nova_numa_hugepages.libvirt',
        )
    ]


def test_other_modules_may_import_anything():
    for path in (
        'nova_numa_hugepages/libvirt/setup.py',
        'tests/unit/core/test_model.py',
    ):
        assert findings('import nova', path) == []


@pytest.mark.parametrize(
    ('folder', 'code'), [('core', 'NNH101'), ('hugepages', 'NNH102')]
)
def test_the_lint_runs_the_check_and_fails(tmp_path, folder, code):
    # tox has it in the environment of the lint only.
    pytest.importorskip('flake8')
    # given: a folder with one bad import
    below = tmp_path / 'nova_numa_hugepages' / folder
    below.mkdir(parents=True)
    bad = below / 'bad.py'
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
    assert f'{bad}:3:1: {code} {folder} imports nova' in done.stdout
