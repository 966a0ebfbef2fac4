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

"""Guest cells onto host cells one to one: bipartite matching.

Host cells are given as bits of an integer, by their position in the order of
preference. A matching is a list of one position for each guest cell, -1 for
none yet.

The algorithm is the search for augmenting paths (Kuhn 1955; see "Bipartite
matching" in any text on graphs): O(guests * edges), where Nova walks over up
to hosts! / (hosts - guests)! permutations.
"""

from __future__ import annotations

from collections.abc import Sequence


def bits(mask: int) -> list[int]:
    """List the positions of a mask in ascending order."""
    positions = []
    while mask:
        low = mask & -mask
        positions.append(low.bit_length() - 1)
        mask ^= low
    return positions


def match(fits: Sequence[int]) -> list[int]:
    """Give as many guest cells as possible a host cell of their own.

    :param fits: for each guest cell the mask of host cells that it fits on
    :returns: for each guest cell a position, or -1
    """
    matching = [-1] * len(fits)
    for guest in range(len(fits)):
        _augment(fits, matching, guest, 0)
    return matching


def reachable(fits: Sequence[int], matching: Sequence[int]) -> list[int]:
    """List the guest cells that compete with one that found no host cell.

    Together they fit on fewer host cells than they are (Hall 1935), so they
    are the reason why there is no complete matching.

    :param matching: a largest matching, from `match`
    :returns: guest cells, the one without a host cell first
    """
    found = [matching.index(-1)]
    for guest in found:
        for other, position in enumerate(matching):
            if (
                position >= 0
                and other not in found
                and fits[guest] >> position & 1
            ):
                found.append(other)
    return found


def uses_all(fits: Sequence[int], chosen: int) -> bool:
    """Check whether all chosen host cells can be used at the same time.

    :param chosen: the mask of at most as many host cells as guest cells
    """
    matching = match([mask & chosen for mask in fits])
    return len(matching) - matching.count(-1) == chosen.bit_count()


def first_assignment(fits: Sequence[int], chosen: int) -> list[int]:
    """Assign guest cells to chosen host cells, the first in order first.

    :param fits: for each guest cell the mask of host cells that it fits on
    :param chosen: the mask of as many host cells as there are guest cells,
        for which a complete matching exists
    :returns: for each guest cell its position: of all complete matchings the
        smallest in lexicographic order
    """
    masks = [mask & chosen for mask in fits]
    for guest in range(len(masks)):
        for position in bits(masks[guest]):
            fixed = list(masks)
            fixed[guest] = 1 << position
            for other in range(guest + 1, len(fixed)):
                fixed[other] &= ~fixed[guest]
            if -1 not in match(fixed):
                masks = fixed
                break
    return [mask.bit_length() - 1 for mask in masks]


def _augment(
    fits: Sequence[int], matching: list[int], guest: int, tried: int
) -> int:
    """Find a host cell for a guest cell, moving others if it must be.

    :param tried: the mask of host cells that were tried before
    :returns: -1 when found (``matching`` is then extended), else the mask of
        host cells that have been tried
    """
    for position in bits(fits[guest] & ~tried):
        if tried >> position & 1:
            continue
        tried |= 1 << position
        holder = matching.index(position) if position in matching else -1
        if holder >= 0:
            outcome = _augment(fits, matching, holder, tried)
            if outcome >= 0:
                tried = outcome
                continue
        matching[guest] = position
        return -1
    return tried
