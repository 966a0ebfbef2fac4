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

"""Tests of pools that keep idle pages ready for starts."""

import pytest

from nova_numa_hugepages.hugepages import forecast
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import nodes
from tests.unit.hugepages import page_host

A = page_host.guest(1)
KEY = page_host.pool(0)
DAY_S = 24 * forecast.HOUR_S
# The beginning of a week.
WEEK_S = 2800 * forecast.WEEK_S


def come_and_go(rig, pages, *hours, begin_s=WEEK_S):
    """Have an instance start and end in each of some hours."""
    for hour in hours:
        rig.now = begin_s + hour * forecast.HOUR_S
        rig.pools.hold(A, page_host.needs((0, pages)))
        rig.run(A)
        rig.kernel.stop_guest(A)
        rig.pools.release(A)
        rig.reconcile()


@pytest.fixture
def rig(tmp_path):
    """A host that keeps nothing but by its forecast."""
    return page_host.make(tmp_path, ready_limit_percent=50)


def test_what_starts_each_morning_is_ready_then_and_only_then(rig):
    mornings = [day * 24 + 9 for day in range(14)]
    come_and_go(rig, 20, *mornings * 2)
    assert rig.total() == 20
    day = WEEK_S + 14 * DAY_S

    rig.now = day + 7 * forecast.HOUR_S
    rig.reconcile()
    assert rig.total() == 0

    rig.now = day + 9 * forecast.HOUR_S - 200
    rig.reconcile()
    assert rig.total() == 20
    assert rig.account(0) == (0, 20)
    # They are free for all that start.
    assert rig.pools.usage()[KEY].available == 20

    rig.pools.hold(A, page_host.needs((0, 20)))
    assert rig.ledger.holds(A)[0].grown == 0


def test_a_new_host_keeps_none(rig):
    come_and_go(rig, 20, *[1] * 30)

    rig.reconcile()

    assert rig.total() == 0


def test_it_can_be_switched_off(tmp_path):
    rig = page_host.make(tmp_path, ready_risk_percent=0.0)
    come_and_go(rig, 20, *range(60))

    assert rig.total() == 0
    assert rig.ledger.starts(0) == {}


def test_no_more_than_the_limit_is_kept(tmp_path):
    rig = page_host.make(tmp_path, ready_limit_percent=10)
    come_and_go(rig, 200, *range(60))

    # 102 MiB of the node's 1024.
    assert rig.total() == 51


def test_small_page_guests_come_first(rig):
    come_and_go(rig, 200, *range(60))
    # Needs are rounded up a little.
    assert rig.total() == 208

    # 64 MiB are to stay free, and 36 are.
    free_kib = nodes.memory(rig.kernel.fs)[0].free_kib
    rig.kernel.use_memory(0, free_kib - 36 * 1024)
    rig.now += 60
    rig.reconcile()

    assert rig.total() == 208 - 14
    rig.now += 60
    rig.reconcile()
    assert rig.total() == 208 - 14


def test_a_fixed_margin_is_not_allocated_in_advance(tmp_path):
    rig = page_host.make(tmp_path, warm_mib=40)
    rig.reconcile()
    assert rig.total() == 0

    come_and_go(rig, 30, 1)
    assert rig.total() == 20


def test_readers_learn_what_is_kept(rig):
    come_and_go(rig, 20, *range(60))

    assert rig.ledger.ready() == {KEY: 20}
    assert rig.pools.snapshot().pools[KEY].ready == 20


def test_a_guest_that_comes_again_is_no_start(rig):
    needs = page_host.needs((0, 10))
    rig.now = WEEK_S
    rig.pools.hold(A, needs)
    rig.pools.hold(A, needs)
    rig.pools.hold(A, needs, model.Purpose.RESIZE)

    [counts] = rig.ledger.starts(0).values()
    assert counts == {forecast.start(WEEK_S, 10): 1}


def test_starts_of_one_minute_need_pages_together(rig):
    rig.now = WEEK_S
    for number in range(3):
        rig.pools.hold(page_host.guest(number), page_host.needs((0, 10)))
    rig.pools.make_ready()
    rig.pools.hold(page_host.guest(9), page_host.needs((0, 10)))

    [counts] = rig.ledger.starts(0).values()
    assert sorted((one.need, count) for one, count in counts.items()) == [
        (10, 2),
        (20, 1),
        (30, 1),
    ]


def test_static_pools_keep_none_ready_and_add_up_no_starts(tmp_path):
    rig = page_host.make(
        tmp_path, page_host.grown(200), page_host.NODE, dynamic=False
    )
    come_and_go(rig, 20, *range(60))

    assert rig.ledger.ready() == {}
    needs = [one.need for one in rig.ledger.starts(0)[KEY]]
    assert max(needs) < 2 * 20 * 1.1


def test_where_pages_are_missing_starts_do_not_add_up(rig):
    rig.now = WEEK_S
    for number in range(3):
        rig.pools.hold(page_host.guest(number), page_host.needs((0, 10)))
        rig.pools.make_ready(is_short=True)

    [counts] = rig.ledger.starts(0).values()
    assert {one.need for one in counts} == {10}


def test_an_elastic_guest_counts_with_all_that_it_may_have(rig):
    rig.now = WEEK_S
    rig.pools.hold(A, [model.PageNeed(0, 0, 2048, 10, 10, 40)])

    [counts] = rig.ledger.starts(0).values()
    assert {one.need for one in counts} == {forecast.start(WEEK_S, 40).need}


def test_old_weeks_are_dropped(rig):
    come_and_go(rig, 10, 1)
    later = (forecast.WEEKS + 1) * forecast.WEEK_S
    come_and_go(rig, 10, 1, begin_s=WEEK_S + later)

    [counts] = rig.ledger.starts(0).values()
    assert len(counts) == 1
