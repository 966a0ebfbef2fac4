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

"""A hold that is given starts, and one for what is available is given.

Beside guests that are off, that are starting and of which an older look is all
there is, that have returned pages, and others who have reserved pages on the
host.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import tempfile

import hypothesis
from hypothesis import strategies as st

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from tests.fixtures import kernel as fake_kernel
from tests.unit.core.dice import Dice
from tests.unit.core.dice import examples
from tests.unit.core.dice import Focus
from tests.unit.hugepages import page_host

NEW, THERE, OTHER, BALLOON = map(page_host.guest, range(1, 5))
POOLS = [page_host.pool(node) for node in (0, 1)]


def cells(dice: Dice) -> list[model.PageNeed]:
    """Draw one guest cell or two."""
    return page_host.needs(
        *(
            (dice.number(0, 1), dice.number(1, 12))
            for _ in range(dice.number(1, 2))
        )
    )


class Host:
    """A host with two nodes."""

    def __init__(self, folder: str, dice: Dice) -> None:
        self.dice = dice
        self.rig = page_host.Rig(
            pathlib.Path(folder),
            {
                node: page_host.grown(dice.pick([0, 5, 10, 20]))
                for node in (0, 1)
            },
            dataclasses.replace(
                page_host.POLICY,
                dynamic=dice.chance(50),
                warm_mib=dice.pick([0, 20]),
            ),
            release=dice.pick([(6, 1), (6, 12)]),
        )
        self.kernel = self.rig.kernel
        self.rig.reconcile(starting=True)
        if dice.chance(50):
            for node in (0, 1):
                self.kernel.use_memory(node, dice.number(700, 960) * 1024)
        self.off: set[str] = set()

    def come(self) -> None:
        """Have guests and others come."""
        if self.dice.chance(30):
            self._return()
        with contextlib.suppress(exception.NotEnoughPages):
            self.rig.pools.hold(OTHER, cells(self.dice))
            self.off.add(OTHER)
            if self.dice.chance(40):
                self.off.remove(OTHER)
                self.rig.pools.release(OTHER)
        self._reserve()
        with contextlib.suppress(
            exception.NotEnoughPages, fake_kernel.OutOfPages
        ):
            needs = cells(self.dice)
            self.rig.pools.hold(THERE, needs)
            self.off.add(THERE)
            if self.dice.chance(70):
                self._start(model.by_pool(needs))
        self._reserve()

    def _return(self) -> None:
        with contextlib.suppress(exception.NotEnoughPages):
            needs = cells(self.dice)
            self.rig.pools.hold(BALLOON, needs)
            has = model.by_pool(needs)
            self.kernel.start_guest(BALLOON, has, shared=self.dice.chance(30))
            self.rig.pools.mark_taken(BALLOON)
            for key, count in has.items():
                self.kernel.discard(BALLOON, key, self.dice.number(0, count))

    def _start(self, counts: dict[model.PoolKey, int]) -> None:
        self.kernel.start_guest(THERE, counts, touch=False)
        self.off.remove(THERE)
        self.kernel.touch(THERE, self.dice.number(0, 6))
        self.rig.keep_look(THERE)
        self.kernel.touch(THERE, self.dice.number(0, 4))

    def _reserve(self) -> None:
        count = self.dice.number(0, 12)
        with contextlib.suppress(fake_kernel.OutOfPages):
            if count:
                self.kernel.take({self.dice.pick(POOLS): count}, touch=False)


@examples(0.3)
@hypothesis.given(st.data())
def test_holds(data: st.DataObject) -> None:
    dice = Dice(data.draw, Focus.ALL)
    with tempfile.TemporaryDirectory(dir='/dev/shm') as folder:
        host = Host(folder, dice)
        rig = host.rig
        host.come()
        usage = rig.pools.usage()
        left = {key: usage[key].available for key in POOLS}
        all_of_it = dice.chance(50) and max(left.values()) > 0
        needs = (
            page_host.needs(
                *((key.node, left[key]) for key in POOLS if left[key] > 0)
            )
            if all_of_it
            else cells(dice)
        )
        rig.sleep = lambda _: rig.look_again()
        try:
            rig.pools.hold(NEW, needs)
        except exception.NotEnoughPages:
            assert not all_of_it
            rig.look_again()
            # Nor is it given when all is clear.
            with contextlib.suppress(exception.NotEnoughPages):
                rig.pools.hold(NEW, needs)
                raise AssertionError('refused at first') from None
            return
        rig.look_again()
        rig.run(NEW)
        if THERE in host.kernel.guests():
            host.kernel.touch(THERE)
        if BALLOON in host.kernel.guests() and not any(
            used.overdue for used in usage.values()
        ):
            host.kernel.touch(BALLOON)
        for holder in host.off:
            # Others may have taken what was promised before.
            if not any(used.overdue for used in usage.values()):
                rig.run(holder)
