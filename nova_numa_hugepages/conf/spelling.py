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

"""Names in configuration files that look like ours, and are not.

oslo.config ignores what it doesn't know, so a misspelt option is left at its
default without a warning.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator
import difflib
import pathlib
import re

from oslo_config import cfg

from nova_numa_hugepages.conf import group

# That of the privileged helper is registered by oslo.privsep.
_GROUPS = (group.NAME, f'{group.NAME}_privileged')

_GROUP_LINE = re.compile(r'\[(.*)\]\s*')
# A line that begins with a space goes on with the value before.
_OPTION_LINE = re.compile(r'([^\s#;=:\[][^=:]*?)\s*[=:]')

# Groups of Nova in which our options are looked for. Nova has none of their
# names there.
_TAKEN_FOR_OURS = ('default', 'compute', 'libvirt', 'filter_scheduler')

# How alike two names are, from 0 to 1. Nova has no group nearer than this.
_ALIKE = 0.85


def unknown_names(conf: cfg.ConfigOpts, known: Collection[str]) -> list[str]:
    """Find options of our group that don't exist, and groups much like it.

    :param conf: with the files that the service has read
    :param known: the names of all options of the group
    :returns: a sentence each, with file and line
    """
    found = []
    for path in _files(conf):
        section = shown = ''
        for number, line in enumerate(_lines(path), 1):
            problem = ''
            if match := _GROUP_LINE.fullmatch(line):
                # As oslo.config does.
                shown = match[1]
                section = shown.lower()
                if section not in _GROUPS:
                    near = difflib.get_close_matches(
                        section, _GROUPS, 1, _ALIKE
                    )
                    if near:
                        problem = (
                            f'there is no group [{shown}]. Did you mean '
                            f'[{near[0]}]?'
                        )
            elif match := _OPTION_LINE.match(line):
                name = match[1].replace('-', '_')
                if section == group.NAME and name not in known:
                    problem = f'[{group.NAME}] has no option {match[1]}.'
                    if near := difflib.get_close_matches(name, known, 1):
                        problem += f' Did you mean {near[0]}?'
                elif section in _TAKEN_FOR_OURS and name in known:
                    problem = (
                        f'[{shown}] has no option {match[1]}. Did '
                        f'you mean that of [{group.NAME}]?'
                    )
            if problem:
                found.append(f'{path}:{number}: {problem}')
    return found


def written(conf: cfg.ConfigOpts, section: str, name: str) -> str:
    """Say what is written for an option in the files, and where.

    :returns: for example ``found 'two' in /etc/nova/nova.conf``
    """
    for path in reversed(list(_files(conf))):
        sections: dict[str, dict[str, list[str]]] = {}
        cfg.ConfigParser(str(path), sections).parse()
        values = sections.get(section, {}).get(name)
        if values:
            return f'found {values[-1]!r} in {path}'
    return 'found something else'


def _files(conf: cfg.ConfigOpts) -> Iterator[pathlib.Path]:
    """List the files that a service has read, in its order."""
    # Without the options of the command line it has read none.
    yield from map(pathlib.Path, getattr(conf, 'config_file', None) or ())
    for folder in getattr(conf, 'config_dir', None) or ():
        yield from sorted(pathlib.Path(folder).glob('*.conf'))


def _lines(path: pathlib.Path) -> list[str]:
    try:
        return path.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError):
        # Who reads its options has said so.
        return []
