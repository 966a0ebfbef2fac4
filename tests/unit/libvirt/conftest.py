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

"""Options and drivers for the tests of the driver."""

from __future__ import annotations

from nova import conf as nova_conf
from nova.virt.libvirt import driver as libvirt_driver
import pytest

from nova_numa_hugepages import conf
from nova_numa_hugepages.hugepages.assembly import KernelAccess
from nova_numa_hugepages.libvirt import driver
from nova_numa_hugepages.nova_fit import numa_fit
from tests.unit.libvirt import fake_nova

CONF = nova_conf.CONF
STOCK = libvirt_driver.LibvirtDriver


@pytest.fixture
def options(tmp_path):
    """Set options for one test."""
    conf.register_opts(CONF)
    done = []

    def set_option(name, value, group=None):
        CONF.set_override(name, value, group)
        done.append((name, group))

    set_option('state_path', str(tmp_path))
    set_option('virt_type', 'kvm', 'libvirt')
    set_option('node_free_memory_mib', 64, 'numa_hugepages')
    yield set_option
    for name, group in done:
        CONF.clear_override(name, group)


@pytest.fixture
def make(options, monkeypatch, tmp_path):
    """Make a driver on a fake kernel, without the rest of Nova's driver."""

    def initialize(self, virtapi, read_only):
        self.virtapi = virtapi

    monkeypatch.setattr(STOCK, '__init__', initialize)
    monkeypatch.setattr(STOCK, 'init_host', lambda self, host: None)
    monkeypatch.setattr(STOCK, 'cleanup_host', lambda self, host: None)
    monkeypatch.setattr(STOCK, 'emit_event', lambda self, event: None)

    def get_resources(self, nodename):
        topology = self._get_host_numa_topology()
        return {
            'numa_topology': topology and topology._to_json(),
            'stats': {'uptime': 'long'},
        }

    monkeypatch.setattr(STOCK, 'get_available_resource', get_resources)

    drivers = []

    def make_driver(*pools, kernel=None, writer=None, check=lambda: None):
        kernel = kernel or fake_nova.kernel_of(tmp_path, *pools)
        monkeypatch.setattr(
            STOCK,
            '_get_host_numa_topology',
            lambda self: fake_nova.topology(*pools),
        )
        access = KernelAccess(
            kernel.fs, writer or kernel.write, kernel.read_maps, check
        )
        made = driver.NUMAHugepagesDriver(None, kernel=access)
        made._host = fake_nova.LibvirtHost()
        made.kernel = kernel
        drivers.append(made)
        return made

    yield make_driver
    for made in drivers:
        made.cleanup_host('one')
    numa_fit.uninstall()
