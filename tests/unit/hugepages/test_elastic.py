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

"""Tests of when an elastic guest grows and shrinks, and by how much."""

import hypothesis
from hypothesis import strategies as st
import pytest

from nova_numa_hugepages.hugepages import elastic
from nova_numa_hugepages.hugepages.sample import MemoryInside
from tests.unit.core.dice import examples

MARKS = elastic.Marks(10, 25, shrink_delay_s=300.0, pause_s=30.0)
GIB = 512
NOW = 10_000.0


def cell(asked, *, number=0, base=2 * GIB, ceiling=8 * GIB, current=None):
    """An elastic cell on 2 MiB pages."""
    current = asked if current is None else current
    return elastic.Cell(number, base, asked, current, ceiling, 64, 2048)


def inside(available_mib, usable_mib, *, at=NOW, **counters):
    """What a kernel says."""
    values = dict.fromkeys(MemoryInside._fields)
    values |= {
        'available_kib': available_mib * 1024,
        'usable_kib': usable_mib * 1024,
        'updated': int(at),
        'age_s': 0.0,
        **counters,
    }
    return MemoryInside(**values)


def decide(cells, said, *, track=None, now=NOW):
    """Decide once."""
    return elastic.decide(cells, said, track or elastic.Track(), MARKS, now)


class TestGrows:
    def test_below_the_mark(self):
        decision = decide([cell(4 * GIB)], inside(4096, 300))

        # To 17.5 % usable, in blocks of 128 MiB.
        assert decision.pages == {0: 4 * GIB + 4 * 64}
        assert decision.why == {0: '7 % of its memory is usable'}

    def test_not_above_it(self):
        assert decide([cell(4 * GIB)], inside(4096, 500)) is None

    def test_by_a_quarter_of_its_ceiling_at_most(self):
        decision = decide([cell(2 * GIB)], inside(2048, 0))
        assert decision.pages == {0: 2 * GIB + 4 * 64}
        wide = cell(2 * GIB, ceiling=4 * GIB)
        assert decide([wide], inside(20480, 0)).pages == {0: 3 * GIB}

    def test_to_its_ceiling(self):
        assert decide([cell(8 * GIB - 64)], inside(8000, 0)).pages == {
            0: 8 * GIB
        }
        assert decide([cell(8 * GIB)], inside(8192, 0)) is None

    def test_cells_evenly(self):
        cells = [cell(2 * GIB), cell(3 * GIB, number=1)]
        decision = decide(cells, inside(5120, 300))
        assert decision.pages == {0: 2 * GIB + 6 * 64}

    def test_at_once_when_it_swaps(self):
        track = elastic.Track(changed=NOW - 5)
        cells = [cell(4 * GIB)]
        first = inside(4096, 900, at=NOW - 2, swap_in_kib=0, swap_out_kib=7)
        assert decide(cells, first, track=track, now=NOW - 2) is None

        swaps = inside(4096, 900, swap_in_kib=0, swap_out_kib=90)
        decision = decide(cells, swaps, track=track)

        assert decision.pages == {0: 4 * GIB + 64}
        assert decision.why == {0: 'it swapped 83 KiB'}

    def test_not_for_old_swap_that_comes_back_where_there_is_room(self):
        track = elastic.Track()
        cells = [cell(4 * GIB)]
        before = inside(4096, 3000, at=NOW - 2, swap_in_kib=0, swap_out_kib=0)
        decide(cells, before, track=track, now=NOW - 2)
        after = inside(4096, 3000, swap_in_kib=900, swap_out_kib=0)
        assert decide(cells, after, track=track) is None

    def test_if_it_could_not_give_back_what_it_was_asked_to(self):
        stuck = cell(3 * GIB, current=4 * GIB)
        decision = decide([stuck], inside(4096, 300))
        assert decision.pages == {0: 4 * GIB + 4 * 64}
        # And if it can't have more it keeps what it has.
        full = cell(7 * GIB, current=8 * GIB)
        assert decide([full], inside(8192, 10)).pages == {0: 8 * GIB}
        # It isn't asked for still less meanwhile.
        track = elastic.Track(roomy_since=NOW - 900)
        assert decide([stuck], inside(4096, 3000), track=track) is None

    def test_after_the_clock_was_set_back(self):
        track = elastic.Track(changed=NOW + 3600)
        later = inside(4096, 10, at=NOW + 1)
        decide([cell(4 * GIB)], inside(4096, 10), track=track)
        assert decide([cell(4 * GIB)], later, track=track, now=NOW + 31)

    def test_when_accesses_wait_for_a_disk(self):
        track = elastic.Track()
        cells = [cell(4 * GIB)]
        decide(
            cells,
            inside(4096, 900, at=NOW - 10, major_faults=5),
            track=track,
            now=NOW - 10,
        )
        decision = decide(
            cells, inside(4096, 900, major_faults=305), track=track
        )
        assert decision.why == {0: '30 accesses a second wait for a disk'}

    def test_not_for_programs_that_start_with_room(self):
        track = elastic.Track()
        cells = [cell(4 * GIB)]
        before = inside(4096, 3000, at=NOW - 10, major_faults=5)
        decide(cells, before, track=track, now=NOW - 10)
        after = inside(4096, 3000, major_faults=9000)
        assert decide(cells, after, track=track) is None

    def test_after_a_pause(self):
        track = elastic.Track(changed=NOW - 29)
        said = inside(4096, 100)
        assert decide([cell(4 * GIB)], said, track=track) is None
        track.changed = NOW - 30
        assert decide([cell(4 * GIB)], said, track=track)


