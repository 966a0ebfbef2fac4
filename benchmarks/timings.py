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


"""The measured times of a scheduler. Doesn't load Nova."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Times:
    """Milliseconds of one side for a call, medians.

    :ivar wall_ms: from the call to its return
    :ivar cpu_ms: CPU time of the whole process
    :ivar choosing_ms: the part of the first that filters and weighers take,
        all that are enabled
    """

    wall_ms: float
    cpu_ms: float
    choosing_ms: float


@dataclasses.dataclass(frozen=True)
class Result:
    """A guest on both sides.

    :ivar hosts: hosts that there are
    :ivar candidates: those that Placement names
    :ivar passed: those of them that pass the filters of stock Nova
    :ivar same: whether ours pass the same ones
    """

    guest_cells: int
    stock: Times
    ours: Times
    hosts: int
    candidates: int
    passed: int
    same: bool

    @property
    def ratio(self) -> float:
        return self.stock.wall_ms / self.ours.wall_ms
