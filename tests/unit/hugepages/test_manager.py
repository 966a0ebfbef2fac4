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
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.manager import HugePageManager
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
def manager(rig, ticks):
    return HugePageManager(rig.pools, ticks=ticks)


def start(manager, rig, needs=NEEDS, counts=ALL, after_resize=False):
    """Start a guest as the driver does."""
    with manager.starting(
        ONE, needs, is_defined=lambda: False, after_resize=after_resize
    ):
        rig.kernel.start_guest(ONE, counts)
        manager.started(ONE)


def restarted(rig, ticks, **policy):
    """Start the service again with another policy."""
    rig.policy = dataclasses.replace(rig.policy, **policy)
    rig.start()
    return HugePageManager(rig.pools, ticks=ticks)


def test_a_guest_starts_on_pages_that_were_made_for_it(manager, rig):
    start(manager, rig)

    assert rig.persistent() == ALL
    assert {h.state for h in rig.pools.holds(ONE, GUEST)} == {
        model.State.TAKEN
    }
    assert rig.ledger.placements(ONE) == ALL
    assert manager.busy() == frozenset()


def test_nothing_stays_held_if_the_guest_cannot_be_defined(manager, rig):
    with (
        pytest.raises(RuntimeError, match='libvirt'),
        manager.starting(ONE, NEEDS, is_defined=lambda: False),
    ):
        raise RuntimeError('libvirt')

    assert rig.held() == {}
    assert rig.persistent() == NONE


def test_a_guest_that_is_defined_keeps_its_pages_if_it_does_not_start(
    manager, rig
):
    with (
        pytest.raises(RuntimeError, match='libvirt'),
        manager.starting(ONE, NEEDS, is_defined=lambda: True),
    ):
        raise RuntimeError('libvirt')

    assert rig.held() == {(ONE, 'guest'): ALL}


def test_a_guest_that_held_before_keeps_its_pages(manager, rig):
    start(manager, rig)
    rig.kernel.stop_guest(ONE)

    with (
        pytest.raises(RuntimeError, match='libvirt'),
        manager.starting(ONE, NEEDS, is_defined=lambda: False),
    ):
        raise RuntimeError('libvirt')

    assert rig.held() == {(ONE, 'guest'): ALL}


def test_too_few_pages_stop_the_start_and_hold_nothing(manager, rig):
    too_many = page_host.needs((0, 10), (1, 100000))

    with (
        pytest.raises(exception.NotEnoughPages, match='100000 pages'),
        manager.starting(ONE, too_many, is_defined=lambda: False),
    ):
        pytest.fail('it was started')

    assert rig.held() == {}
    assert rig.persistent() == NONE


def test_pools_that_turn_out_read_only_are_offered_no_more(
    manager, rig, caplog
):
    assert offered(manager)
    rig.kernel.hook = helper_dies

    with (
        pytest.raises(exception.PoolsReadOnly),
        manager.starting(ONE, NEEDS, is_defined=lambda: False),
    ):
        pytest.fail('it was started')

    assert rig.held() == {}
    assert not offered(manager)
    assert [record.getMessage() for record in caplog.records] == [
        'Huge page pools are read-only (the privileged helper cannot be '
        'started): reserving from existing pages only. Restart nova-compute '
        'once this is fixed.'
    ]


def test_a_guest_that_was_to_come_finds_out_as_well(manager, rig):
    rig.kernel.hook = helper_dies

    with pytest.raises(exception.PoolsReadOnly):
        manager.incoming(ONE, NEEDS)

    assert rig.held() == {}
    assert not offered(manager)


def helper_dies(event):
    """Let no pool be written, as a hook of the kernel."""
    if event.kind == 'write':
        raise exception.PoolsReadOnly(
            'the privileged helper cannot be started'
        )


def offered(manager):
    """Check whether the scheduler is offered pages to be allocated."""
    return any(view.allocatable for view in manager.snapshot().pools.values())


