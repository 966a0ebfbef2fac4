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


"""Short ways to write the runs of a simulation down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nova_numa_hugepages.simulate.results import Phase
from nova_numa_hugepages.simulate.results import PlacementPolicy
from nova_numa_hugepages.simulate.results import Results
from nova_numa_hugepages.simulate.results import Run
from nova_numa_hugepages.simulate.results import Sample

STOCK = PlacementPolicy.STOCK
OURS = PlacementPolicy.OURS
FILL = Phase.FILL
CHURN = Phase.CHURN
TRACE = Phase.TRACE


def sample(arrivals: int, used: float, stranded: float = 0.0) -> Sample:
    """Make a sample whose pages are half as used and stranded as the CPUs."""
    return Sample(
        arrivals=arrivals,
        guests=arrivals,
        cpus_used=used,
        pages_used=used / 2,
        cpus_stranded=stranded,
        pages_stranded=stranded / 2,
    )


def fill(
    policy: PlacementPolicy,
    placed: int,
    *,
    seed: int = 1,
    refused: str | None = 'large',
    **fields: Any,
) -> Run:
    """Make a run that fills the fleet; half of it is stranded at the end."""
    arrivals = placed + (refused is not None)
    defaults: dict[str, Any] = {
        'counted': {'large': arrivals},
        'refused': {refused: 1} if refused else {},
        'samples': (
            sample(arrivals // 2, 0.25),
            sample(arrivals, 0.5, 0.5),
        ),
        'seconds': 1.5,
    }
    return Run(
        policy=policy,
        phase=FILL,
        seed=seed,
        arrivals=arrivals,
        placed=placed,
        first_refused=refused,
        **(defaults | fields),
    )


def churn(
    policy: PlacementPolicy,
    refused: Mapping[str, int],
    *,
    seed: int = 1,
    phase: Phase = CHURN,
    **fields: Any,
) -> Run:
    """Make a run of 300 arrivals, of which 200 count, half of a flavor each.

    It refuses no guest during the warm-up.
    """
    defaults: dict[str, Any] = {
        'arrivals': 300,
        'placed': 120 if any(refused.values()) else 300,
        'first_refused': next(iter(refused), None),
        'counted': {'small': 100, 'large': 100},
        'samples': (
            sample(50, 0.1),
            sample(100, 0.2),
            sample(200, 0.6, 0.2),
            sample(300, 0.8, 0.1),
        ),
        'seconds': 2.5,
    }
    return Run(
        policy=policy,
        phase=phase,
        seed=seed,
        refused=refused,
        **(defaults | fields),
    )


def found(*runs: Run, complete: bool = True) -> Results:
    return Results('fleet.yaml', runs, complete)
