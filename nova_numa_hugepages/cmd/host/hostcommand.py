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
import sys

from cliff import command

from nova_numa_hugepages import exception
from nova_numa_hugepages.cmd.host import problems
from nova_numa_hugepages.cmd.host import roots
from nova_numa_hugepages.cmd.host import settings


class HostCommand(command.Command):
    """A command that may change what is held on this host."""

    # What its help says.
    description: str

    def get_description(self) -> str:
        return self.description.strip()

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
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
            roots.host_fs(parsed_args.root)
            if self.changes(parsed_args):
                roots.check_live(parsed_args.root)
            found = settings.read(parsed_args)
            for note in found.notes:
                print(note, file=sys.stderr)
            return self.act(parsed_args, found)
        except exception.NUMAHugepagesError as error:
            return problems.fail(error)
