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


"""Tests of the texts of rejections."""

import pytest

from nova_numa_hugepages.core.rejection import Reason
from nova_numa_hugepages.core.rejection import Rejection
from nova_numa_hugepages.core.rejection import summarize
from tests.unit.core.builders import GIB_1
from tests.unit.core.builders import MIB_2


def no_pages(best, needed=512, size=MIB_2, **others):
    return Rejection(
        Reason.PAGES, needed=needed, best=best, page_size_kib=size, **others
    )


def no_cpus(best, needed=8):
    return Rejection(Reason.DEDICATED_CPUS, needed=needed, best=best)


TEXTS = {
    Reason.EXTRA_SPEC: 'a bad extra spec',
    Reason.NO_TOPOLOGY: 'no NUMA topology reported',
    Reason.TOO_FEW_CELLS: 'fewer than 8 NUMA nodes (most: 6)',
    Reason.PAGE_SIZE: 'no 2 MiB pages',
    Reason.WHOLE_PAGES: (
        'memory of 8 MiB is not a whole number of 2 MiB pages'
    ),
    Reason.PAGES: 'no NUMA node with 8 free 2 MiB pages (most: 6)',
    Reason.MEMORY: 'no NUMA node with 8 MiB of memory (most: 6 MiB)',
    Reason.DEDICATED_CPUS: 'no NUMA node with 8 free dedicated CPUs (most: 6)',
    Reason.SHARED_CPUS: 'no NUMA node with 8 shared CPUs (most: 6)',
    Reason.HYPERTHREADS: (
        'thread siblings and CPUs for shared instances, where the instance '
        'asks for isolated threads'
    ),
    Reason.THREADS: 'no NUMA node with 8 free thread siblings (most: 6)',
    Reason.CORES: 'no NUMA node with 8 whole free cores (most: 6)',
    Reason.CPU_RATIO: (
        'no NUMA node with 8 shared vCPUs left within the CPU allocation '
        'ratio (most: 6)'
    ),
    Reason.RAM_RATIO: (
        'no NUMA node with 8 MiB left within the RAM allocation ratio '
        '(most: 6 MiB)'
    ),
    Reason.SMALL_PAGES: (
        'no NUMA node with 8 MiB left outside of the huge page pools (most: '
        '6 MiB)'
    ),
    Reason.CELL_MEMORY: (
        'no NUMA node with 8 MiB left across page sizes (most: 6 MiB)'
    ),
    Reason.NETWORK: 'no fitting NUMA nodes near a bad extra spec',
    Reason.DEVICES: (
        'no fitting NUMA nodes with the PCI devices, by their NUMA affinity'
    ),
    Reason.DISTANCE: (
        'fitting NUMA nodes are farther apart than 8 (nearest: 6)'
    ),
    Reason.SMT: 'no thread siblings, which the instance requires',
    Reason.HOST_MEMORY: (
        'not 8 MiB left outside of the huge page pools of all NUMA nodes '
        '(most: 6 MiB)'
    ),
    Reason.CANDIDATES: 'no allocation candidate of Placement left',
    Reason.STOCK_CLAIM: 'the claim of the stock driver would refuse',
    Reason.STOCK_SEARCH: (
        'the claim of the stock driver finds no place among the first 8 '
        'arrangements'
    ),
}


def test_no_two_reasons_are_one():
    # The order of the values decides which of several misses is named.
    assert sorted(Reason.__members__) == sorted(
        reason.name for reason in TEXTS
    )
    assert len(set(Reason)) == len(Reason.__members__)


@pytest.mark.parametrize('reason', list(Reason))
def test_each_reason_has_its_words(reason):
    rejection = Rejection(
        reason,
        needed=8,
        best=6,
        page_size_kib=MIB_2,
        detail='a bad extra spec',
    )
    text = TEXTS[reason]

    assert str(rejection) == text
    assert summarize([rejection], at_most=1) == [f'1 host: {text}']


