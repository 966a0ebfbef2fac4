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

"""A host's pools on a simulated kernel, in a process that can be killed."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import pathlib
import threading
from typing import Any

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import growth
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import pods
from nova_numa_hugepages.hugepages import reconcile
from nova_numa_hugepages.hugepages.accounts import Accounts
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.hugepages.pools import Pools
from nova_numa_hugepages.hugepages.reconcile_rules import Present
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from nova_numa_hugepages.hugepages.usage import UsageReader
from tests.fixtures import kernel as fake_kernel

POLICY = PoolPolicy(
    node_free_mib=64, ceiling_percent=90, time_limit_s=1.0, start_limit_s=0.0
)
# 960 MiB of free memory, in one piece.
NODE = fake_kernel.FakeNode(total=1024, used=64)


def guest(number: int) -> str:
    """Name a guest."""
    return f'00000000-0000-4000-8000-{number:012d}'


def pool(node: int, size_kib: int = 2048) -> model.PoolKey:
    """Name a pool."""
    return model.PoolKey(node, size_kib)


def needs(*cells: tuple[int, int]) -> list[model.PageNeed]:
    """Ask for 2 MiB pages: a node and a count for each guest cell."""
    return [
        model.PageNeed(number, node, 2048, count)
        for number, (node, count) in enumerate(cells)
    ]


class Killed(BaseException):
    """The process is dead."""


class Steps:
    """Counts the writes of a process, and kills it at one of them.

    A dead process writes nothing more, whatever it catches.

    :ivar kill_at: before which step; None for none
    :ivar fail_at: at which step a write fails, once; None for none
    :ivar errors: errors to raise in operations of the ledger, by name
    """

    def __init__(self) -> None:
        self.revive()

    def revive(self) -> None:
        """Start counting from 0, in a process that lives."""
        self.count = 0
        self.kill_at: int | None = None
        self.fail_at: int | None = None
        self.errors: dict[str, Exception] = {}

    def step(self, operation: str = '') -> None:
        """Come to the next step."""
        if operation in self.errors:
            raise self.errors[operation]
        if self.kill_at is not None and self.count >= self.kill_at:
            raise Killed
        self.count += 1
        if self.count - 1 == self.fail_at:
            raise exception.LedgerError('ledger', 'has no space', 'Free some.')


_WRITES = (
    'announce',
    'drop',
    'forget_accounts',
    'move',
    'put_account',
    'replace_holds',
    'set_boot_id',
    'set_leaks',
    'set_state',
    'settle',
)


def stepping(ledger: Any, steps: Steps) -> Any:
    """Make each write of a ledger a step; the one that ends it, too."""

    def wrap(name: str) -> Any:
        write = getattr(ledger, name)

        def write_in_steps(*args: Any) -> Any:
            steps.step(name)
            with type(ledger).transaction(ledger):
                found = write(*args)
                steps.step()
            return found

        return write_in_steps

    for name in _WRITES:
        setattr(ledger, name, wrap(name))
    return ledger


class Rig:
    """Pools with everything below them.

    :ivar kernel: the simulated kernel
    :ivar ledger: the ledger, whose writes are steps
    :ivar pools: of the process that lives
    :ivar steps: its writes
    :ivar sleep: how it waits
    :ivar promises: reads what a kubelet promised
    :param read_maps: reads the ``numa_maps`` of a process; as the kernel has
        it if None
    :param release: as in `fake_kernel.FakeKernel`
    """

    def __init__(
        self,
        root: pathlib.Path,
        nodes: Mapping[int, fake_kernel.FakeNode],
        policy: PoolPolicy = POLICY,
        ledger: Ledger | None = None,
        read_maps: processes.MapsReader | None = None,
        *,
        release: tuple[int, int] = (6, 12),
    ) -> None:
        self.kernel = fake_kernel.FakeKernel(root, nodes, release=release)
        self.kernel.hook = self._event
        self.policy = policy
        self.steps = Steps()
        self.now = 1000.0
        self.sleep: Callable[[float], object] = lambda _: None
        self.promises: pods.PromisesReader = dict
        self._looks: dict[int, str] = {}
        self.read_maps = read_maps or self._read_maps
        self.ledger = stepping(ledger or Ledger.in_memory(), self.steps)
        self.start()

    def start(self, read_only: str | None = None) -> None:
        """Start the process, again if it was killed."""
        self.steps.revive()
        self.hugetlb = hugetlb.Hugetlb(
            self.kernel.fs, self.kernel.write, lambda s: self.sleep(s)
        )
        self.pools = Pools(
            self.hugetlb,
            self.ledger,
            self.policy,
            lock=threading.RLock(),
            read_maps=self.read_maps,
            pod_pages=pods.PodPages(self.kernel.fs, lambda: self.promises()),
            read_only=read_only,
            clock=lambda: self.now,
            ticks=self._tick,
            sleep=lambda s: self.sleep(s),
        )
        self.reconciler = reconcile.Reconciler(self.pools)

    def growth(self, wanted: Mapping[model.PoolKey, int]) -> growth.Growth:
        """Begin to allocate pages, beside what the pools do."""
        accounts = Accounts(self.hugetlb, self.ledger)
        return growth.Growth(
            growth.GrowthHost(
                self.hugetlb,
                accounts,
                UsageReader(
                    self.hugetlb, self.read_maps, accounts, self.ledger, {}
                ),
                self.ledger.holds,
                self._tick,
                lambda _: None,
            ),
            self.policy,
            wanted,
        )

    def reconcile(
        self,
        defined: Sequence[str] | None = (),
        migrating: Sequence[str] | None = (),
        *,
        busy: Sequence[str] = (),
        starting: bool = False,
    ) -> list[str]:
        """Bring ledger, domains and kernel in step."""
        return self.reconciler.reconcile(
            Present(
                None if defined is None else frozenset(defined),
                None if migrating is None else frozenset(migrating),
                busy=frozenset(busy),
            ),
            starting=starting,
        )

    def dry_run(self, *defined: str) -> list[str]:
        """Describe what would be done with these domains."""
        present = Present(frozenset(defined), frozenset())
        return self.reconciler.describe(
            self.reconciler.plan(present, strict=True)
        )

    def persistent(self) -> dict[model.PoolKey, int]:
        """Get the persistent 2 MiB pages of each node."""
        return {
            pool(node): self.kernel.pool(pool(node)).persistent
            for node in self.hugetlb.nodes()
        }

    def total(self, node: int = 0) -> int:
        """Get how many 2 MiB pages a node has, surplus ones included."""
        return self.kernel.pool(pool(node)).total

    def account(self, node: int, size_kib: int = 2048) -> tuple[int, int]:
        """Get the pages of a pool that are floor, and those that are ours."""
        found = self.ledger.account(pool(node, size_kib))
        return found.floor, found.grown

    def held(self) -> dict[tuple[str, str], dict[model.PoolKey, int]]:
        """Get the pages that are held, by holder and purpose."""
        found: dict[tuple[str, str], dict[model.PoolKey, int]] = {}
        for hold in self.ledger.holds():
            counts = found.setdefault((hold.holder, hold.purpose.value), {})
            counts[hold.key] = counts.get(hold.key, 0) + hold.pages
        return found

    def keep_look(self, holder: str) -> None:
        """Have the maps of a guest read as they are now, until `look_again`.

        As the kernel shows them while it clears pages for the guest, or as
        they were read before it went on.
        """
        pid = self.kernel.pid(holder)
        self._looks[pid] = self.kernel.read_maps(pid)

    def look_again(self) -> None:
        """Have the maps of all guests read as they are."""
        self._looks.clear()

    def _read_maps(self, pid: int) -> str:
        if pid in self._looks:
            return self._looks[pid]
        return self.kernel.read_maps(pid)

    def run(self, holder: str, *, taken: bool = True) -> None:
        """Start a guest on the pages that are held for it."""
        counts: dict[model.PoolKey, int] = {}
        for hold in self.ledger.holds(holder):
            if hold.purpose is model.Purpose.GUEST:
                counts[hold.key] = counts.get(hold.key, 0) + hold.pages
        self.kernel.start_guest(holder, counts)
        if taken:
            self.pools.mark_taken(holder)

    def watch(self, note: Callable[[fake_kernel.Event], None]) -> None:
        """Have each event of the kernel noted, after it is counted."""
        counts = self.kernel.hook
        assert counts is not None

        def count_and_note(event: fake_kernel.Event) -> None:
            counts(event)
            note(event)

        self.kernel.hook = count_and_note

    def at_first_write(self, act: Callable[[], object]) -> None:
        """Have something done before the kernel is written to next."""
        before = self.kernel.hook

        def step_in(event: fake_kernel.Event) -> None:
            if event.kind == 'write':
                self.kernel.hook = before
                act()

        self.watch(step_in)

    def at_read(self, number: int, act: Callable[[], object]) -> None:
        """Have something done before the kernel is read for that time.

        :param number: 1 for the next time; never if it is 0
        """
        left = number

        def step_in(event: fake_kernel.Event) -> None:
            nonlocal left
            left -= event.kind == 'read'
            if left == 0:
                act()

        self.watch(step_in)

    def _event(self, event: fake_kernel.Event) -> None:
        if event.kind != 'read':
            self.steps.step()

    def _tick(self) -> float:
        self.now += 0.05
        return self.now


def make(
    path: pathlib.Path,
    *nodes: fake_kernel.FakeNode,
    release: tuple[int, int] = (6, 12),
    **policy: object,
) -> Rig:
    """Make a host with these nodes, two empty ones if none."""
    rig = Rig(
        path,
        dict(enumerate(nodes or (NODE, NODE))),
        dataclasses.replace(POLICY, **policy),
        release=release,
    )
    rig.reconcile(starting=True)
    return rig


def grown(count: int) -> fake_kernel.FakeNode:
    """A node whose operator set up a pool of 2 MiB pages."""
    return dataclasses.replace(NODE, pools={2048: count})
