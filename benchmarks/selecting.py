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

"""Selecting destinations in a large cloud, ours against stock Nova.

Both sides are in the scheduler of one cloud, and take turns: its filters and
weighers are exchanged, and the fit with them.
"""

from __future__ import annotations

# Has to come before anything else of Nova.
from benchmarks import crowd  # isort: skip

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import gc
import statistics
import time
from typing import Any
from typing import NamedTuple

from nova import context
from nova import objects
from nova.scheduler import host_manager
from nova.scheduler import manager
from oslo_messaging import rpc

from benchmarks import timings
from nova_numa_hugepages.nova_fit import numa_fit


class _Side(NamedTuple):
    """The parts of a scheduler that differ between the two sides."""

    filters: Sequence[Any]
    weighers: Sequence[Any]
    put_fit: Callable[[], None]


class _Call(NamedTuple):
    """The time of one call, in seconds, and the hosts on the way."""

    wall: float
    cpu: float
    choosing: float
    candidates: int
    passed: frozenset[str]


def measure(*, hosts: int, repeats: int) -> list[timings.Result]:
    """Measure both sides in turn on one cloud.

    :raises RuntimeError: if a guest fits nowhere, for want of hosts
    """
    with crowd.Crowd(hosts) as cloud:
        sides = _sides(cloud.scheduler.host_manager)
        calls: dict[tuple[int, str], list[_Call]] = {}
        # The first round isn't counted: much is read and made once.
        for turn in range(repeats + 1):
            for cells in crowd.GUEST_CELLS:
                for name, side in sides.items():
                    call = _call(cloud.scheduler, side, cells)
                    if turn:
                        calls.setdefault((cells, name), []).append(call)
    return [
        timings.Result(
            guest_cells=cells,
            stock=_times(calls[cells, 'stock']),
            ours=_times(calls[cells, 'ours']),
            hosts=hosts,
            candidates=calls[cells, 'stock'][0].candidates,
            passed=len(calls[cells, 'stock'][0].passed),
            same=len(
                {call.passed for side in sides for call in calls[cells, side]}
            )
            == 1,
        )
        for cells in crowd.GUEST_CELLS
    ]


def _sides(hosts: host_manager.HostManager) -> dict[str, _Side]:
    """Give each of the two what it would have alone."""

    def without(loaded: Sequence[Any], *names: str) -> list[Any]:
        return [one for one in loaded if type(one).__name__ not in names]

    return {
        'stock': _Side(
            without(hosts.enabled_filters, crowd.OUR_FILTER),
            without(hosts.weighers, crowd.OUR_WEIGHER),
            numa_fit.uninstall,
        ),
        'ours': _Side(
            without(hosts.enabled_filters, crowd.STOCK_FILTER),
            hosts.weighers,
            numa_fit.install,
        ),
    }


def _call(
    scheduler: manager.SchedulerManager, side: _Side, cells: int
) -> _Call:
    """Ask for a destination as a conductor does, and give it back."""
    hosts = scheduler.host_manager
    hosts.enabled_filters = list(side.filters)
    hosts.weighers = list(side.weighers)
    side.put_fit()
    admin = context.get_admin_context()
    spec = crowd.request(admin, cells)
    gc.collect()
    gc.disable()
    try:
        with _watched(hosts) as watch:
            cpu, wall = time.process_time(), time.perf_counter()
            scheduler.select_destinations(
                admin,
                spec_obj=spec,
                instance_uuids=[spec.instance_uuid],
                return_objects=True,
                return_alternates=True,
            )
            wall = time.perf_counter() - wall
            cpu = time.process_time() - cpu
    except rpc.ExpectedException as error:
        raise RuntimeError(
            f'a guest of {cells} cells fits on no host'
        ) from error
    finally:
        gc.enable()
    scheduler.placement_client.delete_allocation_for_instance(
        admin, spec.instance_uuid, force=True
    )
    return _Call(
        wall, cpu, watch.choosing, watch.candidates, frozenset(watch.passed)
    )


class _Watch:
    """Stands between the scheduler and its filters and weighers."""

    def __init__(self, hosts: host_manager.HostManager) -> None:
        self._filter = hosts.get_filtered_hosts
        self._weigh = hosts.get_weighed_hosts
        self.choosing = 0.0
        self.candidates = 0
        self.passed: list[str] = []

    def get_filtered_hosts(
        self, states: Any, spec: objects.RequestSpec, index: int = 0
    ) -> list[host_manager.HostState]:
        # A generator, which reads the hosts from the database.
        states = list(states)
        start = time.perf_counter()
        found: list[host_manager.HostState] = self._filter(states, spec, index)
        self.choosing += time.perf_counter() - start
        self.candidates = len(states)
        self.passed = [state.host for state in found]
        return found

    def get_weighed_hosts(
        self, states: Any, spec: objects.RequestSpec
    ) -> list[Any]:
        start = time.perf_counter()
        found: list[Any] = self._weigh(states, spec)
        self.choosing += time.perf_counter() - start
        return found


@contextlib.contextmanager
def _watched(hosts: host_manager.HostManager) -> Iterator[_Watch]:
    watch = _Watch(hosts)
    hosts.get_filtered_hosts = watch.get_filtered_hosts
    hosts.get_weighed_hosts = watch.get_weighed_hosts
    try:
        yield watch
    finally:
        del hosts.get_filtered_hosts, hosts.get_weighed_hosts


def _times(calls: Sequence[_Call]) -> timings.Times:
    return timings.Times(
        *(
            statistics.median(seconds) * 1000
            for seconds in zip(
                *((call.wall, call.cpu, call.choosing) for call in calls),
                strict=True,
            )
        )
    )
