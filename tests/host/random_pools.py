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

"""Random operations on the pools of the host that this runs on.

``python -m tests.host.random_pools SEED OPERATIONS`` has guests come, start,
return pages, go and be resized, while the service is killed at system calls or
its writes fail, an operator sets the pool, other programs and an appliance
take pages and give them back. After each operation the accounts are compared
with a model. The pool is as before at its end.

The first violation ends it, with the seed and the number of the operation. The
same seed does the same again, as far as the kernel does.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import ctypes
import errno
import logging
import mmap
import os
import pathlib
import random
import signal
import sys
import tempfile
import threading

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import nodes
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.hugepages.pools import Pools
from nova_numa_hugepages.hugepages.reconcile import Reconciler
from nova_numa_hugepages.hugepages.reconcile_rules import Present
from nova_numa_hugepages.hugepages.state import lock
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from tests.host import mapped_pages
from tests.host import tracer

_GUEST = model.Purpose.GUEST
_RESIZE = model.Purpose.RESIZE
# About as many system calls as an operation of the service makes.
_CALLS = 700
_FAULTS = (errno.ENOSPC, errno.EIO)
# The answer of a service that wrote a pool which was set just before.
_OVERWRITTEN = 'overwritten'

IN_USE = 2
"""The exit status if the pool is not empty."""

_RUN = os.getpid()

Holds = dict[tuple[str, model.Purpose], int]


def uuid(number: int) -> str:
    """Name a guest, as no other run does."""
    return f'{_RUN:08x}-0000-4000-8000-{number:012d}'


_APPLIANCE = uuid(90)


class Violation(Exception):
    """The accounts are not what they have to be."""


class Idle(Exception):
    """There is nothing to do for an operation, and it doesn't count."""


def check(right: bool, what: str) -> None:
    """Raise `Violation` if something isn't right."""
    if not right:
        raise Violation(what)


