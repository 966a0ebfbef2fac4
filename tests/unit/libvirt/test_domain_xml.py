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

"""What a domain's XML says of its huge pages."""

from __future__ import annotations

from xml.etree import ElementTree

from lxml import etree
from nova.virt.libvirt import config as vconfig
import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.libvirt import domain_xml
from nova_numa_hugepages.libvirt import guest_config

MIB = 1024


def describe(backing='', tune='', cells='', memory='<memory>2097152</memory>'):
    """Describe a domain, with nothing that its pages don't depend on."""
    return (
        f'<domain type="kvm"><name>guest</name>{memory}'
        f'<memoryBacking>{backing}</memoryBacking>'
        f'<numatune>{tune}</numatune>'
        f'<cpu><numa>{cells}</numa></cpu></domain>'
    )


def huge(*sizes):
    return f'<hugepages>{"".join(sizes)}</hugepages>'


TWO_CELLS = (
    '<cell id="0" cpus="0-1" memory="1048576"/>'
    '<cell id="1" cpus="2-3" memory="524288" unit="KiB"/>'
)
NODES_3_AND_1 = (
    '<memory mode="strict" nodeset="1,3"/>'
    '<memnode cellid="0" mode="strict" nodeset="3"/>'
    '<memnode cellid="1" mode="strict" nodeset="1"/>'
)


def test_each_guest_cell_needs_pages_of_its_host_node():
    xml = describe(
        huge(
            '<page size="2048" unit="KiB" nodeset="0"/>',
            '<page size="2048" unit="KiB" nodeset="1"/>',
        ),
        NODES_3_AND_1,
        TWO_CELLS,
    )

    assert domain_xml.needs(xml) == [
        model.PageNeed(0, 3, 2048, 512),
        model.PageNeed(1, 1, 2048, 256),
    ]


def test_cells_on_pages_of_different_sizes():
    xml = describe(
        huge(
            '<page size="1" unit="GiB" nodeset="0"/>',
            '<page size="2" unit="MiB"/>',
        ),
        NODES_3_AND_1,
        TWO_CELLS,
    )

    assert domain_xml.needs(xml) == [
        model.PageNeed(0, 3, 1048576, 1),
        model.PageNeed(1, 1, 2048, 256),
    ]


def test_a_cell_on_small_pages_needs_none():
    xml = describe(
        huge('<page size="2048" nodeset="1"/>'), NODES_3_AND_1, TWO_CELLS
    )

    assert domain_xml.needs(xml) == [model.PageNeed(1, 1, 2048, 256)]


def test_a_range_of_cells_in_one_page_element():
    xml = describe(
        huge('<page size="2048" nodeset="0-1"/>'), NODES_3_AND_1, TWO_CELLS
    )

    assert [need.node for need in domain_xml.needs(xml)] == [3, 1]


def test_a_domain_without_cells_has_one():
    xml = describe(
        huge('<page size="2048" unit="KiB"/>'),
        '<memory nodeset="2"/>',
        memory='<memory unit="MiB">64</memory>',
    )

    assert domain_xml.needs(xml) == [model.PageNeed(0, 2, 2048, 32)]


def test_a_domain_on_small_pages_needs_none():
    assert domain_xml.needs(describe(cells=TWO_CELLS)) == []
    assert domain_xml.needs('<domain/>') == []


@pytest.mark.parametrize(
    ('xml', 'problem'),
    [
        pytest.param('<domain', 'no XML', id='no-xml'),
        pytest.param(
            describe('<hugepages/>', NODES_3_AND_1, TWO_CELLS),
            'no page size',
            id='no-size',
        ),
        pytest.param(
            describe(
                huge('<page size="2048" unit="miles"/>'),
                NODES_3_AND_1,
                TWO_CELLS,
            ),
            "unit 'miles'",
            id='unit',
        ),
        pytest.param(
            describe(huge('<page size="-2"/>'), NODES_3_AND_1, TWO_CELLS),
            "size '-2'",
            id='negative',
        ),
        pytest.param(
            describe(huge('<page size="0"/>'), NODES_3_AND_1, TWO_CELLS),
            'no page has 0 bytes',
            id='zero',
        ),
        pytest.param(
            describe(
                huge('<page size="2048" nodeset="one"/>'),
                NODES_3_AND_1,
                TWO_CELLS,
            ),
            "'one' is no set of nodes",
            id='nodeset',
        ),
        pytest.param(
            describe(
                huge('<page size="2048" nodeset="7"/>'),
                NODES_3_AND_1,
                TWO_CELLS,
            ),
            'no guest cell uses',
            id='no-such-cell',
        ),
        pytest.param(
            describe(huge('<page size="2048"/>'), '', TWO_CELLS),
            'guest cell 0 is tied to no host node',
            id='floating',
        ),
        pytest.param(
            describe(
                huge('<page size="2048"/>'),
                '<memory mode="strict" nodeset="0-1"/>',
                TWO_CELLS,
            ),
            'expected one node',
            id='two-nodes',
        ),
        pytest.param(
            describe(
                huge('<page size="2048"/>'),
                '<memory mode="preferred" nodeset="0"/>',
                TWO_CELLS,
            ),
            "in mode 'preferred'",
            id='preferred',
        ),
        pytest.param(
            describe(
                huge('<page size="2048"/>'),
                NODES_3_AND_1,
                '<cell id="0" memory="3000"/>',
            ),
            'no number of pages',
            id='not-whole',
        ),
        pytest.param(
            describe(huge('<page size="2048"/>'), NODES_3_AND_1, memory=''),
            'it has no memory',
            id='no-memory',
        ),
        pytest.param(
            describe(
                huge('<page size="2048"/>'),
                NODES_3_AND_1,
                '<cell id="x" memory="2048"/>',
            ),
            "guest cell 'x'",
            id='cell-id',
        ),
    ],
)
def test_what_is_not_clear_is_refused(xml, problem):
    with pytest.raises(exception.InvalidDomain, match=problem):
        domain_xml.needs(xml)