def test_a_guest_on_the_wrong_node_is_told(manager, rig, caplog):
    rig.kernel.operator_writes(page_host.pool(1), 30)

    start(manager, rig, counts={page_host.pool(1): 30})

    (error,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert error.instance_uuid == ONE
    assert error.getMessage() == (
        'Huge pages are not on the planned NUMA nodes: expected 10 pages of '
        '2 MiB on NUMA node 0, 20 pages of 2 MiB on NUMA node 1, found 30 '
        'pages of 2 MiB on NUMA node 1.'
    )
    assert rig.ledger.placements(ONE) == {page_host.pool(1): 30}
    assert {h.state for h in rig.pools.holds(ONE, GUEST)} == {model.State.HELD}


def test_a_process_that_is_not_found_is_told(manager, rig, caplog):
    with manager.starting(ONE, NEEDS, is_defined=lambda: True):
        manager.started(ONE)

    assert 'skipped the huge page placement check' in caplog.text
    assert {h.state for h in rig.pools.holds(ONE, GUEST)} == {model.State.HELD}


def test_a_guest_without_huge_pages_is_not_looked_at(manager, rig, caplog):
    with manager.starting(ONE, [], is_defined=lambda: True):
        manager.started(ONE)

    assert rig.held() == {}
    assert caplog.text == ''


def forbidden(pid):
    """Let no process be read."""
    raise exception.KernelError('/proc/1/numa_maps', 'EACCES', 'lines')


def test_memory_that_cannot_be_looked_at_stops_nothing(rig, caplog):
    rig.read_maps = forbidden
    rig.start()
    manager = HugePageManager(rig.pools)

    with manager.starting(ONE, NEEDS, is_defined=lambda: True):
        rig.kernel.start_guest(ONE, ALL)
        manager.started(ONE)

    # It has taken what was held for it, as QEMU does before it runs,
    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert warning.instance_uuid == ONE
    assert '/proc/1/numa_maps' in warning.getMessage()
    assert rig.held() == {(ONE, 'guest'): ALL}
    assert {h.state for h in rig.pools.holds(ONE, GUEST)} == {
        model.State.TAKEN
    }


def test_a_start_that_cannot_be_looked_at_stops_no_other(rig):
    rig.read_maps = forbidden
    rig.start()
    manager = HugePageManager(rig.pools)
    # Given a guest that runs and whose start is not over,
    with manager.starting(ONE, NEEDS, is_defined=lambda: True):
        rig.kernel.start_guest(ONE, ALL)

        # when another one starts,
        with manager.starting(TWO, NEEDS, is_defined=lambda: True):
            pass

    # then both have their own.
    assert rig.held() == {(ONE, 'guest'): ALL, (TWO, 'guest'): ALL}


def test_what_a_guest_returns_stays_its_own(manager, rig):
    # Given a guest that has given most of its pages back,
    start(manager, rig)
    key = page_host.pool(1)
    rig.kernel.discard(ONE, key, 15)
    assert rig.kernel.pool(key).free == 15

    # when pools are put in order, and another guest starts,
    manager.reconcile(lambda: frozenset({ONE}), frozenset)
    with manager.starting(
        TWO, page_host.needs((1, 10)), is_defined=lambda: True
    ):
        rig.kernel.start_guest(TWO, {key: 10})
        manager.started(TWO)

    # then there is still what the first one may want back.
    assert rig.kernel.pool(key).free == 15
    assert rig.pools.usage()[key].promised == 15
    assert rig.pools.usage()[key].available == 0


def test_a_guest_that_is_gone_gives_its_pages_back(manager, rig):
    start(manager, rig)
    rig.kernel.stop_guest(ONE)

    manager.gone(ONE)
    manager.gone(ONE)

    assert rig.held() == {}
    assert rig.persistent() == NONE


def test_a_guest_that_is_restarted_keeps_its_pages(manager, rig):
    start(manager, rig)

    with manager.restarting(ONE):
        rig.kernel.stop_guest(ONE)
        manager.gone(ONE)
        assert manager.reconcile(frozenset, frozenset) == []
        assert rig.persistent() == ALL
        start(manager, rig)

    assert rig.held() == {(ONE, 'guest'): ALL}
    assert manager.busy() == frozenset()


def test_another_thread_may_delete_a_guest_that_is_restarted(manager, rig):
    start(manager, rig)
    rig.kernel.stop_guest(ONE)

    with manager.restarting(ONE):
        thread = threading.Thread(target=manager.gone, args=(ONE,))
        thread.start()
        thread.join()

    assert rig.held() == {}


def test_a_guest_that_is_to_come_back_is_waited_for(rig, ticks):
    # Given: a guest that is rebuilt, which has as long as one to start
    manager = restarted(rig, ticks, start_limit_s=600.0)
    start(manager, rig)
    rig.kernel.stop_guest(ONE)
    manager.expect(ONE)
    rig.now += 599
    ticks.now += 599

    # when it takes long, but not too long
    assert manager.reconcile(frozenset, frozenset) == []

    # and then too long
    ticks.now += 2
    rig.now += 2
    manager.reconcile(frozenset, frozenset)
    assert rig.held() == {}


def test_a_guest_that_is_off_keeps_its_pages(manager, rig):
    start(manager, rig)
    rig.kernel.stop_guest(ONE)

    manager.stopped(ONE)

    assert manager.keeps_powered_off
    assert rig.held() == {(ONE, 'guest'): ALL}


def test_a_guest_that_is_off_gives_its_pages_back_if_so_wanted(rig, ticks):
    manager = restarted(rig, ticks, keep_powered_off=False)
    start(manager, rig)

    # An event of the past, or one that belongs to a restart, changes nothing.
    manager.stopped(ONE)
    rig.kernel.stop_guest(ONE)
    with manager.at_work(ONE):
        manager.stopped(ONE)
    assert rig.held() == {(ONE, 'guest'): ALL}

    manager.stopped(ONE)
    assert rig.held() == {}
    assert rig.persistent() == NONE


def test_a_guest_that_arrives_has_what_was_held_for_it(manager, rig):
    manager.incoming(ONE, NEEDS)
    manager.incoming(ONE, NEEDS)
    assert rig.held() == {(ONE, 'incoming'): ALL}

    rig.kernel.start_guest(ONE, ALL)
    manager.arrived(ONE)
    manager.started(ONE)

    assert rig.held() == {(ONE, 'guest'): ALL}
    assert rig.ledger.placements(ONE) == ALL


def test_a_guest_that_does_not_arrive_gives_back(manager, rig):
    manager.incoming(ONE, NEEDS)

    manager.gone(ONE)

    assert rig.held() == {}
    assert rig.persistent() == NONE


def test_a_resize_that_is_reverted(manager, rig):
    start(manager, rig)
    rig.kernel.stop_guest(ONE)

    manager.resized(ONE)
    manager.gone(ONE)
    assert rig.held() == {(ONE, 'resize'): ALL}

    manager.reverted(ONE)
    assert rig.held() == {(ONE, 'guest'): ALL}


def test_a_resize_on_the_same_host_that_is_confirmed(manager, rig):
    start(manager, rig)
    rig.kernel.stop_guest(ONE)
    manager.resized(ONE)
    smaller = page_host.needs((0, 5))
    start(manager, rig, smaller, {page_host.pool(0): 5}, after_resize=True)

    manager.release(ONE, RESIZE)

    assert rig.held() == {(ONE, 'guest'): {page_host.pool(0): 5}}
    assert rig.persistent() == {page_host.pool(0): 5, page_host.pool(1): 0}


def test_a_resize_that_failed_leaves_the_guest_its_pages(manager, rig):
    # Given a guest that was about to go, and is started again instead.
    start(manager, rig)
    rig.kernel.stop_guest(ONE)
    manager.resized(ONE)
    start(manager, rig)

    assert rig.held() == {(ONE, 'guest'): ALL}
    assert sum(rig.persistent().values()) == sum(ALL.values())


def test_a_migration_with_another_plan_gives_up_the_one_before(manager, rig):
    manager.incoming(ONE, page_host.needs((0, 5)))
    manager.incoming(ONE, page_host.needs((1, 7)))

    assert rig.held() == {(ONE, 'incoming'): {page_host.pool(1): 7}}


def test_a_guest_that_nova_has_here_is_not_gone(manager, rig):
    start(manager, rig)
    rig.kernel.stop_guest(ONE)
    manager.reconcile(
        frozenset, frozenset, lambda: frozenset({ONE}), starting=True
    )
    assert rig.held() == {(ONE, 'guest'): ALL}
    manager.reconcile(frozenset, frozenset, frozenset, starting=True)
    assert rig.held() == {}


def test_migrations_are_asked_for_only_if_something_is_held_for_one(
    manager, rig
):
    start(manager, rig)

    def fail():
        pytest.fail('it was asked')

    manager.reconcile(lambda: frozenset({ONE}), fail)
    manager.incoming(page_host.guest(2), page_host.needs((0, 3)))
    rig.now += 1
    manager.reconcile(lambda: frozenset({ONE}), frozenset)

    assert rig.held() == {(ONE, 'guest'): ALL}


def test_a_ledger_that_fails_stops_no_deletion(manager, rig, caplog):
    start(manager, rig)
    rig.kernel.stop_guest(ONE)

    rig.steps.errors['replace_holds'] = exception.LedgerError(
        '/ledger', 'is full', 'Make room.'
    )
    manager.gone(ONE)
    (error,) = caplog.records
    assert error.instance_uuid == ONE
    assert error.getMessage() == (
        'Failed to release huge pages: the ledger of huge pages /ledger is '
        'full. Make room. Will retry in the next resource update.'
    )
    assert rig.held() == {(ONE, 'guest'): ALL}

    # The next comparison makes up for it.
    rig.steps.revive()
    manager.reconcile(frozenset, frozenset)
    assert rig.held() == {}
