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

"""Guests come, go and crash, others interfere, and the accounts stay right.

The model is simple: who holds what, which pages were there before us, and
which pools were left alone since their promises were last good.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile

import hypothesis
from hypothesis import stateful
from hypothesis import strategies

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hugetlb
from tests.fixtures import kernel as fake_kernel
from tests.unit.core.dice import examples
from tests.unit.hugepages import page_host

NODES = {
    0: fake_kernel.FakeNode(
        total=256, used=32, min_kib=2048, high_kib=4096, pools={2048: 6}
    ),
    1: fake_kernel.FakeNode(total=192, used=16, min_kib=2048, high_kib=4096),
}
GUESTS = [page_host.guest(number) for number in range(4)]
POOLS = [page_host.pool(node) for node in NODES]

_GUEST = 'guest'
_RESIZE = 'resize'

guests = strategies.sampled_from(GUESTS)
pools = strategies.sampled_from(POOLS)
wishes = strategies.lists(
    strategies.tuples(
        strategies.sampled_from(list(NODES)), strategies.integers(1, 45)
    ),
    min_size=1,
    max_size=2,
).map(lambda cells: page_host.needs(*cells))


class _Meanwhile:
    """An operator who sets a pool while the service is at work.

    :param read: before which of the service's looks at the kernel
    :ivar hook: the hook of the kernel before
    :ivar lost: whether the service wrote the pool before it looked at it
        again, or had just written it: neither can be told from its own write
    """

    def __init__(
        self, machine: PoolsMachine, read: int, key: model.PoolKey, count: int
    ) -> None:
        self.hook = machine.kernel.hook
        self.lost = False
        self._machine = machine
        self._left = read
        self._set = key, count
        self._node = str(key.node)
        self._file = hugetlb.nr_file(machine.kernel.fs, *key)
        self._unseen = False
        # Since it was written the counters are read once, and again.
        self._to_read = 0

    def note(self, event: fake_kernel.Event) -> None:
        """Note what the service does."""
        if event.kind == 'read':
            sees = event.what == f'{self._file}'
            self._left -= 1
            if self._left == 0:
                self._machine.write(*self._set)
                self._unseen = True
                self.lost = self._to_read > 0
            if sees:
                self._unseen = False
                self._to_read -= 1
        elif event.kind == 'write' and event.what.split()[1] == self._node:
            self._to_read = 2
            self.lost = self.lost or self._unseen


class PoolsMachine(stateful.RuleBasedStateMachine):
    """A host and its service."""

    def __init__(self) -> None:
        super().__init__()
        folder = '/dev/shm' if os.path.isdir('/dev/shm') else None
        self.root = pathlib.Path(tempfile.mkdtemp(dir=folder))
        self.rig = page_host.Rig(self.root, NODES)
        self.kernel = self.rig.kernel
        self.rig.reconcile(starting=True)
        self.held: dict[tuple[str, str], dict[model.PoolKey, int]] = {}
        self.defined: set[str] = set()
        self.running: set[str] = set()
        self.others: list[int] = []
        self.waiting: list[int] = []
        self.floor = self.rig.persistent()
        self.clean = set(POOLS)

    def teardown(self) -> None:
        try:
            self._everything_goes()
        finally:
            shutil.rmtree(self.root)

    # Guests.

    @stateful.rule(holder=guests, needs=wishes)
    def hold(self, holder: str, needs: list[model.PageNeed]) -> None:
        if holder in self.running:
            return
        before = {key: self.kernel.pool(key) for key in POOLS}
        wanted = model.by_pool(needs)
        try:
            self.rig.pools.hold(holder, needs)
        except exception.NotEnoughPages:
            # All or nothing: every pool is as it was. But the kernel counts
            # on the whole host, and keeps a page for each that is surplus.
            if not self._refuses():
                surplus = max(
                    sum(pool.surplus for pool in before.values()),
                    sum(self.kernel.pool(key).surplus for key in POOLS),
                )
                for key, was in before.items():
                    kept = self.kernel.pool(key).persistent - was.persistent
                    assert 0 <= kept <= surplus
        else:
            self.held[holder, _GUEST] = wanted
            usage = self.rig.pools.usage()
            assert all(usage[key].available >= 0 for key in wanted)
            self.clean |= wanted.keys()

    @stateful.rule(holder=guests, taken=strategies.booleans())
    def start(self, holder: str, taken: bool) -> None:
        wanted = self.held.get((holder, _GUEST))
        if wanted is None or holder in self.running:
            return
        self.defined.add(holder)
        try:
            self.rig.run(holder, taken=taken)
        except fake_kernel.OutOfPages:
            # What was promised is there, unless another program took it.
            assert not wanted.keys() <= self.clean
        else:
            self.running.add(holder)

    @stateful.rule(holder=guests)
    def note_start(self, holder: str) -> None:
        if holder in self.running:
            self.rig.pools.mark_taken(holder)

    @stateful.rule(holder=guests)
    def power_off(self, holder: str) -> None:
        if holder in self.running:
            self._see_start(holder)
            self.kernel.stop_guest(holder)
            self.running.discard(holder)

    @stateful.rule(holder=guests)
    def delete(self, holder: str) -> None:
        self.power_off(holder)
        self.defined.discard(holder)
        self.rig.pools.release(holder)
        self._forget(holder)

    @stateful.rule(holder=guests)
    def resize_away(self, holder: str) -> None:
        self.power_off(holder)
        self.rig.pools.move(holder, model.Purpose.GUEST, model.Purpose.RESIZE)
        if (holder, _GUEST) in self.held:
            self.held[holder, _RESIZE] = self.held.pop((holder, _GUEST))

    @stateful.rule(holder=guests)
    def resize_back(self, holder: str) -> None:
        if holder in self.running:
            return
        self.rig.pools.move(holder, model.Purpose.RESIZE, model.Purpose.GUEST)
        if (holder, _RESIZE) in self.held:
            self.held[holder, _GUEST] = self.held.pop((holder, _RESIZE))

    @stateful.rule()
    def reconcile(self) -> None:
        self._reconcile(starting=False)
        if self._refuses():
            return
        settled = {key: self.kernel.pool(key) for key in POOLS}
        again = self._reconcile(starting=False)
        # What can be done is done at once, and not done again.
        assert settled == {key: self.kernel.pool(key) for key in POOLS}
        assert not [
            done for done in again if 'allocated' in done or 'freed' in done
        ]

    # Crashes.

    @stateful.rule(
        holder=guests,
        needs=wishes,
        step=strategies.integers(0, 30),
        what=strategies.sampled_from(['hold', 'release', 'reconcile']),
    )
    def crash(
        self, holder: str, needs: list[model.PageNeed], step: int, what: str
    ) -> None:
        if holder in self.running:
            return
        before = dict(self.held)
        after = dict(self.held)
        self.rig.steps.revive()
        self.rig.steps.kill_at = step
        try:
            if what == 'hold':
                after[holder, _GUEST] = model.by_pool(needs)
                self.rig.pools.hold(holder, needs)
            elif what == 'release':
                after = {k: v for k, v in after.items() if k[0] != holder}
                self.rig.pools.release(holder)
            else:
                after = self._reconciled()
                self.rig.reconcile(self.defined, self._migrating())
        except (page_host.Killed, exception.NotEnoughPages):
            pass
        self.rig.start()
        # One guest's pages change at once.
        now = self.rig.held()
        for key in before.keys() | after.keys():
            assert now.get(key) in (before.get(key), after.get(key))
        self.held = now
        self._reconcile(starting=True)

    # Others.

    @stateful.rule(
        holder=guests,
        needs=wishes,
        read=strategies.integers(0, 300),
        key=pools,
        count=strategies.integers(0, 60),
        what=strategies.sampled_from(['hold', 'release', 'reconcile']),
    )
    def operator_writes_meanwhile(
        self,
        holder: str,
        needs: list[model.PageNeed],
        read: int,
        key: model.PoolKey,
        count: int,
        what: str,
    ) -> None:
        if holder in self.running:
            return
        operator = _Meanwhile(self, read, key, count)
        self.rig.watch(operator.note)
        try:
            if what == 'hold':
                self.rig.pools.hold(holder, needs)
                self.held[holder, _GUEST] = model.by_pool(needs)
            elif what == 'release':
                self.rig.pools.release(holder)
                self._forget(holder)
            else:
                self._reconcile(starting=False)
        except exception.NotEnoughPages:
            pass
        finally:
            self.kernel.hook = operator.hook
        with self.rig.pools.locked():
            self.rig.pools.refresh()
        if operator.lost:
            self.floor[key] = self.rig.account(key.node)[0]

    @stateful.rule(key=pools, share=strategies.integers(1, 100))
    def others_take(self, key: model.PoolKey, share: int) -> None:
        count = self.kernel.pool(key).free * share // 100
        if count:
            self._disturb(key)
            with contextlib.suppress(fake_kernel.OutOfPages):
                self.others.append(self.kernel.take({key: count}))

    @stateful.rule(key=pools, share=strategies.integers(1, 100))
    def others_reserve(self, key: model.PoolKey, share: int) -> None:
        """They map pages, which may come from any node, and touch none."""
        count = self.kernel.pool(key).free * share // 100
        if count:
            self.clean.clear()
            with contextlib.suppress(fake_kernel.OutOfPages):
                self.waiting.append(
                    self.kernel.take({key: count}, touch=False)
                )

    @stateful.rule(waiting=strategies.booleans())
    def others_give(self, waiting: bool) -> None:
        pids = self.waiting if waiting else self.others
        if pids:
            self.kernel.give(pids.pop())

    @stateful.rule(key=pools, count=strategies.integers(0, 60))
    def operator_writes(self, key: model.PoolKey, count: int) -> None:
        self.write(key, count)
        with self.rig.pools.locked():
            self.rig.pools.refresh()

    @stateful.rule(
        node=strategies.sampled_from(list(NODES)),
        kib=strategies.integers(0, 65536),
        uses=strategies.booleans(),
    )
    def memory_is_used(self, node: int, kib: int, uses: bool) -> None:
        if uses:
            self.kernel.use_memory(node, kib)
        else:
            self.kernel.free_memory(node, kib)

    @stateful.rule(
        node=strategies.sampled_from(list(NODES)),
        kib=strategies.integers(0, 65536),
        mendable_kib=strategies.none() | strategies.integers(0, 32768),
    )
    def memory_breaks(
        self, node: int, kib: int, mendable_kib: int | None
    ) -> None:
        self.kernel.fragment(node, kib, mendable_kib)

    @stateful.rule(
        key=pools, frees=strategies.none() | strategies.integers(0, 10)
    )
    def kernel_refuses(self, key: model.PoolKey, frees: int | None) -> None:
        self.kernel.refuse_shrink(key, frees)

    @stateful.rule()
    def reboot(self) -> None:
        self.kernel.reboot()
        self.running.clear()
        self.others.clear()
        self.waiting.clear()
        self.clean.clear()
        self.floor = self.rig.persistent()
        self.rig.start()
        self._reconcile(starting=True)

    # What always holds.

    @stateful.invariant()
    def the_ledger_says_who_holds_what(self) -> None:
        assert self.rig.held() == self.held

    @stateful.invariant()
    def floor_and_growth_add_up(self) -> None:
        persistent = self.rig.persistent()
        for key in POOLS:
            floor, grown = self.rig.account(key.node)
            assert (floor, grown) == (
                self.floor[key],
                persistent[key] - self.floor[key],
            )

    @stateful.invariant()
    def nothing_is_promised_twice(self) -> None:
        for key, used in self.rig.pools.usage().items():
            assert key not in self.clean or not used.overdue

    @stateful.invariant()
    def the_kernel_is_sane(self) -> None:
        self.kernel.check()

    # Helpers.

    def _disturb(self, key: model.PoolKey) -> None:
        """Note that others may have taken what is promised of a pool.

        Who has reserved pages has them from another pool then.
        """
        self.clean.discard(key)
        if self.waiting:
            self.clean.clear()

    def write(self, key: model.PoolKey, count: int) -> None:
        """Have an operator set a pool."""
        before = self.rig.persistent()
        self.kernel.operator_writes(key, count)
        self._disturb(key)
        for changed, now in self.rig.persistent().items():
            if now != before[changed]:
                self.floor[changed] = now

    def _reconcile(self, *, starting: bool) -> list[str]:
        for holder in self.running:
            self._see_start(holder)
        self.held = self._reconciled()
        done = self.rig.reconcile(
            sorted(self.defined), self._migrating(), starting=starting
        )
        usage = self.rig.pools.usage()
        if self.waiting and any(usage[key].overdue for key in POOLS):
            return done
        for key in POOLS:
            # Surplus pages vanish with those who have them.
            if not usage[key].overdue and not usage[key].pool.surplus:
                self.clean.add(key)
        return done

    def _reconciled(self) -> dict[tuple[str, str], dict[model.PoolKey, int]]:
        """Return what is held once everything is reconciled."""
        return {
            (holder, purpose): counts
            for (holder, purpose), counts in self.held.items()
            if purpose == _RESIZE or holder in self.defined
        }

    def _migrating(self) -> list[str]:
        return [h for h, purpose in self.held if purpose == _RESIZE]

    def _see_start(self, holder: str) -> None:
        """A guest that ran is known to have run."""
        self.rig.pools.mark_taken(holder)

    def _forget(self, holder: str) -> None:
        for key in [key for key in self.held if key[0] == holder]:
            del self.held[key]

    def _refuses(self) -> bool:
        return any(self.kernel.refuses(key) for key in POOLS)

    def _everything_goes(self) -> None:
        """In the end there is what there was before us."""
        for key in POOLS:
            self.kernel.refuse_shrink(key, None)
        for pids in (self.others, self.waiting):
            while pids:
                self.kernel.give(pids.pop())
        for holder in GUESTS:
            self.delete(holder)
        self._reconcile(starting=True)
        assert self.rig.held() == {}
        assert self.rig.persistent() == self.floor
        self.the_kernel_is_sane()


PoolsMachine.TestCase.settings = hypothesis.settings(
    examples(0.1),
    stateful_step_count=20,
    suppress_health_check=list(hypothesis.HealthCheck),
)
TestPools = PoolsMachine.TestCase