class TestShrinks:
    def test_after_a_time_above_the_mark(self):
        track = elastic.Track()
        cells = [cell(6 * GIB)]
        for second in range(0, 300, 10):
            said = inside(6144, 4000, at=NOW + second)
            assert decide(cells, said, track=track, now=NOW + second) is None

        said = inside(6144, 4000, at=NOW + 300)
        decision = decide(cells, said, track=track, now=NOW + 300)

        # An eighth of its ceiling, less what is no whole block.
        assert decision.pages == {0: 6 * GIB - 7 * 64}
        assert (
            decision.why[0]
            == '65 % of its memory is usable, and was for 300 s'
        )

    def test_not_if_it_was_below_in_between(self):
        track = elastic.Track()
        cells = [cell(6 * GIB)]
        for second, usable in ((0, 4000), (200, 1200), (290, 4000)):
            said = inside(6144, usable, at=NOW + second)
            assert decide(cells, said, track=track, now=NOW + second) is None
        said = inside(6144, 4000, at=NOW + 310)
        assert decide(cells, said, track=track, now=NOW + 310) is None

    def test_never_below_its_base(self):
        track = elastic.Track(roomy_since=NOW - 300)
        said = inside(2200, 2000)
        assert decide([cell(2 * GIB)], said, track=track) is None
        one = [cell(2 * GIB + 64)]
        assert decide(one, said, track=track).pages == {0: 2 * GIB}

    def test_no_further_than_to_the_middle(self):
        track = elastic.Track(roomy_since=NOW - 300)
        # 1126 MiB usable of 4096: 17.5 % are reached by giving 496 MiB back.
        said = inside(4096, 1126)
        decision = decide([cell(4 * GIB)], said, track=track)
        assert decision.pages == {0: 4 * GIB - 3 * 64}


class TestCannotTell:
    @pytest.mark.parametrize(
        'said',
        [
            None,
            inside(0, 0),
            inside(4096, 10)._replace(usable_kib=None),
            inside(4096, 10)._replace(available_kib=None),
            inside(4096, 10)._replace(age_s=61.0),
        ],
    )
    def test_a_guest_that_says_nothing_stays(self, said):
        track = elastic.Track(roomy_since=NOW - 1000)
        assert decide([cell(4 * GIB)], said, track=track) is None
        assert track.roomy_since is None

    def test_one_that_is_on_its_way_stays(self):
        moving = cell(4 * GIB, current=3 * GIB)
        assert decide([moving], inside(3072, 10)) is None

    def test_what_it_said_before_the_change_says_nothing(self):
        track = elastic.Track(changed=NOW - 40)
        said = inside(4096, 10, at=NOW - 41)
        assert decide([cell(4 * GIB)], said, track=track) is None


