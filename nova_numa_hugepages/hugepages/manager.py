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

"""Huge pages for the life cycle of guests: the entry for the driver.

The driver knows guests that start, stop and move; the pools know holders and
purposes.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import threading
import time

from oslo_log import log as logging

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.pools import Pools
from nova_numa_hugepages.hugepages.reconcile import Reconciler
from nova_numa_hugepages.hugepages.reconcile_rules import Present
from nova_numa_hugepages.hugepages.snapshot import HostSnapshot

LOG = logging.getLogger(__name__)

_GUEST = model.Purpose.GUEST
_INCOMING = model.Purpose.INCOMING
_RESIZE = model.Purpose.RESIZE

_SET_BEFORE = 'an operator set it on the host that the instance has left'
_NOT_RELEASED = (
    'Failed to release huge pages: %s. Will retry in the next resource update.'
)
_NOT_MOVED = (
    'Failed to change the purpose of reserved huge pages: %s. They are still '
    'reserved for %s. Will retry in the next resource update.'
)
_NOT_RECORDED = (
    'Failed to record which huge pages the instance has: %s. Will retry in '
    'the next resource update.'
)


class _Restarting(threading.local):
    """The guests that the current thread takes away only to restart them."""

    def __init__(self) -> None:
        self.holders: collections.Counter[str] = collections.Counter()


class HugePageManager:
    """Keeps huge pages for the guests of this host.

    Safe to use from several threads at once. Methods that don't only log
    errors raise `exception.KernelError` if the kernel's files can't be used,
    and `exception.LedgerError` if the ledger can't be.

    :param ticks: seconds of a clock that only goes forward
    """

    def __init__(
        self,
        pools: Pools,
        *,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pools = pools
        self._reconciler = Reconciler(pools)
        self._ticks = ticks
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)
        # Guests whose size is being looked at.
        self._looked_at: set[str] = set()
        # Guests whose size doesn't change, and since when.
        self._frozen: dict[str, float] = {}
        self._at_work: collections.Counter[str] = collections.Counter()
        self._expected: dict[str, float] = {}
        # Changes of purpose that are still to be recorded, in their order.
        self._moves: list[tuple[str, model.Purpose, model.Purpose]] = []
        self._moves_lock = threading.Lock()
        self._restarting = _Restarting()

    @property
    def keeps_powered_off(self) -> bool:
        """Whether guests that are powered off keep their pages."""
        return self._pools.policy.keep_powered_off

    # Guests that start.

    @contextlib.contextmanager
    def starting(
        self,
        holder: str,
        needs: Sequence[model.PageNeed],
        *,
        is_defined: Callable[[], bool],
        after_resize: bool = False,
    ) -> Iterator[None]:
        """Hold pages for a guest while it is being started.

        If it can't be started and is not defined either, pages that it did
        not hold before are released.

        :param needs: its needs; none releases what it held
        :param is_defined: checks whether it has a domain
        :param after_resize: whether it starts with its new size after a
            resize, beside the pages that are kept for a revert
        :raises exception.NotEnoughPages: if the host has too few; what it
            held before stays held
        :raises exception.PoolsReadOnly: if the host has too few, and the
            pools turn out to be read-only
        """
        with self.at_work(holder):
            self._record_moves(holder)
            if not after_resize:
                self._recover(holder)
            held = self._pools.holds(holder, _GUEST)
            new = not held
            self._pools.hold(holder, _with_former_sizes(needs, held), _GUEST)
            with self._lock:
                self._expected.pop(holder, None)
            try:
                yield
            except BaseException:
                if new and needs and not is_defined():
                    self.release(holder, _GUEST)
                raise

    def _recover(self, holder: str) -> None:
        """Let a guest have what is held for a resize or migration of it.

        One that failed has left it so.
        """
        for purpose in (_RESIZE, _INCOMING):
            if not self._pools.holds(holder, _GUEST):
                self._pools.move(holder, purpose, _GUEST)

    def started(self, holder: str) -> None:
        """Check where the memory of a guest is that was just started.

        What is found is recorded. Errors are only logged, since the guest
        runs.
        """
        with _log_and_continue(holder, _NOT_RECORDED):
            expected = model.at_boot_by_pool(self._pools.holds(holder, _GUEST))
            if not expected:
                return
            process = self._pools.running().get(holder)
            if process is None:
                LOG.warning(
                    'QEMU process not found; skipped the huge page placement '
                    'check.',
                    instance_uuid=holder,
                )
                return
            try:
                found = self._pools.pages_of(process)
            except exception.KernelError as error:
                # QEMU has taken its memory before it answers libvirt.
                self._pools.mark_taken(holder)
                LOG.warning(
                    'Could not read which huge pages the instance has; '
                    'skipped the placement check: %s',
                    error,
                    instance_uuid=holder,
                )
                return
            self._pools.record_placement(holder, found)
            if all(found.get(key, 0) >= expected[key] for key in expected):
                self._pools.mark_taken(holder)
                return
            LOG.error(
                'Huge pages are not on the planned NUMA nodes: expected '
                '%(expected)s, found %(found)s.',
                {
                    'expected': model.in_words(expected),
                    'found': model.in_words(found),
                },
                instance_uuid=holder,
            )

    # Guests whose memory is elastic.

    def held(self, holder: str) -> list[model.Hold]:
        """List what a guest that is here holds, by guest cell."""
        return self._pools.holds(holder, _GUEST)

    def settle(self, holder: str, needs: Sequence[model.PageNeed]) -> bool:
        """Have a running guest hold what it was asked to have. Idempotent.

        :returns: whether it holds anything
        """
        return self._pools.settle(holder, needs)

    def resize(
        self, holder: str, pages: Mapping[int, int], *, quick: bool = False
    ) -> None:
        """Change how many pages the elastic cells of a guest may use.

        :param quick: whether to take only what the kernel has at hand
        :raises: as `pools.Pools.resize`
        """
        self._pools.resize(holder, pages, quick=quick)

    @contextlib.contextmanager
    def undisturbed(self, holder: str) -> Iterator[bool]:
        """Keep the service from beginning to work on a guest meanwhile.

        :returns: False if it is at work on it, or its size is frozen
        """
        with self._lock:
            is_free = not (holder in self._busy() or holder in self._frozen)
            if is_free:
                self._looked_at.add(holder)
        try:
            yield is_free
        finally:
            with self._lock:
                self._looked_at.discard(holder)
                self._left.notify_all()

    def freeze(self, holder: str) -> None:
        """Let the size of a guest stay as it is until `thaw`."""
        with self._alone(holder):
            self._frozen[holder] = self._ticks()

    def thaw(self, holder: str) -> None:
        """Let the size of a guest change again."""
        with self._lock:
            self._frozen.pop(holder, None)

    def frozen(self, for_s: float) -> frozenset[str]:
        """List the guests that have been frozen for some seconds."""
        with self._lock:
            now = self._ticks()
            return frozenset(
                holder
                for holder, since in self._frozen.items()
                if now - since >= for_s
            )

    @contextlib.contextmanager
    def _alone(self, holder: str) -> Iterator[None]:
        """Wait until the size of a guest isn't looked at, with the lock."""
        with self._lock:
            self._left.wait_for(lambda: holder not in self._looked_at)
            yield

    def sizes(self, holder: str) -> dict[int, model.Size]:
        """Get how the elastic cells of a guest came to their sizes."""
        return self._pools.sizes(holder)

    def note_size(
        self, holder: str, cell: int, changed: float, why: str
    ) -> None:
        """Note when and why the size of an elastic cell has changed."""
        self._pools.note_size(holder, cell, changed, why)

    def waits(self) -> list[model.Wait]:
        """List the elastic cells that need pages which aren't there."""
        return self._pools.waits()

    def put_waits(self, holder: str, missing_kib: Mapping[int, int]) -> None:
        """Note which pages the elastic cells of a guest need and don't get.

        :param missing_kib: by cell, without those that need none
        """
        self._pools.put_waits(holder, missing_kib)

    # Guests that stop.

    @contextlib.contextmanager
    def restarting(self, holder: str) -> Iterator[None]:
        """Let a guest keep its pages while this thread restarts it."""
        holders = self._restarting.holders
        holders[holder] += 1
        try:
            with self.at_work(holder):
                yield
        finally:
            holders[holder] -= 1

    def expect(self, holder: str) -> None:
        """Let a guest keep its pages that is about to be started again.

        It has as much time as a guest has to start.
        """
        with self._alone(holder):
            self._expected[holder] = (
                self._ticks() + self._pools.policy.start_limit_s
            )

    def gone(self, holder: str) -> None:
        """Release the pages of a guest without a domain. Idempotent.

        What is held for the revert of a resize stays.
        """
        if not self._restarting.holders[holder]:
            self.release(holder, _GUEST, _INCOMING)

    def stopped(self, holder: str) -> None:
        """Release the pages of a guest that was powered off, if configured."""
        if self.keeps_powered_off or holder in self.busy():
            return
        with _log_and_continue(holder, _NOT_RELEASED), self._pools.locked():
            # An event may come late, when the guest is started again.
            if holder in self.busy():
                return
            if holder not in self._pools.running():
                self._pools.release(holder, _GUEST)

    def release(self, holder: str, *purposes: model.Purpose) -> None:
        """Release what is held for some purposes. Idempotent.

        Errors are only logged: what was not released now is released by
        `reconcile`.
        """
        with _log_and_continue(holder, _NOT_RELEASED):
            self._record_moves(holder)
            self._pools.release(holder, *purposes)

    # Guests that move.

    def incoming(
        self,
        holder: str,
        needs: Sequence[model.PageNeed],
        wanted_kib: Mapping[int, int] | None = None,
    ) -> None:
        """Hold pages for a guest that is to be migrated to this host.

        What was held for it before, for another plan, is released.

        :param wanted_kib: the sizes that an operator has set on the host that
            it leaves, by guest cell
        :raises: as for `starting`
        """
        if needs:
            self._pools.hold(holder, needs, _INCOMING)
            before = self._pools.sizes(holder)
            for need in needs:
                kib = (wanted_kib or {}).get(need.cell)
                if kib is not None or need.cell in before:
                    size = model.Size(kib, self._pools.now(), _SET_BEFORE)
                    self._pools.put_size(holder, need.cell, size)

    def arrived(self, holder: str) -> None:
        """Let a guest that was migrated here have what was held for it."""
        self._move(holder, _INCOMING, _GUEST)

    def resized(self, holder: str) -> None:
        """Keep the pages of a guest that was resized, for a revert."""
        self._move(holder, _GUEST, _RESIZE)

    def reverted(self, holder: str) -> None:
        """Let a guest have back what was kept when it was resized."""
        self._move(holder, _RESIZE, _GUEST)

    def _move(
        self, holder: str, old: model.Purpose, new: model.Purpose
    ) -> None:
        with self._moves_lock:
            self._moves.append((holder, old, new))
        with _log_and_continue(holder, _NOT_MOVED, old):
            self._record_moves(holder)

    def _record_moves(self, holder: str) -> None:
        """Record changes of purpose, also those that failed before."""
        with self._moves_lock:
            for move in [move for move in self._moves if move[0] == holder]:
                self._pools.move(*move)
                self._moves.remove(move)

    # All of the host.

    def reconcile(
        self,
        defined: Callable[[], frozenset[str] | None],
        migrating: Callable[[], frozenset[str] | None],
        here: Callable[[], frozenset[str] | None] = frozenset,
        *,
        starting: bool = False,
    ) -> list[str]:
        """Bring ledger, domains and kernel in step.

        :param defined: gets the uuids of all domains, None if that isn't
            possible
        :param migrating: gets the uuids of instances that are moved to or
            from here; called only if that matters
        :param here: gets the uuids of the instances on this host; called only
            if that matters
        :param starting: whether the service is starting
        :returns: what was done; it is in the log, too
        """
        for holder, old, _ in list(self._moves):
            with _log_and_continue(holder, _NOT_MOVED, old):
                self._record_moves(holder)
        # A guest that is started or taken away in between is in one of them.
        busy = self.busy()
        domains = defined()
        holds = self._pools.holds()
        # What wasn't asked isn't known, if it comes to matter meanwhile.
        moving = known = None
        if any(hold.purpose is not _GUEST for hold in holds):
            moving = migrating()
        if any(
            hold.purpose is _RESIZE
            or (
                hold.purpose is _GUEST
                and domains is not None
                and hold.holder not in domains
            )
            for hold in holds
        ):
            known = here()
        present = Present(domains, moving, known, busy | self.busy())
        try:
            return self._reconciler.reconcile(present, starting=starting)
        except exception.PoolsReadOnly as error:
            self._pools.make_read_only(error.reason)
            return self._reconciler.reconcile(present, starting=starting)

    def snapshot(self) -> HostSnapshot:
        """Take a snapshot of the host; changes nothing."""
        return self._pools.snapshot()

    def busy(self) -> frozenset[str]:
        """List the guests on which the service is at work."""
        with self._lock:
            return self._busy()

    def _busy(self) -> frozenset[str]:
        """List them, with the lock."""
        now = self._ticks()
        self._expected = {
            holder: until
            for holder, until in self._expected.items()
            if until > now
        }
        return frozenset(self._expected) | frozenset(+self._at_work)

    @contextlib.contextmanager
    def at_work(self, holder: str) -> Iterator[None]:
        """Have `reconcile` leave a guest alone meanwhile."""
        with self._alone(holder):
            self._at_work[holder] += 1
        try:
            yield
        finally:
            with self._lock:
                self._at_work[holder] -= 1


def _with_former_sizes(
    needs: Sequence[model.PageNeed], held: Sequence[model.Hold]
) -> list[model.PageNeed]:
    """Let elastic cells have what they had, if they come back as they were.

    The domain of a guest that was suspended says what it had at its start.
    """
    before = {
        hold.need._replace(pages=0): hold.pages
        for hold in held
        if hold.ceiling
    }
    return [
        need._replace(
            pages=max(need.pages, before.get(need._replace(pages=0), 0))
        )
        for need in needs
    ]


@contextlib.contextmanager
def _log_and_continue(
    holder: str, message: str, *values: str
) -> Iterator[None]:
    """Log an error of ours that mustn't stop what Nova does.

    :param message: takes the error, and the values
    """
    try:
        yield
    except exception.NUMAHugepagesError as error:
        LOG.error(
            message, str(error).rstrip('.'), *values, instance_uuid=holder
        )
