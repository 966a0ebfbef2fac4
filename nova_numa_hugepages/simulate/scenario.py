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

"""The scenario of a simulation: hosts, flavors, and guests that arrive."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import enum
import pathlib
import random
from typing import NamedTuple

from nova_numa_hugepages.simulate import results
from nova_numa_hugepages.yamlfile.formats import HostNode

MAX_ARRIVALS = 1_000_000

_HOUR_S = 3600.0


@dataclasses.dataclass(frozen=True)
class HostType:
    """Hosts of equal hardware.

    :ivar count: so many of them
    :ivar distances: rows of node distances, None if they report none
    :ivar runs_us: whether their computes run our fit
    :ivar cpu_ratio: vCPUs to a shared CPU
    :ivar ram_ratio: guest memory to memory
    :ivar reserved_memory_mib: memory of the whole host that no guest gets, as
        ``reserved_host_memory_mb`` says
    """

    name: str
    count: int
    nodes: tuple[HostNode, ...]
    distances: tuple[tuple[int, ...], ...] | None = None
    runs_us: bool = True
    cpu_ratio: float = 1.0
    ram_ratio: float = 1.0
    reserved_memory_mib: int = 0


@dataclasses.dataclass(frozen=True)
class Flavor:
    """A flavor.

    :ivar share: how often it is asked for, in relation to the others
    """

    name: str
    vcpus: int
    memory_mib: int
    extra_specs: Mapping[str, str]
    share: float = 1.0


@dataclasses.dataclass(frozen=True)
class Arrivals:
    """Guests drawn at random: one flavor after the other, by their shares.

    :ivar count: guests that arrive
    :ivar per_hour: so many in an hour, at equal intervals
    :ivar build_s: seconds that a guest takes to start, in which Nova counts
        it as an operation under way on its host
    :ivar mean_lifetime: mean of the exponential lifetimes, in arrivals; None
        if guests stay
    :ivar warm_up: arrivals before refusals are counted
    :ivar seeds: each gives a sequence of its own
    """

    count: int
    per_hour: float = 60.0
    build_s: float = 0.0
    mean_lifetime: float | None = None
    warm_up: int = 0
    seeds: tuple[int, ...] = (1,)


@dataclasses.dataclass(frozen=True)
class Use:
    """How elastic instances use their memory.

    :ivar idle_percent: of its memory, what an idle one uses
    :ivar busy_percent: what a busy one uses, at least and at most
    :ivar busy_hours: how long one is busy, at least and at most
    :ivar office_hours: the hours of working days between which more are busy
    :ivar office_busy_percent: how many are busy then
    :ivar other_busy_percent: how many are busy at other times
    """

    idle_percent: float = 30
    busy_percent: tuple[float, float] = (60, 95)
    busy_hours: tuple[float, float] = (1, 3)
    office_hours: tuple[float, float] = (8, 18)
    office_busy_percent: float = 33
    other_busy_percent: float = 5


@dataclasses.dataclass(frozen=True)
class TraceEntry:
    """One guest of a trace.

    :ivar at: seconds since the beginning of the trace
    :ivar flavor: the name of its flavor
    :ivar lifetime: seconds until it is deleted, None if it stays
    """

    at: float
    flavor: str
    lifetime: float | None


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A scenario.

    :ivar file: where it was read from, for messages
    :ivar trace: the guests that arrive, in order of time; None if they are
        drawn as ``arrivals`` says
    :ivar trace_file: where the trace was read from
    :ivar use: how elastic instances use their memory
    :ivar latency_ns: how long an access to memory takes, by distance
    """

    file: str
    hosts: tuple[HostType, ...]
    flavors: tuple[Flavor, ...]
    arrivals: Arrivals
    trace: tuple[TraceEntry, ...] | None = None
    trace_file: pathlib.Path | None = None
    use: Use = Use()
    latency_ns: Mapping[int, float] = dataclasses.field(default_factory=dict)


