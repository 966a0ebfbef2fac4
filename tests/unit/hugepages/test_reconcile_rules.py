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

"""The rules for what is held, each with what it goes by."""

from __future__ import annotations

import dataclasses

import pytest

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import reconcile_rules
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.hugepages.reconcile_rules import Present

GUEST = model.Purpose.GUEST
INCOMING = model.Purpose.INCOMING
RESIZE = model.Purpose.RESIZE
HELD = model.State.HELD
TAKEN = model.State.TAKEN

ONE = frozenset({'one'})
NONE: frozenset[str] = frozenset()


def hold(
    purpose: model.Purpose = GUEST, state: model.State = TAKEN
) -> model.Hold:
    """Make a hold of ten pages, by an instance called one."""
    return model.Hold('one', purpose, 0, 0, 2048, 10, 0, state, 0.0)


def judge(
    held: model.Hold,
    present: Present,
    *,
    runs: bool = False,
    complete: bool = True,
    age: float = 700.0,
    keep: bool = True,
    starting: bool = False,
) -> list[reconcile_rules.Change]:
    """Judge one hold, of an instance that may take 600 s to start."""
    rules = reconcile_rules.Rules(
        PoolPolicy(start_limit_s=600.0, keep_powered_off=keep),
        present,
        ONE if runs else NONE,
        ONE if runs and complete else NONE,
        age,
        starting,
    )
    return rules.judge(reconcile_rules.grouped([held]))


@pytest.mark.parametrize(
    ('held', 'present', 'given', 'why'),
    [
        (hold(), Present(NONE), {}, 'is gone'),
        (hold(), Present(ONE), {'keep': False}, 'is powered off'),
        (hold(state=HELD), Present(NONE), {'age': 1.0}, None),
        (
            hold(state=HELD),
            Present(NONE),
            {'age': 1.0, 'starting': True},
            'is gone',
        ),
        # The clock was set back, by a bit and by a day.
        (hold(state=HELD), Present(NONE), {'age': -1.0}, None),
        (hold(state=HELD), Present(NONE), {'age': -86400.0}, 'is gone'),
        (hold(), Present(ONE), {}, None),
        (hold(), Present(NONE, here=ONE), {}, None),
        (hold(), Present(NONE, here=None), {}, None),
        (hold(), Present(None), {'keep': False}, None),
        (hold(), Present(NONE, busy=ONE), {}, None),
        (hold(), Present(NONE), {'runs': True}, None),
        (hold(RESIZE), Present(ONE, NONE), {}, 'has no resize in progress'),
        (
            hold(RESIZE),
            Present(NONE, NONE),
            {'age': 1.0},
            'has no resize in progress',
        ),
        (hold(RESIZE), Present(NONE, NONE, here=ONE), {'age': 1.0}, None),
        (hold(RESIZE), Present(NONE, NONE, here=None), {'age': 1.0}, None),
        (hold(RESIZE), Present(NONE, ONE), {}, None),
        (
            hold(INCOMING),
            Present(NONE, NONE),
            {},
            'has no migration in progress',
        ),
        (hold(INCOMING), Present(NONE, NONE), {'age': 1.0}, None),
        (hold(INCOMING), Present(NONE, ONE), {}, None),
        (hold(INCOMING), Present(NONE, None), {}, None),
        (hold(INCOMING), Present(NONE, NONE), {'runs': True}, None),
    ],
)
def test_pages_are_released_only_if_it_is_certain(
    held: model.Hold,
    present: Present,
    given: dict[str, bool],
    why: str | None,
) -> None:
    changes = judge(held, present, **given)

    expected = [] if why is None else [(why, {held.purpose: ()})]
    assert [(one.why, one.holds) for one in changes] == expected


def test_a_guest_that_is_taking_its_pages_has_not_taken_them() -> None:
    held = hold(state=HELD)

    assert judge(held, Present(ONE), runs=True, complete=False) == []


@pytest.mark.parametrize('purpose', [GUEST, INCOMING])
def test_a_guest_that_runs_has_taken_its_pages(purpose: model.Purpose) -> None:
    held = hold(purpose, HELD)

    [change] = judge(held, Present(ONE, NONE), runs=True)

    after = reconcile_rules.holds_after(
        reconcile_rules.grouped([held]), [change]
    )
    assert after == [dataclasses.replace(held, purpose=GUEST, state=TAKEN)]


def test_a_change_is_described_with_and_without_the_uuid() -> None:
    [change] = judge(hold(), Present(NONE))

    assert change.text('were') == 'is gone; its pages were released'
    assert change.sentence('would be') == (
        'instance one is gone; its pages would be released'
    )
