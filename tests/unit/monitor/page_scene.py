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

"""A host with something of everything, for the page."""

from __future__ import annotations

import dataclasses
import html
import math
import pathlib
from typing import Any

from nova_numa_hugepages.hugepages import sample
from nova_numa_hugepages.hugepages.kernel import hugetlbfs
from nova_numa_hugepages.monitor import alarms
from nova_numa_hugepages.monitor import history
from nova_numa_hugepages.monitor import insight
from nova_numa_hugepages.monitor import leaks
from nova_numa_hugepages.monitor import service
from nova_numa_hugepages.monitor.thresholds import DEFAULTS
from tests.fixtures import kernel as fake_kernel
from tests.unit.hugepages import page_host
from tests.unit.monitor import watched

HOST = 'compute-1'
NOW = 1_800_000_000.0
_MIB = 1024
_WAVES = (insight.AVAILABLE, leaks.USED)


def _guest(
    host: watched.Watched,
    number: int,
    *cells: tuple[int, int],
    name: str,
    elsewhere: list[tuple[int, int]] | None = None,
) -> str:
    uuid = page_host.guest(number)
    needs = page_host.needs(*cells)
    domain = f'instance-{number:08x}'
    first = 8 * cells[0][0] + 2 * number % 8
    pins = ''.join(
        f'<vcpupin vcpu="{at}" cpuset="{first + at}"/>' for at in range(2)
    )
    host.rig.pools.hold(uuid, needs)
    host.kernel.start_guest(
        uuid,
        {page_host.pool(node): pages for node, pages in (elsewhere or cells)},
        name=domain,
    )
    host.rig.pools.mark_taken(uuid)
    host.libvirt.domains[uuid] = watched.domain(
        *needs, pins=pins, name=html.escape(name)
    )
    total = sum(pages for _, pages in cells) * 2 * _MIB
    host.libvirt.values[domain] = {
        'balloon.available': str(total),
        'balloon.usable': str(total * (10 - 2 * number % 9) // 10),
        'balloon.unused': str(total // 10),
        'balloon.disk_caches': str(total // 5),
        'balloon.swap_in': '0',
        'balloon.swap_out': '0',
        'balloon.major_fault': '12',
        'balloon.last-update': str(int(NOW)),
    }
    return uuid


class Scene:
    """It.

    :ivar monitor: has looked at it
    """

    def __init__(self, root: pathlib.Path, name: str = 'database') -> None:
        node = fake_kernel.FakeNode(total=4096, used=600)
        host = self.host = watched.Watched(root, node, node, node, node)
        host.now = NOW
        host.kernel.operator_writes(page_host.pool(2), 100)
        _guest(host, 1, (0, 500), name=name)
        _guest(host, 2, (0, 200), (1, 200), name='analytics')
        _guest(
            host,
            3,
            (1, 300),
            name='router',
            elsewhere=[(1, 260), (2, 40)],
        )
        _guest(host, 4, (2, 600), name='cache')
        host.rig.pools.hold(page_host.guest(9), page_host.needs((3, 150)))
        host.kernel.operator_writes(page_host.pool(3), 300)
        host.kernel.take({page_host.pool(3): 100})
        host.kernel.fragment(3, 1500 * _MIB)
        host.rig.reconcile([page_host.guest(number) for number in range(10)])
        self.history = history.History(None, clock=lambda: host.now)
        analyst = host.analyst(self.history)
        self._live(analyst)
        self.monitor = service.Monitor(
            self._look,
            alarms.load(DEFAULTS),
            analyst,
            1000.0,
            ticks=lambda: host.ticks,
            name=HOST,
        )
        for _ in range(3):
            assert self.monitor.step()
            host.ticks += 400

    def view(self) -> dict[str, Any]:
        """Return what the page shows of it."""
        found = self.monitor.view()
        assert found is not None
        return found

    def _look(self) -> sample.HostSample:
        return dataclasses.replace(
            self.host.look(),
            files=[hugetlbfs.HugeFile('/dev/hugepages/rtemap_0', 2048, 24)],
        )

    def _live(self, analyst: insight.Analyst) -> None:
        """Let a day go by."""
        found = self._look()
        values = analyst._values(found, {})
        for minute in range(24 * 60, 0, -5):
            wave = 1 + 0.3 * math.sin(minute / 200)
            self.history.add(
                NOW - 60 * minute,
                {
                    series: value * wave if series.name in _WAVES else value
                    for series, value in values.items()
                },
            )
