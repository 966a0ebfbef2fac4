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


"""Tests of the replay of a stock claim: when it is needed, and one cell."""

import pytest

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.fit import stock_replay
from nova_numa_hugepages.core.fit.stock_replay import ClaimVerdict
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import GIB_1
from tests.unit.core.builders import host
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import KIB_4
from tests.unit.core.builders import MIB_2
from tests.unit.core.builders import mixed_cell
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import request
from tests.unit.core.builders import small
from tests.unit.core.fit.claims import claim
from tests.unit.core.fit.claims import legacy
from tests.unit.core.fit.claims import POOLS

ACCEPTS = ClaimVerdict.ACCEPTS
REFUSES = ClaimVerdict.REFUSES
ISOLATE = model.ThreadPolicy.ISOLATE
REQUIRE = model.ThreadPolicy.REQUIRE


class TestPlain:
    """Requests that stock Nova treats as ours does."""

    @pytest.mark.parametrize(
        'guest',
        [
            request(pinned_cell(2)),
            request(pinned_cell(2, 1024, MIB_2)),
            request(pinned_cell(2, threads=REQUIRE)),
            request(floating_cell(2)),
            request(floating_cell(2, 1024, GIB_1)),
            request(pinned_cell(2), pinned_cell(2, first=2)),
        ],
    )
    def test_alike_cells_with_nothing_special_are_plain(self, guest):
        assert stock_replay.plain(guest) is True

    @pytest.mark.parametrize(
        'guest',
        [
            request(pinned_cell(2), emulator_isolated=True),
            request(pinned_cell(2), physnets={'red'}),
            request(pinned_cell(2), tunneled=True),
            request(pinned_cell(2), asks_devices=True),
            request(pinned_cell(2, 1024, model.PageRequest.SMALL)),
            request(pinned_cell(2, 1024, model.PageRequest.LARGE)),
            request(pinned_cell(2, 1024, model.PageRequest.ANY)),
            request(pinned_cell(2, threads=ISOLATE)),
            request(mixed_cell(1, 1)),
            request(pinned_cell(2), pinned_cell(2, 2048, first=2)),
            request(pinned_cell(2), pinned_cell(1, first=2)),
            request(floating_cell(2), floating_cell(1, first=2)),
        ],
    )
    def test_all_else_has_to_be_replayed(self, guest):
        assert stock_replay.plain(guest) is False


class TestUsual:
    """Hosts that report all that stock Nova counts on."""

    @pytest.mark.parametrize(
        'cell',
        [
            pytest.param(host_cell(pools=POOLS), id='all there'),
            pytest.param(
                host_cell(cores=0, pools=POOLS), id='a node of memory only'
            ),
            pytest.param(
                host_cell(cores=0, shared_cores=2, pools=POOLS)._replace(
                    siblings=()
                ),
                id='siblings unknown of CPUs that no guest is pinned to',
            ),
        ],
    )
    def test_they_need_not_be_replayed(self, cell):
        assert stock_replay.usual(host(cell)) is True

    @pytest.mark.parametrize(
        'cell',
        [
            pytest.param(host_cell(), id='no page sizes'),
            pytest.param(
                host_cell(pools=POOLS)._replace(siblings=()),
                id='no siblings',
            ),
            pytest.param(
                host_cell(pools=POOLS)._replace(
                    siblings=(frozenset({0}), frozenset({1}))
                ),
                id='siblings of some CPUs only',
            ),
        ],
    )
    def test_others_have_to_be_replayed(self, cell):
        good = host_cell(1, pools=POOLS)

        assert stock_replay.usual(host(good, cell)) is False