def holds(hosts: Sequence[HostType], flavors: Sequence[Flavor]) -> float:
    """Guess how many guests a fleet holds.

    By its CPUs and its memory, as if they were all in one place.
    """
    cpus = memory_mib = 0.0
    for host in hosts:
        for node in host.nodes:
            own = node.cores - node.shared_cores
            cpus += (
                host.count
                * node.threads
                * (own + node.shared_cores * host.cpu_ratio)
            )
            memory_mib += host.count * node.memory_mib * host.ram_ratio
        memory_mib -= host.count * host.reserved_memory_mib * host.ram_ratio
    total = sum(flavor.share for flavor in flavors)
    return total * min(
        cpus / sum(flavor.share * flavor.vcpus for flavor in flavors),
        memory_mib
        / sum(flavor.share * flavor.memory_mib for flavor in flavors),
    )


def scaled(play: Scenario, share: float) -> Scenario:
    """Return a part of a fleet with as large a part of its guests.

    They come the less often and stay as long.

    :param play: without a trace
    :param share: above 0, up to 1; there is a host of each type at least
    """

    def part(count: int) -> int:
        return max(1, round(count * share))

    arrivals = play.arrivals
    lifetime = arrivals.mean_lifetime
    count = part(arrivals.count)
    return dataclasses.replace(
        play,
        hosts=tuple(
            dataclasses.replace(host, count=part(host.count))
            for host in play.hosts
        ),
        arrivals=dataclasses.replace(
            arrivals,
            count=count,
            per_hour=arrivals.per_hour * share,
            mean_lifetime=lifetime and lifetime * share,
            warm_up=min(round(arrivals.warm_up * share), count - 1),
        ),
    )


def lasts_s(play: Scenario) -> float:
    """Return how long instances come, in seconds."""
    if play.trace is not None:
        return play.trace[-1].at if play.trace else 0.0
    return play.arrivals.count / play.arrivals.per_hour * _HOUR_S


class Learning(enum.StrEnum):
    """The ways in which our weigher gets to know the demand.

    LEARNED: from the guests that arrive alone. FLAVORS: it knows the flavors,
    too, as in a cloud with an API database. PINNED: it is given the mix.
    """

    LEARNED = 'learned'
    FLAVORS = 'flavors'
    PINNED = 'pinned'


class Task(NamedTuple):
    """One run of a simulation.

    :ivar lend_ratio: how much idle memory of elastic guests hosts offer
    :ivar with_ready: whether pages made ready ahead are replayed
    """

    play: Scenario
    policy: results.PlacementPolicy
    phase: results.Phase
    seed: int
    learning: Learning = Learning.FLAVORS
    lend_ratio: float = 1.0
    with_ready: bool = False


class Arrival(NamedTuple):
    """A guest that arrives.

    :ivar at: when, in seconds
    :ivar flavor: the name of its flavor
    :ivar until: when it leaves, in seconds; None if it stays
    """

    at: float
    flavor: str
    until: float | None


def arrivals(
    play: Scenario, phase: results.Phase, seed: int
) -> Iterator[Arrival]:
    """Yield the guests of a scenario as they arrive.

    Flavors and lifetimes are drawn from generators of their own, so that the
    flavors are the same in all phases of a seed.

    :returns: without end to fill a fleet, unless there is a trace
    """
    if play.trace is not None:
        for entry in play.trace:
            until = None
            if entry.lifetime is not None and not phase.fills:
                until = entry.at + entry.lifetime
            yield Arrival(entry.at, entry.flavor, until)
        return
    arrivals = play.arrivals
    flavors = random.Random(seed)
    lifetimes = random.Random(f'lifetimes {seed}')
    names = [flavor.name for flavor in play.flavors]
    shares = [flavor.share for flavor in play.flavors]
    interval_s = _HOUR_S / arrivals.per_hour
    number = 0
    while phase.fills or number < arrivals.count:
        at = number * interval_s
        until = None
        if not phase.fills and arrivals.mean_lifetime:
            lifetime = lifetimes.expovariate(1 / arrivals.mean_lifetime)
            until = at + lifetime * interval_s
        yield Arrival(at, flavors.choices(names, shares)[0], until)
        number += 1
