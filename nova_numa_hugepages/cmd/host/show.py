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

"""``nova-numa-hugepages host show``: nodes, pools, and who has the pages."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from collections.abc import Sequence
from importlib import metadata
import os
import pathlib
import sys
from typing import Any
from typing import TYPE_CHECKING

from cliff import lister
from cliff.formatters import base
from stevedore import extension

from nova_numa_hugepages import exception
from nova_numa_hugepages.cmd.host import errors
from nova_numa_hugepages.cmd.host import settings
from nova_numa_hugepages.cmd.host.inspect import host_root

# cliff loads all commands, whichever is run, so each loads late what it needs.
if TYPE_CHECKING:
    from nova_numa_hugepages.cmd.host.inspect import collect

PICTURE = 'picture'
TABLE = 'table'

# Formats with a text for each value, whatever the value is.
FLAT = frozenset({'csv', 'value'})

_DESCRIPTION = """
Show nodes and pools of this host, and who has the pages.

Needs no Nova service and changes nothing. Any user may run it; what this user
may not see is said on standard error, and is empty in the output. Root sees
all.

Without options it draws a picture. The other formats have one row for each
pool, and one for each node that has none; json and yaml tell also which guests
have pages there.
"""


class Picture(base.ListFormatter):
    """Stands for the picture among the formats; the command draws it."""

    def add_argument_group(self, parser: argparse.ArgumentParser) -> None:
        """Add nothing."""

    def emit_list(
        self,
        column_names: Sequence[str],
        data: Iterable[Sequence[Any]],
        stdout: Any,
        parsed_args: argparse.Namespace,
    ) -> None:
        """Refuse: there is more in a picture than in rows."""
        raise NotImplementedError


class Show(lister.Lister):
    """Show the NUMA nodes of this host, their pools and their guests."""

    # Of the last look at the host.
    _seen: collect.Seen

    def get_description(self) -> str:
        return _DESCRIPTION.strip()

    @property
    def formatter_default(self) -> str:
        return PICTURE

    def _load_formatter_plugins(self) -> Any:
        # It isn't installed: the clients of other services would offer it.
        plugins = super()._load_formatter_plugins()
        entry_point = metadata.EntryPoint(
            PICTURE, f'{__name__}:Picture', self.formatter_namespace
        )
        plugins.extensions.append(
            extension.Extension(PICTURE, entry_point, Picture, Picture())
        )
        return plugins

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        # So that the default can be told from what is asked for.
        parser.set_defaults(formatter=None)
        settings.add_arguments(parser)
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Any]]:
        """Look at the host.

        :returns: names of columns, and rows
        """
        from nova_numa_hugepages.cmd.host.inspect import collect
        from nova_numa_hugepages.cmd.host.render import rows

        self._seen = collect.look(
            host_root.host_fs(parsed_args.root),
            settings.read(parsed_args),
            doubt=_doubt(parsed_args.root),
        )
        return rows.COLUMNS, rows.rows(self._seen)

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Show the host.

        :returns: the exit code
        """
        try:
            _choose(parsed_args)
            code: int = super().run(parsed_args)
        except exception.NUMAHugepagesError as error:
            return errors.fail(error)
        except BrokenPipeError:
            # Whoever read the output has seen enough.
            sys.stdout = open(os.devnull, 'w')  # noqa: SIM115
            return errors.EXIT_FAILED
        for note in self._seen.notes:
            print(note, file=sys.stderr)
        return code

    def produce_output(
        self,
        parsed_args: argparse.Namespace,
        column_names: Sequence[str],
        data: Iterable[Sequence[Any]],
    ) -> int:
        """Draw, or have cliff write the rows."""
        from nova_numa_hugepages.cmd.host.render import rows

        chosen = parsed_args.formatter
        if chosen == PICTURE:
            if self._draw(parsed_args):
                return 0
            chosen = TABLE
            self.formatter = self._formatter_plugins[TABLE].obj
        if chosen == TABLE:
            parsed_args.columns = parsed_args.columns or list(rows.SHORT)
            data = [rows.in_words(row) for row in data]
        elif chosen in FLAT:
            data = [rows.in_cells(row) for row in data]
        code: int = super().produce_output(parsed_args, column_names, data)
        self.app.stdout.flush()
        return code

    def _draw(self, parsed_args: argparse.Namespace) -> bool:
        """Draw the picture.

        :returns: whether that is possible
        """
        try:
            from rich import console

            from nova_numa_hugepages.cmd.host.render import picture
        except ImportError as error:
            print(
                f'A picture needs {error.name}, which is not installed; this '
                'is the table. To have the picture: pip install rich',
                file=sys.stderr,
            )
            return False
        paper = console.Console(
            file=self.app.stdout, highlight=False, markup=False, emoji=False
        )
        name = str(parsed_args.root or os.uname().nodename)
        for part in picture.draw(self._seen, name):
            paper.print(part)
        self.app.stdout.flush()
        return True


def _doubt(root: pathlib.Path | None) -> str | None:
    """Tell why not all processes of the host are seen, if that is so.

    Those of a copy are as many as were copied.
    """
    if not host_root.is_live(root):
        return None
    try:
        host_root.check_processes(host_root.host_fs(root))
    except errors.BadInput as error:
        return (
            f'{error} Until then it is not known which guests run, and who '
            'uses pages.'
        )
    return None


def _choose(parsed_args: argparse.Namespace) -> None:
    """Choose the format, where none is asked for, and see to the columns.

    :raises problems.BadInput: if there are no such columns
    """
    from nova_numa_hugepages.cmd.host.render import rows

    if parsed_args.formatter is None:
        parsed_args.formatter = TABLE if parsed_args.columns else PICTURE
    elif parsed_args.formatter == PICTURE and parsed_args.columns:
        raise errors.BadInput(
            'a picture has no columns: take another format with -c, for '
            'example -f table'
        )
    for name in parsed_args.columns:
        if name not in rows.COLUMNS:
            raise errors.BadInput(
                f'-c {name}: there is no such column. There are: '
                f'{", ".join(rows.COLUMNS)}'
            )
