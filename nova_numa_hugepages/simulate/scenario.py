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

"""The scenario of a simulation: a fleet, flavors and arrivals."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses

from nova_numa_hugepages.yamlfile.formats import HostNode

MAX_ARRIVALS = 1_000_000


@dataclasses.dataclass(frozen=True)
class HostType:
    """Hosts of equal hardware.

    :ivar count: so many of them
    :ivar distances: rows of node distances, None if they report none
    :ivar runs_us: whether their computes run our fit
    :ivar cpu_ratio: vCPUs to a shared CPU
    :ivar ram_ratio: guest memory to memory
    """

    name: str
    count: int
    nodes: tuple[HostNode, ...]
    distances: tuple[tuple[int, ...], ...] | None = None
    runs_us: bool = True
    cpu_ratio: float = 1.0
    ram_ratio: float = 1.0


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
    """

    file: str
    hosts: tuple[HostType, ...]
    flavors: tuple[Flavor, ...]
    arrivals: Arrivals
    trace: tuple[TraceEntry, ...] | None = None
