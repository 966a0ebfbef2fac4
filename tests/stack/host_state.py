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

"""The state of a compute host: its pools, its holds and its guests."""

from __future__ import annotations

import binascii
import dataclasses
import json
import pathlib
import sys
import tempfile
from typing import Any
import xml.etree.ElementTree as ET

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.state import ledger
from tests.stack import hosts

PAGE_KIB = 2048
_LEDGER = f'{hosts.STATE}/nova-numa-hugepages-ledger.sqlite'
_SCRIPT = pathlib.Path(__file__).with_name('read_host_state.py').read_text()


@dataclasses.dataclass(frozen=True)
class HostState:
    """The state of a compute host.

    :ivar total: pages of 2 MiB of each node, in the order of the nodes
    :ivar free: those that no process has
    :ivar surplus: those that are given back when they are free
    :ivar holds: pages by node, of each holder and purpose, as the ledger has
        them
    :ivar states: the states of these
    :ivar placed: where each guest has its pages, by uuid and node
    """

    total: list[int]
    free: list[int]
    surplus: list[int]
    holds: dict[tuple[str, str], dict[int, int]]
    states: dict[tuple[str, str], set[str]]
    placed: dict[str, dict[int, int]]

    @property
    def held(self) -> list[int]:
        """Pages of each node that are held, for all holders and purposes."""
        return [
            sum(nodes.get(node, 0) for nodes in self.holds.values())
            for node in range(len(self.total))
        ]


def read(host: hosts.ComputeHost) -> HostState:
    """Read the kernel, the processes and the ledger of a host."""
    ended = host.machine.run(
        [sys.executable, '-I', '-S', '-', _LEDGER], stdin=_SCRIPT, timeout=120
    )
    found = json.loads(ended.out)
    holds: dict[tuple[str, str], dict[int, int]] = {}
    states: dict[tuple[str, str], set[str]] = {}
    for hold in _holds(found['ledger']):
        key = hold.holder, hold.purpose.value
        nodes = holds.setdefault(key, {})
        nodes[hold.node] = nodes.get(hold.node, 0) + hold.pages
        states.setdefault(key, set()).add(hold.state.value)
    pools = [found['pools'][node] for node in sorted(found['pools'], key=int)]
    return HostState(
        total=[pool['nr'] for pool in pools],
        free=[pool['free'] for pool in pools],
        surplus=[pool['surplus'] for pool in pools],
        holds=holds,
        states=states,
        placed={
            uuid: {
                key.node: count
                for key, count in processes.pages_of(''.join(lines)).items()
            }
            for uuid, lines in found['guests'].items()
        },
    )


def _holds(copy: str | None) -> list[model.Hold]:
    """Return the holds in a copy of a ledger."""
    if copy is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, 'ledger.sqlite')
        path.write_bytes(binascii.a2b_base64(copy))
        with ledger.Ledger.open(path) as opened:
            return opened.holds()


@dataclasses.dataclass(frozen=True)
class Domain:
    """A guest as libvirt has it.

    :ivar nodes: the node of each cell
    :ivar cpus: the host CPUs of each vCPU
    :ivar distances: between its cells, empty if it sees none
    :ivar returns: whether it returns pages that are free inside of it
    """

    nodes: list[int]
    cpus: dict[str, str]
    distances: list[list[str]]
    returns: bool


def domain(host: hosts.ComputeHost, uuid: str) -> Domain:
    """Return where a guest is, as libvirt has it.

    :raises AssertionError: if a cell is bound otherwise than strictly to one
        node, or is not on huge pages
    """
    root = ET.fromstring(host.machine.virsh('dumpxml', uuid).out)
    cells = root.findall('./cpu/numa/cell')
    bound = root.findall('./numatune/memnode')
    assert [found.get('mode') for found in bound] == ['strict'] * len(cells)
    pages = root.findall('./memoryBacking/hugepages/page')
    assert {page.get('size') for page in pages} == {str(PAGE_KIB)}
    balloon = root.find('./devices/memballoon')
    return Domain(
        returns=balloon is not None
        and balloon.get('freePageReporting') == 'on',
        nodes=[int(found.get('nodeset') or '') for found in bound],
        cpus={
            found.attrib['vcpu']: found.attrib['cpuset']
            for found in root.findall('./cputune/vcpupin')
        },
        distances=[
            [found.attrib['value'] for found in cell.iter('sibling')]
            for cell in cells
        ],
    )


def expected(topology: dict[str, Any]) -> dict[int, int]:
    """Return how many pages a guest has to have on each node.

    :param topology: what the API says of the guest's topology
    """
    pages: dict[int, int] = {}
    for cell in topology['nodes']:
        node = cell['host_node']
        count = cell['memory_mb'] * 1024 // PAGE_KIB
        pages[node] = pages.get(node, 0) + count
    return pages
