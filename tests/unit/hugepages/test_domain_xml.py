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
            "guest cell 'x'",
            id='cell-id',
        ),
    ],
)
def test_unclear_needs_are_refused(xml, problem):
    with pytest.raises(exception.InvalidDomain, match=problem):
        domain_xml.page_needs(xml)
