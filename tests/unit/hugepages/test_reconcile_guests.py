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

"""The ledger is brought in step with the instances that are here."""

from __future__ import annotations

import pathlib

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.reconcile_rules import Present
from tests.unit.hugepages import page_host
from tests.unit.hugepages import unreconciled
from tests.unit.hugepages.unreconciled import A
from tests.unit.hugepages.unreconciled import B


def test_nothing_to_do(tmp_path: pathlib.Path) -> None:
    rig = unreconciled.make(tmp_path)
    assert rig.reconcile([A]) == []
    assert rig.dry_run(A) == []


def test_a_guest_that_is_gone(tmp_path: pathlib.Path) -> None:
    rig = unreconciled.make(tmp_path)
    rig.kernel.stop_guest(A)
    assert rig.reconcile([]) == [
        f'instance {A} is gone; its pages were released',
        '20 idle pages of 2 MiB on NUMA node 0 were freed',
    ]
    assert unreconciled.state(rig) == (set(), 0)
    assert rig.reconcile([]) == []


def test_a_guest_that_powered_itself_off(tmp_path: pathlib.Path) -> None:
    rig = unreconciled.make(tmp_path)
    rig.kernel.stop_guest(A)
    assert rig.reconcile([A]) == []
    assert unreconciled.state(rig) == (
        {(A, 'guest')},
        20,
    )


def test_a_guest_that_is_off_and_does_not_keep_its_pages(
    tmp_path: pathlib.Path,
) -> None:
    rig = unreconciled.make(tmp_path, keep_powered_off=False)
    rig.kernel.stop_guest(A)
    rig.reconcile([A])
    assert unreconciled.state(rig) == (set(), 0)


@pytest.mark.parametrize('here', [None, frozenset({A})])
def test_a_guest_without_a_domain_that_nova_may_have(
    tmp_path: pathlib.Path, here: frozenset[str] | None
) -> None:
    # Given a service that was killed in the middle of a hard reboot.
    rig = unreconciled.make(tmp_path)
    rig.kernel.stop_guest(A)
    present = Present(frozenset(), frozenset(), here)
    assert rig.reconciler.reconcile(present, starting=True) == []
    assert set(rig.held()) == {(A, 'guest')}


def test_domains_that_are_not_known(tmp_path: pathlib.Path) -> None:
    rig = unreconciled.make(tmp_path)
    rig.kernel.stop_guest(A)
    assert rig.reconcile(None) == []
    assert set(rig.held()) == {(A, 'guest')}


def test_a_guest_that_is_busy(tmp_path: pathlib.Path) -> None:
    rig = unreconciled.make(tmp_path)
    rig.kernel.stop_guest(A)
    assert rig.reconcile([], busy=[A]) == []
    assert set(rig.held()) == {(A, 'guest')}


def test_a_guest_that_was_not_seen_to_start(tmp_path: pathlib.Path) -> None:
    # Given a service that was killed between start and its note.
    rig = unreconciled.make(tmp_path)
    rig.pools.hold(B, page_host.needs((0, 10)))
    rig.run(B, taken=False)
    rig.start()
    assert rig.reconcile([A, B], starting=True) == [
        f'instance {B} runs on the pages that were reserved for it'
    ]
    # Then what it has is not promised to it once more.
    assert rig.pools.usage()[page_host.pool(0)].promised == 0


def test_pages_held_for_a_guest_that_never_started(
    tmp_path: pathlib.Path,
) -> None:
    rig = unreconciled.make(tmp_path, start_limit_s=600.0)
    rig.pools.hold(B, page_host.needs((0, 10)))
    # While the service lives, it may still be about to start.
    assert rig.reconcile([A]) == []
    # A service that starts has nothing under way.
    rig.start()
    rig.reconcile([A], starting=True)
    assert unreconciled.state(rig) == (
        {(A, 'guest')},
        20,
    )


def test_pages_held_for_a_guest_for_too_long(tmp_path: pathlib.Path) -> None:
    rig = unreconciled.make(tmp_path, start_limit_s=600.0)
    rig.pools.hold(B, page_host.needs((0, 10)))
    rig.now += 601
    rig.reconcile([A])
    assert set(rig.held()) == {(A, 'guest')}