class TestEachCellByItsOwn:
    CELLS = (cell(4 * GIB), cell(4 * GIB, number=1))

    def decide(self, first_mib, second_mib, track, now, **counters):
        return elastic.decide_each(
            self.CELLS,
            inside(8192, 2000, at=now, **counters),
            {
                number: elastic.CellMemory(4096 * 1024, mib * 1024)
                for number, mib in enumerate((first_mib, second_mib))
            },
            track,
            MARKS,
            now,
        )

    def test_the_full_one_grows_though_the_whole_has_enough(self):
        track = elastic.Track()
        assert decide(self.CELLS, inside(8192, 2000)) is None
        decision = self.decide(200, 1800, track, NOW)
        assert decision.pages.keys() == {0}
        assert decision.why == {0: '4 % of its memory is usable'}

    def test_the_idle_one_gives_back_while_the_other_grows(self):
        track = elastic.Track()
        self.decide(800, 3000, track, NOW)
        decision = self.decide(200, 3000, track, NOW + 300)
        assert decision.pages[0] > 4 * GIB > decision.pages[1]

    def test_each_pauses_for_itself(self):
        track = elastic.Track()
        track.change(0, NOW)
        assert self.decide(200, 1800, track, NOW + 10) is None
        assert self.decide(1800, 200, track, NOW + 10).pages.keys() == {1}

    def test_swapping_gives_to_the_one_that_is_not_roomy(self):
        track = elastic.Track()
        self.decide(600, 1800, track, NOW, swap_in_kib=0)
        decision = self.decide(600, 1800, track, NOW + 10, swap_in_kib=9)
        assert decision.pages.keys() == {0}

    def test_what_was_before_the_agent_spoke_is_forgotten(self):
        track = elastic.Track()
        whole = inside(8192, 5000, swap_in_kib=0)
        assert decide(self.CELLS, whole, track=track) is None
        self.decide(1000, 1000, track, NOW + 3600)
        later = inside(8192, 5000, at=NOW + 3610, swap_in_kib=900)
        # Neither is it roomy for an hour, nor has it swapped just now.
        assert decide(self.CELLS, later, track=track, now=NOW + 3610) is None

    def test_what_is_not_new_says_nothing_of_having_enough(self):
        track = elastic.Track()
        self.decide(800, 100, track, NOW)
        assert track.enough == {0}
        self.decide(800, 800, track, NOW)
        assert track.enough == set()
        assert decide(self.CELLS, inside(8192, 2000), track=track) is None
        assert track.enough == {0, 1}

    def test_without_what_the_whole_says_nothing_is_known(self):
        memory = {0: elastic.CellMemory(1, 0), 1: elastic.CellMemory(1, 0)}
        assert (
            elastic.decide_each(
                self.CELLS, None, memory, elastic.Track(), MARKS, NOW
            )
            is None
        )


@examples(1)
@hypothesis.given(
    used=st.integers(1000, 15000),
    bases=st.lists(st.integers(8, 40), min_size=1, max_size=4),
    more=st.integers(1, 60),
    start=st.integers(0, 60),
)
def test_it_comes_to_rest_between_the_marks(used, bases, more, start):
    """Steady use never makes it grow and shrink in turn."""
    cells = [
        elastic.Cell(
            number,
            base * 64,
            (base + min(start, more)) * 64,
            (base + min(start, more)) * 64,
            (base + more) * 64,
            64,
            2048,
        )
        for number, base in enumerate(bases)
    ]
    track = elastic.Track()
    changes = []
    for step in range(400):
        now = NOW + step * 60
        available = sum(one.current for one in cells) * 2
        said = inside(available, max(0, available - used), at=now)
        decision = elastic.decide(cells, said, track, MARKS, now)
        if decision is None:
            continue
        before = sum(one.asked for one in cells)
        cells = [
            one._replace(
                asked=decision.pages.get(one.number, one.asked),
                current=decision.pages.get(one.number, one.asked),
            )
            for one in cells
        ]
        changes.append(sum(one.asked for one in cells) - before)
        track.changed = now
        assert all(one.base <= one.asked <= one.ceiling for one in cells)
        assert step < 390
    # All of them in one direction.
    assert len({change > 0 for change in changes}) <= 1
