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


"""Tests of pinning vCPUs onto the threads and cores of a host cell."""

import dataclasses

import pytest

from nova_numa_hugepages.core.fit import pinning
from nova_numa_hugepages.core.model import ThreadPolicy
from tests.unit.core.builders import cpus
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import mixed_cell
from tests.unit.core.builders import pinned_cell

NO_EMULATOR = frozenset()

# Four cores of two threads: 0 1, 2 3, 4 5, 6 7.
TWO_THREADS = host_cell(0, cores=4, threads=2)
# As above; a thread of the first core and one of the second are in use.
TWO_HALF_USED = host_cell(0, cores=4, threads=2, pinned={0, 2})
FOUR_CORES = host_cell(0, cores=4, threads=1)
# CPUs 4 to 7 in no sibling set.
HALF_KNOWN = TWO_THREADS._replace(siblings=TWO_THREADS.siblings[:2])
UNKNOWN = TWO_THREADS._replace(siblings=())
# Three threads, of which Nova manages two on the last core.
UNEVEN = host_cell(0, cores=3, threads=3)._replace(
    siblings=(frozenset({0, 1, 2}), frozenset({3, 4, 5}), frozenset({6, 7})),
    dedicated_cpus=frozenset(range(8)),
)
MEMORY_ONLY = host_cell(0, cores=0)


def pin(cell, guest, *, emulator=0, pack=False):
    return pinning.pin(cell, guest, emulator=emulator, pack=pack)


def pairs(*host_cpus, first=0):
    return tuple(enumerate(host_cpus, first))


@pytest.mark.parametrize(
    ('cell', 'threads'),
    [
        (TWO_THREADS, 2),
        (FOUR_CORES, 1),
        (UNEVEN, 3),
        (UNKNOWN, 1),
        (FOUR_CORES._replace(siblings=(frozenset(),)), 1),
    ],
)
def test_threads_per_core_is_that_of_the_largest_core(cell, threads):
    assert pinning.threads_per_core(cell) == threads


@pytest.mark.parametrize(
    ('cell', 'cores'),
    [
        (TWO_THREADS, [(0, 1), (2, 3), (4, 5), (6, 7)]),
        (TWO_HALF_USED, [(1,), (3,), (4, 5), (6, 7)]),
        (HALF_KNOWN, [(0, 1), (2, 3), (4,), (5,), (6,), (7,)]),
        (MEMORY_ONLY, []),
        (host_cell(0, cores=1, shared_cores=1, threads=2), [(0, 1)]),
    ],
)
def test_free_cores_lists_the_free_dedicated_cpus_by_core(cell, cores):
    assert pinning.free_cores(cell) == cores


@pytest.mark.parametrize(
    ('cell', 'cores'),
    [
        (TWO_THREADS, [(0, 1), (2, 3), (4, 5), (6, 7)]),
        (TWO_HALF_USED, [(4, 5), (6, 7)]),
        (HALF_KNOWN, [(0, 1), (2, 3)]),
        (UNKNOWN, []),
        (
            TWO_THREADS._replace(
                dedicated_cpus=cpus((0, 2)), shared_cpus=cpus((3, 7))
            ),
            [(0, 1)],
        ),
        (FOUR_CORES._replace(siblings=(frozenset(), frozenset({1}))), [(1,)]),
    ],
)
def test_whole_cores_are_those_with_all_threads_dedicated_and_free(
    cell, cores
):
    assert pinning.whole_cores(cell) == cores


@pytest.mark.parametrize(
    ('cell', 'room'),
    [
        (TWO_THREADS, (4, 4)),
        (TWO_HALF_USED, (2, 2)),
        (UNEVEN, (2, 3)),
        (MEMORY_ONLY, (0, 0)),
    ],
)
def test_isolated_room_counts_cores_for_vcpus_and_for_the_emulator(cell, room):
    assert pinning.isolated_room(cell) == room