def test_a_guest_that_is_in_no_ledger(tmp_path: pathlib.Path) -> None:
    # Given a ledger that was lost.
    rig = unreconciled.make(tmp_path)
    rig.ledger.drop(A)
    rig.ledger.forget_accounts()
    assert rig.dry_run(A) == [
        f'instance {A} runs on pages that are not in the ledger'
    ]
    # When the service starts, Then it knows what the guest has,
    assert rig.reconcile([A], starting=True) == [
        f'instance {A} runs on pages that are not in the ledger'
    ]
    assert rig.held() == {(A, 'guest'): {page_host.pool(0): 20}}
    # And takes no page for its own that may have been there before.
    rig.kernel.stop_guest(A)
    rig.reconcile([])
    assert rig.total() == 20


def test_a_guest_in_no_ledger_that_cannot_be_read(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Given two guests in no ledger, of which one can't be read.
    rig = unreconciled.make(tmp_path)
    rig.kernel.operator_writes(page_host.pool(0), 30)
    rig.kernel.start_guest(B, {page_host.pool(0): 10})
    rig.ledger.drop(A)
    hidden = rig.kernel.pid(A)

    def read_maps(pid: int) -> str:
        if pid == hidden:
            raise exception.KernelError('maps', 'EACCES', 'lines')
        return rig.kernel.read_maps(pid)

    rig.read_maps = read_maps
    rig.start()
    # When it is reconciled, then the other one is, and it is logged once.
    for _ in range(2):
        rig.reconcile([A, B])
    assert rig.held() == {(B, 'guest'): {page_host.pool(0): 10}}
    assert caplog.text.count('Instance is not in the ledger') == 1


def test_guests_of_others_are_left_alone(tmp_path: pathlib.Path) -> None:
    rig = unreconciled.make(tmp_path)
    rig.kernel.operator_writes(page_host.pool(0), 25)
    rig.kernel.start_guest(B, {page_host.pool(0): 5})
    rig.reconcile([A])
    assert set(rig.held()) == {(A, 'guest')}


def test_a_migration_that_is_under_way(tmp_path: pathlib.Path) -> None:
    rig = unreconciled.make(tmp_path)
    rig.pools.hold(B, page_host.needs((0, 10)), model.Purpose.INCOMING)
    assert rig.reconcile([A], [B], starting=True) == []
    assert set(rig.held()) == {(A, 'guest'), (B, 'incoming')}


@pytest.mark.parametrize(
    'purpose', [model.Purpose.INCOMING, model.Purpose.RESIZE]
)
def test_a_move_that_has_ended(
    tmp_path: pathlib.Path, purpose: model.Purpose
) -> None:
    rig = unreconciled.make(tmp_path)
    rig.pools.hold(B, page_host.needs((0, 10)), purpose)
    rig.reconcile([A])
    assert unreconciled.state(rig) == (
        {(A, 'guest')},
        20,
    )


def test_a_resize_of_which_nothing_is_known(tmp_path: pathlib.Path) -> None:
    rig = unreconciled.make(tmp_path)
    rig.pools.hold(B, page_host.needs((0, 10)), model.Purpose.RESIZE)
    assert rig.reconcile([A], None) == []


def test_a_guest_that_has_arrived(tmp_path: pathlib.Path) -> None:
    # Given a guest that runs here, although Nova's migration has ended.
    rig = unreconciled.make(tmp_path)
    rig.pools.hold(B, page_host.needs((0, 10)), model.Purpose.INCOMING)
    rig.kernel.start_guest(B, {page_host.pool(0): 10})
    done = [f'instance {B} has arrived on the pages that were reserved for it']
    assert rig.dry_run(A, B) == done
    assert rig.reconcile([A, B]) == done
    assert set(rig.held()) == {(A, 'guest'), (B, 'guest')}


def test_a_guest_that_starts_while_the_service_does(
    tmp_path: pathlib.Path,
) -> None:
    # Given a guest that has 3 of its 10 pages when the service starts again,
    # and another program that uses as many as it.
    rig = page_host.make(tmp_path, page_host.grown(30), dynamic=False)
    pool = page_host.pool(0)
    rig.kernel.take({pool: 10})
    rig.pools.hold(A, page_host.needs((0, 10)))
    rig.kernel.start_guest(A, {pool: 10}, touch=False)
    rig.kernel.touch(A, 3)
    rig.start()
    # Then it is not taken for one that has its pages,
    assert rig.reconcile([A], starting=True) == []
    used = rig.pools.snapshot().pools[pool].usage
    assert (used.ours, used.promised, used.awaited) == (3, 7, 0)
    # until it has.
    rig.kernel.touch(A)
    assert rig.reconcile([A]) == [
        f'instance {A} runs on the pages that were reserved for it'
    ]
    assert rig.pools.usage()[pool].ours == 10
