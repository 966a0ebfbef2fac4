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

"""The elements of a domain that Nova's configuration classes don't have."""

from __future__ import annotations

import types

from lxml import etree
from nova.virt.libvirt import config as vconfig
from nova.virt.libvirt import driver as libvirt_driver
import pytest

from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.elastic_spec import ElasticCell
from nova_numa_hugepages.hugepages import domain_xml
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.libvirt import guest_config
from tests.unit.libvirt.fake_nova import reported

STOCK = libvirt_driver.LibvirtDriver


def huge_page():
    page = vconfig.LibvirtConfigGuestMemoryBackingPage()
    page.size_kb, page.nodeset = 2048, [0]
    return page


def backing_of(monkeypatch, made, *, huge):
    def stock(self, *args):
        backing = vconfig.LibvirtConfigGuestMemoryBacking()
        if huge:
            backing.hugepages = [huge_page()]
        return backing

    monkeypatch.setattr(STOCK, '_get_guest_memory_backing_config', stock)
    backing = made._get_guest_memory_backing_config(None, None, None, None)
    allocation = backing.format_dom().find('allocation')
    return None if allocation is None else dict(allocation.attrib)


@pytest.mark.parametrize(
    ('huge', 'threads', 'version', 'expected'),
    [
        (True, 8, (8, 2, 0), {'mode': 'immediate', 'threads': '8'}),
        (True, 2, (9, 0, 0), {'mode': 'immediate', 'threads': '2'}),
        (True, 8, (8, 1, 9), None),
        (True, 0, (9, 0, 0), None),
        (False, 8, (9, 0, 0), None),
    ],
)
def test_memory_is_allocated_with_threads(
    make, options, monkeypatch, huge, threads, version, expected
):
    options('prealloc_threads', threads, 'numa_hugepages')
    made = make({2048: 100})
    made._host.version = version

    assert backing_of(monkeypatch, made, huge=huge) == expected


@pytest.mark.parametrize('huge', [True, False])
def test_free_huge_pages_are_not_reported_by_the_balloon(make, options, huge):
    options('mem_stats_period_seconds', 10, 'libvirt')
    guest = vconfig.LibvirtConfigGuest()
    guest.membacking = vconfig.LibvirtConfigGuestMemoryBacking()
    if huge:
        guest.membacking.hugepages = [huge_page()]
    guest.add_device(vconfig.LibvirtConfigGuestSerial())

    make({2048: 100})._guest_add_memory_balloon(guest)

    _, balloon = [device.format_dom() for device in guest.devices]
    # Nova before 34 doesn't ask for it at all.
    stock = vconfig.LibvirtConfigMemoryBalloon().format_dom()
    assert balloon.get('freePageReporting') == (
        'off' if huge else stock.get('freePageReporting')
    )
    assert balloon.find('stats').get('period') == '10'


def test_the_rest_of_the_memory_backing_is_as_nova_has_it():
    backing = vconfig.LibvirtConfigGuestMemoryBacking()
    backing.hugepages, backing.locked = [huge_page()], True

    xml = guest_config.with_prealloc_threads(backing, 8).format_dom()

    assert etree.tostring(xml, encoding='unicode') == (
        '<memoryBacking>'
        '<hugepages><page size="2048" nodeset="0" unit="KiB"/></hugepages>'
        '<locked/><allocation mode="immediate" threads="8"/>'
        '</memoryBacking>'
    )
    assert backing.allocateimmediate is False


@pytest.mark.parametrize(
    ('extra_specs', 'distances'),
    [
        ({}, None),
        ({'numa_hugepages:guest_distances': 'false'}, None),
        ({'numa_hugepages:guest_distances': 'true'}, [[10, 21], [21, 10]]),
    ],
)
def test_the_guest_has_distances_if_its_flavor_asks(
    make, monkeypatch, extra_specs, distances
):
    made = make({2048: 100}, {2048: 100})
    made.init_host('one')
    reported(made)
    cells = [vconfig.LibvirtConfigGuestCPUNUMACell() for _ in range(2)]

    def stock(self, *args):
        numa = vconfig.LibvirtConfigGuestCPUNUMA()
        numa.cells = list(cells)
        return libvirt_driver.GuestNumaConfig(None, None, numa, object())

    monkeypatch.setattr(STOCK, '_get_guest_numa_config', stock)
    config = made._get_guest_numa_config(
        types.SimpleNamespace(
            cells=[types.SimpleNamespace(id=i) for i in (1, 0)]
        ),
        types.SimpleNamespace(extra_specs=extra_specs),
        None,
    )

    set_distances = [
        getattr(cell, 'distances', None) for cell in config.numaconfig.cells
    ]
    assert set_distances == (distances or [None, None])


