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


"""Tests of the matching of guest cells and host cells.

Masks are written as binary numbers: the rightmost digit is position 0.
"""

import pytest

from nova_numa_hugepages.core.fit import matching


@pytest.mark.parametrize(
    ('mask', 'positions'),
    [(0, []), (0b1, [0]), (0b10110, [1, 2, 4]), (1 << 70, [70])],
)
def test_bits_lists_positions_in_ascending_order(mask, positions):
    assert matching.bits(mask) == positions


@pytest.mark.parametrize(
    ('fits', 'missing'),
    [
        pytest.param([], 0, id='no guest cell'),
        pytest.param([0b11, 0b11], 0, id='both fit on both'),
        pytest.param([0b11, 0b01], 0, id='the first one moves'),
        pytest.param([0b011, 0b101, 0b001], 0, id='a chain of two moves'),
        pytest.param([0b0, 0b1], 1, id='one fits nowhere'),
        pytest.param([0b1, 0b1], 1, id='two for one place'),
        pytest.param(
            [0b0011, 0b0011, 0b0011, 0b1111],
            1,
            id='three for two places, and one that fits everywhere',
        ),
    ],
)
def test_match_places_as_many_as_possible(fits, missing):
    found = matching.match(fits)

    placed = [position for position in found if position != -1]
    assert found.count(-1) == missing
    assert len(set(placed)) == len(placed)
    assert all(
        mask >> position & 1
        for mask, position in zip(fits, found, strict=True)
        if position != -1
    )


def test_match_leaves_its_argument():
    fits = [0b11, 0b01]

    matching.match(fits)

    assert fits == [0b11, 0b01]


def test_match_is_fast_where_permutations_explode():
    # 16 guest cells of which 9 share 8 places: 16! permutations.
    fits = [0xFF] * 9 + [0xFFFF] * 7

    assert matching.match(fits).count(-1) == 1


@pytest.mark.parametrize(
    ('fits', 'competing'),
    [
        pytest.param([0b0, 0b1], [0], id='fits nowhere, alone'),
        pytest.param([0b1, 0b1, 0b10], [0, 1], id='two for one place'),
        pytest.param(
            [0b011, 0b011, 0b011, 0b100],
            [0, 1, 2],
            id='three for two places, not the one beside them',
        ),
        pytest.param(
            [0b01, 0b11, 0b10],
            [0, 1, 2],
            id='through one that could move',
        ),
    ],
)
def test_reachable_lists_the_guest_cells_that_compete(fits, competing):
    found = matching.match(fits)

    listed = matching.reachable(fits, found)

    assert listed[0] == found.index(-1)
    assert sorted(listed) == competing


@pytest.mark.parametrize(
    ('fits', 'chosen', 'usable'),
    [
        ([0b11, 0b11], 0b11, True),
        ([0b11, 0b11], 0b10, True),
        ([0b01, 0b11], 0b11, True),
        ([0b01, 0b01], 0b11, False),
        ([0b01, 0b01], 0b10, False),
        ([0b01, 0b01], 0b00, True),
    ],
)
def test_uses_all_checks_whether_chosen_host_cells_can_be_used(
    fits, chosen, usable
):
    assert matching.uses_all(fits, chosen) is usable


@pytest.mark.parametrize(
    ('fits', 'chosen', 'assigned'),
    [
        pytest.param([0b111] * 3, 0b111, [0, 1, 2], id='all alike'),
        pytest.param([0b1111] * 2, 0b1010, [1, 3], id='only the chosen'),
        pytest.param(
            [0b11, 0b01], 0b11, [1, 0], id='the first gives its place up'
        ),
        pytest.param(
            [0b111, 0b011, 0b110],
            0b111,
            [0, 1, 2],
            id='the first complete matching in order',
        ),
        pytest.param(
            [0b110, 0b111, 0b011],
            0b111,
            [1, 2, 0],
            id='one of two complete matchings with the same first',
        ),
    ],
)
def test_first_assignment_is_the_first_in_lexicographic_order(
    fits, chosen, assigned
):
    assert matching.first_assignment(fits, chosen) == assigned
