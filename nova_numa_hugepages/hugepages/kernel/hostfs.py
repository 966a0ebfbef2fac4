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

"""The files in which the kernel describes a host.

Sources: ``Documentation/ABI/stable/sysfs-devices-node``,
``Documentation/admin-guide/mm/hugetlbpage.rst`` and
``Documentation/filesystems/proc.rst`` of the kernel.
"""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
import pathlib

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model

SYS = pathlib.Path('/sys')
PROC = pathlib.Path('/proc')
RUN = pathlib.Path('/run')

# No kernel is built for more CPUs or nodes.
_LARGEST_ID = 65535


@dataclasses.dataclass(frozen=True, slots=True)
class HostFS:
    """The kernel's files of a host.

    :ivar sys: where sysfs is mounted
    :ivar proc: where procfs is mounted
    :ivar run: where the services of the host keep their state
    """

    sys: pathlib.Path = SYS
    proc: pathlib.Path = PROC
    run: pathlib.Path = RUN

    @property
    def nodes_folder(self) -> pathlib.Path:
        """The folder of the NUMA nodes."""
        return self.sys / 'devices/system/node'

    def node_folder(self, node: int) -> pathlib.Path:
        """Return the folder of a NUMA node."""
        return self.nodes_folder / f'node{node:d}'

    def pool_folder(self, key: model.PoolKey) -> pathlib.Path:
        """Return the folder of the pages of one size on one node."""
        return (
            self.node_folder(key.node)
            / f'hugepages/hugepages-{key.size_kib:d}kB'
        )

    def size_folder(self, size_kib: int) -> pathlib.Path:
        """Return the folder of the pages of one size on the whole host."""
        return self.sys / f'kernel/mm/hugepages/hugepages-{size_kib:d}kB'

    def text(self, path: pathlib.Path) -> str:
        """Read a file.

        :raises exception.KernelError: if it can't be read
        """
        try:
            # Most of it is ASCII, but a process may call itself anything.
            with open(path, 'rb') as file:
                return file.read().decode('utf-8', 'replace')
        except OSError as error:
            raise exception.KernelError(
                path, reason(error), 'a file that can be read'
            ) from error

    def number(self, path: pathlib.Path) -> int:
        """Read a file that holds a number.

        :raises exception.KernelError: if it can't be read or holds none
        """
        text = self.text(path).strip()
        if not (text.isascii() and text.isdigit()):
            raise exception.KernelError(path, repr(text), 'a number')
        return int(text)

    def ids(self, path: pathlib.Path) -> list[int]:
        """Read a file that holds a list like ``0-3,8``.

        :returns: ascending; empty if the list is
        :raises exception.KernelError: if it can't be read or holds none
        """
        text = self.text(path).strip()
        try:
            return parse_ids(text)
        except ValueError as error:
            raise exception.KernelError(
                path, repr(text), "a list like '0-3,8'"
            ) from error

    def online(self) -> list[int]:
        """List the nodes that are online.

        :returns: ascending, at least one
        :raises exception.KernelError: if that can't be read
        """
        path = self.nodes_folder / 'online'
        nodes = self.ids(path)
        if not nodes:
            raise exception.KernelError(path, 'none', 'at least one node')
        return nodes

    def boot_id(self) -> str:
        """Read what is different after each boot of the host.

        :raises exception.KernelError: if it can't be read
        """
        return self.text(self.proc / 'sys/kernel/random/boot_id').strip()


def reason(error: OSError) -> str:
    """Return why a file can't be used, without naming it."""
    return error.strerror or str(error)


def parse_ids(text: str) -> list[int]:
    """Read a list of numbers as the kernel writes them.

    :param text: for example ``0-3,8``
    :returns: ascending, each once
    :raises ValueError: if it is something else
    """
    found: set[int] = set()
    for part in filter(None, text.strip().split(',')):
        first, dash, last = part.partition('-')
        if not all(
            bound.isascii() and bound.isdigit()
            for bound in (first, last if dash else first)
        ):
            raise ValueError(f'{part!r} is no number or range')
        low, high = int(first), int(last) if dash else int(first)
        if low > high:
            raise ValueError(f'{part!r} goes backwards')
        if high > _LARGEST_ID:
            raise ValueError(f'{high} is above {_LARGEST_ID}')
        found.update(range(low, high + 1))
    return sorted(found)


def format_ids(numbers: Iterable[int]) -> str:
    """Write a list of numbers as the kernel does, for example ``0-3,8``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][-1] == number - 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ','.join('-'.join(map(str, part)) for part in parts)


def parse_set(text: str) -> set[int]:
    """Read a set of numbers as libvirt writes it.

    :param text: for example ``0-3,^2,8``, which is 0, 1, 3 and 8
    :raises ValueError: if it is something else, or empty
    """
    wanted: set[int] = set()
    unwanted: set[int] = set()
    for part in text.split(','):
        numbers = part.strip().removeprefix('^')
        chosen = wanted if numbers == part.strip() else unwanted
        chosen.update(parse_ids(numbers))
    if not wanted - unwanted:
        raise ValueError(f'{text!r} has no numbers')
    return wanted - unwanted
