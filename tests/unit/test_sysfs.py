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

"""Distances as the kernel of a compute host tells them."""

import logging
import pathlib

from nova.objects import numa
import pytest

from nova_numa_hugepages.core import facts
from nova_numa_hugepages.virt import sysfs


@pytest.fixture
def nodes(tmp_path):
    """Nodes 0, 1 and 4, of which 4 is far away."""
    (tmp_path / 'online').write_text('0-1,4\n')
    for node, row in ((0, '10 12 21'), (1, '12 10 21'), (4, '21 21 10')):
        folder = tmp_path / f'node{node}'
        folder.mkdir()
        (folder / 'distance').write_text(f'{row}\n')
    return tmp_path


def topology(*ids):
    return numa.NUMATopology(cells=[numa.NUMACell(id=one) for one in ids])


def test_nodes_that_are_not_numbered_in_a_row(nodes):
    assert sysfs.distances(nodes) == {
        0: {0: 10, 1: 12, 4: 21},
        1: {0: 12, 1: 10, 4: 21},
        4: {0: 21, 1: 21, 4: 10},
    }


def test_facts_are_in_the_order_of_the_cells(nodes, monkeypatch):
    monkeypatch.setattr(sysfs, 'ROOT', nodes)

    found = sysfs.host_facts(topology(4, 0, 1))

    assert found == facts.HostFacts(
        {4: (10, 21, 21), 0: (21, 10, 12), 1: (21, 12, 10)}
    )
    assert found.distance_matrix([4, 0, 1]) == (
        (10, 21, 21),
        (21, 10, 12),
        (21, 12, 10),
    )


def test_a_cell_that_is_no_node_of_the_kernel(nodes, monkeypatch):
    monkeypatch.setattr(sysfs, 'ROOT', nodes)

    assert sysfs.host_facts(topology(0, 2)) is None


@pytest.mark.parametrize('row', ['10 12', '10 twelve 21', ''])
def test_a_row_that_the_kernel_does_not_write(nodes, row):
    (nodes / 'node1' / 'distance').write_text(row)

    with pytest.raises(ValueError, match=r'node1/distance: expected 3 num'):
        sysfs.distances(nodes)


@pytest.mark.parametrize('online', ['', '0-', 'all'])
def test_a_list_that_the_kernel_does_not_write(nodes, online):
    (nodes / 'online').write_text(online)

    with pytest.raises(ValueError, match=r'online: expected a list'):
        sysfs.distances(nodes)


def test_a_host_without_sysfs_is_warned_about(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sysfs, 'ROOT', tmp_path / 'missing')

    with caplog.at_level(logging.WARNING):
        assert sysfs.host_facts(topology(0)) is None

    assert 'count as equal' in caplog.text


@pytest.mark.skipif(
    not pathlib.Path('/sys/devices/system/node/online').exists(),
    reason='this kernel has no NUMA nodes in sysfs',
)
def test_this_machine():
    found = sysfs.distances()

    assert found
    for one, row in found.items():
        assert row[one] == min(row.values())
