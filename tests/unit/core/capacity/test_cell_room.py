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


"""What a host cell offers, and how many guest cells it holds."""

from __future__ import annotations

from typing import Any

import pytest

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.capacity import cell_room
from nova_numa_hugepages.core.capacity.cell_room import CellNeed
from nova_numa_hugepages.core.capacity.cell_room import CellRoom
from nova_numa_hugepages.core.capacity.cell_room import Shared
from nova_numa_hugepages.core.capacity.measure import CellMeasurer
from nova_numa_hugepages.core.model import CPUPolicy
from nova_numa_hugepages.core.model import PagePool
from nova_numa_hugepages.core.model import PageRequest
from nova_numa_hugepages.core.model import ThreadPolicy
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import giant
from tests.unit.core.builders import GIB_1
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import KIB_4
from tests.unit.core.builders import MIB_2
from tests.unit.core.builders import mixed_cell
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import small

ISOLATE = ThreadPolicy.ISOLATE
REQUIRE = ThreadPolicy.REQUIRE
LARGE = PageRequest.LARGE
ANY = PageRequest.ANY
UNLIMITED = 1 << 40
MIB = 1024
GIB = 1024 * MIB


def measure(
    cell: model.HostCell,
    *guests: model.GuestCell,
    limits: model.Limits | None = None,
    floats: bool | None = None,
    account: bool = True,
    allocatable: dict[int, int] | None = None,
    emulator: int = 0,
) -> CellRoom:
    """Measure a host cell for some guest cells."""
    needs = tuple(cell_room.need(guest, emulator) for guest in guests)
    return CellMeasurer(needs, account_small_pages=account).measure(
        cell,
        limits=limits or model.Limits(),
        floats=bool(cell.shared_cpus) if floats is None else floats,
        allocatable=allocatable or {},
    )


def held(
    guest: model.GuestCell,
    cell: model.HostCell,
    *,
    emulator: int = 0,
    common: int | None = None,
    **others: Any,
) -> int:
    """Count the guest cells that a host cell holds."""
    return cell_room.how_many(
        cell_room.need(guest, emulator),
        measure(cell, guest, emulator=emulator, **others),
        common,
    )


class TestNeeds:
    def test_of_dedicated_cpus_and_huge_pages(self):
        assert cell_room.need(pinned_cell(4, 8, MIB_2), 1) == CellNeed(
            vcpus=4,
            cpus=5,
            shared=0,
            memory=8 * MIB,
            page_size=MIB_2,
            cpu_policy=CPUPolicy.DEDICATED,
            thread_policy=ThreadPolicy.PREFER,
            plain=True,
        )

    def test_of_both_kinds_of_cpus(self):
        assert cell_room.need(
            mixed_cell(1, 2, 8, threads=REQUIRE), 0
        ) == CellNeed(
            vcpus=2,
            cpus=2,
            shared=1,
            memory=8 * MIB,
            page_size=None,
            cpu_policy=CPUPolicy.MIXED,
            thread_policy=REQUIRE,
            plain=False,
        )

    @pytest.mark.parametrize(
        'guest',
        [
            floating_cell(2, 8, MIB_2),
            mixed_cell(1, 2, 8, MIB_2),
            pinned_cell(2, 8),
            pinned_cell(2, 8, ANY),
            pinned_cell(2, 8, PageRequest.SMALL),
            pinned_cell(2, 8, MIB_2, threads=ISOLATE),
            pinned_cell(2, 8, MIB_2, threads=REQUIRE),
        ],
    )
    def test_all_others_are_not_plain(self, guest):
        assert not cell_room.need(guest, 0).plain


