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

"""Instances that stop release their pages, unless they come back."""

import threading

from nova_numa_hugepages import exception
from tests.unit.hugepages import managed
from tests.unit.hugepages.managed import ONE


def test_a_guest_that_is_gone_releases_its_pages(manager, rig):
    managed.start(manager, rig)
    rig.kernel.stop_guest(ONE)

    manager.gone(ONE)
    manager.gone(ONE)

    assert rig.held() == {}
    assert rig.persistent() == managed.NONE


def test_a_guest_that_is_restarted_keeps_its_pages(manager, rig):
    managed.start(manager, rig)

    with manager.restarting(ONE):
        rig.kernel.stop_guest(ONE)
        manager.gone(ONE)
        assert manager.reconcile(frozenset, frozenset) == []
        assert rig.persistent() == managed.ALL
        managed.start(manager, rig)

    assert rig.held() == {(ONE, 'guest'): managed.ALL}
    assert manager.busy() == frozenset()


def test_another_thread_may_delete_a_guest_that_is_restarted(manager, rig):
    managed.start(manager, rig)
    rig.kernel.stop_guest(ONE)

    with manager.restarting(ONE):
        thread = threading.Thread(target=manager.gone, args=(ONE,))
        thread.start()
        thread.join()

    assert rig.held() == {}


def test_a_guest_that_is_to_come_back_is_waited_for(rig, ticks):
    # Given: a guest that is rebuilt, which has as long as one to start
    manager = managed.restarted(rig, ticks, start_limit_s=600.0)
    managed.start(manager, rig)
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
    managed.start(manager, rig)
    rig.kernel.stop_guest(ONE)

    manager.stopped(ONE)

    assert manager.keeps_powered_off
    assert rig.held() == {(ONE, 'guest'): managed.ALL}


def test_a_guest_that_is_off_releases_its_pages_if_configured(rig, ticks):
    manager = managed.restarted(rig, ticks, keep_powered_off=False)
    managed.start(manager, rig)

    # An event of the past, or one that belongs to a restart, changes nothing.
    manager.stopped(ONE)
    rig.kernel.stop_guest(ONE)
    with manager.at_work(ONE):
        manager.stopped(ONE)
    assert rig.held() == {(ONE, 'guest'): managed.ALL}

    manager.stopped(ONE)
    assert rig.held() == {}
    assert rig.persistent() == managed.NONE


def test_a_ledger_that_fails_stops_no_deletion(manager, rig, caplog):
    managed.start(manager, rig)
    rig.kernel.stop_guest(ONE)

    rig.steps.errors['drop'] = exception.LedgerError(
        '/ledger', 'is full', 'Make room.'
    )
    manager.gone(ONE)
    (error,) = caplog.records
    assert error.instance_uuid == ONE
    assert error.getMessage() == (
        'Failed to release huge pages: the ledger of huge pages /ledger is '
        'full. Make room. Will retry in the next resource update.'
    )
    assert rig.held() == {(ONE, 'guest'): managed.ALL}

    # The next comparison makes up for it.
    rig.steps.revive()
    manager.reconcile(frozenset, frozenset)
    assert rig.held() == {}
