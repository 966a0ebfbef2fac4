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

"""The files of a host of which some are not there, as in a copy.

To look at the host is still worth while then. What takes such a file is not
known, and everything else is.
"""

from __future__ import annotations

import os
import pathlib

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.kernel import hostfs

# What is not known without a file of this name: columns of `host show`. What
# is in a node's folder is of that node only.
NEEDED_FOR = {
    'buddyinfo': ('allocatable', 'unusable_permille'),
    'zoneinfo': ('allocatable',),
    'boot_id': ('floor', 'grown'),
    'resv_hugepages': ('available',),
    'cpulist': ('cpus',),
    'distance': ('distances',),
    'meminfo': ('memory_kib', 'memory_free_kib', 'allocatable'),
}

_NO_MEMORY = 'Node 0 MemTotal: 0 kB\nNode 0 MemFree: 0 kB\n'


class ForgivingFS(hostfs.HostFS):
    """The kernel's files, with a stand-in for each that can be done without.

    :param doubt: why the processes there aren't all that the host has, if
        that is so
    :ivar missing: those that could not be read
    """

    missing: set[pathlib.Path]
    _files: hostfs.HostFS
    _doubt: str | None

    def __init__(self, files: hostfs.HostFS, doubt: str | None) -> None:
        super().__init__(files.sys, files.proc)
        object.__setattr__(self, '_files', files)
        object.__setattr__(self, '_doubt', doubt)
        object.__setattr__(self, 'missing', set())

    def text(self, path: pathlib.Path) -> str:
        """Read a file.

        :raises exception.KernelError: if it is needed and can't be read
        """
        try:
            # tar fills up what is shorter than sysfs says.
            return self._files.text(path).rstrip('\0')
        except exception.KernelError:
            if path.name not in NEEDED_FOR:
                raise
        self.missing.add(path)
        if path.name == 'meminfo':
            return _NO_MEMORY
        if path.name == 'resv_hugepages':
            return '0'
        if path.name == 'distance':
            return ' '.join('0' for _ in self.online())
        return ''

    def unknown(self) -> frozenset[tuple[str, int | None]]:
        """Tell which columns are not known.

        :returns: each with its node, None for all nodes
        """
        found: set[tuple[str, int | None]] = set()
        for path in self.missing:
            number = path.parent.name.removeprefix('node')
            node = int(number) if number.isdigit() else None
            found |= {(column, node) for column in NEEDED_FOR[path.name]}
        if self._doubt or not self.has_processes():
            found |= {
                (column, None)
                for column in ('has', 'promised', 'available', 'others')
            }
        return frozenset(found)

    def has_processes(self) -> bool:
        """Tell whether there are files of any process."""
        return any(name.isdigit() for name in os.listdir(self.proc))

    def notes(self) -> list[str]:
        """Say what could not be read."""
        notes = [
            f'{path} could not be read, so this is not known: '
            f'{", ".join(NEEDED_FOR[path.name])}.'
            for path in sorted(self.missing)
        ]
        if self._doubt:
            notes.append(self._doubt)
        elif not self.has_processes():
            notes.append(
                f'There are no processes in {self.proc}, so it is not known '
                'which guests run.'
            )
        return notes
