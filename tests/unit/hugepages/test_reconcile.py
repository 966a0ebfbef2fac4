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

"""What has come apart is found and brought together."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import logging
import pathlib

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.reconcile_rules import Present
from tests.fixtures import kernel as fake_kernel
from tests.unit.hugepages import page_host

A, B = map(page_host.guest, (1, 2))
NODE = fake_kernel.FakeNode(total=1024, used=64)


def make(path: pathlib.Path, **policy: object) -> page_host.Rig:
    """Make a host of one node, on which a guest runs on 20 pages."""
    rig = page_host.Rig(
        path, {0: NODE}, dataclasses.replace(page_host.POLICY, **policy)
    )
    rig.reconcile(starting=True)
    rig.pools.hold(A, page_host.needs((0, 20)))
    rig.run(A)
    return rig


def held(rig: page_host.Rig) -> set[tuple[str, str]]:
    """Tell who holds pages for what."""
    return set(rig.held())


def total(rig: page_host.Rig) -> int:
    """Tell how many pages there are."""
    return rig.kernel.pool(page_host.pool(0)).total


def refuse_node_1(event: fake_kernel.Event) -> None:
    """Let the pools of node 1 not be written."""
    if event.what.startswith('write_nr 1'):
        raise exception.PoolsReadOnly('no')


def apply(
    rig: page_host.Rig,
    *defined: str,
    starting: bool = False,
    quick: bool = True,
    done: list[str] | None = None,
) -> None:
    """Plan and apply with these domains."""
    present = Present(frozenset(defined), frozenset())
    with rig.pools.locked():
        plan = rig.reconciler.plan(present, starting=starting)
        rig.reconciler.apply(plan, quick=quick, done=done)


class TestGuests:
    def test_nothing_to_heal(self, tmp_path: pathlib.Path) -> None:
        rig = make(tmp_path)
        assert rig.reconcile([A]) == []
        assert rig.dry_run(A) == []

    def test_a_guest_that_is_gone(self, tmp_path: pathlib.Path) -> None:
        rig = make(tmp_path)
        rig.kernel.stop_guest(A)
        assert rig.reconcile([]) == [
            f'instance {A} is gone; its pages were released',
            '20 idle pages of 2 MiB on NUMA node 0 were freed',
        ]
        assert (held(rig), total(rig)) == (set(), 0)
        assert rig.reconcile([]) == []

    def test_a_guest_that_powered_itself_off(
        self, tmp_path: pathlib.Path
    ) -> None:
        rig = make(tmp_path)
        rig.kernel.stop_guest(A)
        assert rig.reconcile([A]) == []
        assert (held(rig), total(rig)) == ({(A, 'guest')}, 20)

    def test_a_guest_that_is_off_and_does_not_keep_its_pages(
        self, tmp_path: pathlib.Path
    ) -> None:
        rig = make(tmp_path, keep_powered_off=False)
        rig.kernel.stop_guest(A)
        rig.reconcile([A])
        assert (held(rig), total(rig)) == (set(), 0)

    @pytest.mark.parametrize('here', [None, frozenset({A})])
    def test_a_guest_without_a_domain_that_nova_may_have(
        self, tmp_path: pathlib.Path, here: frozenset[str] | None
    ) -> None:
        # Given a service that was killed in the middle of a hard reboot.
        rig = make(tmp_path)
        rig.kernel.stop_guest(A)
        present = Present(frozenset(), frozenset(), here)
        assert rig.reconciler.reconcile(present, starting=True) == []
        assert held(rig) == {(A, 'guest')}

    def test_domains_that_nobody_can_tell(
        self, tmp_path: pathlib.Path
    ) -> None:
        rig = make(tmp_path)
        rig.kernel.stop_guest(A)
        assert rig.reconcile(None) == []
        assert held(rig) == {(A, 'guest')}

    def test_a_guest_that_is_worked_on(self, tmp_path: pathlib.Path) -> None:
        rig = make(tmp_path)
        rig.kernel.stop_guest(A)
        assert rig.reconcile([], busy=[A]) == []
        assert held(rig) == {(A, 'guest')}

    def test_a_guest_that_was_not_seen_to_start(
        self, tmp_path: pathlib.Path
    ) -> None:
        # Given a service that was killed between start and its note.
        rig = make(tmp_path)
        rig.pools.hold(B, page_host.needs((0, 10)))
        rig.run(B, taken=False)
        rig.start()
        assert rig.reconcile([A, B], starting=True) == [
            f'instance {B} runs on the pages that were reserved for it'
        ]
        # Then what it has is not promised to it once more.
        assert rig.pools.usage()[page_host.pool(0)].promised == 0

    def test_pages_held_for_a_guest_that_never_started(
        self, tmp_path: pathlib.Path
    ) -> None:
        rig = make(tmp_path, start_limit_s=600.0)
        rig.pools.hold(B, page_host.needs((0, 10)))
        # While the service lives, it may still be about to start.
        assert rig.reconcile([A]) == []
        # A service that starts has nothing under way.
        rig.start()
        rig.reconcile([A], starting=True)
        assert (held(rig), total(rig)) == ({(A, 'guest')}, 20)

    def test_pages_held_for_a_guest_for_too_long(
        self, tmp_path: pathlib.Path
    ) -> None:
        rig = make(tmp_path, start_limit_s=600.0)
        rig.pools.hold(B, page_host.needs((0, 10)))
        rig.now += 601
        rig.reconcile([A])
        assert held(rig) == {(A, 'guest')}

    def test_a_guest_that_is_in_no_ledger(
        self, tmp_path: pathlib.Path
    ) -> None:
        # Given a ledger that was lost.
        rig = make(tmp_path)
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
        assert total(rig) == 20

    def test_a_guest_in_no_ledger_that_cannot_be_looked_at(
        self, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        # Given two guests in no ledger, of which one can't be looked at.
        rig = make(tmp_path)
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
        # When it is healed, then the other one is, and it is told once.
        for _ in range(2):
            rig.reconcile([A, B])
        assert rig.held() == {(B, 'guest'): {page_host.pool(0): 10}}
        assert caplog.text.count('Instance is not in the ledger') == 1

    def test_guests_of_others_are_left_alone(
        self, tmp_path: pathlib.Path
    ) -> None:
        rig = make(tmp_path)
        rig.kernel.operator_writes(page_host.pool(0), 25)
        rig.kernel.start_guest(B, {page_host.pool(0): 5})
        rig.reconcile([A])
        assert held(rig) == {(A, 'guest')}


class TestMoves:
    def test_a_migration_that_is_under_way(
        self, tmp_path: pathlib.Path
    ) -> None:
        rig = make(tmp_path)
        rig.pools.hold(B, page_host.needs((0, 10)), model.Purpose.INCOMING)
        assert rig.reconcile([A], [B], starting=True) == []
        assert held(rig) == {(A, 'guest'), (B, 'incoming')}

    @pytest.mark.parametrize(
        'purpose', [model.Purpose.INCOMING, model.Purpose.RESIZE]
    )
    def test_one_that_has_ended(
        self, tmp_path: pathlib.Path, purpose: model.Purpose
    ) -> None:
        rig = make(tmp_path)
        rig.pools.hold(B, page_host.needs((0, 10)), purpose)
        rig.reconcile([A])
        assert (held(rig), total(rig)) == ({(A, 'guest')}, 20)

    def test_one_of_which_nothing_is_known(
        self, tmp_path: pathlib.Path
    ) -> None:
        rig = make(tmp_path)
        rig.pools.hold(B, page_host.needs((0, 10)), model.Purpose.RESIZE)
        assert rig.reconcile([A], None) == []

    def test_a_guest_that_has_arrived(self, tmp_path: pathlib.Path) -> None:
        # Given a guest that runs here, although Nova's migration has ended.
        rig = make(tmp_path)
        rig.pools.hold(B, page_host.needs((0, 10)), model.Purpose.INCOMING)
        rig.kernel.start_guest(B, {page_host.pool(0): 10})
        told = [
            f'instance {B} has arrived on the pages that were reserved for it'
        ]
        assert rig.dry_run(A, B) == told
        assert rig.reconcile([A, B]) == told
        assert held(rig) == {(A, 'guest'), (B, 'guest')}


class TestPools:
    def test_an_operator_who_adds_pages(self, tmp_path: pathlib.Path) -> None:
        rig = make(tmp_path)
        rig.kernel.operator_writes(page_host.pool(0), 32)
        assert rig.reconcile([A]) == [
            '12 pages of 2 MiB on NUMA node 0 were added from outside; the '
            'pool will keep at least 12 pages',
            '12 idle pages of 2 MiB on NUMA node 0 were freed',
        ]
        # The guest has those that were added, and 8 of ours.
        assert (rig.account(0), total(rig)) == ((12, 8), 20)
        rig.kernel.stop_guest(A)
        rig.reconcile([])
        assert total(rig) == 12

    def test_an_operator_who_takes_pages_away(
        self, tmp_path: pathlib.Path
    ) -> None:
        # Given a guest that is off, whose pages were taken away.
        rig = make(tmp_path)
        rig.kernel.stop_guest(A)
        rig.kernel.operator_writes(page_host.pool(0), 0)
        # Then they are made again, since they are promised.
        assert rig.reconcile([A]) == [
            '20 pages of 2 MiB on NUMA node 0 were removed from outside',
            '20 of 20 pages of 2 MiB on NUMA node 0 that are reserved for '
            'instances were missing, and were allocated',
        ]
        rig.run(A)

    def test_pages_that_cannot_be_made_again_are_told_once(
        self, tmp_path: pathlib.Path
    ) -> None:
        rig = make(tmp_path)
        rig.kernel.stop_guest(A)
        rig.kernel.operator_writes(page_host.pool(0), 0)
        rig.kernel.fragment(0, 1024 * 1024, 0)
        told = rig.reconcile([A])
        assert told[-1].startswith(
            '20 pages of 2 MiB on NUMA node 0 that are reserved for instances '
            'are missing'
        )
        assert rig.reconcile([A]) == []
        assert held(rig) == {(A, 'guest')}

    def test_a_host_that_started_anew(self, tmp_path: pathlib.Path) -> None:
        rig = make(tmp_path)
        rig.kernel.reboot()
        rig.start()
        rig.reconcile([A], starting=True)
        # Then the guest, which is off, has its pages waiting for it.
        assert (rig.account(0), total(rig)) == ((0, 20), 20)
        rig.run(A)

    def test_a_dry_run_changes_nothing(self, tmp_path: pathlib.Path) -> None:
        rig = make(tmp_path)
        rig.kernel.stop_guest(A)
        rig.kernel.operator_writes(page_host.pool(0), 32)
        before = (rig.held(), rig.account(0), total(rig))
        found = rig.dry_run()
        assert found[0].startswith('12 pages')
        assert found[1] == f'instance {A} is gone; its pages would be released'
        assert (rig.held(), rig.account(0), total(rig)) == before

    @pytest.mark.parametrize('reboots', [False, True])
    def test_a_dry_run_tells_what_healing_does(
        self, tmp_path: pathlib.Path, reboots: bool
    ) -> None:
        # Given a guest that is gone, and pages of an operator.
        rig = make(tmp_path)
        rig.kernel.stop_guest(A)
        if reboots:
            rig.kernel.reboot()
        rig.kernel.operator_writes(page_host.pool(0), 32)
        told = rig.dry_run()
        healed = rig.reconcile([])
        assert told == [
            one.replace('were released', 'would be released').replace(
                'were freed', 'would be freed'
            )
            for one in healed
        ]
        assert rig.dry_run() == []

    def test_what_was_healed_before_an_error_is_told(
        self, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        # Given two pools to give back, the second of which can't be written.
        rig = page_host.Rig(tmp_path, {0: NODE, 1: NODE}, page_host.POLICY)
        rig.pools.hold(A, page_host.needs((0, 20), (1, 20)))

        rig.kernel.hook = refuse_node_1
        done: list[str] = []
        with pytest.raises(exception.PoolsReadOnly):
            apply(rig, starting=True, done=done)
        why = f'instance {A} is gone; its pages were released'
        assert done == [
            why,
            '20 idle pages of 2 MiB on NUMA node 0 were freed',
        ]
        assert (
            'Huge pages: instance is gone; its pages were released.',
            A,
        ) in [
            (record.getMessage(), getattr(record, 'instance_uuid', None))
            for record in caplog.records
        ]

    def test_what_was_made_before_an_error_is_told(
        self, tmp_path: pathlib.Path
    ) -> None:
        # Given pages that are missing on two nodes.
        rig = page_host.Rig(tmp_path, {0: NODE, 1: NODE}, page_host.POLICY)
        rig.pools.hold(A, page_host.needs((0, 20), (1, 20)))
        for node in (0, 1):
            rig.kernel.operator_writes(page_host.pool(node), 0)

        rig.kernel.hook = refuse_node_1
        done: list[str] = []
        with pytest.raises(exception.PoolsReadOnly):
            apply(rig, A, done=done)
        assert done[-1] == '20 pages of 2 MiB on NUMA node 0 were allocated'

    def test_there_is_time_to_make_pages_if_nobody_waits(
        self, tmp_path: pathlib.Path
    ) -> None:
        # Given pages of a guest that are gone, and memory in small blocks.
        rig = make(tmp_path)
        rig.kernel.stop_guest(A)
        rig.kernel.operator_writes(page_host.pool(0), 0)
        rig.kernel.fragment(0, 1024 * 1024)
        rig.reconcile([A])
        assert total(rig) == 0
        # When nobody waits, Then what is missing is made by compaction.
        apply(rig, A, quick=False)
        assert total(rig) == 20

    def test_guests_of_which_it_is_not_sure_whether_they_are_gone(
        self, tmp_path: pathlib.Path
    ) -> None:
        # Given a guest that is off, and one for which pages are just held.
        rig = make(tmp_path, start_limit_s=600.0)
        rig.kernel.stop_guest(A)
        rig.now += 601
        rig.pools.hold(B, page_host.needs((0, 10)))

        def unsure(present: Present) -> tuple[Sequence[str], Sequence[str]]:
            plan = rig.reconciler.plan(present)
            return plan.doubtful, plan.young

        nothing = frozenset[str]()
        # Then it depends on what is known of them.
        assert unsure(Present(nothing, here=None)) == ([A], [B])
        assert unsure(Present(nothing)) == ([], [B])
        assert unsure(Present(frozenset({A, B}))) == ([], [])
        assert unsure(Present(None, here=None)) == ([], [])

    def test_what_an_operator_should_know_is_a_warning(
        self, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        rig = make(tmp_path)
        rig.kernel.stop_guest(A)
        with caplog.at_level(logging.INFO):
            rig.reconcile([])
        levels = [(r.levelname, r.getMessage()) for r in caplog.records]
        assert levels == [
            (
                'WARNING',
                'Huge pages: instance is gone; its pages were released.',
            ),
            (
                'INFO',
                'Freed idle huge pages: 20 pages of 2 MiB on NUMA node 0.',
            ),
        ]
