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
    and go as a file says, and all refusals are counted.
    """

    FILL = 'fill'
    CHURN = 'churn'
    TRACE = 'trace'


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
