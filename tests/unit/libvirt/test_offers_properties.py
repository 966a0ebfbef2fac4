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

"""What is offered to the scheduler, a hold gets.

Hosts are made at random: with other programs that use pages or have mapped
them, guests that run, start or are off, domains that Nova doesn't account for,
pages that leaked, a page cache, memory that is fragmented or set aside, and
limits of the operator.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import tempfile
from typing import Any

import hypothesis
from hypothesis import strategies as st

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.libvirt import resources
from tests.fixtures import kernel as fake_kernel
from tests.unit.core.dice import Dice
from tests.unit.core.dice import examples
from tests.unit.core.dice import Focus
from tests.unit.hugepages import page_host

SMALL = fake_kernel.SMALL_KIB
LARGE = fake_kernel.LARGE_KIB
NEW = page_host.guest(99)


def make_node(dice: Dice) -> fake_kernel.FakeNode:
    """Draw a node of up to 4 GiB."""
    pools = {SMALL: dice.number(0, 40), LARGE: dice.number(0, 1)}
    cma_gib = dice.number(0, 1)
    rest = 2048 - 80
    parts = {}
    for name in ('used', 'cache', 'broken'):
        parts[name] = dice.number(0, rest // 2)
        rest -= parts[name]
    return fake_kernel.FakeNode(
        total=2048 + 1024 * (pools[LARGE] + cma_gib),
        cma_gib=cma_gib,
        pools=pools,
        min_kib=2048,
        high_kib=4096,
        **parts,
    )


def make_policy(dice: Dice) -> dict[str, Any]:
    """Draw limits of the operator."""
    return {
        'dynamic': dice.chance(80),
        'node_free_mib': dice.pick([0, 64, 500]),
        'ceiling_percent': dice.pick([100, 90, 40]),
        'cache_percent': dice.pick([50, 0, 100]),
        'compact': dice.chance(80),
        'hand_over': dice.chance(50),
        'warm_mib': dice.pick([0, 20]),
        'lend_ratio': dice.pick([1.0, 1.25, 2.0]),
        'reserved': {
            page_host.pool(node): dice.number(0, 50)
            for node in dice.some([0, 1])
        },
    }


def fill(dice: Dice, rig: page_host.Rig) -> frozenset[str]:
    """Have guests and other programs come.

    :returns: the guests that Nova accounts for
    """
    accounted = set()
    for number in range(dice.number(0, 5)):
        holder = page_host.guest(number)
        node, count = dice.number(0, 1), dice.number(1, 60)
        key = page_host.pool(node)
        what = dice.pick(
            ['guest', 'elastic', 'off', 'starts', 'gone', 'others', 'waits']
        )
        with contextlib.suppress(
            exception.NotEnoughPages, fake_kernel.OutOfPages
        ):
            if what in ('others', 'waits'):
                rig.kernel.take({key: count}, touch=what == 'others')
                continue
            if what == 'elastic':
                come(dice, rig, holder, key, count)
                accounted.add(holder)
                continue
            rig.pools.hold(holder, page_host.needs((node, count)))
            if what == 'gone':
                # Its pages stay as far as the margin goes.
                rig.pools.release(holder)
                continue
            if dice.chance(80):
                accounted.add(holder)
            if what == 'starts':
                needs = {key: count} if dice.chance(50) else {}
                rig.kernel.start_guest(holder, needs, touch=False)
                continue
            rig.run(holder)
            if what == 'off':
                rig.pools.refresh()
                rig.kernel.stop_guest(holder)
                if dice.chance(30):
                    # They leaked, if the guest had them.
                    rig.kernel.take({key: min(count, 3)})
    return frozenset(accounted)


def come(
    dice: Dice,
    rig: page_host.Rig,
    holder: str,
    key: model.PoolKey,
    base: int,
) -> None:
    """Have an elastic guest come, which may grow."""
    ceiling = base + dice.number(1, 60)
    rig.pools.hold(holder, [model.PageNeed(0, *key, base, base, ceiling)])
    rig.run(holder)
    if dice.chance(50):
        rig.pools.resize(holder, {0: dice.number(base, ceiling)})


@examples(0.1)
@hypothesis.given(st.data())
def test_what_is_offered_a_hold_gets(data: st.DataObject) -> None:
    dice = Dice(data.draw, Focus.ALL)
    with tempfile.TemporaryDirectory(dir='/dev/shm') as folder:
        rig = page_host.Rig(
            pathlib.Path(folder),
            {node: make_node(dice) for node in (0, 1)},
            dataclasses.replace(page_host.POLICY, **make_policy(dice)),
            release=(6, 1) if dice.chance(30) else (6, 12),
        )
        rig.reconcile(starting=True)
        accounted = fill(dice, rig)
        if dice.chance(20):
            rig.pools.make_read_only('/sys is mounted read-only')
        rig.reconcile([page_host.guest(number) for number in range(5)])
        # All of a size at once, as the kernel counts some of it on the host.
        size_kib = dice.pick([SMALL, LARGE])
        nodes = dice.pick([[0], [1], [0, 1]])

        needs = []
        for node in nodes:
            left = offered(rig, model.PoolKey(node, size_kib), accounted)
            if left > 0:
                needs.append(model.PageNeed(node, node, size_kib, left))
        rig.pools.hold(NEW, needs)
        rig.run(NEW)


def offered(
    rig: page_host.Rig, key: model.PoolKey, accounted: frozenset[str]
) -> int:
    """Return what the scheduler takes for free."""
    totals = resources.page_totals(
        rig.pools.snapshot(), key.node, accounted=accounted
    )
    left = totals[key.size_kib] - rig.policy.reserved.get(key, 0)
    return left - sum(
        hold.pages + hold.idle
        for hold in rig.pools.holds()
        if hold.key == key and hold.holder in accounted
    )
