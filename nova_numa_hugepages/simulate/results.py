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

"""The results of a simulation."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import enum
from typing import NamedTuple


class PlacementPolicy(enum.StrEnum):
    """The filter, fit and weighers that place the guests."""

    STOCK = 'stock'
    OURS = 'ours'


class Phase(enum.StrEnum):
    """The ways in which guests arrive.

    FILL: they stay, until one is refused. CHURN: they leave after their
    lifetimes, and refusals after the warm-up are counted. TRACE: they come
    and go as a file says, and all refusals are counted. LENDING: they stay,
    until one is refused, while hosts offer idle memory of elastic ones; then
    those live for a week.
    """

    FILL = 'fill'
    CHURN = 'churn'
    TRACE = 'trace'
    LENDING = 'lending'

    @property
    def fills(self) -> bool:
        """Whether guests stay, until one is refused."""
        return self in (Phase.FILL, Phase.LENDING)


class Week(NamedTuple):
    """What a week of elastic instances was like.

    :ivar instances: how many there were
    :ivar waits: how often one needed memory that others had
    :ivar median_wait_s: how long it waited, in seconds
    :ivar longest_wait_s: at most
    :ivar waiting_share: the share of the time of all instances, from 0 to 1
    :ivar most_lent_mib: what all together could have wanted at once and was
        not there, at most
    """

    instances: int
    waits: int
    median_wait_s: int
    longest_wait_s: int
    waiting_share: float
    most_lent_mib: int


class Sample(NamedTuple):
    """The fleet at one moment. Shares are from 0 to 1.

    :ivar arrivals: guests that have arrived
    :ivar guests: guests that are there
    :ivar cpus_used: share of the dedicated CPUs that are pinned
    :ivar pages_used: share of the memory in huge pages that guests have
    :ivar cpus_stranded: share of the dedicated CPUs that are free, but in the
        wrong place: if all that is free were in one place, an average guest of
        the mix could use them
    :ivar pages_stranded: the same of the memory in huge pages
    """

    arrivals: int
    guests: int
    cpus_used: float
    pages_used: float
    cpus_stranded: float
    pages_stranded: float


class Locality(NamedTuple):
    """How far the memory and the CPUs of instances lie apart.

    :ivar distance: between the cells of an instance with several, in the
        mean; None if there is none
    :ivar distance_p95: what 95 of 100 of these are not above
    :ivar over_sockets_share: how many have cells on several sockets, from 0
        to 1
    :ivar remote_share: how much memory is on another node than the CPU that
        uses it, from 0 to 1: that of instances that float, by expectation
    :ivar latency_ns: how long an access takes, from any vCPU to any memory of
        its instance; None if it isn't known what a distance takes
    """

    distance: float | None
    distance_p95: float | None
    over_sockets_share: float
    remote_share: float
    latency_ns: float | None


class Ready(NamedTuple):
    """What pages made ready ahead come to, against a fixed margin.

    :ivar hours: of how many hours these are
    :ivar starts: how many guests started on huge pages, by pool
    :ivar ready_share: how many of them found their pages, from 0 to 1
    :ivar idle_gib_hours: idle memory, summed over time, in GiB hours
    :ivar fixed_mib: the least margin of all pools with which as many do
    :ivar fixed_gib_hours: idle memory with that
    """

    hours: float
    starts: int
    ready_share: float
    idle_gib_hours: float
    fixed_mib: int
    fixed_gib_hours: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One policy over one sequence of arrivals.

    :ivar seed: the seed of the sequence; 0 for a trace
    :ivar arrivals: guests that arrived
    :ivar placed: guests placed before the first refusal; all if there was
        none
    :ivar bound: guests that any policy can place of this sequence before the
        first refusal, at most; None if it was not asked for, or in a phase
        with departures
    :ivar first_refused: the flavor that was refused first, None if there was
        no refusal
    :ivar counted: arrivals that count, by flavor: all, or those after the
        warm-up
    :ivar refused: refusals among them, by flavor; flavors without any may be
        missing
    :ivar seconds: how long it took
    :ivar samples: in order of arrivals, at least one
    :ivar lend_ratio: how much idle memory of elastic guests hosts offer
    :ivar week: the week after it, if they do
    :ivar locality: of the guests that count; None if none was placed
    :ivar ready: what pages made ready ahead would have come to, if asked for
    """

    policy: PlacementPolicy
    phase: Phase
    seed: int
    arrivals: int
    placed: int
    bound: int | None = None
    first_refused: str | None
    counted: Mapping[str, int]
    refused: Mapping[str, int]
    seconds: float
    samples: tuple[Sample, ...]
    lend_ratio: float = 1.0
    week: Week | None = None
    ready: Ready | None = None
    locality: Locality | None = None

    @property
    def refusal_share(self) -> float:
        """Refusals over the arrivals that count, 0 if none counts."""
        arrivals = sum(self.counted.values())
        return sum(self.refused.values()) / arrivals if arrivals else 0.0


@dataclasses.dataclass(frozen=True)
class Results:
    """All runs of a simulation.

    :ivar complete: False if it was interrupted before all runs were done
    """

    scenario: str
    runs: tuple[Run, ...]
    complete: bool = True

    def of(self, phase: Phase, policy: PlacementPolicy) -> list[Run]:
        """Return the runs of one policy in one phase."""
        return [
            run
            for run in self.runs
            if run.phase is phase and run.policy is policy
        ]
