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


"""Tests of the order in which host cells are preferred."""

import pytest

from nova_numa_hugepages.core.fit import cell_order
from tests.unit.core.builders import Cards
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import mixed_cell
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import request

PINNED = request(pinned_cell(2))
FLOATING = request(floating_cell(2))
ASKS_DEVICES = request(pinned_cell(2), asks_devices=True)


def preferred(guest, cells, *, pack=False, devices=None):
    free = [len(cell.free_cpus) for cell in cells]
    return cell_order.preferred(guest, cells, free, pack=pack, devices=devices)


@pytest.mark.parametrize('guest', [PINNED, FLOATING])
@pytest.mark.parametrize('pack', [False, True])
def test_equal_cells_keep_the_order_of_the_host(guest, pack):
    cells = (host_cell(3), host_cell(1), host_cell(2))

    assert preferred(guest, cells, pack=pack) == [0, 1, 2]


@pytest.mark.parametrize('guest', [PINNED, FLOATING])
def test_free_memory_decides_between_cells_with_equal_cpus(guest):
    half_full = host_cell(0, memory_mib=8192, memory_used_mib=4096)
    nearly_full = host_cell(1, memory_mib=8192, memory_used_mib=8000)
    empty = host_cell(2, memory_mib=8192)
    cells = (half_full, nearly_full, empty)

    assert preferred(guest, cells) == [2, 0, 1]
    assert preferred(guest, cells, pack=True) == [1, 0, 2]


@pytest.mark.parametrize(
    'guest', [PINNED, request(mixed_cell(1, 1))], ids=['dedicated', 'mixed']
)
def test_free_dedicated_cpus_come_before_free_memory(guest):
    two_free = host_cell(0, cores=4, pinned={0, 1}, memory_mib=9999)
    four_free = host_cell(1, cores=4, memory_mib=1)
    one_free = host_cell(2, cores=1, memory_mib=5000)
    cells = (two_free, four_free, one_free)

    assert preferred(guest, cells) == [1, 0, 2]
    assert preferred(guest, cells, pack=True) == [2, 0, 1]


def test_pinned_cpus_that_are_not_dedicated_are_not_taken_off():
    pinned_elsewhere = host_cell(0, cores=3, pinned={50, 51})
    one_pinned = host_cell(1, cores=3, pinned={100})

    assert preferred(PINNED, (one_pinned, pinned_elsewhere)) == [1, 0]


def test_floating_vcpus_in_use_come_before_free_memory():
    busy = host_cell(0, shared_used=9, memory_mib=9999)
    idle = host_cell(1, shared_used=0, memory_mib=1)
    used = host_cell(2, shared_used=4, memory_mib=5000)
    cells = (busy, idle, used)

    assert preferred(FLOATING, cells) == [1, 2, 0]
    assert preferred(FLOATING, cells, pack=True) == [0, 2, 1]


@pytest.mark.parametrize('pack', [False, True])
def test_cells_with_devices_are_first_when_asked_for_and_else_last(pack):
    no_card = host_cell(0, cores=8)
    two_cards = host_cell(1, cores=4)
    one_card = host_cell(2, cores=2)
    cells = (no_card, two_cards, one_card)
    cards = Cards({1: 2, 2: 1})

    assert preferred(ASKS_DEVICES, cells, pack=pack, devices=cards) == [
        1,
        2,
        0,
    ]
    assert preferred(PINNED, cells, pack=pack, devices=cards) == [0, 2, 1]


@pytest.mark.parametrize('pack', [False, True])
def test_devices_asked_for_of_a_host_that_reports_none_don_t_count(pack):
    cells = (host_cell(0), host_cell(1), host_cell(2))

    assert preferred(ASKS_DEVICES, cells, pack=pack) == [0, 1, 2]


def test_a_guest_that_takes_all_cells_takes_them_in_the_host_s_order():
    guest = request(pinned_cell(1), pinned_cell(1))
    cells = (host_cell(0, cores=1), host_cell(1, cores=8))

    assert preferred(guest, cells) == [0, 1]
    assert preferred(guest, cells, pack=True) == [0, 1]


def test_the_policy_of_the_first_guest_cell_counts():
    guest = request(floating_cell(1), pinned_cell(1))
    cells = (
        host_cell(0, cores=8, shared_used=2),
        host_cell(1, cores=1),
        host_cell(2, cores=2, shared_used=1),
    )

    assert preferred(guest, cells) == [1, 2, 0]
