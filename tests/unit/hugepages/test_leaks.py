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

"""Pages that stay in use when their guest has ended."""

from __future__ import annotations

import pathlib

import pytest

from nova_numa_hugepages import exception
from tests.unit.hugepages import page_host

A = page_host.guest(1)
B = page_host.guest(2)
POOL = page_host.pool(0)


@pytest.fixture
def rig(tmp_path: pathlib.Path) -> page_host.Rig:
    """A guest has 16 of 20 pages, and 4 are for a switch that is down."""
    rig = page_host.make(
        tmp_path, page_host.grown(20), dynamic=False, reserved={POOL: 4}
    )
    rig.pools.hold(A, page_host.needs((0, 16)))
    rig.run(A)
    rig.reconcile([A])
    return rig


def leak(rig: page_host.Rig) -> int:
    """End the guest; 3 of its pages stay in use."""
    rig.kernel.stop_guest(A)
    # It looks the same, whoever has them.
    return rig.kernel.take({POOL: 3})


def leaked(rig: page_host.Rig) -> int:
    return rig.pools.usage()[POOL].leaked


def test_they_are_not_those_that_are_reserved_for_others(rig, caplog):
    leak(rig)
    rig.pools.release(A)

    assert (
        'Instances have ended, and 3 pages of 2 MiB on NUMA node 0 that they '
        'had are still in use.'
    ) in caplog.text
    # 3 have leaked, and 4 stay for the switch.
    with pytest.raises(exception.NotEnoughPages):
        rig.pools.hold(B, page_host.needs((0, 14)))
    rig.pools.hold(B, page_host.needs((0, 13)))
    rig.kernel.take({POOL: 4})
    rig.run(B)


def test_they_are_found_when_the_guest_is_powered_off_only(rig, caplog):
    leak(rig)
    rig.reconcile([A])
    rig.reconcile([A])

    assert leaked(rig) == 3
    assert caplog.text.count('still in use') == 1


def test_they_are_known_after_a_restart_of_the_service(rig):
    leak(rig)
    rig.reconcile([A])
    rig.start()
    rig.reconcile([A], starting=True)

    assert leaked(rig) == 3


def test_those_that_are_free_again_are_forgotten(rig):
    pid = leak(rig)
    rig.reconcile([A])
    rig.kernel.give(pid)
    rig.reconcile([A])
    # The switch is up.
    rig.kernel.take({POOL: 4})
    rig.reconcile([A])

    assert leaked(rig) == 0
    assert rig.pools.usage()[POOL].held_back == 0


def test_there_are_none_after_a_reboot(rig):
    leak(rig)
    rig.reconcile([A])
    rig.kernel.reboot()
    rig.kernel.take({POOL: 4})
    rig.start()
    rig.reconcile([A], starting=True)

    assert leaked(rig) == 0


def test_a_guest_that_starts_again_at_once_has_left_some(rig):
    leak(rig)
    rig.run(A)
    rig.reconcile([A])

    assert leaked(rig) == 3


def test_what_others_take_while_guests_run_is_theirs(rig):
    rig.kernel.take({POOL: 3})
    rig.reconcile([A])

    assert leaked(rig) == 0
    assert rig.pools.usage()[POOL].held_back == 1


def test_a_number_that_is_none_is_damage(rig):
    with rig.ledger.transaction():
        rig.ledger._write('facts', [('leaks', '[[0, 2048]]')])

    with pytest.raises(exception.LedgerDamaged, match='invalid leaks'):
        rig.pools.usage()


def test_a_program_that_is_restarted_while_a_guest_ends_is_none(rig):
    switch = rig.kernel.take({POOL: 4})
    rig.reconcile([A])
    rig.kernel.give(switch)
    rig.reconcile([A])
    rig.kernel.stop_guest(A)
    rig.kernel.take({POOL: 4})
    rig.pools.release(A)

    assert leaked(rig) == 0
    assert rig.pools.usage()[POOL].held_back == 0


def test_pages_of_a_guest_that_starts_are_no_use_of_others(rig):
    # Given 4 pages that are being cleared for a guest.
    rig.kernel.stop_guest(A)
    rig.pools.hold(A, page_host.needs((0, 8)))
    rig.run(A)
    rig.pools.hold(B, page_host.needs((0, 8)))
    rig.kernel.start_guest(B, {POOL: 8}, touch=False)
    rig.keep_look(B)
    rig.kernel.touch(B, 4)
    rig.start()
    rig.reconcile([A, B], busy=[B])
    rig.kernel.touch(B)
    rig.look_again()
    rig.pools.mark_taken(B)
    rig.reconcile([A, B])

    leak(rig)
    rig.pools.release(A)

    assert leaked(rig) == 3


@pytest.mark.parametrize('dynamic', [False, True])
def test_that_none_can_be_looked_for_stops_no_release(
    tmp_path, caplog, dynamic
):
    rig = page_host.make(tmp_path, dynamic=dynamic)
    rig.kernel.operator_writes(POOL, 0 if dynamic else 16)
    rig.pools.hold(A, page_host.needs((0, 16)))
    rig.run(A)
    rig.kernel.stop_guest(A)
    (rig.kernel.fs.proc / '7' / 'cmdline').mkdir(parents=True)

    rig.pools.release(A)

    assert rig.ledger.holds(A) == []
    assert 'Cannot look for leaked huge pages' in caplog.text
    assert ('Cannot free idle huge pages now' in caplog.text) == dynamic


def test_that_pages_cannot_be_freed_is_an_error(tmp_path):
    rig = page_host.make(tmp_path)
    rig.pools.hold(A, page_host.needs((0, 16)))

    def fail():
        raise exception.KernelError('nr_hugepages', 'an error', 'none')

    rig.at_first_write(fail)

    with pytest.raises(exception.KernelError, match='an error'):
        rig.pools.release(A)