def rows_of(xml):
    return [
        [int(s.get('value')) for s in cell.findall('distances/sibling')]
        for cell in ElementTree.fromstring(xml).findall('./cpu/numa/cell')
    ]


def test_distances_are_replaced_and_taken_out():
    plain = describe(cells=TWO_CELLS)
    assert not domain_xml.has_distances(plain)

    near = domain_xml.with_distances(plain, [[10, 12], [12, 10]])
    far = domain_xml.with_distances(near, [[10, 21], [21, 10]])

    assert domain_xml.has_distances(near)
    assert rows_of(near) == [[10, 12], [12, 10]]
    assert rows_of(far) == [[10, 21], [21, 10]]
    assert not domain_xml.has_distances(domain_xml.with_distances(far, None))


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


def test_the_memory_is_taken_with_several_threads():
    page = vconfig.LibvirtConfigGuestMemoryBackingPage()
    page.size_kb, page.nodeset = 2048, [0]
    backing = vconfig.LibvirtConfigGuestMemoryBacking()
    backing.hugepages, backing.locked = [page], True

    xml = guest_config.MemoryBacking(backing, 8).format_dom()

    assert etree.tostring(xml, encoding='unicode') == (
        '<memoryBacking>'
        '<hugepages><page size="2048" nodeset="0" unit="KiB"/></hugepages>'
        '<locked/><allocation mode="immediate" threads="8"/>'
        '</memoryBacking>'
    )
    assert backing.allocateimmediate is False


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
        # The host doesn't know of node 2.
        ([0, 2], None),
    ],
)
def test_the_guest_has_the_distances_of_its_host_nodes(cells, expected):
    assert guest_config.guest_distances(HOST, cells) == expected


def test_a_host_that_tells_no_distances():
    assert guest_config.guest_distances(host_stats.HostStats(), [0, 1]) is None


def test_libvirt_takes_no_10_between_two_cells():
    flat = host_stats.HostStats(distances={0: (10, 10), 1: (10, 10)})

    assert guest_config.guest_distances(flat, [0, 1]) == [[10, 11], [11, 10]]


class Domain:
    """A domain of libvirt that notes how it was migrated."""

    def __init__(self):
        self.migrated = []

    def migrateToURI3(self, uri, params, flags):
        self.migrated.append((uri, params, flags))

    def name(self):
        return 'guest'


class Guest:
    def __init__(self, dom):
        self._domain = dom

    def migrate(self, xml):
        self._domain.migrateToURI3(
            'qemu://two',
            params={'destination_xml': xml, 'persistent_xml': xml},
            flags=1,
        )


def test_a_guest_that_runs_keeps_its_distances_until_it_starts_anew():
    # Given: a guest with the distances of its host
    here = domain_xml.with_distances(
        describe(cells=TWO_CELLS), [[10, 12], [12, 10]]
    )
    guest = Guest(Domain())

    # when it is migrated to where its cells are farther apart
    guest_config.arriving_with(guest, [[10, 21], [21, 10]]).migrate(here)

    # then what runs is as before, or libvirt would refuse it, and what starts
    # next is as the host is
    ((uri, params, flags),) = guest._domain.migrated
    assert (uri, flags) == ('qemu://two', 1)
    assert params['destination_xml'] == here
    assert rows_of(params['persistent_xml']) == [[10, 21], [21, 10]]
    assert guest._domain.name() == 'guest'


def test_distances_that_are_not_known_there_are_dropped():
    here = domain_xml.with_distances(
        describe(cells=TWO_CELLS), [[10, 12], [12, 10]]
    )
    guest = Guest(Domain())

    guest_config.arriving_with(guest, None).migrate(here)

    ((_, params, _),) = guest._domain.migrated
    assert not domain_xml.has_distances(params['persistent_xml'])


def test_distances_of_another_number_of_cells_are_dropped():
    xml = domain_xml.with_distances(describe(cells=TWO_CELLS), [[10]])

    assert not domain_xml.has_distances(xml)