class TestOneCell:
    """Guests of one cell."""

    @pytest.mark.parametrize(
        ('guest', 'verdict'),
        [
            (pinned_cell(4), ACCEPTS),
            (pinned_cell(5), REFUSES),
            (floating_cell(2), ACCEPTS),
            (floating_cell(3), REFUSES),
            (mixed_cell(2, 4), ACCEPTS),
            (mixed_cell(3, 1), REFUSES),
            (mixed_cell(1, 5), REFUSES),
            (mixed_cell(2, 0), ACCEPTS),
        ],
    )
    def test_cpus(self, guest, verdict):
        cell = host_cell(cores=4, shared_cores=2, pools=POOLS)

        assert claim(request(guest), cell) is verdict

    @pytest.mark.parametrize(
        ('wish', 'memory_mib', 'verdict'),
        [
            (None, 4096, ACCEPTS),
            (None, 4097, REFUSES),
            (KIB_4, 4096, ACCEPTS),
            (MIB_2, 4096, ACCEPTS),
            (MIB_2, 4098, REFUSES),
            (MIB_2, 1025, REFUSES),
            (GIB_1, 4096, ACCEPTS),
            (GIB_1, 5120, REFUSES),
            (65536, 1024, REFUSES),
            (model.PageRequest.SMALL, 4096, ACCEPTS),
            (model.PageRequest.SMALL, 4097, REFUSES),
            (model.PageRequest.LARGE, 4096, ACCEPTS),
            (model.PageRequest.LARGE, 1026, ACCEPTS),
            (model.PageRequest.LARGE, 1025, REFUSES),
            (model.PageRequest.ANY, 1025, ACCEPTS),
            (model.PageRequest.ANY, 5120, REFUSES),
        ],
    )
    def test_pages(self, wish, memory_mib, verdict):
        cell = host_cell(pools=POOLS)

        assert (
            claim(request(pinned_cell(1, memory_mib, wish)), cell) is verdict
        )

    def test_only_pinned_guests_need_free_small_pages(self):
        cell = host_cell(shared_cores=2, pools=(small(4096, used_mib=4000),))

        assert claim(request(floating_cell(1, 4096)), cell) is ACCEPTS
        assert claim(request(pinned_cell(1, 96)), cell) is ACCEPTS
        assert claim(request(pinned_cell(1, 97)), cell) is REFUSES

    @pytest.mark.parametrize(
        ('ratios', 'verdict'),
        [
            (model.Limits(1.0, 1.0), ACCEPTS),
            (model.Limits(0.75, 1.0), REFUSES),
            (model.Limits(1.0, 0.75), REFUSES),
            (None, ACCEPTS),
        ],
    )
    def test_ratios(self, ratios, verdict):
        cell = host_cell(
            shared_cores=4,
            shared_used=2,
            pools=(small(4096),),
            memory_used_mib=2048,
        )

        for guest in (floating_cell(2, 2048), mixed_cell(2, 1, 2048)):
            assert claim(request(guest), cell, limits=ratios) is verdict
        assert (
            claim(request(pinned_cell(2, 4096)), cell, limits=ratios)
            is ACCEPTS
        )

    @pytest.mark.parametrize(
        ('count', 'pinned', 'verdict'),
        [
            (4, (), ACCEPTS),
            (3, (), ACCEPTS),
            (2, {0}, ACCEPTS),
            (3, {0}, REFUSES),
            (1, {0, 2}, REFUSES),
        ],
    )
    def test_require(self, count, pinned, verdict):
        cell = host_cell(cores=2, threads=2, pinned=pinned, pools=POOLS)
        guest = request(pinned_cell(count, threads=REQUIRE))

        assert claim(guest, cell) is verdict

    def test_require_without_threads(self):
        guest = request(pinned_cell(1, threads=REQUIRE))

        assert claim(guest, host_cell(pools=POOLS)) is REFUSES

    @pytest.mark.parametrize(
        ('count', 'pinned', 'verdict'),
        [
            (2, (), ACCEPTS),
            (1, {0}, ACCEPTS),
            (2, {0}, REFUSES),
            (1, {0, 2}, REFUSES),
        ],
    )
    def test_isolate_where_cpus_are_pinned_and_floating(
        self, count, pinned, verdict
    ):
        cell = legacy(cores=2, threads=2, pinned=pinned)
        guest = request(pinned_cell(count, threads=ISOLATE))

        assert claim(guest, cell) is verdict

    def test_isolate_needs_such_a_host_if_there_are_threads(self):
        guest = request(pinned_cell(1, threads=ISOLATE))

        assert (
            claim(guest, host_cell(cores=2, threads=2, pools=POOLS)) is REFUSES
        )
        assert claim(guest, host_cell(cores=2, pools=POOLS)) is ACCEPTS

    def test_isolate_without_a_vcpu_to_pin_never_fits(self):
        # b16
        guest = request(mixed_cell(1, 0, threads=ISOLATE))

        assert claim(guest, legacy()) is REFUSES

    @pytest.mark.parametrize(
        ('guest', 'verdict'),
        [
            (pinned_cell(3), ACCEPTS),
            (pinned_cell(4), REFUSES),
            (mixed_cell(1, 1), ACCEPTS),
            # b16
            (mixed_cell(1, 0), REFUSES),
            (floating_cell(1), ACCEPTS),
        ],
    )
    def test_the_emulator_takes_a_cpu(self, guest, verdict):
        cell = host_cell(cores=4, shared_cores=2, pools=POOLS)

        assert claim(request(guest, emulator_isolated=True), cell) is verdict

    @pytest.mark.parametrize(
        ('pinned', 'verdict'),
        [
            pytest.param((), ACCEPTS, id='two whole cores are left'),
            pytest.param({4}, ACCEPTS, id='a half behind the whole one'),
            pytest.param({2}, REFUSES, id='b07: a half before the whole one'),
            pytest.param({2, 4}, REFUSES, id='b07: halves only'),
            pytest.param({2, 3, 4, 5}, REFUSES, id='nothing'),
        ],
    )
    def test_the_emulator_takes_the_next_core_under_isolate(
        self, pinned, verdict
    ):
        cell = legacy(cores=3, threads=2, pinned=pinned)
        guest = request(
            pinned_cell(1, threads=ISOLATE), emulator_isolated=True
        )

        assert claim(guest, cell) is verdict

    def test_a_host_without_known_siblings_is_refused(self):
        # Stock Nova fails with an exception there.
        unknown = host_cell(0, cores=8, pools=POOLS)._replace(siblings=())
        known = host_cell(1, pools=POOLS)

        assert claim(request(pinned_cell(1)), unknown) is REFUSES
        assert claim(request(pinned_cell(1)), unknown, known) is REFUSES
        assert claim(request(pinned_cell(9)), unknown, known) is REFUSES
        assert (
            claim(request(pinned_cell(1)), unknown, known, pack=True)
            is ACCEPTS
        )

    def test_cpus_without_known_siblings_are_no_use_to_it(self):
        cell = host_cell(cores=3, pools=POOLS)._replace(
            siblings=(frozenset({0}), frozenset({1}))
        )

        assert claim(request(pinned_cell(2)), cell) is ACCEPTS
        assert claim(request(pinned_cell(3)), cell) is REFUSES
        assert (
            claim(request(pinned_cell(2), emulator_isolated=True), cell)
            is REFUSES
        )

    @pytest.mark.parametrize(
        'wish', [None, model.PageRequest.SMALL, model.PageRequest.ANY]
    )
    def test_a_page_size_of_0_holds_nothing(self, wish):
        cell = host_cell(pools=(model.PagePool(0, 7),), memory_mib=4096)

        assert claim(request(pinned_cell(1, 1024, wish)), cell) is REFUSES

    def test_a_host_without_known_page_sizes_is_refused(self):
        # b11: the fit accepts, and the account fails.
        guest, pinned = request(floating_cell(1)), request(pinned_cell(1))

        assert claim(guest, host_cell(shared_cores=2)) is REFUSES
        assert claim(pinned, host_cell()) is REFUSES
        assert claim(request(pinned_cell(1, 20000)), host_cell()) is REFUSES
        assert (
            claim(
                request(pinned_cell(1, 1024, model.PageRequest.SMALL)),
                host_cell(),
            )
            is REFUSES
        )