@pytest.mark.parametrize(
    ('cell', 'room'),
    [
        (TWO_THREADS, 8),
        (TWO_HALF_USED, 4),
        (FOUR_CORES, 0),
        (HALF_KNOWN, 4),
        # Two cores by three threads, or three cores by two.
        (UNEVEN, 6),
        (host_cell(0, cores=2, threads=2, pinned={0, 2}), 0),
        (host_cell(0, cores=2, threads=2, pinned={0, 1, 2, 3}), 0),
        (MEMORY_ONLY, 0),
    ],
)
def test_sibling_room_counts_vcpus_that_have_siblings(cell, room):
    assert pinning.sibling_room(cell) == room


class TestPrefer:
    """Siblings where they are free, else any CPUs."""

    def test_two_vcpus_are_siblings(self):
        assert pin(TWO_THREADS, pinned_cell(2)) == (pairs(0, 1), NO_EMULATOR)

    def test_three_vcpus_take_whole_cores(self):
        assert pin(TWO_THREADS, pinned_cell(3)) == (
            pairs(0, 1, 2),
            NO_EMULATOR,
        )

    def test_vcpus_are_pinned_in_the_order_of_their_numbers(self):
        assert pin(TWO_THREADS, pinned_cell(2, first=6)) == (
            pairs(0, 1, first=6),
            NO_EMULATOR,
        )

    def test_when_spreading_whole_cores_come_before_used_ones(self):
        assert pin(TWO_HALF_USED, pinned_cell(1)) == (pairs(4), NO_EMULATOR)
        assert pin(TWO_HALF_USED, pinned_cell(2)) == (pairs(4, 5), NO_EMULATOR)

    def test_when_packing_threads_of_used_cores_come_first(self):
        assert pin(TWO_HALF_USED, pinned_cell(1), pack=True) == (
            pairs(1),
            NO_EMULATOR,
        )
        assert pin(TWO_HALF_USED, pinned_cell(3), pack=True) == (
            pairs(1, 3, 4),
            NO_EMULATOR,
        )

    def test_when_packing_an_unused_host_cores_are_filled(self):
        assert pin(TWO_THREADS, pinned_cell(3), pack=True) == (
            pairs(0, 1, 2),
            NO_EMULATOR,
        )

    def test_single_threads_are_taken_when_there_are_not_enough_siblings(
        self,
    ):
        # Two whole cores and two halves: four cores with one thread each.
        assert pin(TWO_HALF_USED, pinned_cell(5)) == (
            pairs(1, 3, 4, 5, 6),
            NO_EMULATOR,
        )

    def test_all_free_cpus_can_be_taken(self):
        assert pin(TWO_HALF_USED, pinned_cell(6)) == (
            pairs(1, 3, 4, 5, 6, 7),
            NO_EMULATOR,
        )

    def test_one_more_than_all_free_cpus_don_t_fit(self):
        assert pin(TWO_HALF_USED, pinned_cell(7)) is None
        assert pin(TWO_HALF_USED, pinned_cell(7), pack=True) is None

    def test_cpus_without_known_siblings_are_cores_of_their_own(self):
        assert pin(UNKNOWN, pinned_cell(2)) == (pairs(0, 1), NO_EMULATOR)
        assert pin(HALF_KNOWN, pinned_cell(8)) == (
            pairs(0, 1, 2, 3, 4, 5, 6, 7),
            NO_EMULATOR,
        )

    @pytest.mark.parametrize('pack', [False, True])
    def test_the_emulator_gets_a_cpu_that_no_vcpu_has(self, pack):
        assert pin(TWO_THREADS, pinned_cell(3), emulator=1, pack=pack) == (
            pairs(0, 1, 2),
            frozenset({3}),
        )

    def test_without_a_cpu_left_for_the_emulator_it_doesn_t_fit(self):
        assert pin(FOUR_CORES, pinned_cell(4)) is not None
        assert pin(FOUR_CORES, pinned_cell(4), emulator=1) is None

    @pytest.mark.parametrize('pack', [False, True])
    def test_the_emulator_alone_gets_a_cpu(self, pack):
        guest = mixed_cell(2, 0)

        assert pin(FOUR_CORES, guest, emulator=1, pack=pack) == (
            (),
            frozenset({0}),
        )

    def test_only_the_dedicated_vcpus_of_a_mixed_guest_are_pinned(self):
        assert pin(FOUR_CORES, mixed_cell(2, 2)) == (
            ((2, 0), (3, 1)),
            NO_EMULATOR,
        )

    def test_nothing_fits_on_memory_only(self):
        assert pin(MEMORY_ONLY, pinned_cell(1)) is None


