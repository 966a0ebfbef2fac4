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

"""What can be done on a machine, whether it is this one or a virtual one."""

from __future__ import annotations

import abc
import sys

from tests.host.rig import channel


class Machine(abc.ABC):
    """A machine on which commands are run as root."""

    @abc.abstractmethod
    def run(
        self,
        command: list[str] | str,
        *,
        stdin: str = '',
        timeout: float = 60,
        check: bool = True,
    ) -> channel.Result:
        """Run a command and wait for it.

        :param command: its arguments, or a script for the shell
        :param timeout: seconds after which it is killed
        :raises channel.CommandFailed: if it fails and ``check`` is set
        """

    @abc.abstractmethod
    def virsh(
        self,
        *arguments: str,
        stdin: str = '',
        timeout: float = 120,
        check: bool = True,
    ) -> channel.Result:
        """Talk to its libvirt."""

    @abc.abstractmethod
    def write(self, path: str, text: str) -> None:
        """Write a file, which may be one of the kernel's."""

    @abc.abstractmethod
    def read(self, path: str) -> str:
        """Read a file."""

    def python(
        self,
        code: str,
        *arguments: str,
        timeout: float = 120,
        check: bool = True,
    ) -> channel.Result:
        """Run Python code with all that these tests have installed."""
        return self.run(
            [sys.executable, '-', *arguments],
            stdin=code,
            timeout=timeout,
            check=check,
        )