class Guest:
    """A process that looks like the QEMU of a guest.

    :param pages: how many it has when it has started
    :param private: whether no other process can map them
    :param steps: whether it maps and touches them only when it is told to
    :ivar more: the pages that it has taken later
    :ivar ended: called when it has ended
    """

    ended: Callable[[], object] = staticmethod(lambda: None)

    def __init__(
        self,
        name: str,
        pages: int,
        *,
        private: bool = False,
        steps: bool = False,
    ) -> None:
        self.left = ['map', 'touch'] if steps else []
        self.more = 0
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            _be_guest(name, pages, private, steps, commands, answers)
        os.close(commands)
        os.close(answers)
        self.works = os.read(self._answers, 1) == b'+'

    def step(self) -> bool:
        """Have it map or touch its pages; return whether it could."""
        self.left.pop(0)
        return self._tell(b'.')

    def give_back(self) -> bool:
        """Have it return half of its pages; return whether it could."""
        return self._tell(b'-')

    def take_again(self) -> bool:
        """Have it touch all of its pages; return whether it could."""
        return self._tell(b'.')

    def grow(self, pages: int) -> bool:
        """Have it take more pages; return whether it could."""
        self.more += pages
        return self._tell(b'>' + pages.to_bytes(4, 'big'))

    def shrink(self) -> bool:
        """Have it return what it has taken later; return whether it could."""
        self.more = 0
        return self._tell(b'<')

    def _tell(self, command: bytes) -> bool:
        os.write(self._commands, command)
        return os.read(self._answers, 1) == b'+'

    def end(self) -> None:
        """End it; its pages are free then."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._commands)
        os.close(self._answers)
        self.ended()


def _be_guest(
    name: str,
    pages: int,
    private: bool,
    steps: bool,
    commands: int,
    answers: int,
) -> None:
    """Be the process of a guest; never returns."""
    with contextlib.suppress(BaseException):
        # As its parent does: a pipe ends with its last writer.
        os.closerange(3, min(commands, answers))
        _show_arguments('qemu', '-name', f'guest={name}', '-uuid', name)
        if steps:
            os.write(answers, b'+')
            os.read(commands, 1)
        mapped = mapped_pages.take(pages, private=private)
        if steps:
            os.write(answers, b'+')
            os.read(commands, 1)
        command = b'.'
        later = []
        while command:
            if command == b'-':
                mapped_pages.give_back(mapped, pages // 2)
            elif command == b'>':
                count = int.from_bytes(os.read(commands, 4), 'big')
                later.append(mapped_pages.take(count, private=private))
                mapped_pages.touch(later[-1], count)
            elif command == b'<':
                while later:
                    later.pop().close()
            else:
                mapped_pages.touch(mapped, pages)
            os.write(answers, b'+')
            command = os.read(commands, 1)
    os._exit(1)


def _show_arguments(*words: str) -> None:
    """Show other arguments of this process than it was started with.

    In the memory that those have.
    """
    fields = pathlib.Path('/proc/self/stat').read_text().rpartition(')')[2]
    start, end = map(int, fields.split()[45:47])
    text = b''.join(word.encode() + b'\0' for word in words)
    ctypes.memmove(start, text.ljust(end - start, b'\0'), end - start)


class WatchedPools(hugetlb.Hugetlb):
    """The pools of a host, with an eye on what can't be told from our writes.

    :ivar overwritten: whether the pool was written that was set since it was
        read
    """

    def __init__(self, fs: hostfs.HostFS) -> None:
        super().__init__(fs, self._watch)
        self.overwritten = False
        self._read: model.Pool | None = None
        # A child writes, and its parent wants to know.
        self._written = mmap.mmap(-1, 1)

    @property
    def just_written(self) -> bool:
        """Whether the pool was written and not read since."""
        return self._written[0] != 0

    def pool(self, key: model.PoolKey) -> model.Pool:
        """Read the counters of a pool."""
        pool = super().pool(key)
        if key.size_kib == mapped_pages.KIB:
            self._read = pool
            self._written[0] = 0
        return pool

    def _watch(
        self, path: pathlib.Path, number: int, node: int | None = None
    ) -> None:
        if self._read is not None:
            now = super().pool(self._read.key)
            if now.persistent != self._read.persistent:
                self.overwritten = True
        self._written[0] = 1
        hugetlb.write_number(path, number, node)


class World:
    """A host, its service, and the others on it.

    :ivar held: what the ledger has to say
    :ivar floor: pages that are the operator's
    :ivar dirty: whether others may have taken promised pages
    """

    def __init__(self, folder: pathlib.Path, seed: int) -> None:
        self.dice = random.Random(seed)
        # Only our processes are looked at, so that there are not thousands of
        # system calls for others.
        self.fs = hostfs.HostFS(proc=folder / 'proc')
        self.fs.proc.mkdir()
        for name in ('buddyinfo', 'sys', 'zoneinfo'):
            (self.fs.proc / name).symlink_to(hostfs.PROC / name)
        self.kernel = WatchedPools(self.fs)
        self.key = model.PoolKey(self.kernel.nodes()[0], mapped_pages.KIB)
        memory = nodes.memory(self.fs)[self.key.node]
        self.most = memory.total_kib // 100 // mapped_pages.KIB
        self.folder = folder
        self.held: Holds = {}
        self.defined: set[str] = set()
        self.guests: dict[str, Guest] = {}
        self.others: list[mmap.mmap] = []
        self.floor = 0
        self.dirty = False
        self.kills = self.faults = 0
        self._start()

    def _guest(self, name: str, pages: int, *, steps: bool = False) -> Guest:
        """Start a guest that the service sees."""
        private = self.dice.random() < 0.7
        guest = Guest(name, pages, private=private, steps=steps)
        seen = self.fs.proc / f'{guest.pid}'
        seen.symlink_to(hostfs.PROC / seen.name)
        guest.ended = seen.unlink
        return guest

    # The service.

    def _open(
        self, *, dynamic: bool = True, time_limit_s: float = 0.0
    ) -> Pools:
        return Pools(
            self.kernel,
            Ledger.open(self.folder / 'ledger.sqlite'),
            PoolPolicy(
                dynamic=dynamic,
                ceiling_percent=1,
                time_limit_s=time_limit_s,
                start_limit_s=0.0,
            ),
            lock=lock.HostLock(self.folder),
            read_maps=processes.MapsFile(self.fs),
        )

    def _start(self) -> None:
        self.pools = self._open()
        self.reconcile(starting=True)

    def reconcile(self, *, starting: bool = False) -> None:
        """Reconcile, as the service does once a minute."""
        _reconcile(self.pools, self.defined, self.held, starting)
        self.held = self._reconciled()
        used = self.pools.usage()[self.key]
        self.dirty = bool(used.available < 0 or used.pool.surplus)

    def _reconciled(self) -> Holds:
        found = {
            (holder, purpose): pages
            for (holder, purpose), pages in self.held.items()
            if purpose is _RESIZE or holder in self.defined
        }
        holder = _APPLIANCE
        if holder in self.guests and (holder, _GUEST) not in self.held:
            process = self.pools.running()[holder]
            found[holder, _GUEST] = sum(self.pools.pages_of(process).values())
        return found

    # Operations. Each is a method without arguments, and raises `Idle` if it
    # does nothing.

    def hold(self) -> None:
        """A guest comes, or comes with another size."""
        holder = self._holder()
        if holder in self.guests:
            raise Idle
        need = self._new_need()
        before = self.kernel.pool(self.key)
        try:
            self.pools.hold(holder, [need])
        except exception.NotEnoughPages:
            after = self.kernel.pool(self.key)
            kept = after.persistent - before.persistent
            check(
                0 <= kept <= before.surplus,
                f'a refused hold changed the pool: {before} to {after}',
            )
        else:
            self.held[holder, _GUEST] = need.pages
            available = self.pools.usage()[self.key].available
            check(available >= 0, f'{available} pages available after a hold')
            self.dirty = False

    def _new_need(self) -> model.PageNeed:
        """Choose what a guest comes with; some are elastic."""
        pages = self.dice.randint(1, self.most // 3)
        need = model.PageNeed(0, *self.key, pages)
        if self.dice.random() < 0.5:
            return need
        ceiling = pages + self.dice.randint(1, self.most // 6)
        return need._replace(base=pages, ceiling=ceiling)

    def grow(self) -> None:
        """An elastic guest is given more, and takes it."""
        holder, hold = self._elastic()
        pages = self.dice.randint(hold.pages, hold.ceiling)
        before = self.kernel.pool(self.key)
        try:
            self.pools.resize(holder, {0: pages})
        except exception.NotEnoughPages as error:
            check(self.dirty, f'{holder} is refused what is promised: {error}')
            after = self.kernel.pool(self.key)
            kept = after.persistent - before.persistent
            check(
                0 <= kept <= before.surplus,
                f'a refused change changed the pool: {before} to {after}',
            )
            return
        self.held[holder, _GUEST] = pages
        guest = self.guests[holder]
        more = pages - hold.base - guest.more
        if more:
            self._note(holder, guest, works=guest.grow(more))

    def shrink(self) -> None:
        """An elastic guest gives all back that it got later."""
        holder, hold = self._elastic()
        guest = self.guests[holder]
        if not guest.more:
            raise Idle
        check(guest.shrink(), f'{holder} gave nothing back')
        self.pools.resize(holder, {0: hold.base})
        self.held[holder, _GUEST] = hold.base

    def _elastic(self) -> tuple[str, model.Hold]:
        """Choose an elastic guest that has its pages."""
        holder = self._balloon()
        for hold in self.pools.holds(holder, _GUEST):
            if hold.ceiling:
                return holder, hold
        raise Idle

    def start(self) -> None:
        """A guest starts on what it holds."""
        holder = self._holder()
        pages = self.held.get((holder, _GUEST))
        if pages is None or holder in self.guests:
            raise Idle
        [hold] = self.pools.holds(holder, _GUEST)
        try:
            # As the service does each time.
            self.pools.hold(holder, [hold.need])
        except exception.NotEnoughPages as error:
            check(self.dirty, f'{holder} lost what it holds: {error}')
            return
        self.defined.add(holder)
        steps = self.dice.random() < 0.3
        guest = self._guest(holder, hold.at_boot, steps=steps)
        self._note(holder, guest, works=guest.works)

    def step(self) -> None:
        """A guest that is starting goes on."""
        for holder, guest in self.guests.items():
            if guest.left:
                self._note(holder, guest, works=guest.step())
                return
        raise Idle

    def _note(self, holder: str, guest: Guest, *, works: bool) -> None:
        if works:
            self.guests[holder] = guest
            if not guest.left and (holder, _GUEST) in self.held:
                self.pools.mark_taken(holder)
            return
        guest.end()
        self.guests.pop(holder, None)
        check(self.dirty, f'{holder} did not get the pages that it holds')

    def give_back(self) -> None:
        """A guest returns pages through its balloon."""
        holder = self._balloon()
        # Of memory without any page the kernel doesn't tell how large its
        # pages are. A guest always has some.
        if any(hold.at_boot < 2 for hold in self.pools.holds(holder, _GUEST)):
            raise Idle
        check(self.guests[holder].give_back(), f'{holder} returned nothing')

    def take_again(self) -> None:
        """A guest takes the pages that it has returned."""
        holder = self._balloon()
        guest = self.guests[holder]
        self._note(holder, guest, works=guest.take_again())

    def _balloon(self) -> str:
        """Choose a guest that has its pages, or had them before."""
        holder = self._holder()
        if holder not in self.guests or self.guests[holder].left:
            raise Idle
        return holder

    def rush(self) -> None:
        """A guest comes that needs all that is left, while another starts."""
        starts, comes = map(uuid, self.dice.sample(range(4), 2))
        pages = self.held.get((starts, _GUEST))
        if (
            self.dirty
            or pages is None
            or self.pools.usage()[self.key].available < 1
            or {starts, comes} & self.guests.keys()
            or (comes, _GUEST) in self.held
        ):
            raise Idle
        [hold] = self.pools.holds(starts, _GUEST)
        self.pools.hold(starts, [hold.need])
        left = self.pools.usage()[self.key].available
        self.defined.add(starts)
        guest = self._guest(starts, hold.at_boot, steps=True)
        works = [guest.step()]
        taking = threading.Thread(target=lambda: works.append(guest.step()))
        taking.start()
        try:
            pools = self._open(dynamic=False, time_limit_s=60.0)
            _hold(pools, comes, self.key, left)
        except exception.NotEnoughPages as error:
            raise Violation(f'refused what was available: {error}') from None
        finally:
            taking.join()
            self._note(starts, guest, works=all(works))
        self.held[comes, _GUEST] = left

    def power_off(self) -> None:
        """A guest is powered off."""
        holder = self._holder()
        if holder not in self.guests:
            raise Idle
        self._end(holder)

    def delete(self) -> None:
        """A guest is deleted."""
        holder = self._holder()
        if not any(one == holder for one, _ in self.held):
            raise Idle
        self._end(holder)
        self.defined.discard(holder)
        self.pools.release(holder)
        self.held = {k: v for k, v in self.held.items() if k[0] != holder}

    def resize_away(self) -> None:
        """What a guest holds is kept for a revert."""
        holder = self._holder()
        if (holder, _GUEST) not in self.held:
            raise Idle
        self._end(holder)
        self.pools.move(holder, _GUEST, _RESIZE)
        self.held[holder, _RESIZE] = self.held.pop((holder, _GUEST))

    def resize_back(self) -> None:
        """A resize is reverted."""
        holder = self._holder()
        if holder in self.guests or (holder, _RESIZE) not in self.held:
            raise Idle
        self.pools.move(holder, _RESIZE, _GUEST)
        self.held[holder, _GUEST] = self.held.pop((holder, _RESIZE))

    def appliance(self) -> None:
        """A domain that Nova doesn't know comes or goes."""
        holder = _APPLIANCE
        if holder in self.guests:
            self._end(holder)
            self.defined.discard(holder)
            return
        free = self.kernel.pool(self.key).free
        if not free or (holder, _GUEST) in self.held:
            raise Idle
        guest = self._guest(holder, self.dice.randint(1, free))
        self.dirty = True
        if guest.works:
            self.guests[holder] = guest
            self.defined.add(holder)
        else:
            guest.end()

    def others_take(self) -> None:
        """Another program takes free pages, or only maps them."""
        free = self.kernel.pool(self.key).free
        if not free:
            raise Idle
        pages = self.dice.randint(1, free)
        with contextlib.suppress(OSError):
            mapped = mapped_pages.take(pages)
            self.dirty = True
            self.others.append(mapped)
            # A page that isn't there kills the process that touches it.
            if not self._reserved_by_others():
                mapped_pages.touch(mapped, self.dice.randint(0, pages))

    def others_give(self) -> None:
        """Another program gives its pages back."""
        if not self.others:
            raise Idle
        index = self.dice.randrange(len(self.others))
        self.others.pop(index).close()

    def operator(self) -> None:
        """An operator or a boot unit sets the pool."""
        self._set_pool()
        with self.pools.locked():
            self.pools.refresh()

    def _set_pool(self) -> None:
        number = self.dice.randint(0, self.most)
        before = self.kernel.pool(self.key).persistent
        hugetlb.write_number(hugetlb.nr_file(self.fs, *self.key), number)
        now = self.kernel.pool(self.key).persistent
        if now != before:
            self.floor = now
            self.dirty = True

    def killed(self) -> None:
        """The service is killed in the middle, and starts again."""
        self.kills += self._traced(kill=True).happened

    def fault(self) -> None:
        """A write of the service fails."""
        fault = self.dice.choice(_FAULTS)
        self.faults += self._traced(fail=fault).happened

    def meanwhile(self) -> None:
        """Others do something while the service works."""
        act = self.dice.choice(
            [self.others_take, self.others_give, self._set_pool]
        )
        lost = False

        def try_to() -> None:
            nonlocal lost
            lost = act == self._set_pool and self.kernel.just_written
            with contextlib.suppress(Idle):
                act()

        outcome = self._traced(meanwhile=try_to)
        if outcome.happened:
            self.dirty = True
        if lost or outcome.answer == _OVERWRITTEN:
            accounts = self.pools.check_accounts().accounts
            self.floor = accounts[self.key].floor

    def _traced(
        self,
        *,
        kill: bool = False,
        fail: int = 0,
        meanwhile: Callable[[], object] | None = None,
    ) -> tracer.Outcome:
        holder = self._holder()
        what = self.dice.choice(['hold', 'release', 'reconcile', 'resize'])
        if what == 'resize':
            holder, held = self._elastic()
            # As another program may change the pool meanwhile, it may be
            # refused.
            need = held.need._replace(
                pages=self.dice.randint(held.pages, held.ceiling)
            )
        else:
            need = self._new_need()
        if holder in self.guests and what in ('hold', 'release'):
            self._end(holder)
        after = dict(self.held)

        def work() -> str:
            try:
                pools = self._open()
                if what == 'hold':
                    pools.hold(holder, [need])
                elif what == 'resize':
                    pools.resize(holder, {0: need.pages})
                elif what == 'release':
                    pools.release(holder)
                else:
                    _reconcile(pools, self.defined, self.held, False)
            except exception.NotEnoughPages:
                pass
            except exception.NUMAHugepagesError as error:
                return 'failed' if fail else repr(error)
            return _OVERWRITTEN if self.kernel.overwritten else 'done'

        if what in ('hold', 'resize'):
            after[holder, _GUEST] = need.pages
        elif what == 'release':
            after = {k: v for k, v in after.items() if k[0] != holder}
        else:
            after = self._reconciled()
        outcome = tracer.run(
            work,
            self.dice.randint(0, _CALLS),
            kill=kill,
            fail=fail,
            meanwhile=meanwhile,
        )
        check(
            outcome.answer in ('', 'done', 'failed', _OVERWRITTEN),
            f'{what} ended with {outcome.answer}',
        )
        now = _held(self.pools)
        for key in self.held.keys() | after.keys() | now.keys():
            allowed = (self.held.get(key), after.get(key))
            check(
                now.get(key) in allowed,
                f'after {what}: {key} holds {now.get(key)}, not one of '
                f'{allowed}',
            )
        self.held = now
        self._start()
        return outcome

    # What always holds.

    def check(self) -> None:
        """Check the invariants.

        :raises Violation: if one doesn't hold
        """
        check(
            _held(self.pools) == self.held,
            f'held: {_held(self.pools)}, expected {self.held}',
        )
        pool = self.kernel.pool(self.key)
        account = self.pools.check_accounts().accounts[self.key]
        expected = (self.floor, pool.persistent - self.floor)
        check(
            (account.floor, account.grown) == expected,
            f'floor and grown: {account.floor} and {account.grown}, '
            f'expected {expected}',
        )
        overdue = self.pools.usage()[self.key].overdue
        check(
            self.dirty or not overdue, f'{overdue} promised pages are missing'
        )

    def end(self) -> None:
        """Have everybody go, and check that the pool is the operator's."""
        while self.others:
            self.others.pop().close()
        for holder in list(self.guests):
            self._end(holder)
        self.defined.clear()
        for holder in {holder for holder, _ in self.held}:
            self.pools.release(holder)
        self.held.clear()
        self.reconcile(starting=True)
        self.check()
        pool = self.kernel.pool(self.key)
        check(
            pool == (*self.key, self.floor, self.floor, 0),
            f'{pool} at the end, expected {self.floor} free pages',
        )

    def restore(self) -> None:
        """Leave nothing behind, whatever happened."""
        for mapped in self.others:
            mapped.close()
        for guest in self.guests.values():
            guest.end()
        mapped_pages.empty(self.kernel, self.key)

    # Helpers.

    def _holder(self) -> str:
        return uuid(self.dice.randint(0, 3))

    def _end(self, holder: str) -> None:
        guest = self.guests.pop(holder, None)
        if guest is not None:
            if (holder, _GUEST) in self.held and not guest.left:
                self.pools.mark_taken(holder)
            guest.end()

    def _reserved_by_others(self) -> int:
        return (
            self.kernel.reserved()[mapped_pages.KIB]
            > self.kernel.pool(self.key).free
        )


