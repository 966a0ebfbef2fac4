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

import pytest

from tests.unit.hugepages import page_host
from tests.unit.hugepages import unreconciled
from tests.unit.hugepages.unreconciled import A


@pytest.mark.parametrize('number', [32, 20 + 1, 12])
def test_what_an_operator_writes_is_the_size_of_the_pool(
    tmp_path: pathlib.Path, number: int
) -> None:
    # Given a pool of 20 pages, all of them allocated for a guest.
    rig = unreconciled.make(tmp_path)
    rig.kernel.operator_writes(page_host.pool(0), number)
    assert rig.reconcile([A]) == [
        'the pool of 2 MiB on NUMA node 0 was set from 20 to '
        f'{number} pages from outside, and will keep these',
    ]
    assert rig.account(0) == (number, 0)
    # Then it has that size once the guest is gone.
    rig.kernel.stop_guest(A)
    rig.reconcile([])
    assert (rig.account(0), rig.total()) == ((number, 0), number)


def test_a_boot_unit_that_comes_late(tmp_path: pathlib.Path) -> None:
    # Given a host whose unit sets the pool to 60 at each boot, and a guest.
    rig = page_host.make(tmp_path, page_host.grown(60))
    rig.pools.hold(A, page_host.needs((0, 40)))
    # When the service starts before the unit, and allocates the guest's pages,
    rig.kernel.reboot()
    rig.kernel.operator_writes(page_host.pool(0), 0)
    rig.start()
    rig.reconcile([A], starting=True)
    assert (rig.account(0), rig.total()) == ((0, 40), 40)
    rig.kernel.operator_writes(page_host.pool(0), 60)
    rig.reconcile([A])
    # Then the unit's number stays when the guest has gone.
    rig.pools.release(A)
    assert (rig.account(0), rig.total()) == ((60, 0), 60)


def test_an_operator_who_takes_pages_away(tmp_path: pathlib.Path) -> None:
    # Given a guest that is off, whose pages were taken away.
    rig = unreconciled.make(tmp_path)
    rig.kernel.stop_guest(A)
    rig.kernel.operator_writes(page_host.pool(0), 0)
    # Then they are made again, since they are promised.
    assert rig.reconcile([A]) == [
        'the pool of 2 MiB on NUMA node 0 was set from 20 to 0 pages from '
        'outside, and will keep these',
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
