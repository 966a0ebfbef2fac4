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

"""What a compute host says of its own NUMA nodes.

Source: the kernel's ``Documentation/ABI/stable/sysfs-devices-node``.
"""

from __future__ import annotations

import functools
import pathlib

from nova import exception
from nova.objects import numa
from nova.virt import hardware
from oslo_log import log as logging

from nova_numa_hugepages.core import facts

LOG = logging.getLogger(__name__)

ROOT = pathlib.Path('/sys/devices/system/node')


def host_facts(topology: numa.NUMATopology) -> facts.HostFacts | None:
    """Tell the facts of this host, for the claim of a compute.

    Fits `nova_numa_hugepages.virt.hardware.install`.

    :param topology: the host's topology in Nova; libvirt names its cells
        after the kernel's nodes
    :returns: None if the kernel tells no distances
    """
    known = _distances_once(ROOT)
    ids = [cell.id for cell in topology.cells]
    if not known.keys() >= set(ids):
        return None
    return facts.HostFacts(
        distances={
            one: tuple(known[one][other] for other in ids) for one in ids
        }
    )


def distances(root: pathlib.Path = ROOT) -> dict[int, dict[int, int]]:
    """Read the distances between the nodes that are online.

    :param root: the folder of the nodes in sysfs
    :returns: node to node to distance
    :raises OSError: if a file can't be read
    :raises ValueError: if a file doesn't hold what the kernel writes there;
        names the file and what was found
    """
    nodes = _online(root / 'online')
    found = {}
    for node in nodes:
        path = root / f'node{node}' / 'distance'
        text = path.read_text(encoding='ascii')
        row = text.split()
        if len(row) != len(nodes) or not all(map(str.isdigit, row)):
            raise ValueError(
                f'{path}: expected {len(nodes)} numbers, found {text!r}'
            )
        found[node] = dict(zip(nodes, map(int, row), strict=True))
    return found


# Distances come from firmware tables, and don't change while a host runs.
@functools.cache
def _distances_once(root: pathlib.Path) -> dict[int, dict[int, int]]:
    try:
        return distances(root)
    except (OSError, ValueError) as error:
        LOG.warning(
            'The distances of the NUMA nodes of this host are unknown, and '
            'count as equal: %s',
            error,
        )
        return {}


def _online(path: pathlib.Path) -> list[int]:
    text = path.read_text(encoding='ascii')
    try:
        nodes = sorted(hardware.parse_cpu_spec(text.strip()))
    except exception.Invalid:
        nodes = []
    if not nodes:
        raise ValueError(f'{path}: expected a list, found {text!r}')
    return nodes
