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


"""The time of the weigher for a request, by hosts and kinds of guests."""

from __future__ import annotations

import dataclasses
import gc
import random
import statistics
import time

from nova import conf as nova_conf
from nova.scheduler import weights as nova_weights

from benchmarks import fleet
from nova_numa_hugepages.core.capacity import guest_kinds
from nova_numa_hugepages.scheduler import demand
from nova_numa_hugepages.scheduler import filters
from nova_numa_hugepages.scheduler import flavors
from nova_numa_hugepages.scheduler import weights

CONF = nova_conf.CONF

USED = 0.55
GOAL_US = 60.0
_SEED = 7
_HOST_CELLS = 4

# Kinds that are measured; the others count for the demand only.
_MEASURED = 10


@dataclasses.dataclass(frozen=True)
class Case:
    """A fleet and a demand.

    :ivar cores: whether some guests ask for cores of their own, so that it
        matters which CPUs are free
    """

    hosts: int
    kinds: int
    cores: bool = False
    goal: bool = False


CASES = (
    Case(1000, 10, goal=True),
    Case(1000, 30),
    Case(1000, 10, cores=True),
    Case(5000, 10),
    Case(5000, 30),
)


@dataclasses.dataclass(frozen=True)
class Result:
    """CPU time in microseconds a host that the filter saw, medians.

    :ivar first_us: of the first request for each kind, when nothing is
        remembered of its guests
    :ivar us: of later ones
    :ivar filter_us: what the filter took for the same requests
    """

    case: Case
    first_us: float
    us: float
    filter_us: float


def measure(case: Case, *, repeats: int) -> Result:
    """Measure requests for all kinds in turn."""
    dice = random.Random(_SEED)
    kind = fleet.HostShape(_HOST_CELLS)
    states = [
        fleet.host_state(
            number, kind, fleet.topology(kind, USED, dice), ours=True
        )
        for number in range(case.hosts)
    ]
    requests = [_request(number, case.cores) for number in range(case.kinds)]
    learned = demand.Demand(half_life_s=1e9, at_most=case.kinds)
    for asked in requests:
        learned.count(_kind(asked))
    ours = filters.NUMAHugepagesFilter(learned)
    weigher = weights.NUMAHugepagesWeigher(learned)
    first: list[float] = []
    later: list[float] = []
    filtering: list[float] = []
    for turn in range(repeats + 1):
        for number in range(0, case.kinds, case.kinds // _MEASURED):
            spec = _request(number, case.cores)
            for state in states:
                state.allocation_candidates = [{'mappings': {}}]
            gc.collect()
            gc.disable()
            try:
                start = time.process_time()
                passing = list(ours.filter_all(states, spec))
                between = time.process_time()
                weighed = [
                    nova_weights.WeighedHost(host, 0.0) for host in passing
                ]
                weigher.weigh_objects(weighed, spec)
                end = time.process_time()
            finally:
                gc.enable()
            filtering.append((between - start) / case.hosts * 1e6)
            taken = (end - between) / case.hosts * 1e6
            (later if turn else first).append(taken)
    return Result(
        case,
        statistics.median(first),
        statistics.median(later),
        statistics.median(filtering),
    )


def _request(number: int, cores: bool) -> object:
    cells = (1, 1, 2, 1, 4)[number % 5]
    extra = {'mem_page_size': '2048' if number % 2 else '1048576'}
    if cores and number % 5 == 1:
        extra['cpu_thread_policy'] = 'isolate'
    return fleet.request(
        cells,
        cells * (2 + 2 * (number % 7)),
        cells * 1024 * (4 + number),
        **extra,
    )


def _kind(spec: object) -> guest_kinds.GuestKind:
    found = flavors.kind_of(spec.flavor)  # type: ignore[attr-defined]
    assert found is not None
    return found
