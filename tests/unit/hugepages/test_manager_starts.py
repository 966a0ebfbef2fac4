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

"""Instances that start have their pages, or are refused."""

import logging

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.manager import HugePageManager
from tests.unit.hugepages import managed
from tests.unit.hugepages import page_host
from tests.unit.hugepages.managed import ONE
from tests.unit.hugepages.managed import TWO

GUEST = model.Purpose.GUEST


def test_a_guest_starts_on_pages_that_were_made_for_it(manager, rig):
    managed.start(manager, rig)

    assert rig.persistent() == managed.ALL
    assert {h.state for h in rig.pools.holds(ONE, GUEST)} == {
        model.State.TAKEN
    }
    assert rig.ledger.placements(ONE) == managed.ALL
    assert manager.busy() == frozenset()


def test_nothing_stays_held_if_the_guest_cannot_be_defined(manager, rig):
    with (
        pytest.raises(RuntimeError, match='libvirt'),
        manager.starting(ONE, managed.NEEDS, is_defined=lambda: False),
    ):
        raise RuntimeError('libvirt')

    assert rig.held() == {}
    assert rig.persistent() == managed.NONE


def test_a_guest_that_is_defined_keeps_its_pages_if_it_does_not_start(
    manager, rig
):
    with (
        pytest.raises(RuntimeError, match='libvirt'),
        manager.starting(ONE, managed.NEEDS, is_defined=lambda: True),
    ):
        raise RuntimeError('libvirt')

    assert rig.held() == {(ONE, 'guest'): managed.ALL}


def test_a_guest_that_held_before_keeps_its_pages(manager, rig):
    managed.start(manager, rig)
    rig.kernel.stop_guest(ONE)

    with (
        pytest.raises(RuntimeError, match='libvirt'),
        manager.starting(ONE, managed.NEEDS, is_defined=lambda: False),
    ):
        raise RuntimeError('libvirt')

    assert rig.held() == {(ONE, 'guest'): managed.ALL}


def test_too_few_pages_stop_the_start_and_hold_nothing(manager, rig):
    too_many = page_host.needs((0, 10), (1, 100000))

    with (
        pytest.raises(exception.NotEnoughPages, match='100000 pages'),
        manager.starting(ONE, too_many, is_defined=lambda: False),
    ):
        pytest.fail('it was started')

    assert rig.held() == {}
    assert rig.persistent() == managed.NONE


def forbidden(pid):
    """Let no process be read."""
    raise exception.KernelError('/proc/1/numa_maps', 'EACCES', 'lines')


def test_a_guest_on_the_wrong_node_is_logged(manager, rig, caplog):
    rig.kernel.operator_writes(page_host.pool(1), 30)

    managed.start(manager, rig, counts={page_host.pool(1): 30})

    (error,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert error.instance_uuid == ONE
    assert error.getMessage() == (
        'Huge pages are not on the planned NUMA nodes: expected 10 pages of '
        '2 MiB on NUMA node 0, 20 pages of 2 MiB on NUMA node 1, found 30 '
        'pages of 2 MiB on NUMA node 1.'
    )
    assert rig.ledger.placements(ONE) == {page_host.pool(1): 30}
    assert {h.state for h in rig.pools.holds(ONE, GUEST)} == {model.State.HELD}


def test_a_process_that_is_not_found_is_logged(manager, rig, caplog):
    with manager.starting(ONE, managed.NEEDS, is_defined=lambda: True):
        manager.started(ONE)

    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert warning.instance_uuid == ONE
    assert warning.getMessage() == (
        'QEMU process not found; skipped the huge page placement check.'
    )
    assert {h.state for h in rig.pools.holds(ONE, GUEST)} == {model.State.HELD}


def test_a_guest_without_huge_pages_is_not_checked(manager, rig, caplog):
    with manager.starting(ONE, [], is_defined=lambda: True):
        manager.started(ONE)

    assert rig.held() == {}
    assert caplog.text == ''


def test_memory_that_cannot_be_read_stops_nothing(rig, caplog):
    rig.read_maps = forbidden
    rig.start()
    manager = HugePageManager(rig.pools)

    with manager.starting(ONE, managed.NEEDS, is_defined=lambda: True):
        rig.kernel.start_guest(ONE, managed.ALL)
        manager.started(ONE)

    # It has taken what was held for it, as QEMU does before it runs,
    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert warning.instance_uuid == ONE
    assert warning.getMessage() == (
        'Could not read which huge pages the instance has; skipped the '
        'placement check: /proc/1/numa_maps: expected lines, found EACCES'
    )
    assert rig.held() == {(ONE, 'guest'): managed.ALL}
    assert {h.state for h in rig.pools.holds(ONE, GUEST)} == {
        model.State.TAKEN
    }


def test_a_start_that_cannot_be_read_stops_no_other(rig):
    rig.read_maps = forbidden
    rig.start()
    manager = HugePageManager(rig.pools)
    # Given a guest that runs and whose start is not over,
    with manager.starting(ONE, managed.NEEDS, is_defined=lambda: True):
        rig.kernel.start_guest(ONE, managed.ALL)

        # when another one starts,
        with manager.starting(TWO, managed.NEEDS, is_defined=lambda: True):
            pass

    # then both have their own.
    assert rig.held() == {
        (ONE, 'guest'): managed.ALL,
        (TWO, 'guest'): managed.ALL,
    }
