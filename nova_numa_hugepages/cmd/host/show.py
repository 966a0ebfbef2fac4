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
from importlib import util
import os
import shutil
import sys
from typing import Any

from cliff import lister

from nova_numa_hugepages import exception
from nova_numa_hugepages.cmd.host import errors
from nova_numa_hugepages.cmd.host import opening
from nova_numa_hugepages.cmd.host import settings
from nova_numa_hugepages.cmd.host.inspect import collect
from nova_numa_hugepages.cmd.host.render import rows

PICTURE = 'picture'
TABLE = 'table'

# Formats with a text for each value, whatever the value is.
FLAT = ('csv', 'value')

FORMATS = (PICTURE, TABLE, 'json', 'yaml', *FLAT)


class Show(lister.Lister):
    """Show nodes and pools of this host, and who has the pages.

    Needs no Nova service and changes nothing. Any user may run it; what this
    user may not see is listed on standard error. Root sees all.

    Without options it draws a picture. The other formats have one row for each
    pool, and one for each node that has none, with the instances that have
    pages there. What is not known is null in json and yaml, None in value, a
    dash in table, and empty in csv. In value a blank is between two columns,
    and nowhere else.
    """

    # The choice of formats below takes the place of that of cliff.
    conflict_handler = 'resolve'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.add_argument(
            '-f',
            '--format',
            dest='formatter',
            choices=FORMATS,
            help=(
                f'the output format (default: {PICTURE}; with -c, {TABLE}, as '
                'a picture has no columns)'
            ),
        )
        settings.add_arguments(parser)
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        try:
            _choose(parsed_args)
            if parsed_args.formatter == PICTURE:
                self._draw(parsed_args)
                return 0
            code: int = super().run(parsed_args)
            self.app.stdout.flush()
            return code
        except exception.NUMAHugepagesError as error:
            return errors.fail(error)
        except BrokenPipeError:
            # The reader of the output, for example head, has ended.
            sys.stdout = open(os.devnull, 'w')  # noqa: SIM115
            return errors.EXIT_FAILED

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Any]]:
        """Inspect the host.

        :returns: names of columns, and rows
        """
        host = self._inspect(parsed_args)
        _print_notes(host)
        found = rows.rows(host)
        if parsed_args.formatter == TABLE:
            parsed_args.columns = parsed_args.columns or list(rows.SHORT)
            return rows.COLUMNS, [rows.in_words(row) for row in found]
        if parsed_args.formatter in FLAT:
            return rows.COLUMNS, [rows.in_cells(row) for row in found]
        return rows.COLUMNS, found

    def _draw(self, parsed_args: argparse.Namespace) -> None:
        from rich import console

        from nova_numa_hugepages.cmd.host.render import picture

        host = self._inspect(parsed_args)
        paper = console.Console(
            file=self.app.stdout,
            # Unlike rich, takes COLUMNS=0 for "not known".
            width=shutil.get_terminal_size().columns,
            highlight=False,
            markup=False,
            emoji=False,
        )
        name = str(parsed_args.root or os.uname().nodename)
        for part in picture.draw(host, name):
            paper.print(part)
        self.app.stdout.flush()
        _print_notes(host)

    def _inspect(
        self, parsed_args: argparse.Namespace
    ) -> collect.HostInspection:
        return collect.inspect(
            self.app.machine or opening.Machine(),
            parsed_args.root,
            settings.read(parsed_args),
        )


def _print_notes(host: collect.HostInspection) -> None:
    for note in host.notes:
        print(note, file=sys.stderr)


def _choose(parsed_args: argparse.Namespace) -> None:
    """Choose the format if none is given, and check the columns.

    :raises errors.BadInput: if there are no such columns
    """
    if parsed_args.formatter == PICTURE and parsed_args.columns:
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
    if parsed_args.formatter is None:
        parsed_args.formatter = TABLE if parsed_args.columns else PICTURE
    if parsed_args.formatter == PICTURE and util.find_spec('rich') is None:
        print(
            'A picture needs rich, which is not installed; this is the table. '
            'To have the picture: pip install rich',
            file=sys.stderr,
        )
        parsed_args.formatter = TABLE
