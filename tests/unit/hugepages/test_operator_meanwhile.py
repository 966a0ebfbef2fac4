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

"""An operator sets a pool while the service is at work on it."""

from __future__ import annotations

import pathlib

import pytest

from nova_numa_hugepages import exception
from tests.fixtures import kernel as fake_kernel
from tests.unit.hugepages import page_host
from tests.unit.hugepages.test_growth import LARGE
from tests.unit.hugepages.test_growth import TWO_LARGE

A = page_host.guest(1)
POOL = page_host.pool(0)


def reported(rig: page_host.Rig) -> str:
    """Refresh the accounts, and return what is reported of them."""
    with rig.pools.locked():
        return '\n'.join(rig.pools.refresh())


@pytest.mark.parametrize('number', [33, 20, 7, 0])
def test_what_was_set_since_is_not_freed(tmp_path: pathlib.Path, number: int):
    rig = page_host.make(tmp_path, page_host.grown(5))
    rig.pools.hold(A, page_host.needs((0, 25)))
    assert rig.account(0) == (5, 20)

    with rig.pools.locked():
        rig.pools.drop(A)
        rig.kernel.operator_writes(POOL, number)
        rig.pools.trim()

    assert rig.total() == number
    assert f'set from 25 to {number} pages' in reported(rig)
    assert rig.account(0) == (number, 0)


@pytest.mark.parametrize('number', [33, 20, 7, 0])
def test_what_was_set_since_is_not_undone(tmp_path: pathlib.Path, number: int):
    rig = page_host.make(tmp_path, page_host.grown(5))

    with rig.pools.locked():
        growth = rig.growth({POOL: 20})
        growth.grow({POOL: 20})
        rig.kernel.operator_writes(POOL, number)
        assert growth.undo() == []

    assert rig.total() == number
    assert rig.account(0) == (number, 0)


@pytest.mark.parametrize('number', [33, 20, 7, 0])
def test_nor_what_an_error_cut_off(tmp_path: pathlib.Path, number: int):
    rig = page_host.make(tmp_path, page_host.grown(5))

    with rig.pools.locked():
        growth = rig.growth({POOL: 20})
        rig.steps.errors['settle'] = exception.LedgerError('', 'is full', '')
        with pytest.raises(exception.LedgerError):
            growth.grow({POOL: 20})
        rig.steps.revive()
        rig.kernel.operator_writes(POOL, number)
        assert growth.undo() == []

    assert rig.total() == number
    assert rig.account(0) == (number, 0)


@pytest.mark.parametrize('number', [900, 0])
def test_pieces_are_not_joined_in_a_pool_that_was_set(
    tmp_path: pathlib.Path, number: int
):
    rig = page_host.make(tmp_path, TWO_LARGE, demote=True)

    with rig.pools.locked():
        growth = rig.growth({POOL: 600})
        growth.grow({POOL: 600})
        rig.kernel.operator_writes(POOL, number)
        before = rig.total()
        assert growth.undo() == [
            '2 pages of 1 GiB on NUMA node 0 that were split could not be '
            'joined: a pool was set from outside'
        ]

    assert rig.total() == before
    assert (rig.account(0, LARGE), rig.account(0)) == ((0, 0), (before, 0))


def test_what_was_done_after_it_is_undone(tmp_path: pathlib.Path):
    rig = page_host.make(tmp_path, page_host.grown(5))

    with rig.pools.locked():
        growth = rig.growth({POOL: 20})
        growth.grow({POOL: 10})
        rig.kernel.operator_writes(POOL, 30)
        growth.grow({POOL: 20})
        assert rig.total() == 50
        assert growth.undo() == []

    assert rig.total() == 30


def test_it_is_reported_once_though_the_ledger_fails(tmp_path: pathlib.Path):
    rig = page_host.make(tmp_path, page_host.grown(5))
    rig.pools.hold(A, page_host.needs((0, 25)))

    with rig.pools.locked():
        rig.pools.drop(A)
        rig.kernel.operator_writes(POOL, 12)
        rig.steps.errors['settle'] = exception.LedgerError('', 'is full', '')
        for _ in range(3):
            with pytest.raises(exception.LedgerError):
                rig.pools.trim()
        rig.steps.revive()

    assert reported(rig).count('set from 25 to 12 pages') == 1


def test_nothing_is_said_of_pages_that_are_not_freed(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level('INFO')
    rig = page_host.make(tmp_path, page_host.grown(5))
    rig.pools.hold(A, page_host.needs((0, 25)))

    with rig.pools.locked():
        rig.pools.drop(A)
        rig.kernel.operator_writes(POOL, 33)
        rig.pools.trim()

    assert 'will retry' not in caplog.text


@pytest.mark.parametrize('number', [50, 40, 33, 7])
def test_a_ledger_that_fails_right_after_it(
    tmp_path: pathlib.Path, number: int
):
    rig = page_host.make(tmp_path, page_host.grown(5))
    rig.pools.hold(A, page_host.needs((0, 15)))
    set_to = [number]

    def set_it(event: fake_kernel.Event) -> None:
        if event.kind == 'written' and set_to:
            rig.kernel.operator_writes(POOL, set_to.pop())

    with rig.pools.locked():
        rig.watch(set_it)
        # 33 is what the kernel may have come to, had it run short.
        outside = not 15 <= number <= 35
        rig.steps.errors['settle'] = exception.LedgerError('', 'is full', '')
        with pytest.raises(exception.LedgerError):
            rig.pools.allocate({POOL: 20}, quick=True, allocated={})
        rig.steps.revive()
        told = '\n'.join(rig.pools.refresh())

    assert rig.total() == number
    assert ('from outside' in told) == outside
    assert rig.account(0)[0] == (number if outside else 5)


def test_what_could_not_be_noted_once_is_not_taken_for_news_later(
    tmp_path: pathlib.Path,
):
    # Given a number that could not be noted, and was written back since.
    rig = page_host.make(tmp_path, page_host.grown(5))
    rig.pools.hold(A, page_host.needs((0, 15)))
    rig.kernel.operator_writes(POOL, 33)
    rig.steps.errors['settle'] = exception.LedgerError('', 'is full', '')
    with rig.pools.locked(), pytest.raises(exception.LedgerError):
        rig.pools.allocate({POOL: 1}, quick=True, allocated={})
    rig.steps.revive()
    rig.kernel.operator_writes(POOL, 15)
    events: list[str] = []

    def fail(event: fake_kernel.Event) -> None:
        events.append(event.kind)
        if events[-2:] == ['written', 'read']:
            raise exception.KernelError('nr_hugepages', 'an error', 'none')

    # When a write is cut off then, Then what it made is ours.
    rig.watch(fail)
    with rig.pools.locked():
        with pytest.raises(exception.KernelError):
            rig.pools.allocate({POOL: 10}, quick=True, allocated={})
        rig.pools.refresh()
    assert rig.account(0) == (5, 20)
