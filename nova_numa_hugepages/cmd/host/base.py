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

"""Base of the ``host`` commands that change something."""

from __future__ import annotations

import abc
import argparse
import logging
import sys

from cliff import command

from nova_numa_hugepages import exception
from nova_numa_hugepages.cmd.host import errors
from nova_numa_hugepages.cmd.host import opening
from nova_numa_hugepages.cmd.host import settings
from nova_numa_hugepages.cmd.host.inspect import host_root
from nova_numa_hugepages.hugepages.kernel import hostfs


class HostCommand(command.Command):
    """A command that may change the ledger and the pools of this host."""

    # The help of its `--force`.
    force: str

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.add_argument('--force', action='store_true', help=self.force)
        self.add_arguments(parser)
        settings.add_arguments(parser)
        return parser

    @property
    def machine(self) -> opening.Machine:
        """The machine that it runs on."""
        return self.app.machine or opening.Machine()

    @abc.abstractmethod
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options that only this command has."""

    def changes(self, options: argparse.Namespace) -> bool:
        """Check whether it changes anything, with these options."""
        return True

    @abc.abstractmethod
    def act(
        self,
        options: argparse.Namespace,
        found: settings.Settings,
        fs: hostfs.HostFS,
    ) -> int:
        """Run, after the checks that all commands have in common.

        :param found: what the options and the configuration say
        :returns: the exit code
        """

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Run, and print errors.

        :returns: the exit code
        """
        try:
            changes = self.changes(parsed_args)
            fs = host_root.host_fs(parsed_args.root, self.machine.fs)
            self._check_host(parsed_args, fs, changes)
            found = settings.read(parsed_args)
            for note in found.notes:
                print(note, file=sys.stderr)
            if changes:
                settings.check(parsed_args, found, forced=parsed_args.force)
            return self.act(parsed_args, found, fs)
        except exception.NUMAHugepagesError as error:
            return errors.fail(error)

    def quieten(self) -> None:
        """Keep what is printed from being logged to the terminal as well."""
        options = self.app.options
        if not options.verbose_level and not options.log_file:
            logging.getLogger('nova_numa_hugepages').setLevel(logging.ERROR)

    def _check_host(
        self, options: argparse.Namespace, fs: hostfs.HostFS, changes: bool
    ) -> None:
        """Check that it is this host, with all of its processes.

        :raises errors.BadInput: if it is not, and is to be changed
        """
        try:
            host_root.check_live(options.root, self.machine.fs)
        except errors.BadInput:
            if changes:
                raise
            # A copy need not have the processes.
            return
        try:
            host_root.check_processes(fs)
        except errors.BadInput as error:
            if changes:
                raise
            print(error, file=sys.stderr)
