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

"""The ``nova-numa-hugepages`` command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import metadata
import os
import sys
from typing import Any
from typing import TYPE_CHECKING

from cliff import app
from cliff import commandmanager

# Each command loads what it needs.
if TYPE_CHECKING:
    from nova_numa_hugepages.cmd.host import opening

PROGRAM = 'nova-numa-hugepages'
NAMESPACE = 'nova_numa_hugepages.cli'


class Commands(commandmanager.CommandManager):
    """The commands, each of which is loaded when it is run."""

    def load_commands(self, namespace: str) -> None:
        """Find the commands; cliff would load all of them."""
        for found in metadata.entry_points(group=namespace):
            self.commands[found.name.replace('_', ' ')] = found


class Application(app.App):
    """The command line.

    :ivar machine: the machine that the host commands run on; this one if None
    """

    NAME = PROGRAM

    # Nova logs much at INFO when it is loaded; -v shows it.
    DEFAULT_VERBOSE_LEVEL = 0

    def __init__(self, machine: opening.Machine | None = None) -> None:
        self.machine = machine
        super().__init__(
            description='Tools for NUMA and huge page placement with Nova.',
            version=metadata.version(PROGRAM),
            command_manager=Commands(NAMESPACE),
            deferred_help=True,
        )

    def build_option_parser(
        self,
        description: str | None,
        version: str | None,
        argparse_kwargs: dict[str, Any] | None = None,
    ) -> argparse.ArgumentParser:
        """Make the parser, with the name of the program."""
        parser: argparse.ArgumentParser = super().build_option_parser(
            description, version, {'prog': PROGRAM, **(argparse_kwargs or {})}
        )
        return parser

    def initialize_app(self, argv: list[str]) -> None:
        """Print the help if no command is given."""
        # cliff would prompt for commands.
        if not argv:
            self.interactive_mode = False
            argv.append('help')


def run(argv: Sequence[str], machine: opening.Machine | None = None) -> int:
    """Run the command.

    :param argv: the arguments after the name of the program
    :param machine: the machine that the host commands run on
    :returns: the exit code
    """
    return Application(machine).run(list(argv))


def main() -> int:
    """Run the command with the arguments of the process."""
    # Nova 31 patches a process with eventlet as soon as its API is imported,
    # and the simulation then waits for its processes for ever.
    os.environ.setdefault('OS_NOVA_DISABLE_EVENTLET_PATCHING', '1')
    return run(sys.argv[1:])


if __name__ == '__main__':
    sys.exit(main())
