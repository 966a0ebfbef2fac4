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

"""A host that is watched: a kernel, pools, and a libvirt that obeys."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import pathlib

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import domain_xml
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import sample
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from nova_numa_hugepages.monitor import collector
from nova_numa_hugepages.monitor import history
from nova_numa_hugepages.monitor import insight
from tests.fixtures import kernel as fake_kernel
from tests.unit.hugepages import page_host

A, B, C = map(page_host.guest, (1, 2, 3))
NAME = 'instance-00000001'
"""The name that the simulated kernel gives each domain."""

STATS = {
    'balloon.available': '1000',
    'balloon.usable': '400',
    'balloon.unused': '100',
    'balloon.disk_caches': '300',
    'balloon.swap_in': '7',
    'balloon.swap_out': '8',
    'balloon.major_fault': '9',
    'balloon.last-update': '990',
}


def domain(
    *needs: model.PageNeed, pins: str = '', name: str = 'database'
) -> str:
    """Write the XML of a domain as Nova does."""
    cells = ''.join(
        f'<cell id="{need.cell}" cpus="{2 * need.cell}-{2 * need.cell + 1}" '
        f'memory="{(need.base or need.pages) * need.size_kib}"/>'
        for need in needs
    )
    elastic = [need for need in needs if need.ceiling]
    ceilings = ''.join(
        f'<e:cell id="{need.cell}" ceiling="{need.ceiling * need.size_kib}" '
        'unit="KiB"/>'
        for need in elastic
    )
    devices = ''.join(
        '<memory model="virtio-mem"><target><size unit="KiB">'
        f'{need.ceiling * need.size_kib}</size><node>{need.cell}</node>'
        f'<block unit="KiB">{need.size_kib}</block><requested unit="KiB">'
        f'{(need.pages - need.base) * need.size_kib}</requested></target>'
        '</memory>'
        for need in elastic
    )
    pages = ''.join(
        f'<page size="{need.size_kib}" nodeset="{need.cell}"/>'
        for need in needs
    )
    nodes = ''.join(
        f'<memnode cellid="{need.cell}" nodeset="{need.node}"/>'
        for need in needs
    )
    return (
        '<domain><metadata><nova:instance '
        'xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">'
        f'<nova:name>{name}</nova:name><nova:flavor name="db.large"/>'
        '<nova:owner><nova:project uuid="p1">demo</nova:project></nova:owner>'
        '</nova:instance>'
        f'<e:elastic xmlns:e="{domain_xml.ELASTIC_NAMESPACE}">{ceilings}'
        '</e:elastic></metadata>'
        + (
            f'<memoryBacking><hugepages>{pages}</hugepages></memoryBacking>'
            if needs
            else '<memory>1024</memory>'
        )
        + f'<cputune>{pins}</cputune><numatune>{nodes}</numatune>'
        f'<cpu><numa>{cells}</numa></cpu><devices>{devices}</devices>'
        '</domain>'
    )


class Clock:
    """A clock that goes on when it is told to.

    :param now: in seconds
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakeLibvirt:
    """A libvirt.

    :ivar domains: the XML that it has, by uuid
    :ivar values: its statistics, by the name of the domain
    :ivar hang_after: how often it answers
    :ivar asked: what it was asked for
    """

    def __init__(self) -> None:
        self.domains: dict[str, str] = {}
        self.values: dict[str, Mapping[str, str]] = {}
        self.hang_after: int | None = None
        self.asked: list[str] = []

    def uuids(self) -> frozenset[str]:
        """Get the uuids of all domains."""
        self._ask('uuids')
        return frozenset(self.domains)

    def xml(self, uuid: str) -> str:
        """Get the XML of a domain."""
        self._ask(uuid)
        if uuid not in self.domains:
            raise exception.LibvirtError('test:///', f'no domain {uuid}')
        return self.domains[uuid]

    def stats(self) -> Mapping[str, Mapping[str, str]]:
        """Get statistics."""
        self._ask('stats')
        return self.values

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        limit = self.hang_after
        if limit is not None and len(self.asked) > limit:
            raise exception.LibvirtError(
                'test:///', 'no answer within 10 s', timed_out=True
            )


class Watched:
    """A host with two nodes, its pools and who watches it.

    :ivar now: seconds since the epoch
    :ivar ticks: seconds of a clock that only goes forward
    """

    def __init__(
        self,
        root: pathlib.Path,
        *nodes: fake_kernel.FakeNode,
        **policy: object,
    ) -> None:
        self.ledger = root / 'ledger.sqlite'
        self.rig = page_host.Rig(
            root / 'host',
            dict(enumerate(nodes or (page_host.NODE, page_host.NODE))),
            dataclasses.replace(page_host.POLICY, **policy),
            ledger=Ledger.open(self.ledger),
        )
        self.kernel = self.rig.kernel
        self.libvirt = FakeLibvirt()
        self.rig.reconcile(starting=True)
        self.now = 1000.0
        self.ticks = 0.0
        self.kubelet = root / 'memory_manager_state'
        self.collector = self.watch(self.ledger)

    def watch(
        self,
        ledger: pathlib.Path,
        read_memory: collector.ReadMemory | None = None,
    ) -> collector.Collector:
        """Begin to watch it."""
        return collector.Collector(
            self.kernel.fs,
            self.rig.policy,
            ledger,
            self.libvirt,
            read_memory=read_memory,
            kubelet_state=self.kubelet,
            clock=lambda: self.now,
            ticks=lambda: self.ticks,
        )

    def spawn(
        self,
        uuid: str,
        *cells: tuple[int, int],
        elsewhere: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        """Start a guest.

        :param cells: the node and the pages of each of its cells
        :param elsewhere: where it has them, if not there
        """
        needs = page_host.needs(*cells)
        self.libvirt.domains[uuid] = domain(*needs)
        self.rig.pools.hold(uuid, needs)
        self.kernel.start_guest(
            uuid, model.by_pool(page_host.needs(*(elsewhere or cells)))
        )
        self.rig.pools.mark_taken(uuid)

    def spawn_elastic(
        self, uuid: str, pages: int, base: int, ceiling: int
    ) -> None:
        """Start an elastic guest on node 0."""
        need = model.PageNeed(0, 0, 2048, pages, base, ceiling)
        self.libvirt.domains[uuid] = domain(need)
        self.rig.pools.hold(uuid, [need])
        self.rig.run(uuid)

    def analyst(self, past: history.History | None = None) -> insight.Analyst:
        """Begin to find out what samples and history tell."""
        return insight.Analyst(
            past or history.History(None, clock=lambda: self.now),
            self.rig.policy,
            ticks=lambda: self.ticks,
        )

    def look(self) -> sample.HostSample:
        """Take a sample."""
        return self.collector.collect()
