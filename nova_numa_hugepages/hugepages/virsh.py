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

"""What libvirt says of its domains, read-only and within a time limit.

A call into libvirt can't be ended from outside, and hangs as long as libvirt
does. A process can be ended.

Source: ``docs/manpages/virsh.rst`` of libvirt, and for the names of the
statistics ``virConnectGetAllDomainStats`` in ``src/libvirt-domain.c``.
"""

from __future__ import annotations

from collections.abc import Mapping
import re
import shutil
import subprocess
from typing import Protocol

from nova_numa_hugepages import exception

TIME_LIMIT_S = 10.0

_UUID = re.compile(r'[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}')
_DOMAIN = re.compile(r"Domain: '(.*)'")
_VALUE = re.compile(r'  ([a-z0-9_.-]+)=(.*)')


class Libvirt(Protocol):
    """What is asked of libvirt about domains.

    Each method raises `exception.LibvirtError` if there is no answer.
    """

    def uuids(self) -> frozenset[str]:
        """Get the uuids of all domains, running or not."""

    def xml(self, uuid: str) -> str:
        """Get the XML of a domain, as it runs if it does."""

    def stats(self) -> Mapping[str, Mapping[str, str]]:
        """Get statistics: by the name of the domain, then of the value."""


class Virsh:
    """Asks libvirt.

    Each method raises `exception.LibvirtError` if it doesn't answer.

    :param uri: how it is reached
    :param time_limit_s: how long it has for an answer, in seconds
    """

    def __init__(self, uri: str, time_limit_s: float = TIME_LIMIT_S) -> None:
        self.uri = uri
        self._time_limit_s = time_limit_s

    def uuids(self) -> frozenset[str]:
        """Get the uuids of all domains."""
        return frozenset(_UUID.findall(self._run('list', '--all', '--uuid')))

    def xml(self, uuid: str) -> str:
        """Get the XML of a domain, as it runs if it does."""
        return self._run('dumpxml', uuid)

    def stats(self) -> dict[str, Mapping[str, str]]:
        """Get statistics of the domains that run.

        Of a domain whose QEMU doesn't answer there are fewer.

        :returns: by the name of the domain, then by the name of the value
        """
        found: dict[str, Mapping[str, str]] = {}
        values: dict[str, str] = {}
        for line in self._run(
            *('domstats', '--list-running', '--nowait', '--raw'),
            *('--balloon', '--vcpu'),
        ).splitlines():
            if domain := _DOMAIN.fullmatch(line):
                found[domain[1]] = values = {}
            elif value := _VALUE.fullmatch(line):
                values[value[1]] = value[2]
        return found

    def _run(self, *arguments: str) -> str:
        """Run virsh, and end it if libvirt hangs."""
        program = shutil.which('virsh')
        if program is None:
            raise exception.LibvirtError(
                self.uri,
                'virsh is not installed; it is in the package libvirt-clients '
                'or libvirt-client',
                asked=False,
            )
        try:
            done = subprocess.run(
                [program, '-q', '-r', '-c', self.uri, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding='utf-8',
                errors='replace',
                timeout=self._time_limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise exception.LibvirtError(
                self.uri,
                f'no answer within {self._time_limit_s:g} s; see whether '
                'libvirt hangs',
                timed_out=True,
            ) from None
        except OSError as error:
            raise exception.LibvirtError(
                self.uri, f'cannot be run: {error}', asked=False
            ) from error
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ['it failed']
            raise exception.LibvirtError(
                self.uri, f'{lines[-1]}; see whether libvirt is running'
            )
        return done.stdout
