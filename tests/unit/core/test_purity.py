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


"""The core imports the standard library and itself, nothing else."""

import ast
import pathlib
import sys

import pytest

from nova_numa_hugepages import core

FILES = sorted(pathlib.Path(core.__file__).parent.rglob('*.py'))
CORE = 'nova_numa_hugepages.core'


def _imported(path):
    """List what a file imports, inside functions too."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = '.' * node.level + (node.module or '')
            names.extend(f'{module}.{alias.name}' for alias in node.names)
    return names


def _is_pure(name):
    return (
        name == CORE
        or name.startswith(f'{CORE}.')
        or name.partition('.')[0] in sys.stdlib_module_names
    )


def test_there_is_a_core():
    assert len(FILES) > 10


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_the_core_imports_the_standard_library_and_itself_only(path):
    assert [name for name in _imported(path) if not _is_pure(name)] == []


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_the_core_does_no_input_or_output(path):
    doing_io = {'open', 'print', 'input', 'exec', 'eval', '__import__'}
    called = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    modules = {name.partition('.')[0] for name in _imported(path)}

    assert called & doing_io == set()
    assert modules & {'os', 'pathlib', 'socket', 'subprocess', 'time'} == set()
