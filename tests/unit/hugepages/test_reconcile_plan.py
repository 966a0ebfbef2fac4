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

"""A plan is described, applied, and reported as far as it went."""

from __future__ import annotations

from collections.abc import Sequence
import logging
import pathlib

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.reconcile_rules import Present
from tests.unit.hugepages import page_host
from tests.unit.hugepages import unreconciled
from tests.unit.hugepages.unreconciled import A
from tests.unit.hugepages.unreconciled import B


def test_a_dry_run_changes_nothing(tmp_path: pathlib.Path) -> None:
    rig = unreconciled.make(tmp_path)
    rig.kernel.stop_guest(A)
    rig.kernel.operator_writes(page_host.pool(0), 32)
    before = (rig.held(), rig.account(0), rig.total())
    found = rig.dry_run()
    assert 'was set from 20 to 32 pages' in found[0]
    assert found[1] == f'instance {A} is gone; its pages would be released'
    assert (rig.held(), rig.account(0), rig.total()) == before


@pytest.mark.parametrize('reboots', [False, True])
def test_a_dry_run_describes_what_is_done(
    tmp_path: pathlib.Path, reboots: bool
) -> None:
    # Given a guest that is gone, and pages of an operator.
    rig = unreconciled.make(tmp_path)
    rig.kernel.stop_guest(A)
    if reboots:
        rig.kernel.reboot()
    rig.kernel.operator_writes(page_host.pool(0), 32)
    planned = rig.dry_run()
    done = rig.reconcile([])
    assert planned == [
        one.replace('were released', 'would be released').replace(
            'were freed', 'would be freed'
        )
        for one in done
    ]
    assert rig.dry_run() == []


def test_what_was_done_before_an_error_is_reported(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Given pages to free in two pools, the second of which can't be written.
    rig = page_host.Rig(
        tmp_path,
        {0: page_host.NODE, 1: page_host.NODE},
        page_host.POLICY,
    )
    rig.pools.hold(A, page_host.needs((0, 20), (1, 20)))

    rig.kernel.hook = unreconciled.refuse_node_1
    done: list[str] = []
    with pytest.raises(exception.PoolsReadOnly):
        unreconciled.apply(rig, starting=True, done=done)
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


def test_what_was_allocated_before_an_error_is_reported(
    tmp_path: pathlib.Path,
) -> None:
    # Given pages that are missing on two nodes.
    rig = page_host.Rig(
        tmp_path,
        {0: page_host.NODE, 1: page_host.NODE},
        page_host.POLICY,
    )
    rig.pools.hold(A, page_host.needs((0, 20), (1, 20)))
    for node in (0, 1):
        rig.kernel.operator_writes(page_host.pool(node), 0)

    rig.kernel.hook = unreconciled.refuse_node_1
    done: list[str] = []
    with pytest.raises(exception.PoolsReadOnly):
        unreconciled.apply(rig, A, done=done)
    assert done[-1] == '20 pages of 2 MiB on NUMA node 0 were allocated'


def test_guests_that_may_be_gone(
    tmp_path: pathlib.Path,
) -> None:
    # Given a guest that is off, and one for which pages are just held.
    rig = unreconciled.make(tmp_path, start_limit_s=600.0)
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
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = unreconciled.make(tmp_path)
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
