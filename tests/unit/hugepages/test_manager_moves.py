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

"""Instances that are resized or migrated keep their pages."""

import logging

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from tests.unit.hugepages import managed
from tests.unit.hugepages import page_host
from tests.unit.hugepages.managed import ONE

RESIZE = model.Purpose.RESIZE


def test_a_guest_that_arrives_has_what_was_held_for_it(manager, rig):
    manager.incoming(ONE, managed.NEEDS)
    manager.incoming(ONE, managed.NEEDS)
    assert rig.held() == {(ONE, 'incoming'): managed.ALL}

    rig.kernel.start_guest(ONE, managed.ALL)
    manager.arrived(ONE)
    manager.started(ONE)

    assert rig.held() == {(ONE, 'guest'): managed.ALL}
    assert rig.ledger.placements(ONE) == managed.ALL


def test_a_guest_that_does_not_arrive_releases_its_pages(manager, rig):
    manager.incoming(ONE, managed.NEEDS)

    manager.gone(ONE)

    assert rig.held() == {}
    assert rig.persistent() == managed.NONE


def test_a_resize_that_is_reverted(manager, rig):
    managed.start(manager, rig)
    rig.kernel.stop_guest(ONE)

    manager.resized(ONE)
    manager.gone(ONE)
    assert rig.held() == {(ONE, 'resize'): managed.ALL}

    manager.reverted(ONE)
    assert rig.held() == {(ONE, 'guest'): managed.ALL}


def test_a_resize_on_the_same_host_that_is_confirmed(manager, rig):
    managed.start(manager, rig)
    rig.kernel.stop_guest(ONE)
    manager.resized(ONE)
    smaller = page_host.needs((0, 5))
    managed.start(
        manager, rig, smaller, {page_host.pool(0): 5}, after_resize=True
    )

    manager.release(ONE, RESIZE)

    assert rig.held() == {(ONE, 'guest'): {page_host.pool(0): 5}}
    assert rig.persistent() == {page_host.pool(0): 5, page_host.pool(1): 0}


def test_a_resize_that_failed_leaves_the_guest_its_pages(manager, rig):
    # Given a guest that was about to go, and is started again instead.
    managed.start(manager, rig)
    rig.kernel.stop_guest(ONE)
    manager.resized(ONE)
    managed.start(manager, rig)

    assert rig.held() == {(ONE, 'guest'): managed.ALL}
    assert sum(rig.persistent().values()) == sum(managed.ALL.values())


def test_a_purpose_that_cannot_be_changed_is_logged(manager, rig, caplog):
    managed.start(manager, rig)
    rig.steps.errors['move'] = exception.LedgerError(
        '/ledger', 'is full', 'Make room.'
    )

    manager.resized(ONE)

    (error,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert error.instance_uuid == ONE
    assert error.getMessage() == (
        'Failed to change the purpose of reserved huge pages: the ledger of '
        'huge pages /ledger is full. Make room. They are still reserved for '
        'guest. Will retry in the next resource update.'
    )
    assert rig.held() == {(ONE, 'guest'): managed.ALL}


def test_a_purpose_that_was_not_changed_is_changed_before_a_start(
    manager, rig
):
    # Given a resize on the same host, whose hold for the revert is not
    # recorded while the ledger can't be written.
    managed.start(manager, rig)
    rig.steps.errors['move'] = exception.LedgerError('/ledger', 'is full', '')
    manager.resized(ONE)
    rig.kernel.stop_guest(ONE)
    smaller = page_host.needs((0, 5))

    # When the guest starts with its new size, it doesn't while that lasts,
    with pytest.raises(exception.LedgerError):
        managed.start(manager, rig, smaller, after_resize=True)
    assert rig.held() == {(ONE, 'guest'): managed.ALL}
    # and then leaves what is kept for a revert.
    rig.steps.errors.clear()
    managed.start(
        manager, rig, smaller, {page_host.pool(0): 5}, after_resize=True
    )
    assert rig.held() == {
        (ONE, 'guest'): {page_host.pool(0): 5},
        (ONE, 'resize'): managed.ALL,
    }


def test_a_purpose_that_was_not_changed_is_changed_by_the_next_update(
    manager, rig
):
    managed.start(manager, rig)
    rig.steps.errors['move'] = exception.LedgerError('/ledger', 'is full', '')
    manager.resized(ONE)
    rig.steps.errors.clear()

    manager.reconcile(lambda: frozenset(), lambda: frozenset({ONE}))

    assert rig.held() == {(ONE, 'resize'): managed.ALL}


def test_a_guest_that_goes_leaves_no_change_of_purpose_behind(manager, rig):
    managed.start(manager, rig)
    rig.steps.errors['move'] = exception.LedgerError('/ledger', 'is full', '')
    manager.resized(ONE)
    rig.kernel.stop_guest(ONE)
    rig.steps.errors.clear()

    manager.release(ONE)
    managed.start(manager, rig)

    assert rig.held() == {(ONE, 'guest'): managed.ALL}


def test_a_migration_with_another_plan_gives_up_the_one_before(manager, rig):
    manager.incoming(ONE, page_host.needs((0, 5)))
    manager.incoming(ONE, page_host.needs((1, 7)))

    assert rig.held() == {(ONE, 'incoming'): {page_host.pool(1): 7}}