def test_the_guest_cell_that_finds_no_place_is_named():
    assert str(no_pages(1536, 2048, guest_cell=1)) == (
        'guest NUMA node 1: no NUMA node with 2048 free 2 MiB pages (most: '
        '1536)'
    )
    assert str(no_pages(0, 4, GIB_1, guest_cell=0)) == (
        'guest NUMA node 0: no NUMA node with 4 free 1 GiB pages (most: 0)'
    )


def test_without_a_known_size_pages_are_huge():
    assert str(Rejection(Reason.PAGE_SIZE)) == ('no huge pages')


def test_a_percent_sign_or_brace_in_a_name_is_left_alone():
    network = Rejection(Reason.NETWORK, detail='physical network {100%}')

    assert str(network) == (
        'no fitting NUMA nodes near physical network {100%}'
    )


class TestSummarize:
    """One line for many hosts."""

    def test_rejections_are_counted_with_the_nearest_miss_of_each(self):
        rejections = [
            *[no_pages(best) for best in range(430, 449)],
            *[no_cpus(best) for best in (0, 6, 4, 2) * 3],
        ]

        assert summarize(rejections, at_most=5) == [
            '19 hosts: no NUMA node with 512 free 2 MiB pages (most: 448)',
            '12 hosts: no NUMA node with 8 free dedicated CPUs (most: 6)',
        ]

    def test_the_order_of_the_hosts_makes_no_difference(self):
        rejections = [no_cpus(2), no_pages(7), no_cpus(1), no_pages(9)]
        expected = [
            '2 hosts: no NUMA node with 512 free 2 MiB pages (most: 9)',
            '2 hosts: no NUMA node with 8 free dedicated CPUs (most: 2)',
        ]

        assert summarize(rejections, at_most=5) == expected
        assert summarize(rejections[::-1], at_most=5) == expected

    def test_other_needs_and_sizes_are_counted_apart(self):
        rejections = [
            no_pages(1),
            no_pages(2, needed=1024),
            no_pages(3, size=GIB_1),
            no_pages(4),
        ]

        assert sorted(summarize(rejections, at_most=5)) == [
            '1 host: no NUMA node with 1024 free 2 MiB pages (most: 2)',
            '1 host: no NUMA node with 512 free 1 GiB pages (most: 3)',
            '2 hosts: no NUMA node with 512 free 2 MiB pages (most: 4)',
        ]

    def test_guest_cells_count_as_one(self):
        rejections = [no_pages(1, guest_cell=0), no_pages(2, guest_cell=1)]

        assert summarize(rejections, at_most=5) == [
            '2 hosts: no NUMA node with 512 free 2 MiB pages (most: 2)'
        ]

    def test_names_count_apart(self):
        rejections = [
            Rejection(Reason.NETWORK, detail='physical network red'),
            Rejection(Reason.NETWORK, detail='physical network blue'),
        ]

        assert summarize(rejections, at_most=5) == [
            '1 host: no fitting NUMA nodes near physical network blue',
            '1 host: no fitting NUMA nodes near physical network red',
        ]

    def test_of_distances_the_smaller_one_is_the_nearer_miss(self):
        rejections = [
            Rejection(Reason.DISTANCE, needed=20, best=best)
            for best in (32, 21, 31)
        ]

        assert summarize(rejections, at_most=5) == [
            '3 hosts: fitting NUMA nodes are farther apart than 20 (nearest: '
            '21)'
        ]

    def test_what_is_beyond_the_limit_is_counted_only(self):
        rejections = [
            no_pages(1),
            no_pages(1),
            no_pages(1),
            no_cpus(1),
            no_cpus(1),
            Rejection(Reason.SMT),
            Rejection(Reason.NO_TOPOLOGY),
        ]

        assert summarize(rejections, at_most=2) == [
            '3 hosts: no NUMA node with 512 free 2 MiB pages (most: 1)',
            '2 hosts: no NUMA node with 8 free dedicated CPUs (most: 1)',
            '2 hosts: other reasons',
        ]

    def test_nothing_is_said_of_no_rejection(self):
        assert summarize([], at_most=5) == []
