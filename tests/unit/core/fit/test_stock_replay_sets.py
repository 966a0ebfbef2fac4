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


"""Tests of the replay of a stock claim: guests of several cells."""

import dataclasses

from nova_numa_hugepages.core.fit.stock_replay import ClaimVerdict
from nova_numa_hugepages.core.model import Limits
from nova_numa_hugepages.core.model import PageRequest
from tests.unit.core.builders import Cards
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import giant
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import mixed_cell
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import request
from tests.unit.core.builders import small
from tests.unit.core.fit.claims import claim
from tests.unit.core.fit.claims import POOLS

ACCEPTS = ClaimVerdict.ACCEPTS
REFUSES = ClaimVerdict.REFUSES


class TestManyCells:
    """What the caches and what sticks to the guest's cells lead to."""

    def test_alike_cells_are_placed(self):
        guest = request(pinned_cell(2), pinned_cell(2, first=2))
        cells = [host_cell(number, pools=POOLS) for number in range(3)]

        assert claim(guest, *cells) is ACCEPTS
        assert claim(guest, cells[0]) is REFUSES

    def test_a_cell_that_is_known_by_the_number_of_another(self):
        # b02: free CPUs 1, 2, 1; the guest cells need 1 and 2.
        guest = request(pinned_cell(1), pinned_cell(2, first=1))
        cells = [
            host_cell(0, cores=1, pools=POOLS),
            host_cell(1, cores=2, pools=POOLS),
            host_cell(2, cores=1, pools=POOLS),
        ]

        assert claim(guest, *cells) is REFUSES

    def test_a_cell_that_comes_back_unpinned(self):
        # b01: the second guest cell fits nowhere.
        guest = request(pinned_cell(1), pinned_cell(5, first=1))
        cells = [host_cell(number, pools=POOLS) for number in (0, 1)]

        assert claim(guest, *cells) is REFUSES

    def test_a_number_that_sticks_though_a_ratio_is_exceeded(self):
        # On cell 3 the second guest cell is pinned before its ratio is
        # checked. Known as number 3 from then on, it is tried again on cell 1.
        guest = request(
            mixed_cell(1, 0),
            dataclasses.replace(
                mixed_cell(1, 1),
                shared_vcpus=frozenset({1}),
                dedicated_vcpus=frozenset({2}),
            ),
        )
        cells = [
            host_cell(1, cores=2, shared_cores=2, pools=POOLS),
            host_cell(2, cores=0, shared_cores=2, pools=POOLS),
            host_cell(3, cores=1, shared_cores=1, shared_used=1, pools=POOLS),
        ]

        assert claim(guest, *cells, limits=Limits()) is ACCEPTS
        assert claim(guest, *cells[:2], limits=Limits()) is REFUSES

    def test_pins_of_another_cell_than_the_one_that_is_named(self):
        # b03: when cells 1 and 3 are tried together, both are known to fit
        # from other tries, and no guest is pinned again.
        guest = request(
            pinned_cell(1), pinned_cell(1, first=1), physnets={'red', 'blue'}
        )
        cells = [
            host_cell(0, cores=9, pools=POOLS),
            host_cell(1, cores=8, pools=POOLS, physnets={'red'}),
            host_cell(2, cores=7, pools=POOLS),
            host_cell(3, cores=6, pools=POOLS, physnets={'blue'}),
        ]

        assert claim(guest, *cells) is REFUSES

    def test_a_page_size_that_sticks(self):
        # b04: 2 MiB is taken on cell 0, and cell 1 has none.
        guest = request(
            pinned_cell(1, 1024, PageRequest.LARGE),
            pinned_cell(1, 1024, PageRequest.LARGE, first=1),
        )
        cells = [
            host_cell(0, pools=(small(64), huge(1024))),
            host_cell(1, pools=(small(64), giant(2))),
            host_cell(2, pools=(small(64), giant(2))),
        ]

        assert claim(guest, *cells) is ACCEPTS
        assert (
            claim(
                request(pinned_cell(2, 1024, PageRequest.LARGE)),
                cells[0]._replace(
                    dedicated_cpus=frozenset({0}),
                    memory_mib=9999,
                ),
                cells[1],
                pack=True,
            )
            is REFUSES
        )

    def test_the_search_ends_at_its_limit(self):
        guest = request(
            pinned_cell(2), pinned_cell(2, first=2), asks_devices=True
        )
        cells = [host_cell(number, pools=POOLS) for number in range(4)]
        never = Cards({}, needed=1)

        assert claim(guest, *cells, devices=never, at_most=11) is (
            ClaimVerdict.UNKNOWN
        )
        assert claim(guest, *cells, devices=never, at_most=12) is REFUSES


class TestTogether:
    """What concerns the chosen host cells together."""

    CELLS = tuple(
        host_cell(number, shared_cores=2, pools=POOLS) for number in range(3)
    )
    GUEST = request(floating_cell(1), asks_devices=True)

    def test_devices(self):
        cards = Cards({2: 1}, needed=1)

        assert claim(self.GUEST, *self.CELLS, devices=cards) is ACCEPTS
        assert (
            claim(
                self.GUEST,
                *self.CELLS,
                devices=dataclasses.replace(cards, needed=2),
            )
            is REFUSES
        )
        assert claim(self.GUEST, *self.CELLS) is ACCEPTS

    def test_networks(self):
        red = self.CELLS[1]._replace(physnets=frozenset({'red'}))
        tunnel = self.CELLS[2]._replace(tunneled=True)
        cells = (self.CELLS[0], red, tunnel)

        assert (
            claim(request(floating_cell(1), physnets={'red'}), *cells)
            is ACCEPTS
        )
        assert (
            claim(request(floating_cell(1), tunneled=True), *cells) is ACCEPTS
        )
        assert (
            claim(
                request(floating_cell(1), physnets={'red'}, tunneled=True),
                *cells,
            )
            is REFUSES
        )
        assert (
            claim(
                request(floating_cell(1), physnets={'blue'}, tunneled=True),
                *self.CELLS,
            )
            is ACCEPTS
        )
