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

"""The NUMA nodes of a host: where they are, and what memory they have.

Source: ``Documentation/ABI/stable/sysfs-devices-node`` of the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
import re
from typing import NamedTuple

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.kernel import hostfs


class Node(NamedTuple):
    """A node that is online.

    :ivar cpus: the host's numbers of its CPUs that are online
    :ivar distances: to each node that is online, itself included
    """

    id: int
    cpus: frozenset[int]
    distances: Mapping[int, int]


class NodeMemory(NamedTuple):
    """The memory of a node, in KiB.

    :ivar total_kib: all of it but what the kernel set aside at boot
    :ivar free_kib: what is not in use, in blocks of any size
    :ivar reclaimable_kib: what the kernel can take back at once: cached
        files that needn't be written to disk before
    """

    total_kib: int
    free_kib: int
    reclaimable_kib: int


def read_nodes(fs: hostfs.HostFS) -> dict[int, Node]:
    """Read where the nodes are that are online.

    :returns: by id, ascending
    :raises exception.KernelError: if a file can't be used
    """
    online = fs.online()
    found = {}
    for node in online:
        folder = fs.node_folder(node)
        path = folder / 'distance'
        text = fs.text(path)
        row = text.split()
        if len(row) != len(online) or not all(map(str.isdigit, row)):
            raise exception.KernelError(
                path, repr(text), f'{len(online)} numbers'
            )
        found[node] = Node(
            node,
            frozenset(fs.ids(folder / 'cpulist')),
            dict(zip(online, map(int, row), strict=True)),
        )
    return found


def memory(fs: hostfs.HostFS) -> dict[int, NodeMemory]:
    """Read what memory the nodes have that are online.

    :returns: by node, ascending; a node without memory has 0 of each
    :raises exception.KernelError: if a file can't be used
    """
    found = {}
    for node in fs.online():
        path = fs.node_folder(node) / 'meminfo'
        text = fs.text(path)
        values = {name: int(value) for name, value in _MEMINFO.findall(text)}
        if not values.keys() >= {'MemTotal', 'MemFree'}:
            raise exception.KernelError(
                path, repr(text[:80]), 'lines with MemTotal and MemFree'
            )
        cached = values.get('Active(file)', 0) + values.get(
            'Inactive(file)', 0
        )
        busy = values.get('Dirty', 0) + values.get('Writeback', 0)
        found[node] = NodeMemory(
            values['MemTotal'], values['MemFree'], max(0, cached - busy)
        )
    return found


_MEMINFO = re.compile(r'^Node \d+ (\S+): +(\d+)', re.MULTILINE | re.ASCII)
