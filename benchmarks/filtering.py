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

"""Our filter against stock Nova's, on the same hosts in the same run."""

from __future__ import annotations

import dataclasses
import functools
import gc
import random
import statistics
import time
from typing import Any

from nova.objects import request_spec
from nova.scheduler import host_manager
from nova.scheduler.filters import numa_topology_filter
from nova.virt import hardware as nova_hardware

from benchmarks import fleet
from nova_numa_hugepages.nova_fit import numa_fit
from nova_numa_hugepages.scheduler import filters

USED = 0.55
_SEED = 20


@dataclasses.dataclass(frozen=True)
class Usual:
    """A request over a fleet of equal machines that are partly in use."""

    guest_cells: int
    host_cells: int
    goal: int
    # Fewer where stock Nova takes minutes for them.
    at_most_hosts: int = 1000

    @property
    def name(self) -> str:
        return f'{self.guest_cells} / {self.host_cells}'


@dataclasses.dataclass(frozen=True)
class Explosive:
    """A request on one host that stock Nova takes long for.

    :ivar full: host cells without a free CPU
    :ivar devices: devices on each host cell
    :ivar wanted: devices that the guest asks for
    :ivar stock: whether stock Nova gets done within a minute
    """

    name: str
    guest_cells: int
    host_cells: int
    full: int = 0
    devices: int = 0
    wanted: int = 0
    stock: bool = True


USUAL = (
    Usual(1, 2, 20),
    Usual(2, 2, 20),
    Usual(1, 4, 20),
    Usual(2, 4, 20),
    Usual(4, 4, 20),
    Usual(1, 8, 10),
    Usual(2, 8, 10),
    Usual(4, 8, 10),
    Usual(8, 8, 10, at_most_hosts=100),
)

EXPLOSIVE = (
    Explosive('8 cells on 8, 1 full', 8, 8, full=1),
    Explosive('2 cells on 8, PCI never fits', 2, 8, devices=1, wanted=3),
    Explosive('4 cells on 8, PCI never fits', 4, 8, devices=1, wanted=5),
    Explosive(
        '8 cells on 8, PCI never fits',
        8,
        8,
        devices=1,
        wanted=9,
        stock=False,
    ),
    Explosive('8 cells on 16, 9 full', 8, 16, full=9, stock=False),
    Explosive(
        '8 cells on 16, PCI never fits',
        8,
        16,
        devices=1,
        wanted=9,
        stock=False,
    ),
)


@dataclasses.dataclass(frozen=True)
class UsualResult:
    """CPU time in microseconds a host, medians."""

    case: Usual
    stock_us: float
    ours_us: float
    ours_on_stock_us: float
    passed: int
    hosts: int
    same: bool

    @property
    def ratio(self) -> float:
        return self.stock_us / self.ours_us

    @property
    def ratio_on_stock(self) -> float:
        return self.stock_us / self.ours_on_stock_us


@dataclasses.dataclass(frozen=True)
class ExplosiveResult:
    """CPU time in milliseconds a host, None where it was not run."""

    case: Explosive
    stock_ms: float | None
    ours_ms: float
    ours_on_stock_ms: float


def usual(case: Usual, *, hosts: int, repeats: int) -> UsualResult:
    """Measure one request over a fleet."""
    hosts = min(hosts, case.at_most_hosts)
    kind = fleet.HostShape(case.host_cells)
    dice = random.Random(_SEED)
    topologies = [fleet.topology(kind, USED, dice) for _ in range(hosts)]
    spec = fleet.request(
        case.guest_cells, 8 * case.guest_cells, 16384 * case.guest_cells
    )
    times: dict[str, list[float]] = {'stock': [], 'ours': [], 'mixed': []}
    passed: dict[str, list[str]] = {}
    for _ in range(repeats):
        for name, run in _RUNS.items():
            states = [
                fleet.host_state(
                    number, kind, numa.obj_clone(), ours=name == 'ours'
                )
                for number, numa in enumerate(topologies)
            ]
            seconds, found = run(states, spec)
            times[name].append(seconds / hosts * 1e6)
            passed[name] = [state.host for state in found]
    return UsualResult(
        case,
        *(statistics.median(times[name]) for name in _RUNS),
        passed=len(passed['stock']),
        hosts=hosts,
        same=passed['stock'] == passed['ours'] == passed['mixed'],
    )


def explosive(case: Explosive, *, repeats: int) -> ExplosiveResult:
    """Measure one request on one host."""
    kind = fleet.HostShape(case.host_cells)
    numa = fleet.topology(kind, 0.0, random.Random(_SEED))
    for cell in numa.cells:
        full = cell.id >= case.host_cells - case.full
        cell.pinned_cpus = set(cell.pcpuset) if full else set()
        for pages in cell.mempages:
            pages.used = 0
        cell.memory_usage = 0
    spec = fleet.request(
        case.guest_cells,
        4 * case.guest_cells,
        4096 * case.guest_cells,
        devices=case.wanted,
    )
    figures: dict[str, float | None] = {}
    for name, run in _RUNS.items():
        if name == 'stock' and not case.stock:
            figures[name] = None
            continue
        times = []
        for _ in range(1 if name == 'stock' else repeats):
            state = fleet.host_state(
                0,
                kind,
                numa.obj_clone(),
                ours=name == 'ours',
                devices={
                    cell.id: case.devices
                    for cell in numa.cells
                    if case.devices
                },
            )
            seconds, found = run([state], spec)
            assert not found, case
            times.append(seconds * 1e3)
        figures[name] = statistics.median(times)
    ours, mixed = figures['ours'], figures['mixed']
    assert ours is not None
    assert mixed is not None
    return ExplosiveResult(case, figures['stock'], ours, mixed)


def _timed(
    numa_filter: Any,
    states: list[host_manager.HostState],
    spec: request_spec.RequestSpec,
) -> tuple[float, list[host_manager.HostState]]:
    for state in states:
        state.allocation_candidates = [{'mappings': {}}]
    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        found = list(numa_filter.filter_all(states, spec))
        return time.process_time() - start, found
    finally:
        gc.enable()


def _stock(
    states: list[host_manager.HostState], spec: request_spec.RequestSpec
) -> tuple[float, list[host_manager.HostState]]:
    numa_fit.uninstall()
    assert nova_hardware.numa_fit_instance_to_host is numa_fit.stock_fit()
    return _timed(numa_topology_filter.NUMATopologyFilter(), states, spec)


def _ours(
    states: list[host_manager.HostState], spec: request_spec.RequestSpec
) -> tuple[float, list[host_manager.HostState]]:
    numa_fit.install()
    return _timed(_our_filter(), states, spec)


@functools.cache
def _our_filter() -> filters.NUMAHugepagesFilter:
    # A scheduler loads its filters once. Ours keeps what hosts reported last
    # from one request to the next.
    return filters.NUMAHugepagesFilter()


_RUNS = {'stock': _stock, 'ours': _ours, 'mixed': _ours}
