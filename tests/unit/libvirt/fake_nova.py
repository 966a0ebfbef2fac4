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

"""The part of Nova and libvirt that our driver calls, without the rest."""

from __future__ import annotations

import logging
import types

from nova import objects

from nova_numa_hugepages.core import host_stats
from tests.fixtures import kernel as fake_kernel

objects.register_all()


class LibvirtHost:
    """The queries of the driver to libvirt."""

    def __init__(self):
        self.defined = []
        self.version = (9, 0, 0)

    def list_guests(self, only_running):
        assert only_running is False
        return [types.SimpleNamespace(uuid=uuid) for uuid in self.defined]

    def get_hostname(self):
        return 'one'

    def has_min_version(self, version):
        return self.version >= version


def topology(*pools):
    """Describe a host as Nova reads it from libvirt: nodes of 4 GiB."""
    return objects.NUMATopology(
        cells=[
            objects.NUMACell(
                id=node,
                cpuset=set(),
                pcpuset={node},
                memory=4096,
                cpu_usage=0,
                memory_usage=0,
                pinned_cpus=set(),
                siblings=[],
                socket=node,
                network_metadata=objects.NetworkMetadata(
                    physnets=set(), tunneled=False
                ),
                mempages=[
                    objects.NUMAPagesTopology(
                        size_kb=size, total=total, used=0, reserved=0
                    )
                    for size, total in ((4, 1048576), *sizes.items())
                ],
            )
            for node, sizes in enumerate(pools)
        ]
    )


def kernel_of(tmp_path, *pools):
    """Make a fake kernel whose nodes have 4 GiB and some pools."""
    return fake_kernel.FakeKernel(
        tmp_path / 'kernel',
        {
            node: fake_kernel.FakeNode(total=4096, used=64, pools=sizes)
            for node, sizes in enumerate(pools)
        },
    )


def reported(driver):
    """Return what the scheduler gets: totals by cell and size, and stats."""
    available = driver.get_available_resource('one')
    topology = objects.NUMATopology.obj_from_db_obj(available['numa_topology'])
    totals = {
        cell.id: {page.size_kb: page.total for page in cell.mempages}
        for cell in topology.cells
    }
    stats = available['stats']
    assert stats['uptime'] == 'long'
    ours = stats.get(host_stats.STATS_KEY)
    return totals, None if ours is None else host_stats.parse(ours)


def warnings(caplog):
    """Return the texts of all warnings in the log."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING
    ]