def _hold(pools: Pools, holder: str, key: model.PoolKey, pages: int) -> None:
    pools.hold(holder, [model.PageNeed(0, *key, pages)])


def _held(pools: Pools) -> Holds:
    return {(hold.holder, hold.purpose): hold.pages for hold in pools.holds()}


def _reconcile(
    pools: Pools, defined: set[str], held: Holds, starting: bool
) -> None:
    migrating = [holder for holder, purpose in held if purpose is _RESIZE]
    Reconciler(pools).reconcile(
        Present(frozenset(defined), frozenset(migrating)), starting=starting
    )


# How often each operation is chosen.
_WEIGHTS = {
    'hold': 24,
    'start': 18,
    'step': 8,
    'rush': 6,
    'give_back': 4,
    'take_again': 4,
    'grow': 14,
    'shrink': 8,
    'power_off': 8,
    'delete': 14,
    'resize_away': 4,
    'resize_back': 4,
    'appliance': 3,
    'others_take': 6,
    'others_give': 6,
    'operator': 2,
    'reconcile': 3,
    'killed': 1.5,
    'fault': 1,
    'meanwhile': 1.5,
}


def main(seed: int, operations: int) -> int:
    """Run operations.

    :returns: the exit status: 0 without a violation, 1 with one, `IN_USE` if
        the pool is not empty
    """
    logging.disable(logging.CRITICAL)
    kernel = hugetlb.Hugetlb(hostfs.HostFS(), hugetlb.refusing(''))
    if any(kernel.reserved().values()) or any(
        pool.total for pool in kernel.pools().values()
    ):
        print('Another process uses the page pools of this machine')
        return IN_USE
    with tempfile.TemporaryDirectory(dir='/dev/shm') as folder:
        world = World(pathlib.Path(folder), seed)
        done = 0
        try:
            for name in _names(world.dice):
                with contextlib.suppress(Idle):
                    getattr(world, name)()
                    done += 1
                    world.check()
                if done == operations:
                    break
            world.end()
        except Violation as violation:
            print(
                f'Violation after {done} operations of seed {seed}: '
                f'{violation}'
            )
            return 1
        finally:
            world.restore()
    print(
        f'{operations} operations of seed {seed}, {world.kills} kills and '
        f'{world.faults} failed writes: no violation'
    )
    return 0


def _names(dice: random.Random) -> Iterator[str]:
    while True:
        yield from dice.choices([*_WEIGHTS], [*_WEIGHTS.values()])


if __name__ == '__main__':
    if len(sys.argv) == 3:
        # Guests show their arguments in the place of these.
        os.execv(sys.executable, [*sys.orig_argv, '-' * 100])
    sys.exit(main(*map(int, sys.argv[1:3])))