class TestRooms:
    def test_only_what_is_needed_is_measured(self):
        cell = host_cell(
            cores=4,
            shared_cores=2,
            threads=2,
            pinned={0},
            pools=(small(64), huge(8, used=3, reserved=1), giant(0)),
        )

        assert measure(cell, pinned_cell(1, 2, MIB_2)) == CellRoom(
            cpus=7, pages=((KIB_4, 64 * 256), (MIB_2, 4), (GIB_1, 0))
        )

    def test_small_pages_are_those_in_no_pool(self):
        cell = host_cell(
            pools=(small(64, used_mib=8, reserved_mib=4), huge(8)),
            memory_mib=72,
        )

        assert measure(cell, pinned_cell(1)).pages[0] == (KIB_4, 44 * 256)

    def test_unless_they_are_not_accounted(self):
        cell = host_cell(pools=(small(72), huge(8)), memory_mib=72)

        assert measure(cell, pinned_cell(1), account=False).pages == (
            (KIB_4, 72 * 256),
            (MIB_2, 8),
        )

    def test_the_smallest_pages_of_a_cell_may_be_huge(self):
        # As the fit has it: its huge pages are what small pages are elsewhere.
        cell = host_cell(pools=(huge(8, used=2), giant(0)), memory_mib=16)

        assert measure(cell, floating_cell(1, 4, MIB_2)) == CellRoom(
            cpus=4,
            pages=((MIB_2, 6), (GIB_1, 0)),
            shared=Shared(0, 0, 16 * MIB, 16 * MIB, 12 * MIB, 12 * MIB),
        )

    def test_pages_that_overlap_share_the_memory_of_the_cell(self):
        cell = host_cell(
            pools=(small(16), huge(8, used=2), PagePool(4096, 4)),
            memory_mib=16,
        )

        assert measure(cell, pinned_cell(1, 2, MIB_2)) == CellRoom(
            cpus=4,
            pages=((KIB_4, 12 * 256), (MIB_2, 6), (4096, 3)),
            overlaps=True,
        )

    def test_pages_to_be_made_leave_small_pages_where_they_are(self):
        cell = host_cell(pools=(small(24), huge(8)), memory_mib=24)

        assert [
            measure(cell, pinned_cell(1), allocatable={MIB_2: missing}).pages[
                0
            ]
            for missing in (0, 3, 8)
        ] == [(KIB_4, 8 * 256), (KIB_4, 14 * 256), (KIB_4, 24 * 256)]

    def test_a_cell_that_names_no_pages_has_memory(self):
        cell = host_cell(memory_mib=16, memory_used_mib=5)

        assert measure(cell, pinned_cell(1)).pages == ((0, 11 * MIB),)

    def test_what_is_taken_twice_is_no_room_at_all(self):
        cell = host_cell(
            pinned=set(range(8)),
            pools=(small(8, used_mib=9), huge(4, used=3, reserved=2)),
            memory_mib=16,
            memory_used_mib=32,
            shared_cores=1,
            shared_used=4,
        )

        assert measure(cell, pinned_cell(1), floating_cell(1)) == CellRoom(
            cpus=0,
            pages=((KIB_4, 0), (MIB_2, 0)),
            shared=Shared(1, -3, 0, 8 * MIB, 0, 0),
        )

    def test_pages_of_no_size_are_no_pages(self):
        cell = host_cell(pools=(PagePool(0, 4), huge(4)), memory_mib=8)

        assert measure(cell, pinned_cell(1)).pages == ((0, 0), (MIB_2, 4))

    def test_floating_vcpus_and_their_memory_are_overcommitted(self):
        cell = host_cell(
            cores=0,
            shared_cores=4,
            pools=(small(16, used_mib=4), huge(4)),
            memory_mib=24,
            memory_used_mib=4,
            shared_used=3,
        )

        assert measure(
            cell, floating_cell(1), limits=model.Limits(2.0, 1.5)
        ) == CellRoom(
            cpus=0,
            pages=((KIB_4, 12 * 256), (MIB_2, 4)),
            shared=Shared(4, 5, 32 * MIB, 16 * MIB, 12 * MIB, 20 * MIB),
        )

    def test_cores_and_siblings(self):
        cell = host_cell(cores=4, shared_cores=1, threads=2, pinned={0, 2, 3})

        found = measure(
            cell,
            pinned_cell(1, threads=ISOLATE),
            pinned_cell(2, threads=REQUIRE),
        )

        assert (found.cores, found.siblings, found.shares_cores) == (
            (2, 2),
            (2, 2),
            True,
        )

    def test_cores_are_shared_only_where_vcpus_float(self):
        cell = host_cell(cores=4, threads=2)

        assert [
            measure(
                cell, pinned_cell(1, threads=ISOLATE), floats=floats
            ).shares_cores
            for floats in (False, True)
        ] == [False, True]


