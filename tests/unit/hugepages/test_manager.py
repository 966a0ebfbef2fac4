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

"""What the driver asks for, on a pretended kernel."""

from __future__ import annotations

import dataclasses
import logging
import threading

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import manager
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hugetlb
from tests.fixtures import kernel as fake_kernel
from tests.unit.hugepages import page_host

ONE = page_host.guest(1)
TWO = page_host.guest(2)
NEEDS = page_host.needs((0, 10), (1, 20))
ALL = {page_host.pool(0): 10, page_host.pool(1): 20}
NONE = dict.fromkeys(ALL, 0)

GUEST = model.Purpose.GUEST
INCOMING = model.Purpose.INCOMING
RESIZE = model.Purpose.RESIZE


class Time:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def rig(tmp_path):
    """Two nodes with empty pools."""
    node = fake_kernel.FakeNode(pools={2048: 0})
    return page_host.Rig(tmp_path, {0: node, 1: node})


@pytest.fixture
def ticks():
    return Time()


@pytest.fixture
def keeper(rig, ticks):
    return manager.HugePageManager(rig.pools, ticks=ticks)


def start(keeper, rig, needs=NEEDS, counts=ALL, comes_new=False):
    """Start a guest as the driver does."""
    with keeper.starting(
        ONE, needs, is_defined=lambda: False, comes_new=comes_new
    ):
        rig.kernel.start_guest(ONE, counts)
        keeper.started(ONE)


def releasing(rig, ticks):
    """Make a keeper where guests that are off give their pages back."""
    rig.policy = dataclasses.replace(rig.policy, keep_powered_off=False)
    rig.start()
    return manager.HugePageManager(rig.pools, ticks=ticks)


def test_a_guest_starts_on_pages_that_were_made_for_it(keeper, rig):
    start(keeper, rig)

    assert rig.persistent() == ALL
    assert {h.state for h in keeper.holds(ONE, GUEST)} == {model.State.TAKEN}
    assert rig.pools.ledger.placements(ONE) == ALL
    assert keeper.busy() == frozenset()


def test_nothing_stays_held_if_the_guest_cannot_be_defined(keeper, rig):
    with (
        pytest.raises(RuntimeError, match='libvirt'),
        keeper.starting(ONE, NEEDS, is_defined=lambda: False),
    ):
        raise RuntimeError('libvirt')

    assert rig.held() == {}
    assert rig.persistent() == NONE


def test_a_guest_that_is_defined_keeps_its_pages_if_it_does_not_start(
    keeper, rig
):
    with (
        pytest.raises(RuntimeError, match='libvirt'),
        keeper.starting(ONE, NEEDS, is_defined=lambda: True),
    ):
        raise RuntimeError('libvirt')

    assert rig.held() == {(ONE, 'guest'): ALL}


def test_a_guest_that_held_before_keeps_its_pages(keeper, rig):
    start(keeper, rig)
    rig.kernel.stop_guest(ONE)

    with (
        pytest.raises(RuntimeError, match='libvirt'),
        keeper.starting(ONE, NEEDS, is_defined=lambda: False),
    ):
        raise RuntimeError('libvirt')

    assert rig.held() == {(ONE, 'guest'): ALL}


def test_too_few_pages_stop_the_start_and_hold_nothing(keeper, rig):
    too_many = page_host.needs((0, 10), (1, 100000))

    with (
        pytest.raises(exception.NotEnoughPages, match='100000 pages'),
        keeper.starting(ONE, too_many, is_defined=lambda: False),
    ):
        pytest.fail('it was started')

    assert rig.held() == {}
    assert rig.persistent() == NONE


def test_pools_that_turn_out_read_only_are_offered_no_more(
    keeper, rig, monkeypatch, caplog
):
    assert offered(keeper)
    writer = hugetlb.RefusingWriter('the privileged helper cannot be started')
    monkeypatch.setattr(rig.pools.kernel, '_writer', writer)

    with (
        pytest.raises(exception.PoolsReadOnly),
        keeper.starting(ONE, NEEDS, is_defined=lambda: False),
    ):
        pytest.fail('it was started')

    assert rig.held() == {}
    assert not offered(keeper)
    assert [record.getMessage() for record in caplog.records] == [
        'The page pools of this host cannot be changed (the privileged helper '
        'cannot be started). What they have is held and checked; they neither '
        'grow nor shrink until the service is started again.'
    ]


def test_a_guest_that_was_to_come_finds_out_as_well(keeper, rig, monkeypatch):
    writer = hugetlb.RefusingWriter('the privileged helper cannot be started')
    monkeypatch.setattr(rig.pools.kernel, '_writer', writer)

    with pytest.raises(exception.PoolsReadOnly):
        keeper.incoming(ONE, NEEDS)

    assert rig.held() == {}
    assert not offered(keeper)


def offered(keeper):
    """Tell whether the scheduler is told of pages that could be made."""
    return any(view.allocatable for view in keeper.survey().pools.values())


