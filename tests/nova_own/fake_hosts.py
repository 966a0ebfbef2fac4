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

"""Nova's simulated libvirt on fake kernels, under our driver.

Each compute of a functional test of Nova gets a kernel with the nodes and
pools that its libvirt reports. A running domain has its huge pages from there,
as QEMU would.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import pathlib
import tempfile
from typing import Any

import fixtures
from lxml import etree
import nova.conf
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.tests.functional.libvirt import base

from nova_numa_hugepages.hugepages import domain_xml
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.assembly import KernelAccess
from nova_numa_hugepages.hugepages.manager import HugePageManager
from nova_numa_hugepages.hugepages.state.ledger import FILE_NAME
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from nova_numa_hugepages.libvirt import setup
from tests.fixtures import kernel as fake_kernel

CONF = nova.conf.CONF

DRIVER = 'numa_hugepages.NUMAHugepagesDriver'

# Memory that the fake kernel uses itself on each node.
_KERNEL_MIB = 64


class _HostConf:
    """The configuration, with a folder for each compute's state."""

    def __init__(self, state_path: pathlib.Path) -> None:
        self.state_path = str(state_path)

    def __getattr__(self, name: str) -> Any:
        return getattr(CONF, name)


@dataclasses.dataclass
class FakeHost:
    """The kernel and the state folder of one compute.

    :ivar manager: of the service that runs now
    """

    kernel: fake_kernel.FakeKernel
    folder: pathlib.Path
    manager: HugePageManager | None = None

    def total(self, node: int, size_kib: int = 2048) -> int:
        """Return how many pages a pool has."""
        return self.kernel.pool(model.PoolKey(node, size_kib)).total

    def holds(self) -> list[model.Hold]:
        """Return all that the ledger of this host holds."""
        with Ledger.open(self.folder / FILE_NAME, read_only=True) as ledger:
            return ledger.holds()

    def held(self, server_id: str) -> dict[str, dict[tuple[int, int], int]]:
        """Return what is held for a guest, by purpose and pool."""
        held: dict[str, dict[tuple[int, int], int]] = {}
        for hold in self.holds():
            if hold.holder == server_id:
                counts = held.setdefault(hold.purpose.value, {})
                key = (hold.node, hold.size_kib)
                counts[key] = counts.get(key, 0) + hold.pages
        return held

    def has(self, server_id: str) -> dict[tuple[int, int], int]:
        """Return the pages of a guest; raises KeyError if it doesn't run."""
        return {
            tuple(key): count
            for key, count in self.kernel.guests()[server_id].items()
        }


