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

"""The huge pages that a domain's XML asks for."""

from __future__ import annotations

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import domain_xml
from nova_numa_hugepages.hugepages import model


def describe(backing='', tune='', cells='', memory='<memory>2097152</memory>'):
    """Describe a domain by what its pages depend on."""
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

    assert domain_xml.page_needs(xml) == [
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

    assert domain_xml.page_needs(xml) == [
        model.PageNeed(0, 3, 1048576, 1),
        model.PageNeed(1, 1, 2048, 256),
    ]


def test_a_cell_on_small_pages_needs_none():
    xml = describe(
        huge('<page size="2048" nodeset="1"/>'), NODES_3_AND_1, TWO_CELLS
    )

    assert domain_xml.page_needs(xml) == [model.PageNeed(1, 1, 2048, 256)]


def test_a_range_of_cells_in_one_page_element():
    xml = describe(
        huge('<page size="2048" nodeset="0-1"/>'), NODES_3_AND_1, TWO_CELLS
    )

    assert [need.node for need in domain_xml.page_needs(xml)] == [3, 1]


def test_a_domain_without_cells_has_one():
    xml = describe(
        huge('<page size="2048" unit="KiB"/>'),
        '<memory nodeset="2"/>',
        memory='<memory unit="MiB">64</memory>',
    )

    assert domain_xml.page_needs(xml) == [model.PageNeed(0, 2, 2048, 32)]


def test_a_domain_on_small_pages_needs_none():
    assert domain_xml.page_needs(describe(cells=TWO_CELLS)) == []
    assert domain_xml.page_needs('<domain/>') == []


def test_a_set_of_cells_may_leave_some_out():
    xml = describe(
        huge('<page size="2048" nodeset="0-1, ^0"/>'),
        NODES_3_AND_1,
        TWO_CELLS,
    )
    assert domain_xml.page_needs(xml) == [model.PageNeed(1, 1, 2048, 256)]


@pytest.mark.parametrize(
    ('xml', 'problem'),
    [
        pytest.param('<domain', 'no XML', id='no-xml'),
        pytest.param(
            describe(
                huge('<page size="2048" nodeset="1,^1"/>'),
                NODES_3_AND_1,
                TWO_CELLS,
            ),
            "'1,\\^1' is no set of nodes",
            id='none-left',
        ),
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
            "a guest cell has the number 'x'",
            id='cell-id',
        ),
    ],
)
def test_unclear_needs_are_refused(xml, problem):
    with pytest.raises(exception.InvalidDomain, match=problem):
        domain_xml.page_needs(xml)


def elastic(ceilings='', *devices, cells=TWO_CELLS):
    """Describe a domain of which cells are elastic."""
    xml = describe(huge('<page size="2048"/>'), NODES_3_AND_1, cells)
    return xml.replace(
        '<name>',
        '<metadata><n:instance xmlns:n="nova"/><e:elastic '
        f'xmlns:e="{domain_xml.ELASTIC_NAMESPACE}">{ceilings}</e:elastic>'
        f'</metadata><devices>{"".join(devices)}</devices><name>',
    )


def device(cell, requested_kib=0, current=''):
    """Describe a memory device of 640 MiB."""
    return (
        '<memory model="virtio-mem"><target><size unit="MiB">640</size>'
        f'<node>{cell}</node><block unit="KiB">2048</block>'
        f'<requested unit="KiB">{requested_kib}</requested>{current}'
        '</target><alias name="virtiomem1"/></memory>'
    )


CEILING = '<e:cell id="1" ceiling="1048576" unit="KiB"/>'
NVDIMM = (
    '<memory model="nvdimm"><target><size>1</size><node>0</node></target>'
    '</memory>'
)


class TestElastic:
    def test_cells_need_what_they_are_asked_to_have(self):
        xml = elastic(CEILING, NVDIMM, device(1, 131072))

        assert domain_xml.page_needs(xml) == [
            model.PageNeed(0, 3, 2048, 512),
            model.PageNeed(1, 1, 2048, 256 + 64, base=256, ceiling=512),
        ]

    def test_no_more_than_their_ceiling(self):
        # The device is a block larger than what it gives.
        xml = elastic(CEILING, device(1, 655360))

        assert domain_xml.page_needs(xml)[1].pages == 512

    def test_a_cell_without_a_device_is_not_elastic(self):
        assert domain_xml.page_needs(elastic(CEILING))[1].ceiling == 0

    def test_nor_is_one_with_a_device_that_is_not_ours(self):
        assert domain_xml.page_needs(elastic('', device(1)))[1].ceiling == 0
        assert domain_xml.memory_devices(elastic('', device(1))) == {}

    def test_devices_that_run_have_a_size(self):
        current = '<current unit="KiB">131072</current>'
        xml = elastic(CEILING, device(1, 262144, current))

        assert domain_xml.memory_devices(xml) == {
            1: domain_xml.MemoryDevice(
                640 << 20, 2 << 20, 256 << 20, 128 << 20
            )
        }

    def test_one_is_asked_for_another_size(self):
        xml = elastic(CEILING, device(0), device(1, 262144))

        text = domain_xml.requesting(xml, 1, 4096)

        assert text.replace(' />', '/>') == device(1, 4096)

    def test_one_that_is_not_there_is_not_asked(self):
        with pytest.raises(exception.InvalidDomain, match='cell 2 has no'):
            domain_xml.requesting(elastic(CEILING, device(1)), 2, 0)

    @pytest.mark.parametrize(
        ('xml', 'problem'),
        [
            (elastic('<e:cell id="x" ceiling="1"/>'), "number 'x'"),
            (elastic('<e:cell id="1"/>'), 'ceiling of guest cell 1 has'),
            (
                elastic('<e:cell id="1" ceiling="1048577"/>', device(1)),
                'guest cell 1 has a ceiling of 1073742848 bytes',
            ),
            (
                elastic('<e:cell id="1" ceiling="2048"/>', device(1)),
                'guest cell 1 has a ceiling of 2097152 bytes',
            ),
            (elastic(CEILING, device(1), device(1)), 'has two memory devices'),
            (elastic(CEILING, device('')), 'the cell of a memory device'),
            (
                elastic(CEILING, device(1).replace('block', 'brick')),
                'a memory device has no block',
            ),
            (
                elastic(CEILING, '<memory model="virtio-mem"/>'),
                'a memory device has no target',
            ),
            (elastic(CEILING, device(1, -1)), 'the requested of a device'),
        ],
    )
    def test_what_is_unclear_is_refused(self, xml, problem):
        with pytest.raises(exception.InvalidDomain, match=problem):
            domain_xml.page_needs(xml)
