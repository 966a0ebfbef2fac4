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


"""The short ways to count and to take, against the long ones."""

from __future__ import annotations

from typing import Any

import hypothesis
from hypothesis import strategies as st
import pytest

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.capacity import cell_room
from nova_numa_hugepages.core.capacity import consume
from nova_numa_hugepages.core.capacity import measure
from nova_numa_hugepages.core.capacity.cell_room import CellRoom
from nova_numa_hugepages.core.fit import fitter
from nova_numa_hugepages.core.model import PageRequest
from nova_numa_hugepages.core.model import ThreadPolicy
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import KIB_4
from tests.unit.core.builders import MIB_2
from tests.unit.core.builders import pinned_cell
from tests.unit.core.dice import Dice
from tests.unit.core.dice import examples
from tests.unit.core.dice import Focus
from tests.unit.core.host_strategies import draw_host

ISOLATE = ThreadPolicy.ISOLATE
REQUIRE = ThreadPolicy.REQUIRE
ANY = PageRequest.ANY


@st.composite
def host_cells(draw: Any) -> model.HostTopology:
    """Draw a host, without pages to be made."""
    host = draw_host(Dice(draw, Focus.ALL))
    return model.HostTopology(host.cells)


class TestTaking:
    """The short way to what is left of a room."""

    @examples(0.02)
    @hypothesis.given(
        host_cells(),
        st.integers(1, 3),
        st.integers(1, 4),
        st.sampled_from((KIB_4, 1024, 2048, 4096)),
        st.booleans(),
    )
    def test_it_computes_what_is_measured(
        self,
        host: model.HostTopology,
        vcpus: int,
        pages: int,
        size_kib: int,
        account: bool,
    ) -> None:
        # Given a guest of dedicated CPUs and pages of one size that fits
        memory_mib = pages * max(1, size_kib // 1024)
        guest = pinned_cell(vcpus, memory_mib, size_kib)
        asked = model.Request((guest,))
        strategy = model.Strategy(account_small_pages=account)
        plan = fitter.fit(
            asked, host, limits=model.Limits(), strategy=strategy
        )
        hypothesis.assume(isinstance(plan, model.Plan))
        assert isinstance(plan, model.Plan)
        need = cell_room.need(guest, 0)
        # And rooms in which nothing matters but CPUs and huge pages
        measurer = measure.CellMeasurer(
            (cell_room.need(pinned_cell(1, 2, MIB_2), 0),),
            account_small_pages=account,
        )
        assert measurer.short

        def look(cell: model.HostCell) -> CellRoom:
            return measurer.measure(cell, limits=model.Limits(), floats=True)

        # When it comes
        ((cell_id, after),) = consume.after_plan(asked, plan, host).items()
        (before,) = (cell for cell in host.cells if cell.id == cell_id)
        taken = cell_room.take(need, look(before))
        # Then what it leaves is computed without measuring, if at all
        hypothesis.event(f'computed: {taken is not None}')
        if taken is not None:
            assert taken == look(after)

    def test_an_example(self):
        free = CellRoom(8, ((KIB_4, 0), (MIB_2, 9)))

        assert cell_room.take(
            cell_room.need(pinned_cell(2, 8, MIB_2), 1), free
        ) == CellRoom(5, ((KIB_4, 0), (MIB_2, 5)))

    @pytest.mark.parametrize(
        ('guest', 'free'),
        [
            (
                floating_cell(2, 8, MIB_2),
                CellRoom(8, ((KIB_4, 9), (MIB_2, 9))),
            ),
            (pinned_cell(2, 8, KIB_4), CellRoom(8, ((KIB_4, 9), (MIB_2, 9)))),
            (
                pinned_cell(2, 8, MIB_2),
                CellRoom(8, ((KIB_4, 9), (MIB_2, 9)), overlaps=True),
            ),
        ],
    )
    def test_other_guests_and_rooms_have_to_be_measured(self, guest, free):
        assert cell_room.take(cell_room.need(guest, 0), free) is None

    @pytest.mark.parametrize(
        ('guest', 'short', 'cores_matter'),
        [
            (pinned_cell(1, 2, MIB_2), True, False),
            (pinned_cell(1, 2, KIB_4), False, False),
            (pinned_cell(1, 2), False, False),
            (pinned_cell(1, 2, ANY), False, False),
            (floating_cell(1, 2, MIB_2), False, False),
            (pinned_cell(1, 2, MIB_2, threads=ISOLATE), False, True),
            (pinned_cell(1, 2, MIB_2, threads=REQUIRE), False, True),
        ],
    )
    def test_it_depends_on_what_is_counted(self, guest, short, cores_matter):
        measurer = measure.CellMeasurer(
            (cell_room.need(guest, 0),), account_small_pages=True
        )

        assert (measurer.short, measurer.cores_matter) == (short, cores_matter)


class TestPlainNeeds:
    """Needs of dedicated CPUs and pages of a given size are counted fast."""

    @examples(0.02)
    @hypothesis.given(
        host_cells(),
        st.lists(
            st.tuples(
                st.integers(1, 4),
                st.integers(0, 1),
                st.integers(1, 5),
                st.sampled_from((KIB_4, 1024, 2048, 4096, 8192)),
            ),
            max_size=4,
        ),
        st.booleans(),
    )
    def test_they_are_counted_alike(
        self,
        host: model.HostTopology,
        asked: list[tuple[int, int, int, int]],
        account: bool,
    ) -> None:
        # Given needs that are plain
        needs = [
            cell_room.need(
                pinned_cell(vcpus, pages * max(1, size_kib // 1024), size_kib),
                emulator,
            )
            for vcpus, emulator, pages, size_kib in asked
        ]
        prepared = cell_room.plain_needs(needs)
        assert prepared is not None
        measurer = measure.CellMeasurer(
            tuple(needs), account_small_pages=account
        )
        # When they are counted on the cells of a host, fast and slowly
        for cell in host.cells:
            offers = measurer.measure(
                cell, limits=model.Limits(), floats=False
            )
            # Then the counts are the same
            assert cell_room.how_many_plain(prepared, offers) == tuple(
                cell_room.how_many(need, offers) for need in needs
            )

    @pytest.mark.parametrize(
        'other',
        [
            floating_cell(1, 2, MIB_2),
            pinned_cell(1, 2),
            pinned_cell(1, 3, MIB_2),
        ],
    )
    def test_if_one_is_not_plain_there_is_no_fast_way(self, other):
        needs = [
            cell_room.need(guest, 0)
            for guest in (pinned_cell(1, 2, MIB_2), other)
        ]

        assert cell_room.plain_needs(needs) is None