class FakeHosts(fixtures.Fixture):
    """Puts a kernel under each compute that is started.

    :ivar hosts: by the name of the compute
    """

    def __init__(self) -> None:
        self.hosts: dict[str, FakeHost] = {}
        self._connections: dict[int, str] = {}

    def _setUp(self) -> None:
        self._folder = pathlib.Path(
            self.useFixture(
                fixtures.TempDir(
                    '/dev/shm' if pathlib.Path('/dev/shm').is_dir() else None
                )
            ).path
        )
        start = base.ServersTestBase._get_connection
        open_manager = setup.open_manager
        fixture = self

        def connect(
            case: Any, host_info: Any = None, *args: Any, **kwargs: Any
        ) -> Any:
            connection = start(case, host_info, *args, **kwargs)
            fixture._current = connection
            return connection

        def kernel_access() -> KernelAccess:
            kernel = fixture._host(CONF.host).kernel
            return KernelAccess(
                kernel.fs, kernel.write, kernel.read_maps, lambda: None
            )

        def open_in_folder(
            conf: Any, kernel: KernelAccess, cleanup: Any
        ) -> HugePageManager | None:
            host = fixture._host(CONF.host)
            host.manager = open_manager(
                _HostConf(host.folder), kernel, cleanup
            )
            return host.manager

        for target, value in (
            (f'{base.__name__}.ServersTestBase._get_connection', connect),
            (f'{setup.__name__}.kernel_access', kernel_access),
            (f'{setup.__name__}.open_manager', open_in_folder),
        ):
            self.useFixture(fixtures.MonkeyPatch(target, value))
        self._watch_domains()

    def _host(self, name: str) -> FakeHost:
        connection = self._current
        if name not in self.hosts:
            root = pathlib.Path(tempfile.mkdtemp(dir=self._folder))
            (root / 'state').mkdir()
            self.hosts[name] = FakeHost(
                fake_kernel.FakeKernel(
                    root / 'kernel', nodes_of(connection.host_info)
                ),
                root / 'state',
            )
        self._connections[id(connection)] = name
        return self.hosts[name]

    def _watch_domains(self) -> None:
        """Make running domains take their pages, and ended ones free them."""
        real = fakelibvirt.Domain
        begin, launch = real.__init__, real.createWithFlags
        stop, save = real.destroy, real.managedSave
        describe = real.XMLDesc
        fixture = self

        def init(
            self: Any, connection: Any, xml: Any, *args: Any, **kwargs: Any
        ) -> None:
            self._needs = _needs(xml)
            self._xml = xml
            begin(self, connection, xml, *args, **kwargs)
            if self._state == fakelibvirt.VIR_DOMAIN_RUNNING:
                fixture._run(self)

        def create(self: Any, flags: int) -> None:
            launch(self, flags)
            fixture._run(self)

        def destroy(self: Any) -> None:
            stop(self)
            fixture._end(self)

        def managed_save(self: Any, flags: int) -> None:
            save(self, flags)
            fixture._end(self)

        def xml_desc(self: Any, flags: int) -> str:
            return _with_memory(describe(self, flags), self._xml)

        for name, value in (
            ('XMLDesc', xml_desc),
            ('__init__', init),
            ('createWithFlags', create),
            ('destroy', destroy),
            ('managedSave', managed_save),
        ):
            self.useFixture(
                fixtures.MonkeyPatch(
                    f'{fakelibvirt.__name__}.Domain.{name}', value
                )
            )

    def _run(self, dom: Any) -> None:
        name = self._connections.get(id(dom._connection))
        if name is not None:
            kernel = self.hosts[name].kernel
            if dom.UUIDString() not in kernel.guests():
                kernel.start_guest(dom.UUIDString(), dom._needs)

    def _end(self, dom: Any) -> None:
        name = self._connections.get(id(dom._connection))
        if name is not None:
            kernel = self.hosts[name].kernel
            if dom.UUIDString() in kernel.guests():
                kernel.stop_guest(dom.UUIDString())


def _needs(xml: Any) -> dict[model.PoolKey, int]:
    needs: dict[model.PoolKey, int] = {}
    text = xml.decode() if isinstance(xml, bytes) else xml
    for need in domain_xml.page_needs(text):
        needs[need.key] = needs.get(need.key, 0) + need.pages
    return needs


# Elements that Nova's simulated libvirt drops from a domain.
_DROPPED = ('memoryBacking', 'cputune', 'numatune', 'cpu')


def _with_memory(xml: str, original: Any) -> str:
    """Restore the elements of a domain that describe its memory."""
    root = etree.fromstring(xml)
    original_root = etree.fromstring(original)
    for name in _DROPPED:
        original_element = original_root.find(name)
        if original_element is not None:
            for element in root.findall(name):
                root.remove(element)
            root.append(original_element)
    text: str = etree.tostring(root, encoding='unicode')
    return text


def nodes_of(host_info: Any) -> Mapping[int, fake_kernel.FakeNode]:
    """Return the nodes and pools of a simulated host."""
    nodes = {}
    for cell in host_info.numa_topology.cells:
        pools = {
            page.size: page.total for page in cell.mempages if page.size > 4
        }
        pooled_mib = sum(size * count for size, count in pools.items()) // 1024
        nodes[cell.id] = fake_kernel.FakeNode(
            total=max(cell.memory // 1024, pooled_mib + 2 * _KERNEL_MIB),
            used=_KERNEL_MIB,
            pools=pools,
            cpus=[cpu.id for cpu in cell.cpus],
        )
    return nodes
