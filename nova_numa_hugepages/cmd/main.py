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

from collections.abc import Sequence
from importlib import metadata
import sys

from cliff import app
from cliff import commandmanager

PROGRAM = 'nova-numa-hugepages'
NAMESPACE = 'nova_numa_hugepages.cli'


class Application(app.App):
    """The command line."""

    def __init__(self) -> None:
        super().__init__(
            description='Tools for NUMA and huge page placement with Nova.',
            version=metadata.version(PROGRAM),
            command_manager=commandmanager.CommandManager(NAMESPACE),
            deferred_help=True,
        )

    def run(self, argv: list[str]) -> int:
        """Run a command; without one tell which there are."""
        # cliff would start to ask for commands, which of one is no use.
        code: int = super().run(argv or ['help'])
        return code


def run(argv: Sequence[str]) -> int:
    """Run the command.

    :param argv: the arguments after the name of the program
    :returns: the exit code
    """
    return Application().run(list(argv))


def main() -> int:
    """Run the command with the arguments of the process."""
    return run(sys.argv[1:])


if __name__ == '__main__':
    sys.exit(main())