def nova_cells(*memory):
    cells = []
    for number, kib in enumerate(memory):
        cell = vconfig.LibvirtConfigGuestCPUNUMACell()
        cell.id, cell.cpus, cell.memory = number, {number}, kib
        cells.append(cell)
    return cells


def test_novas_cells_are_given_distances():
    numa = vconfig.LibvirtConfigGuestCPUNUMA()
    numa.cells = nova_cells(1024, 2048)

    guest_config.set_distances(numa.cells, [[10, 12], [12, 10]])

    assert numa.to_xml(pretty_print=False) == (
        '<numa>'
        '<cell id="0" cpus="0" memory="1024"><distances>'
        '<sibling id="0" value="10"/><sibling id="1" value="12"/>'
        '</distances></cell>'
        '<cell id="1" cpus="1" memory="2048"><distances>'
        '<sibling id="0" value="12"/><sibling id="1" value="10"/>'
        '</distances></cell>'
        '</numa>'
    )


def test_a_single_cell_and_unknown_distances_change_nothing():
    one, two = nova_cells(1024), nova_cells(1024, 1024)

    guest_config.set_distances(one, [[10]])
    guest_config.set_distances(two, None)

    for cell in (*one, *two):
        assert type(cell) is vconfig.LibvirtConfigGuestCPUNUMACell


HOST = host_stats.HostStats(
    distances={0: (10, 12, 21), 1: (12, 10, 10), 3: (21, 11, 10)}
)


@pytest.mark.parametrize(
    ('cells', 'expected'),
    [
        ([3, 0], [[10, 21], [21, 10]]),
        # Both directions count by the larger.
        ([1, 3], [[10, 11], [11, 10]]),
        ([1], [[10]]),
        # The host has no node 2.
        ([0, 2], None),
    ],
)
def test_the_guest_has_the_distances_of_its_host_nodes(cells, expected):
    assert guest_config.guest_distances(HOST, cells) == expected


def test_a_host_without_distances():
    assert guest_config.guest_distances(host_stats.HostStats(), [0, 1]) is None


def test_two_cells_never_have_the_distance_of_one():
    flat = host_stats.HostStats(distances={0: (10, 10), 1: (10, 10)})

    assert guest_config.guest_distances(flat, [0, 1]) == [[10, 11], [11, 10]]


def elastic_guest(*cells, page_kib=2048, requested=None):
    """Make a guest of which cells are elastic, as XML."""
    guest = vconfig.LibvirtConfigGuest()
    guest.virt_type = 'kvm'
    guest.os_type = 'hvm'
    guest.memory = sum(cell.ceiling for cell in cells) * 1024
    guest.cpu = vconfig.LibvirtConfigGuestCPU()
    guest.cpu.numa = vconfig.LibvirtConfigGuestCPUNUMA()
    guest.cpu.numa.cells = nova_cells(*(cell.ceiling for cell in cells))
    guest_config.make_elastic(guest, cells, page_kib, requested or {})
    return guest.format_dom()


def test_elastic_cells_boot_with_their_base():
    dom = elastic_guest(ElasticCell(1024, 2048), ElasticCell(512, 512))

    assert [cell.get('memory') for cell in dom.iter('cell')][-2:] == [
        str(1024 * 1024),
        str(512 * 1024),
    ]
    assert dom.findtext('memory') == str(1536 * 1024)
    # With a block more than it gives, as those of a guest are aligned.
    assert dom.findtext('maxMemory') == str((1536 + 1024 + 128) * 1024)
    assert dom.find('maxMemory').get('slots') == '1'
    [device] = dom.findall('devices/memory')
    assert etree.tostring(device).decode() == (
        '<memory model="virtio-mem"><target><size>1179648</size>'
        '<node>0</node><block>2048</block><requested>0</requested>'
        '</target></memory>'
    )


def test_they_come_back_as_large_as_they_were():
    dom = elastic_guest(
        ElasticCell(1024, 4096), page_kib=1048576, requested={0: 2097152}
    )

    target = dom.find('devices/memory/target')
    assert target.findtext('requested') == '2097152'
    assert target.findtext('block') == '1048576'
    assert target.findtext('size') == str(4 * 1048576)


def test_what_is_written_is_read_as_it_was_meant():
    dom = elastic_guest(
        ElasticCell(1024, 2048),
        ElasticCell(512, 512),
        requested={0: 262144},
    )
    backing = etree.SubElement(dom, 'memoryBacking')
    page = etree.SubElement(etree.SubElement(backing, 'hugepages'), 'page')
    page.set('size', '2048')
    tune = etree.SubElement(dom, 'numatune')
    etree.SubElement(tune, 'memory', mode='strict', nodeset='1')

    assert domain_xml.page_needs(etree.tostring(dom).decode()) == [
        model.PageNeed(0, 1, 2048, 640, base=512, ceiling=1024),
        model.PageNeed(1, 1, 2048, 256),
    ]