class TestRequire:
    """Siblings or nothing."""

    def guest(self, count):
        return pinned_cell(count, threads=ThreadPolicy.REQUIRE)

    @pytest.mark.parametrize('pack', [False, True])
    def test_vcpus_are_siblings(self, pack):
        assert pin(TWO_HALF_USED, self.guest(4), pack=pack) == (
            pairs(4, 5, 6, 7),
            NO_EMULATOR,
        )

    @pytest.mark.parametrize('pack', [False, True])
    def test_single_threads_are_never_taken(self, pack):
        assert pin(TWO_HALF_USED, self.guest(5), pack=pack) is None

    def test_an_odd_count_leaves_a_thread_alone(self):
        assert pin(TWO_THREADS, self.guest(3)) == (pairs(0, 1, 2), NO_EMULATOR)

    def test_fewer_threads_of_more_cores_are_tried(self):
        # Three threads of two cores are 6 CPUs, two of three cores as well.
        assert pin(UNEVEN, self.guest(6)) == (
            pairs(0, 1, 2, 3, 4, 5),
            NO_EMULATOR,
        )
        one_used = UNEVEN._replace(pinned_cpus=frozenset({0}))
        assert pin(one_used, self.guest(6)) == (
            pairs(1, 2, 3, 4, 6, 7),
            NO_EMULATOR,
        )

    @pytest.mark.parametrize('pack', [False, True])
    @pytest.mark.parametrize('cell', [FOUR_CORES, UNKNOWN])
    def test_a_host_without_threads_has_no_place(self, cell, pack):
        assert pin(cell, self.guest(1), pack=pack) is None

    def test_the_emulator_may_have_a_single_thread(self):
        assert pin(TWO_HALF_USED, self.guest(4), emulator=1) == (
            pairs(4, 5, 6, 7),
            frozenset({1}),
        )

    @pytest.mark.parametrize('cell', [FOUR_CORES, TWO_THREADS])
    def test_no_vcpu_to_pin_requires_no_siblings(self, cell):
        guest = mixed_cell(2, 0, threads=ThreadPolicy.REQUIRE)

        assert pin(cell, guest) == ((), NO_EMULATOR)


class TestIsolate:
    """A whole free core for each vCPU, and for the emulator."""

    def guest(self, count):
        return pinned_cell(count, threads=ThreadPolicy.ISOLATE)

    @pytest.mark.parametrize('pack', [False, True])
    def test_each_vcpu_gets_a_whole_free_core(self, pack):
        assert pin(TWO_HALF_USED, self.guest(2), pack=pack) == (
            pairs(4, 6),
            NO_EMULATOR,
        )

    def test_more_vcpus_than_whole_cores_don_t_fit(self):
        assert pin(TWO_HALF_USED, self.guest(3)) is None

    def test_on_a_host_without_threads_each_cpu_is_a_core(self):
        assert pin(FOUR_CORES, self.guest(4)) == (
            pairs(0, 1, 2, 3),
            NO_EMULATOR,
        )

    def test_the_emulator_gets_a_whole_free_core_as_well(self):
        assert pin(TWO_HALF_USED, self.guest(1), emulator=1) == (
            pairs(4),
            frozenset({6}),
        )
        assert pin(TWO_HALF_USED, self.guest(2), emulator=1) is None

    def test_the_emulator_may_have_a_core_with_fewer_threads(self):
        assert pin(UNEVEN, self.guest(2), emulator=1) == (
            pairs(0, 3),
            frozenset({6}),
        )
        assert pin(UNEVEN, self.guest(3)) is None

    def test_cpus_without_known_siblings_are_not_taken(self):
        assert pin(UNKNOWN, self.guest(1)) is None
        assert pin(HALF_KNOWN, self.guest(3)) is None


def test_pinning_changes_no_argument():
    cell = TWO_HALF_USED._replace(dedicated_cpus=set(range(8)))
    guest = pinned_cell(3)
    before = (repr(cell), dataclasses.replace(guest))

    pin(cell, guest, emulator=1)

    assert (repr(cell), guest) == before