def test_a_guest_on_the_wrong_node_is_told(keeper, rig, caplog):
    rig.kernel.operator_writes(page_host.pool(1), 30)

    start(keeper, rig, counts={page_host.pool(1): 30})

    (error,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert error.getMessage() == (
        f'Guest {ONE} does not have its memory where it should be: expected '
        '10 pages of 2048 KiB on node 0, 20 pages of 2048 KiB on node 1, '
        'found 30 pages of 2048 KiB on node 1.'
    )
    assert rig.pools.ledger.placements(ONE) == {page_host.pool(1): 30}
    assert {h.state for h in keeper.holds(ONE, GUEST)} == {model.State.HELD}


def test_a_process_that_is_not_found_is_told(keeper, rig, caplog):
    with keeper.starting(ONE, NEEDS, is_defined=lambda: True):
        keeper.started(ONE)

    assert 'was not checked' in caplog.text
    assert {h.state for h in keeper.holds(ONE, GUEST)} == {model.State.HELD}


def test_a_guest_without_huge_pages_is_not_looked_at(keeper, rig, caplog):
    with keeper.starting(ONE, [], is_defined=lambda: True):
        keeper.started(ONE)

    assert rig.held() == {}
    assert caplog.text == ''


def test_memory_that_cannot_be_looked_at_stops_nothing(keeper, rig, caplog):
    def forbidden(pid):
        raise exception.KernelError('/proc/1/numa_maps', 'EACCES', 'lines')

    rig.pools._promises._read_maps = forbidden

    with keeper.starting(ONE, NEEDS, is_defined=lambda: True):
        rig.kernel.start_guest(ONE, ALL)
        keeper.started(ONE)

    # It has taken what was held for it, as QEMU does before it runs,
    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert f'Where guest {ONE} has its huge pages' in warning.getMessage()
    assert '/proc/1/numa_maps' in warning.getMessage()
    assert rig.held() == {(ONE, 'guest'): ALL}
    assert {h.state for h in keeper.holds(ONE, GUEST)} == {model.State.TAKEN}


def test_a_start_that_cannot_be_looked_at_stops_no_other(keeper, rig):
    def forbidden(pid):
        raise exception.KernelError('/proc/1/numa_maps', 'EACCES', 'lines')

    rig.pools._promises._read_maps = forbidden
    # Given a guest that runs and whose start is not over,
    with keeper.starting(ONE, NEEDS, is_defined=lambda: True):
        rig.kernel.start_guest(ONE, ALL)

        # when another one starts,
        with keeper.starting(TWO, NEEDS, is_defined=lambda: True):
            pass

    # then both have their own.
    assert rig.held() == {(ONE, 'guest'): ALL, (TWO, 'guest'): ALL}


def test_what_a_guest_returns_stays_its_own(keeper, rig):
    # Given a guest that has given most of its pages back,
    start(keeper, rig)
    key = page_host.pool(1)
    rig.kernel.discard(ONE, key, 15)
    assert rig.kernel.pool(key).free == 15

    # when pools are put in order, and another guest starts,
    keeper.heal(lambda: frozenset({ONE}), frozenset)
    with keeper.starting(
        TWO, page_host.needs((1, 10)), is_defined=lambda: True
    ):
        rig.kernel.start_guest(TWO, {key: 10})
        keeper.started(TWO)

    # then there is still what the first one may want back.
    assert rig.kernel.pool(key).free == 15
    assert rig.pools.standings()[key].promised == 15
    assert rig.pools.standings()[key].available == 0


def test_a_guest_that_is_gone_gives_its_pages_back(keeper, rig):
    start(keeper, rig)
    rig.kernel.stop_guest(ONE)

    keeper.gone(ONE)
    keeper.gone(ONE)

    assert rig.held() == {}
    assert rig.persistent() == NONE


def test_a_guest_that_is_restarted_keeps_its_pages(keeper, rig):
    start(keeper, rig)

    with keeper.restarting(ONE):
        rig.kernel.stop_guest(ONE)
        keeper.gone(ONE)
        assert keeper.heal(frozenset, frozenset) == []
        assert rig.persistent() == ALL
        start(keeper, rig)

    assert rig.held() == {(ONE, 'guest'): ALL}
    assert keeper.busy() == frozenset()


def test_another_thread_may_delete_a_guest_that_is_restarted(keeper, rig):
    start(keeper, rig)
    rig.kernel.stop_guest(ONE)

    with keeper.restarting(ONE):
        thread = threading.Thread(target=keeper.gone, args=(ONE,))
        thread.start()
        thread.join()

    assert rig.held() == {}


def test_a_guest_that_is_to_come_back_is_waited_for(keeper, rig, ticks):
    # Given: a guest that is rebuilt, which has as long as one to start
    rig.pools.policy = dataclasses.replace(rig.policy, start_limit_s=600.0)
    start(keeper, rig)
    rig.kernel.stop_guest(ONE)
    keeper.expect(ONE)
    rig.now += 599
    ticks.now += 599

    # when it takes long, but not too long
    assert keeper.heal(frozenset, frozenset) == []

    # and then too long
    ticks.now += 2
    rig.now += 2
    keeper.heal(frozenset, frozenset)
    assert rig.held() == {}


def test_a_guest_that_is_off_keeps_its_pages(keeper, rig):
    start(keeper, rig)
    rig.kernel.stop_guest(ONE)

    keeper.stopped(ONE)

    assert keeper.keeps_powered_off
    assert rig.held() == {(ONE, 'guest'): ALL}


def test_a_guest_that_is_off_gives_its_pages_back_if_so_wanted(rig, ticks):
    keeper = releasing(rig, ticks)
    start(keeper, rig)

    # An event of the past, or one that belongs to a restart, changes nothing.
    keeper.stopped(ONE)
    rig.kernel.stop_guest(ONE)
    with keeper.at_work(ONE):
        keeper.stopped(ONE)
    assert rig.held() == {(ONE, 'guest'): ALL}

    keeper.stopped(ONE)
    assert rig.held() == {}
    assert rig.persistent() == NONE


def test_a_guest_that_arrives_has_what_was_held_for_it(keeper, rig):
    keeper.incoming(ONE, NEEDS)
    keeper.incoming(ONE, NEEDS)
    assert rig.held() == {(ONE, 'incoming'): ALL}

    rig.kernel.start_guest(ONE, ALL)
    keeper.arrived(ONE)
    keeper.started(ONE)

    assert rig.held() == {(ONE, 'guest'): ALL}
    assert rig.pools.ledger.placements(ONE) == ALL


def test_a_guest_that_does_not_arrive_gives_back(keeper, rig):
    keeper.incoming(ONE, NEEDS)

    keeper.gone(ONE)

    assert rig.held() == {}
    assert rig.persistent() == NONE


def test_a_resize_that_is_reverted(keeper, rig):
    start(keeper, rig)
    rig.kernel.stop_guest(ONE)

    keeper.resized(ONE)
    keeper.gone(ONE)
    assert rig.held() == {(ONE, 'resize'): ALL}

    keeper.reverted(ONE)
    assert rig.held() == {(ONE, 'guest'): ALL}


def test_a_resize_on_the_same_host_that_is_confirmed(keeper, rig):
    start(keeper, rig)
    rig.kernel.stop_guest(ONE)
    keeper.resized(ONE)
    smaller = page_host.needs((0, 5))
    start(keeper, rig, smaller, {page_host.pool(0): 5}, comes_new=True)

    keeper.release(ONE, RESIZE)

    assert rig.held() == {(ONE, 'guest'): {page_host.pool(0): 5}}
    assert rig.persistent() == {page_host.pool(0): 5, page_host.pool(1): 0}


def test_a_resize_that_failed_leaves_the_guest_its_pages(keeper, rig):
    # Given a guest that was about to go, and is started again instead.
    start(keeper, rig)
    rig.kernel.stop_guest(ONE)
    keeper.resized(ONE)
    start(keeper, rig)

    assert rig.held() == {(ONE, 'guest'): ALL}
    assert sum(rig.persistent().values()) == sum(ALL.values())


def test_a_migration_with_another_plan_gives_up_the_one_before(keeper, rig):
    keeper.incoming(ONE, page_host.needs((0, 5)))
    keeper.incoming(ONE, page_host.needs((1, 7)))

    assert rig.held() == {(ONE, 'incoming'): {page_host.pool(1): 7}}


def test_a_guest_that_nova_has_here_is_not_gone(keeper, rig):
    start(keeper, rig)
    rig.kernel.stop_guest(ONE)
    keeper.heal(frozenset, frozenset, lambda: frozenset({ONE}), starting=True)
    assert rig.held() == {(ONE, 'guest'): ALL}
    keeper.heal(frozenset, frozenset, frozenset, starting=True)
    assert rig.held() == {}


def test_migrations_are_asked_for_only_if_something_is_held_for_one(
    keeper, rig
):
    start(keeper, rig)

    def fail():
        pytest.fail('it was asked')

    keeper.heal(lambda: frozenset({ONE}), fail)
    keeper.incoming(page_host.guest(2), page_host.needs((0, 3)))
    rig.now += 1
    keeper.heal(lambda: frozenset({ONE}), frozenset)

    assert rig.held() == {(ONE, 'guest'): ALL}


def test_a_ledger_that_fails_stops_no_deletion(
    keeper, rig, monkeypatch, caplog
):
    start(keeper, rig)
    rig.kernel.stop_guest(ONE)

    def broken(*args):
        raise exception.LedgerError('/ledger', 'is full', 'Make room.')

    monkeypatch.setattr(rig.pools.ledger, 'drop', broken)
    keeper.gone(ONE)
    assert 'Make room.' in caplog.text
    assert rig.held() == {(ONE, 'guest'): ALL}

    # The next comparison makes up for it.
    monkeypatch.undo()
    keeper.heal(frozenset, frozenset)
    assert rig.held() == {}
