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

"""Nova's simulated libvirt on pretended kernels, under our driver.

Each compute of a functional test of Nova gets a kernel with the nodes and
pools that its libvirt reports. A domain that runs has its huge pages from it,
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

from nova_numa_hugepages.hugepages import manager
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.libvirt import domain_xml
from nova_numa_hugepages.libvirt import setup
from tests.fixtures import kernel as fake_kernel

CONF = nova.conf.CONF

DRIVER = 'numa_hugepages.NUMAHugepagesDriver'

# What the pretended kernel keeps for itself on each node.
_KERNEL_MIB = 64


class _HostConf:
    """The configuration, with a folder for each compute's state."""

    def __init__(self, state_path: pathlib.Path) -> None:
        self.state_path = str(state_path)

    def __getattr__(self, name: str) -> Any:
        return getattr(CONF, name)


@dataclasses.dataclass
class Host:
    """What is under one compute.

    :ivar keeper: of the service that runs now
    """

    kernel: fake_kernel.FakeKernel
    folder: pathlib.Path
    keeper: manager.HugePageManager | None = None

    def total(self, node: int, size_kib: int = 2048) -> int:
        """Tell how many pages a pool has."""
        return self.kernel.pool(model.PoolKey(node, size_kib)).total

    def held(self, server_id: str) -> dict[str, dict[tuple[int, int], int]]:
        """Tell what is held for a guest, by purpose and pool."""
        found: dict[str, dict[tuple[int, int], int]] = {}
        for hold in self.holds():
            if hold.holder == server_id:
                counts = found.setdefault(hold.purpose.value, {})
                key = (hold.node, hold.size_kib)
                counts[key] = counts.get(key, 0) + hold.pages
        return found

    def holds(self) -> list[model.Hold]:
        """List all that is held."""
        assert self.keeper is not None
        pools = self.keeper.snapshot().pools.values()
        return [hold for pool in pools for hold in pool.holds]

    def has(self, server_id: str) -> dict[tuple[int, int], int]:
        """Tell which pages a guest has; raises KeyError if it doesn't run."""
        return {
            tuple(key): count
            for key, count in self.kernel.guests()[server_id].items()
        }


class PageHosts(fixtures.Fixture):
    """Puts a kernel under each compute that is started.

    :ivar hosts: by the name of the compute
    """

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
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
        keeper = setup.keeper
        fixture = self

        def connect(
            case: Any, host_info: Any = None, *args: Any, **kwargs: Any
        ) -> Any:
            connection = start(case, host_info, *args, **kwargs)
            fixture._current = connection
            return connection

        def reach() -> setup.Access:
            host = fixture._host(CONF.host)
            return setup.Access(
                host.kernel.fs,
                host.kernel,
                host.kernel.read_maps,
                lambda: None,
            )

        def keep(
            conf: Any, reached: setup.Access
        ) -> manager.HugePageManager | None:
            host = fixture._host(CONF.host)
            host.keeper = keeper(_HostConf(host.folder), reached)
            return host.keeper

        for target, value in (
            (f'{base.__name__}.ServersTestBase._get_connection', connect),
            (f'{setup.__name__}.host', reach),
            (f'{setup.__name__}.keeper', keep),
        ):
            self.useFixture(fixtures.MonkeyPatch(target, value))
        self._watch_domains()

    def _host(self, name: str) -> Host:
        connection = self._current
        if name not in self.hosts:
            root = pathlib.Path(tempfile.mkdtemp(dir=self._folder))
            (root / 'state').mkdir()
            self.hosts[name] = Host(
                fake_kernel.FakeKernel(
                    root / 'kernel', nodes_of(connection.host_info)
                ),
                root / 'state',
            )
        self._connections[id(connection)] = name
        return self.hosts[name]

    def _watch_domains(self) -> None:
        """Have domains that run take their pages, and give them back."""
        real = fakelibvirt.Domain
        begin, launch = real.__init__, real.createWithFlags
        stop, save = real.destroy, real.managedSave
        describe = real.XMLDesc
        fixture = self

        def init(
            self: Any, connection: Any, xml: Any, *args: Any, **kwargs: Any
        ) -> None:
            self._needs = _needs(xml)
            self._told = xml
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
            return _with_memory(describe(self, flags), self._told)

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
    found: dict[model.PoolKey, int] = {}
    text = xml.decode() if isinstance(xml, bytes) else xml
    for need in domain_xml.needs(text):
        found[need.key] = found.get(need.key, 0) + need.pages
    return found


# What Nova's simulated libvirt forgets of a domain.
_FORGOTTEN = ('memoryBacking', 'cputune', 'numatune', 'cpu')


def _with_memory(xml: str, told: Any) -> str:
    """Put back what a domain was told of its memory."""
    root = etree.fromstring(xml)
    before = etree.fromstring(told)
    for name in _FORGOTTEN:
        known = before.find(name)
        if known is not None:
            for element in root.findall(name):
                root.remove(element)
            root.append(known)
    text: str = etree.tostring(root, encoding='unicode')
    return text


def nodes_of(host_info: Any) -> Mapping[int, fake_kernel.FakeNode]:
    """Read the nodes and pools of a simulated host."""
    found = {}
    for cell in host_info.numa_topology.cells:
        pools = {
            page.size: page.total for page in cell.mempages if page.size > 4
        }
        pooled_mib = sum(size * count for size, count in pools.items()) // 1024
        found[cell.id] = fake_kernel.FakeNode(
            total=max(cell.memory // 1024, pooled_mib + 2 * _KERNEL_MIB),
            used=_KERNEL_MIB,
            pools=pools,
            cpus=[cpu.id for cpu in cell.cpus],
        )
    return found
