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

"""The pools are brought in step with what is reserved."""

from __future__ import annotations

import pathlib

from tests.unit.hugepages import page_host
from tests.unit.hugepages import unreconciled
from tests.unit.hugepages.unreconciled import A


def test_an_operator_who_adds_pages(tmp_path: pathlib.Path) -> None:
    rig = unreconciled.make(tmp_path)
    rig.kernel.operator_writes(page_host.pool(0), 32)
    assert rig.reconcile([A]) == [
        '12 pages of 2 MiB on NUMA node 0 were added from outside; the '
        'pool will keep at least 12 pages',
        '12 idle pages of 2 MiB on NUMA node 0 were freed',
    ]
    # The guest has those that were added, and 8 of ours.
    assert (rig.account(0), rig.total()) == ((12, 8), 20)
    rig.kernel.stop_guest(A)
    rig.reconcile([])
    assert rig.total() == 12


def test_an_operator_who_takes_pages_away(tmp_path: pathlib.Path) -> None:
    # Given a guest that is off, whose pages were taken away.
    rig = unreconciled.make(tmp_path)
    rig.kernel.stop_guest(A)
    rig.kernel.operator_writes(page_host.pool(0), 0)
    # Then they are made again, since they are promised.
    assert rig.reconcile([A]) == [
        '20 pages of 2 MiB on NUMA node 0 were removed from outside',
        '20 of 20 pages of 2 MiB on NUMA node 0 that are reserved for '
        'instances were missing, and were allocated',
    ]
    rig.run(A)


def test_pages_that_cannot_be_allocated_again_are_logged_once(
    tmp_path: pathlib.Path,
) -> None:
    rig = unreconciled.make(tmp_path)
    rig.kernel.stop_guest(A)
    rig.kernel.operator_writes(page_host.pool(0), 0)
    rig.kernel.fragment(0, 1024 * 1024, 0)
    done = rig.reconcile([A])
    assert done[-1].startswith(
        '20 pages of 2 MiB on NUMA node 0 that are reserved for instances '
        'are missing'
    )
    assert rig.reconcile([A]) == []
    assert set(rig.held()) == {(A, 'guest')}


def test_a_host_that_was_rebooted(tmp_path: pathlib.Path) -> None:
    rig = unreconciled.make(tmp_path)
    rig.kernel.reboot()
    rig.start()
    rig.reconcile([A], starting=True)
    # Then the guest, which is off, has its pages waiting for it.
    assert (rig.account(0), rig.total()) == ((0, 20), 20)
    rig.run(A)


def test_there_is_time_to_allocate_pages_if_no_instance_waits(
    tmp_path: pathlib.Path,
) -> None:
    # Given pages of a guest that are gone, and memory in small blocks.
    rig = unreconciled.make(tmp_path)
    rig.kernel.stop_guest(A)
    rig.kernel.operator_writes(page_host.pool(0), 0)
    rig.kernel.fragment(0, 1024 * 1024)
    rig.reconcile([A])
    assert rig.total() == 0
    # When no instance waits, Then what is missing is made by compaction.
    unreconciled.apply(rig, A, quick=False)
    assert rig.total() == 20
