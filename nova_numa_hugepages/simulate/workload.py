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

"""The runs of a simulation, and the guests that arrive in them."""

from __future__ import annotations

from collections.abc import Iterator
import enum
import random
from typing import NamedTuple

from nova_numa_hugepages.simulate import results
from nova_numa_hugepages.simulate import scenario

_HOUR_S = 3600.0


class Learning(enum.StrEnum):
    """The ways in which our weigher gets to know the demand.

    LEARNED: from the guests that arrive alone. FLAVORS: it knows the flavors,
    too, as in a cloud with an API database. PINNED: it is given the mix.
    """

    LEARNED = 'learned'
    FLAVORS = 'flavors'
    PINNED = 'pinned'


class Task(NamedTuple):
    """One run of a simulation."""

    play: scenario.Scenario
    policy: results.PlacementPolicy
    phase: results.Phase
    seed: int
    learning: Learning = Learning.FLAVORS


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
    play: scenario.Scenario, phase: results.Phase, seed: int
) -> Iterator[Arrival]:
    """Yield the guests of a scenario as they arrive.

    Flavors and lifetimes are drawn from generators of their own, so that the
    flavors are the same in all phases of a seed.

    :returns: without end to fill a fleet, unless there is a trace
    """
    if play.trace is not None:
        for entry in play.trace:
            until = None
            if entry.lifetime is not None and phase is not results.Phase.FILL:
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
    while phase is results.Phase.FILL or number < arrivals.count:
        at = number * interval_s
        until = None
        if phase is not results.Phase.FILL and arrivals.mean_lifetime:
            lifetime = lifetimes.expovariate(1 / arrivals.mean_lifetime)
            until = at + lifetime * interval_s
        yield Arrival(at, flavors.choices(names, shares)[0], until)
        number += 1
