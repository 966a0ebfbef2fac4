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


"""What decides between hosts on which a guest costs the same."""

import hypothesis
from hypothesis import strategies as st
import pytest

from nova_numa_hugepages.core.capacity import tie_breaks
from tests.unit.core.builders import giant
from tests.unit.core.builders import GIB_1
from tests.unit.core.builders import host
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import MIB_2
from tests.unit.core.builders import small
from tests.unit.core.dice import examples
from tests.unit.core.dice import Focus
from tests.unit.core.host_strategies import hosts

TWO_GIB = 2 * GIB_1


def with_pages(number, huge_used=0, giant_used=0):
    return host_cell(
        number,
        pools=(small(64), huge(16, used=huge_used), giant(4, used=giant_used)),
    )


class TestPagesToBeMade:
    """On two cells, of which cell 0 has pages that don't exist yet."""

    MADE = ({MIB_2: 6, GIB_1: 3}, {})

    @pytest.mark.parametrize(
        ('before', 'after', 'found'),
        [
            (with_pages(0), with_pages(0, huge_used=10), 0),
            (with_pages(0), with_pages(0, huge_used=11), MIB_2),
            (with_pages(0), with_pages(0, giant_used=3), TWO_GIB),
            (with_pages(0, huge_used=9), with_pages(0, huge_used=12), 4096),
            (with_pages(0, huge_used=12), with_pages(0, huge_used=14), 4096),
            (with_pages(1), with_pages(1, huge_used=16), 0),
        ],
    )
    def test_of_one_cell(self, before, after, found):
        cells = [with_pages(0), with_pages(1)]
        cells[before.id] = before

        assert (
            tie_breaks.grow_kib(
                host(*cells, allocatable=self.MADE), {after.id: after}
            )
            == found
        )

    def test_of_several_cells(self):
        before = host(
            with_pages(0),
            with_pages(1),
            allocatable=({MIB_2: 16}, {GIB_1: 4}),
        )

        assert (
            tie_breaks.grow_kib(
                before,
                {
                    0: with_pages(0, huge_used=3),
                    1: with_pages(1, giant_used=2),
                },
            )
            == 3 * MIB_2 + 2 * GIB_1
        )

    def test_where_nothing_is_known_all_exist(self):
        assert (
            tie_breaks.grow_kib(
                host(with_pages(0)), {0: with_pages(0, huge_used=16)}
            )
            == 0
        )


class TestImbalance:
    CELLS = [
        host_cell(number, cores=8, pools=(small(64), huge(32)))
        for number in (0, 1)
    ]

    @pytest.mark.parametrize(
        ('taken', 'found'),
        [
            ({}, 0.0),
            ({0: (4, 64)}, 0.5 + 0.5),
            ({0: (4, 64), 1: (4, 64)}, 0.0),
            ({0: (8, 0), 1: (0, 128)}, 2.0),
            ({1: (2, 0)}, 0.25),
        ],
    )
    def test_it_is_the_gap_between_cells(self, taken, found):
        assert tie_breaks.imbalance(self.CELLS, taken) == found

    def test_what_is_in_use_counts(self):
        busy = host_cell(
            0,
            cores=8,
            pinned=range(4),
            pools=(small(128),),
            memory_used_mib=32,
        )

        assert tie_breaks.imbalance(
            [busy, self.CELLS[1]], {1: (4, 32)}
        ) == pytest.approx(0.0)

    def test_cells_without_cpus_or_memory_are_not_out_of_balance(self):
        no_cpus = host_cell(1, cores=0, pools=(small(128),))
        no_memory = host_cell(2, cores=8, memory_mib=0)

        assert (
            tie_breaks.imbalance([self.CELLS[0], no_cpus, no_memory], {}) == 0
        )

    def test_a_host_of_nothing_is_in_balance(self):
        assert tie_breaks.imbalance([], {}) == 0.0
        assert (
            tie_breaks.imbalance([host_cell(cores=0, memory_mib=0)], {}) == 0.0
        )

    @examples(0.02)
    @hypothesis.given(hosts(Focus.ALL), st.randoms(use_true_random=False))
    def test_the_order_of_cells_does_not_matter(self, drawn, random):
        cells = list(drawn.cells)
        before = tie_breaks.imbalance(cells, {cells[0].id: (1, 2)})
        random.shuffle(cells)

        assert (
            tie_breaks.imbalance(cells, {drawn.cells[0].id: (1, 2)}) == before
        )
        assert before >= 0.0
