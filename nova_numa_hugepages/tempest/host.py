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

"""Access to a compute host, by commands."""

from __future__ import annotations

from collections.abc import Mapping
import shlex
import subprocess
from typing import Any

from tempest.lib import exceptions

from nova_numa_hugepages.tempest.readings import domain
from nova_numa_hugepages.tempest.readings import host_show
from nova_numa_hugepages.tempest.readings import kernel

ANY = '*'


class CommandFailed(exceptions.TempestException):
    """A command on a compute host failed."""

    message = 'A command on a compute host failed'


class ComputeHost:
    """A compute host, on which commands are run.

    :param name: its hypervisor hostname
    :param options: the group ``numa_hugepages`` of ``tempest.conf``
    """

    def __init__(self, name: str, options: Any) -> None:
        self.name = name
        self._command = command(name, options.computes)
        self._options = options

    def run(self, line: str) -> str:
        """Run a shell command line there.

        :returns: what it prints
        :raises CommandFailed: if it fails or takes too long
        """
        arguments = [*self._command, line]
        try:
            done = subprocess.run(
                arguments,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors='replace',
                timeout=self._options.command_timeout,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CommandFailed(f'On {self.name}: {error}') from error
        if done.returncode:
            raise CommandFailed(
                f'On {self.name}, {shlex.join(arguments)} ended with '
                f'{done.returncode}: {done.stderr.strip()}'
            )
        return done.stdout

    def pools(self) -> dict[tuple[int, int], kernel.Pool]:
        """Read the kernel's pools, by node and page size in KiB.

        :raises CommandFailed: if they can't be read
        """
        return kernel.pools(self.run(kernel.COUNTERS))

    def show(self) -> host_show.HostShow:
        """Read the pools and reservations as the driver accounts them.

        :raises CommandFailed: if the command fails
        :raises ValueError: if its output doesn't say what is held
        """
        return host_show.read(self.run(self._options.host_command))

    def domain(self, uuid: str) -> domain.Domain:
        """Read the domain of a server that runs.

        :raises CommandFailed: if there is none
        """
        return domain.read(
            self.run(f'{self._options.virsh_command} dumpxml {uuid}')
        )

    def huge_pages(self, uuid: str) -> dict[tuple[int, int], int]:
        """Count the huge pages that the process of a server has.

        :returns: pages by node and page size in KiB
        :raises CommandFailed: if there is no such process
        """
        return kernel.huge_pages(self.run(maps_line(uuid)))


def command(host: str, computes: Mapping[str, str]) -> list[str]:
    """Get the command that runs a shell command line on a host.

    :param computes: the option of that name
    :returns: a program and its arguments; the line is to be added
    :raises KeyError: if the option has no entry for the host
    """
    text = computes[host] if host in computes else computes[ANY]
    return shlex.split(text.replace('{host}', host)) or ['sh', '-c']


def reachable(host: str, computes: Mapping[str, str]) -> bool:
    """Check whether commands can be run on a host."""
    return host in computes or ANY in computes


def maps_line(uuid: str) -> str:
    """Get a shell command line that prints ``numa_maps`` of a guest.

    QEMU is found by the uuid, which is one of its arguments. The brackets keep
    grep from finding itself. Its exit status doesn't count: it fails when any
    process ends meanwhile.
    """
    pattern = f'[{uuid[0]}]{uuid[1:]}'
    return (
        f"files=$(grep -lszx -e '{pattern}' /proc/[0-9]*/cmdline); "
        '[ -n "$files" ] && '
        'for file in $files; do cat "${file%cmdline}numa_maps"; done'
    )
