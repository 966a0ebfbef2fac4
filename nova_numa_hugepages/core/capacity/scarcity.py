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

"""Scarcity: the cost of a plan to the fleet, given the demand.

Free CPUs and pages are worth what they can be used for. The slots of a kind
of guest are how many of them a host holds (``slots.py``). A plan takes slots
away, from the guests of its own kind and from others. What that costs is::

    sum over kinds of  slots that the plan takes * worth of a slot

    worth of a slot = pressure * pressure / highest pressure of all kinds
    pressure        = share of the demand / slots left in the fleet

The pressure of a kind is the inverse of how long its slots will last, so a
slot is worth most where it is asked for and scarce, and nothing where it is
not asked for or can no longer be used. Pressure enters twice: what runs out
first decides when the first guest is refused, and kinds that last long may
well give way to it. (With pressure once, fleets held about 2 % fewer guests;
see ``benchmarks``.)

The host on which a guest costs least is the best one for it.
"""

from __future__ import annotations

from collections.abc import Sequence


def worth(left: Sequence[int], shares: Sequence[float]) -> list[float]:
    """Return what a slot of each kind is worth.

    :param left: slots of each kind in the whole fleet
    :param shares: how much each kind is asked for; they sum up to 1
    :returns: so that all slots of a kind together are worth its share of the
        demand if it is under the highest pressure, and less if not
    """
    pressures = [
        share / count if count > 0 else 0.0
        for count, share in zip(left, shares, strict=True)
    ]
    highest = max(pressures, default=0.0)
    if not highest:
        return pressures
    return [pressure * (pressure / highest) for pressure in pressures]


def cost(
    before: Sequence[int], after: Sequence[int], worths: Sequence[float]
) -> float:
    """Return what a plan costs.

    :param before: slots of each kind on the host without the guest
    :param after: and with it
    :param worths: what a slot of each kind is worth, see `worth`
    :returns: from 0 to 1
    """
    total = 0.0
    for had, has, value in zip(before, after, worths, strict=True):
        # A host that reports more pages than memory may gain slots
        # (``memory.small_capacity_kib``); that makes no plan cheaper.
        if had > has:
            total += (had - has) * value
    return total
