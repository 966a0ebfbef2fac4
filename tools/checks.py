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


"""Checks of our own for flake8, as the projects of OpenStack have them.

They are registered under ``[flake8:local-plugins]`` in ``tox.ini``.

* NNH101: a module of ``nova_numa_hugepages/core`` imports something that is
  neither in the standard library nor in ``core`` itself. The core has to run,
  and be tested, where nothing else is installed.
"""

import ast
from collections.abc import Iterator
import pathlib
import sys

CORE = ('nova_numa_hugepages', 'core')

# With these an import can be hidden from the check.
LOADERS = frozenset({'importlib', 'imp', 'runpy', 'pkgutil', '__import__'})

Finding = tuple[int, int, str, type]


class CoreImports:
    """NNH101, for one file.

    :param tree: the syntax tree of the file
    :param filename: the path of the file, relative or absolute
    """

    name = 'core-imports'
    version = '1.0'

    def __init__(self, tree: ast.AST, filename: str) -> None:
        self._tree = tree
        self._in_core = is_in_core(filename)

    def run(self) -> Iterator[Finding]:
        """Look at every import, also at those inside functions."""
        if not self._in_core:
            return
        for node in ast.walk(self._tree):
            for name in imported_names(node):
                if not is_allowed(name):
                    yield (
                        node.lineno,  # type: ignore[attr-defined]
                        node.col_offset,  # type: ignore[attr-defined]
                        f'NNH101 core imports {name}, which is neither in '
                        'the standard library nor in core',
                        type(self),
                    )


def is_in_core(filename: str) -> bool:
    """Tell whether a path lies in the core."""
    parts = pathlib.PurePath(filename).parts
    return any(
        parts[start : start + len(CORE)] == CORE for start in range(len(parts))
    )


def imported_names(node: ast.AST) -> Iterator[str]:
    """Name what a node of the syntax tree imports.

    :param node: any node
    :returns: full names of modules or of what is taken from them; a relative
        import starts with a dot
    """
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name
    elif isinstance(node, ast.ImportFrom):
        module = '.' * node.level + (node.module or '')
        for alias in node.names:
            yield f'{module}.{alias.name}'
    elif isinstance(node, ast.Name) and node.id in LOADERS:
        yield node.id


def is_allowed(name: str) -> bool:
    """Tell whether the core may import something.

    :param name: a full name
    """
    parts = tuple(name.split('.'))
    if parts[: len(CORE)] == CORE:
        return True
    return parts[0] in sys.stdlib_module_names and parts[0] not in LOADERS
