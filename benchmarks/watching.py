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

"""What the monitor costs, as a share of one CPU at its default interval.

On this machine, with a libvirt of its own and 60 guests on huge pages; and on
a simulated host with 8 nodes and 60 guests, whose files are read from memory.
The time of ``virsh`` counts, that of the daemon of libvirt doesn't.
"""

from __future__ import annotations

import contextlib
import pathlib
import resource
import sys
import tempfile
import time

from nova_numa_hugepages.cmd import monitor
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import virsh
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.monitor import alarms
from nova_numa_hugepages.monitor import collector
from nova_numa_hugepages.monitor import history
from nova_numa_hugepages.monitor import insight
from nova_numa_hugepages.monitor import page
from nova_numa_hugepages.monitor import service
from nova_numa_hugepages.monitor.thresholds import DEFAULTS
from tests.fixtures import kernel as fake_kernel
from tests.host import scene
from tests.host.rig import domains
from tests.host.rig import local
from tests.host.rig import setup
from tests.unit.hugepages import page_host
from tests.unit.monitor import watched

GUESTS = 60
NODES = 8
_PAGES = 8
# An hour of samples. The page is looked at each minute.
_SAMPLES = 240
_PAGE_EACH = 4
# Emulated guests leave it little of the machine.
_REAL_SAMPLES = 20
_GOAL_PERCENT = 2.0


def _cpu_s() -> float:
    """Return the time that this process and its children took."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(
            resource.getrusage,
            (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN),
        )
    )


class _Hour:
    """An hour that takes no longer than the work in it."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def clock(self) -> float:
        """Return seconds since the epoch."""
        return time.time() + self.passed_s

    def ticks(self) -> float:
        """Return seconds of a clock that only goes forward."""
        return self.passed_s


def _measure(
    watched: collector.Collector,
    hour: _Hour,
    folder: pathlib.Path,
    samples: int = _SAMPLES,
) -> tuple[float, float]:
    """Take samples, keep the history, look for leaks, and show the page.

    :returns: seconds of CPU for the first sample, and for each other
    """
    past = history.History(folder / 'history.sqlite', clock=hour.clock)
    watching = service.Monitor(
        watched.collect,
        alarms.load(DEFAULTS),
        insight.Analyst(past, PoolPolicy(), ticks=hour.ticks),
        monitor.INTERVAL_S,
        ticks=hour.ticks,
    )
    began = _cpu_s()
    assert watching.step()
    first = _cpu_s() - began
    began = _cpu_s()
    for number in range(samples):
        hour.passed_s += monitor.INTERVAL_S
        assert watching.step()
        if number % _PAGE_EACH == 0:
            view = watching.view()
            assert view is not None
            page.render(view)
    each = (_cpu_s() - began) / samples
    past.close()
    return first, each


def here() -> tuple[float, float]:
    """Measure it on this machine."""
    setup.prepare()
    with (
        tempfile.TemporaryDirectory() as folder,
        local.LocalHost() as machine,
        # Guests end before their libvirt does.
        contextlib.ExitStack() as stack,
    ):
        scene.set_pools(machine, GUESTS * _PAGES)
        for _ in range(GUESTS):
            guest = scene.Guest(machine, domains.Cell(0, 2 * _PAGES, [0]))
            guest.start()
            stack.callback(guest.destroy)
        hour = _Hour()
        return _measure(
            collector.Collector(
                hostfs.HostFS(),
                PoolPolicy(),
                pathlib.Path(folder) / 'none.sqlite',
                virsh.Virsh(machine.uri),
                clock=hour.clock,
                ticks=hour.ticks,
            ),
            hour,
            pathlib.Path(folder),
            _REAL_SAMPLES,
        )


def simulated() -> tuple[float, float]:
    """Measure it on a host with more nodes, with a ledger."""
    with tempfile.TemporaryDirectory(dir='/dev/shm') as folder:
        host = watched.Watched(
            pathlib.Path(folder), *[page_host.grown(100)] * NODES
        )
        for number in range(GUESTS):
            uuid = page_host.guest(number)
            first, second = number % NODES, (number + 1) % NODES
            host.spawn(uuid, (first, 5), (second, 5))
        assert host.kernel.pool(model.PoolKey(0, fake_kernel.SMALL_KIB)).free
        hour = _Hour()
        return _measure(
            collector.Collector(
                host.kernel.fs,
                host.rig.policy,
                host.ledger,
                host.libvirt,
                clock=hour.clock,
                ticks=hour.ticks,
            ),
            hour,
            pathlib.Path(folder),
        )


def main() -> int:
    """Measure both; return the exit status."""
    status = 0
    for name, measure in (
        (f'{GUESTS} guests on this machine', here),
        (f'{GUESTS} guests on a simulated host with {NODES} nodes', simulated),
    ):
        first, each = measure()
        percent = 100 * each / monitor.INTERVAL_S
        print(
            f'{name}: first sample {first * 1000:.0f} ms of CPU, each other '
            f'with history, leaks and a page each minute {each * 1000:.0f} '
            f'ms: {percent:.2f} % of one CPU each {monitor.INTERVAL_S:g} s '
            f'(goal: {_GOAL_PERCENT:g} %)'
        )
        status |= percent > _GOAL_PERCENT
    return status


if __name__ == '__main__':
    sys.exit(main())