class TestCopies:
    """How many guest cells a host cell holds."""

    @pytest.mark.parametrize(
        ('guest', 'cell', 'found'),
        [
            (pinned_cell(2, 4, MIB_2), host_cell(pools=(huge(8),)), 2),
            (pinned_cell(1, 4, MIB_2), host_cell(pools=(huge(5),)), 2),
            (pinned_cell(1, 3, MIB_2), host_cell(pools=(huge(8),)), 0),
            (pinned_cell(1, 4, GIB_1), host_cell(pools=(huge(8),)), 0),
            (pinned_cell(1, 4), host_cell(memory_mib=10), 2),
            (pinned_cell(1, 4), host_cell(cores=1, memory_mib=10), 1),
            (pinned_cell(5, 4), host_cell(memory_mib=10), 0),
            (pinned_cell(1, 4, KIB_4), host_cell(memory_mib=10), 0),
            (
                pinned_cell(1, 4, PageRequest.SMALL),
                host_cell(pools=(small(10),)),
                2,
            ),
            (pinned_cell(1, 4, KIB_4), host_cell(pools=(small(10),)), 2),
            (
                pinned_cell(1, 4),
                host_cell(pools=(PagePool(0, 4), huge(4)), memory_mib=8),
                0,
            ),
            (floating_cell(1, 4), host_cell(), 0),
            (
                floating_cell(2, 4, MIB_2),
                host_cell(shared_cores=5, pools=(small(4), huge(8))),
                2,
            ),
            (
                mixed_cell(1, 2, 4, MIB_2),
                host_cell(shared_cores=5, pools=(small(4), huge(8))),
                2,
            ),
        ],
    )
    def test_examples(self, guest, cell, found):
        assert held(guest, cell) == found

    def test_the_emulator_takes_a_cpu_more(self):
        cell = host_cell(cores=8, pools=(huge(16),))

        assert held(pinned_cell(2, 4, MIB_2), cell) == 4
        assert held(pinned_cell(2, 4, MIB_2), cell, emulator=1) == 2

    @pytest.mark.parametrize(
        ('wish', 'common', 'found'),
        [
            (ANY, KIB_4, 3),
            (ANY, MIB_2, 2),
            (ANY, GIB_1, 0),
            (ANY, None, 0),
            (LARGE, KIB_4, 0),
            (LARGE, MIB_2, 2),
        ],
    )
    def test_a_size_stands_for_a_name(self, wish, common, found):
        cell = host_cell(pools=(small(12), huge(4)))

        assert held(pinned_cell(1, 4, wish), cell, common=common) == found

    def test_floating_guests_overcommit_cpus_and_memory(self):
        cell = host_cell(
            shared_cores=4, pools=(small(16), huge(4)), memory_mib=24
        )
        twice = model.Limits(2.0, 2.0)

        assert held(floating_cell(2, 4), cell) == 2
        assert held(floating_cell(2, 4), cell, limits=twice) == 4
        assert held(floating_cell(1, 8), cell, limits=twice) == 4
        # But none of them against itself.
        assert held(floating_cell(5, 4), cell, limits=twice) == 0
        assert held(floating_cell(1, 17), cell, limits=twice) == 0

    def test_floating_guests_overcommit_no_pages_that_they_ask_for(self):
        cell = host_cell(
            shared_cores=4, pools=(small(16), huge(4)), memory_mib=24
        )
        twice = model.Limits(2.0, 2.0)

        assert held(floating_cell(1, 4, KIB_4), cell, limits=twice) == 4
        assert held(floating_cell(1, 4, MIB_2), cell, limits=twice) == 2

    def test_floating_guests_overcommit_memory_without_pages(self):
        cell = host_cell(shared_cores=4, memory_mib=8, memory_used_mib=4)

        assert held(floating_cell(1, 8), cell, limits=model.Limits(4, 4)) == 3
        assert held(floating_cell(1, 9), cell, limits=model.Limits(4, 4)) == 0

    def test_isolated_vcpus_have_whole_cores(self):
        cell = host_cell(cores=4, threads=2, pinned={0}, pools=(huge(64),))
        guest = pinned_cell(1, 2, MIB_2, threads=ISOLATE)

        assert held(guest, cell) == 3
        assert held(guest, cell, emulator=1) == 1
        assert held(guest, cell, floats=True) == 0

    def test_isolated_vcpus_of_mixed_guests_may_have_neighbours(self):
        cell = host_cell(
            cores=4, shared_cores=2, threads=2, pools=(small(4), huge(64))
        )

        assert held(mixed_cell(1, 1, 2, MIB_2, threads=ISOLATE), cell) == 4

    def test_an_emulator_alone_may_be_isolated(self):
        cell = host_cell(
            cores=4, shared_cores=2, threads=2, pools=(small(4), huge(64))
        )
        alone = mixed_cell(1, 0, 2, MIB_2, threads=ISOLATE)

        assert held(alone, cell, emulator=1) == 4

    @pytest.mark.parametrize(
        ('vcpus', 'threads', 'pinned', 'found'),
        [
            (2, 2, (), 4),
            (3, 2, (), 2),
            (1, 2, (), 4),
            (2, 2, (0,), 3),
            (8, 2, (0,), 0),
            (1, 1, (), 0),
            (4, 4, (), 4),
            (3, 4, (), 5),
            (14, 4, (0, 4), 0),
            (12, 4, (0, 4), 1),
        ],
    )
    def test_siblings(self, vcpus, threads, pinned, found):
        cell = host_cell(
            cores=4, threads=threads, pinned=pinned, pools=(huge(64),)
        )

        guest = pinned_cell(vcpus, 2, MIB_2, threads=REQUIRE)
        assert held(guest, cell) == found
