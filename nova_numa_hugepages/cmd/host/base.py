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

"""What the commands on one host have in common."""

from __future__ import annotations

import abc
import argparse
import pathlib
import sys

from cliff import command

from nova_numa_hugepages import exception
from nova_numa_hugepages.cmd.host import errors
from nova_numa_hugepages.cmd.host import settings
from nova_numa_hugepages.cmd.host.inspect import host_root


class HostCommand(command.Command):
    """A command that may change what is held on this host."""

    # What its help says.
    description: str

    # What its help says of what it does with `--force`.
    force: str

    def get_description(self) -> str:
        return self.description.strip()

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.add_argument('--force', action='store_true', help=self.force)
        self.add_arguments(parser)
        settings.add_arguments(parser)
        return parser

    @abc.abstractmethod
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options that only this command has."""

    def changes(self, options: argparse.Namespace) -> bool:
        """Tell whether it changes anything, given these options."""
        return True

    @abc.abstractmethod
    def act(
        self, options: argparse.Namespace, found: settings.Settings
    ) -> int:
        """Do what it is for.

        :param found: what the options and the configuration say
        :returns: the exit code
        """

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Do what it is for, and say what went wrong.

        :returns: the exit code
        """
        try:
            changes = self.changes(parsed_args)
            _check_host(parsed_args.root, changes)
            found = settings.read(parsed_args)
            for note in found.notes:
                print(note, file=sys.stderr)
            if changes:
                settings.check(parsed_args, found, forced=parsed_args.force)
            return self.act(parsed_args, found)
        except exception.NUMAHugepagesError as error:
            return errors.fail(error)


def _check_host(root: pathlib.Path | None, changes: bool) -> None:
    """See that it is this host, with all of its processes.

    :raises problems.BadInput: if there is none, or if it isn't and is to be
        changed
    """
    fs = host_root.host_fs(root)
    if changes:
        host_root.check_live(root)
    elif not host_root.is_live(root):
        return
    try:
        host_root.check_processes(fs)
    except errors.BadInput as error:
        if changes:
            raise
        print(error, file=sys.stderr)
