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

"""Checks of this project for flake8, as the projects of OpenStack have them.

They are registered under ``[flake8:local-plugins]`` in ``tox.ini``. Each says
what the modules of a folder may import:

* NNH101: ``core`` imports the standard library and itself, so that it runs and
  is tested where nothing else is installed.
* NNH102: ``hugepages`` imports nothing of Nova, and of this package only
  itself, ``core`` and ``exception``; of the libraries of OpenStack those that
  every service has.
* NNH103: ``nova_fit`` and ``scheduler`` import nothing of ``hugepages`` and
  ``libvirt``, since the scheduler changes nothing on a host.
* NNH104: ``monitor`` imports what ``hugepages`` may, the extra specs,
  ``oslo_utils`` and what its extra brings. It changes nothing, and so doesn't
  import ``hugepages.pools``.
* NNH105: ``experiment`` imports nothing of Nova, and of ``hugepages`` only its
  values and the files of the kernel, not the service's part.
"""

import ast
from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import itertools
import pathlib
import sys

PACKAGE = 'nova_numa_hugepages'

# With these an import can be hidden from the checks.
LOADERS = frozenset({'importlib', 'imp', 'runpy', 'pkgutil', '__import__'})

_LIBRARIES = ('oslo_concurrency', 'oslo_config', 'oslo_log', 'oslo_privsep')

Finding = tuple[int, int, str, type]


@dataclasses.dataclass(frozen=True)
class Rule:
    """What the modules below a folder of the package may import.

    :ivar code: the code of the finding
    :ivar folder: the folder, as part of the package
    :ivar allows: whether a full name may be imported
    :ivar text: why not
    """

    code: str
    folder: str
    allows: Callable[[str], bool]
    text: str


def _below(name: str, *prefixes: str) -> bool:
    """Check whether a full name is one of some modules, or in one."""
    return any(f'{name}.'.startswith(f'{prefix}.') for prefix in prefixes)


def _of_package(*folders: str) -> tuple[str, ...]:
    return tuple(f'{PACKAGE}.{folder}' for folder in folders)


def _in_standard_library(name: str) -> bool:
    top = name.partition('.')[0]
    return top in sys.stdlib_module_names and top not in LOADERS


def _allowed_in_core(name: str) -> bool:
    return _in_standard_library(name) or _below(name, *_of_package('core'))


def _allowed_in_hugepages(name: str) -> bool:
    return (
        _in_standard_library(name)
        or _below(name, *_LIBRARIES, 'oslo_utils')
        or _below(name, *_of_package('hugepages', 'core', 'exception'))
    )


_MONITOR_LIBRARIES = (
    'jinja2',
    'markupsafe',
    'oslo_utils',
    'prometheus_client',
    'stevedore',
)


def _allowed_in_monitor(name: str) -> bool:
    return (
        _in_standard_library(name)
        or _below(name, *_LIBRARIES, *_MONITOR_LIBRARIES)
        or (
            _below(
                name,
                *_of_package('monitor', 'hugepages', 'core', 'exception'),
                *_of_package('extra_specs'),
            )
            and not _below(name, *_of_package('hugepages.pools'))
        )
    )


def _allowed_in_experiment(name: str) -> bool:
    return not _below(name, 'nova') and (
        not _below(name, PACKAGE)
        or _below(
            name,
            *_of_package('experiment', 'core', 'exception', 'yamlfile'),
            *_of_package('hugepages.kernel', 'hugepages.model'),
        )
    )


def _allowed_in_scheduler(name: str) -> bool:
    return not _below(name, *_of_package('hugepages', 'libvirt'))


RULES = (
    Rule(
        'NNH101',
        'core',
        _allowed_in_core,
        'is neither in the standard library nor in core',
    ),
    Rule(
        'NNH102',
        'hugepages',
        _allowed_in_hugepages,
        'is not among what works without Nova',
    ),
    Rule(
        'NNH104',
        'monitor',
        _allowed_in_monitor,
        'is not among what works without Nova and changes nothing',
    ),
    Rule(
        'NNH105',
        'experiment',
        _allowed_in_experiment,
        'is not among what works without Nova and its driver',
    ),
    *(
        Rule('NNH103', folder, _allowed_in_scheduler, 'belongs to the driver')
        for folder in ('nova_fit', 'scheduler')
    ),
)


class Imports:
    """All rules, for one file.

    :param tree: the syntax tree of the file
    :param filename: the path of the file, relative or absolute
    """

    name = 'imports-by-folder'
    version = '1.0'

    def __init__(self, tree: ast.AST, filename: str) -> None:
        self._tree = tree
        self._rules = [
            rule for rule in RULES if is_below(filename, rule.folder)
        ]

    def run(self) -> Iterator[Finding]:
        """Check every import, also those inside functions."""
        for node in ast.walk(self._tree) if self._rules else ():
            for name in imported_names(node):
                for rule in self._rules:
                    if not rule.allows(name):
                        yield (
                            node.lineno,  # type: ignore[attr-defined]
                            node.col_offset,  # type: ignore[attr-defined]
                            f'{rule.code} {rule.folder} imports {name}, '
                            f'which {rule.text}',
                            type(self),
                        )


def is_below(filename: str, folder: str) -> bool:
    """Check whether a path lies in a folder of the package."""
    parts = pathlib.PurePath(filename).parts
    return (PACKAGE, folder) in itertools.pairwise(parts)


def imported_names(node: ast.AST) -> Iterator[str]:
    """Get what a node of the syntax tree imports.

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
