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

"""Check that no modules of this repository import each other in a circle.

An import inside a function, or for type checkers only, counts like any other:
it hides a circle, and doesn't open it.
"""

import ast
from collections.abc import Iterable
from collections.abc import Mapping
import graphlib
import pathlib
import sys

from tools import checks

ROOTS = ('nova_numa_hugepages', 'tests', 'tools', 'benchmarks')


def modules(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Get the files of all modules below a folder by their full names."""
    found = {}
    for top in ROOTS:
        for path in sorted(root.joinpath(top).rglob('*.py')):
            parts = path.relative_to(root).with_suffix('').parts
            if parts[-1] == '__init__':
                parts = parts[:-1]
            found['.'.join(parts)] = path
    return found


def imports(path: pathlib.Path, known: Iterable[str]) -> set[str]:
    """Get the modules that a file imports.

    :param known: the modules that count
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        for name in checks.imported_names(node):
            # What is imported is a module, or is taken from one.
            for module in (name, name.rpartition('.')[0]):
                if module in known:
                    found.add(module)
                    break
    return found


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Get a circle of modules, the first one again at its end.

    :param graph: each module with those that it imports
    :returns: empty if there is none
    """
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found: list[str] = error.args[1]
        # It goes from the imported module to the one that imports it.
        return found[::-1]
    return []


def main() -> int:
    """Check the tree in the working directory; return an exit code."""
    files = modules(pathlib.Path())
    if not files:
        print(f'no modules in {pathlib.Path().absolute()}', file=sys.stderr)
        return 1
    found = circle({name: imports(files[name], files) for name in files})
    if found:
        print('circular import: ' + ' -> '.join(found), file=sys.stderr)
    return bool(found)


if __name__ == '__main__':
    sys.exit(main())
