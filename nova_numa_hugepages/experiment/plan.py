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

"""What is to be compared, and how exactly."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

from nova_numa_hugepages.core import units

# Of an arm, instead of a page size in KiB.
SMALL = 'small'
THP = 'thp'

IDLE = 'idle'


@dataclasses.dataclass(frozen=True)
class Arm:
    """What one side of the comparison has.

    :ivar name: in the report
    :ivar pages: `SMALL`, `THP`, or the size of its huge pages in KiB
    :ivar far: whether its memory is on the NUMA node that is farthest from its
        CPUs, not on theirs
    """

    name: str
    pages: str = SMALL
    far: bool = False

    @property
    def page_kib(self) -> int | None:
        """The size of its huge pages, None if it is given none."""
        return None if self.pages in (SMALL, THP) else int(self.pages)

    def describe(self) -> str:
        """Return it in words."""
        words = {SMALL: 'small pages', THP: 'transparent huge pages'}.get(
            self.pages, f'pages of {units.format_kib(self.page_kib or 0)}'
        )
        where = 'far from' if self.far else 'near'
        return f'{words}, {where} its CPUs'

    def differs_in(self, other: Arm) -> list[str]:
        """List in what it differs from another arm."""
        found = []
        if self.pages != other.pages:
            found.append('pages')
        if self.far != other.far:
            found.append('memory')
        return found


@dataclasses.dataclass(frozen=True)
class Plan:
    """An experiment.

    :ivar arms: the first one is control, with which the others are compared
    :ivar workloads: what runs, and its settings
    :ivar loads: what runs beside
    :ivar difference: the least difference that is to be found, for example
        0.03 for 3 %
    :ivar confidence: with which all intervals hold together
    :ivar pairs: how many of each arm with control; None to find out
    :ivar first_pairs: how many tell how many it takes; they count for nothing
        else
    :ivar most_pairs: the limit if it is to be found out
    :ivar seed: of what is drawn at random
    """

    arms: tuple[Arm, ...]
    workloads: Mapping[str, Mapping[str, Any]]
    loads: tuple[str, ...] = (IDLE,)
    difference: float = 0.03
    confidence: float = 0.99
    pairs: int | None = None
    first_pairs: int = 8
    most_pairs: int = 60
    seed: int = 1

    @property
    def control(self) -> Arm:
        """What the others are compared with."""
        return self.arms[0]

    @property
    def treatments(self) -> Sequence[Arm]:
        """The others."""
        return self.arms[1:]

    def as_json(self) -> dict[str, Any]:
        """Return it as a plan file has it, and as `from_json` reads it."""
        return dataclasses.asdict(self)


def from_json(found: Mapping[str, Any]) -> Plan:
    """Return the plan that `Plan.as_json` described."""
    return Plan(
        **{
            **found,
            'arms': tuple(Arm(**arm) for arm in found['arms']),
            'loads': tuple(found['loads']),
        }
    )
