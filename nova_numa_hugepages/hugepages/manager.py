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

"""What the driver asks for, in the words of the pools.

The driver knows guests that start, stop and move; the pools know holders and
purposes. Nothing here knows Nova.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import threading
import time

from oslo_log import log as logging

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import reconcile
from nova_numa_hugepages.hugepages import snapshot
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.pools import Pools

LOG = logging.getLogger(__name__)

_GUEST = model.Purpose.GUEST
_INCOMING = model.Purpose.INCOMING
_RESIZE = model.Purpose.RESIZE


# Takes the reason.
READ_ONLY = (
    'The page pools of this host cannot be changed (%s). What they have is '
    'held and checked; they neither grow nor shrink until the service is '
    'started again.'
)


class HugePageManager:
    """Keeps huge pages for the guests of this host.

    Safe to use from several threads at once.

    :param pools: the pools, with their ledger
    :param ticks: seconds of a clock that only goes forward
    """

    def __init__(
        self,
        pools: Pools,
        *,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pools = pools
        self._reconciler = reconcile.Reconciler(pools)
        self._ticks = ticks
        self._lock = threading.Lock()
        self._at_work: collections.Counter[str] = collections.Counter()
        self._expected: dict[str, float] = {}
        # What the current thread takes away only to start it again.
        self._own = threading.local()

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
        comes_new: bool = False,
    ) -> Iterator[None]:
        """Hold pages for a guest while it is being started.

        If it can't be started and is not defined either, pages that it did
        not hold before are given back.

        :param needs: what it needs; none gives back what it held
        :param is_defined: tells whether there is a domain of it
        :param comes_new: whether it is a new guest beside what is kept of it,
            after a resize on this host
        :raises exception.NotEnoughPages: if the host has too few; what it
            held before stays held
        :raises exception.PoolsReadOnly: if it has too few, and those that
            lack can't be made as pools can't be written here
        :raises exception.KernelError: if the kernel's files can't be used
        :raises exception.LedgerError: if the ledger can't be used
        """
        with self.at_work(holder):
            if not comes_new:
                self._come_back(holder)
            new = not self.holds(holder, _GUEST)
            self._hold(holder, needs, _GUEST)
            with self._lock:
                self._expected.pop(holder, None)
            try:
                yield
            except BaseException:
                if new and needs and not is_defined():
                    self.release(holder, _GUEST)
                raise

    def _hold(
        self,
        holder: str,
        needs: Sequence[model.PageNeed],
        purpose: model.Purpose,
    ) -> None:
        try:
            self._pools.hold(holder, needs, purpose)
        except exception.PoolsReadOnly as error:
            # The scheduler must not be told of pages to be made.
            self._read_only(error)
            raise

    def _come_back(self, holder: str) -> None:
        """Let a guest have what is kept of it for another purpose.

        A resize or a migration that failed has left it so.
        """
        for purpose in (_RESIZE, _INCOMING):
            if self.holds(holder, purpose) and not self.holds(holder, _GUEST):
                self._pools.move(holder, purpose, _GUEST)

    def started(self, holder: str) -> None:
        """See where the memory of a guest is that was just started.

        What is found is recorded. Errors are only logged, since the guest
        runs.
        """
        with self._later(holder, 'The pages it has were not recorded'):
            expected = model.by_pool(self.holds(holder, _GUEST))
            if not expected:
                return
            process = processes.running(self._pools.fs).get(holder)
            if process is None:
                LOG.warning(
                    'The process of guest %s was not found, so where its huge '
                    'pages are was not checked.',
                    holder,
                )
                return
            try:
                found = self._pools.pages_of(process)
            except exception.KernelError as error:
                # QEMU has taken its memory before it answers libvirt.
                self._pools.taken(holder)
                LOG.warning(
                    'Where guest %(holder)s has its huge pages was not '
                    'checked: %(error)s',
                    {'holder': holder, 'error': error},
                )
                return
            self._pools.ledger.put_placement(
                holder, found, self._pools.clock()
            )
            if all(found.get(key, 0) >= expected[key] for key in expected):
                self._pools.taken(holder)
                return
            LOG.error(
                'Guest %(holder)s does not have its memory where it should '
                'be: expected %(expected)s, found %(found)s.',
                {
                    'holder': holder,
                    'expected': model.in_words(expected),
                    'found': model.in_words(found),
                },
            )

    # Guests that stop.

    @contextlib.contextmanager
    def restarting(self, holder: str) -> Iterator[None]:
        """Have a guest keep its pages while this thread restarts it."""
        own = self._own.__dict__.setdefault('holders', collections.Counter())
        own[holder] += 1
        try:
            with self.at_work(holder):
                yield
        finally:
            own[holder] -= 1

    def expect(self, holder: str) -> None:
        """Have a guest keep its pages that is soon to be started again.

        It has as much time as a guest has to start.
        """
        with self._lock:
            self._expected[holder] = (
                self._ticks() + self._pools.policy.start_limit_s
            )

    def gone(self, holder: str) -> None:
        """Release what a guest held that has no domain any more. Idempotent.

        What is held for the time that it comes back from a resize stays.
        """
        if not self._own.__dict__.get('holders', {}).get(holder):
            self.release(holder, _GUEST, _INCOMING)

    def stopped(self, holder: str) -> None:
        """Release what a guest held that was powered off, if so wanted."""
        if self.keeps_powered_off or holder in self.busy():
            return
        with (
            self._later(holder, 'Its pages were not released'),
            self._pools.lock,
        ):
            # An event may come late, when the guest is started again.
            if holder in self.busy():
                return
            if holder not in processes.running(self._pools.fs):
                self.release(holder, _GUEST)

    # Guests that move.

    def incoming(self, holder: str, needs: Sequence[model.PageNeed]) -> None:
        """Hold pages for a guest that is to come here.

        What was held for it before, for another plan, is given up.

        :raises: as for `starting`
        """
        if needs:
            self._hold(holder, needs, _INCOMING)

    def arrived(self, holder: str) -> None:
        """Let a guest that has come here have what was held for it."""
        self._move(holder, _INCOMING, _GUEST)

    def resized(self, holder: str) -> None:
        """Keep the pages of a guest that was resized, should it come back."""
        self._move(holder, _GUEST, _RESIZE)

    def reverted(self, holder: str) -> None:
        """Let a guest have back what was kept when it was resized."""
        self._move(holder, _RESIZE, _GUEST)

    def release(self, holder: str, *purposes: model.Purpose) -> None:
        """Release what is held for some purposes. Idempotent.

        Errors are only logged: what was not released now is released when
        ledger and domains are compared.
        """
        with self._later(holder, 'Its pages were not released'):
            self._pools.release(holder, *purposes)

    # All of the host.

    def heal(
        self,
        defined: Callable[[], frozenset[str] | None],
        migrating: Callable[[], frozenset[str] | None],
        here: Callable[[], frozenset[str] | None] = frozenset,
        *,
        starting: bool = False,
    ) -> list[str]:
        """Compare ledger, domains and kernel, and heal what has come apart.

        :param defined: tells the uuids of all domains, None if that can't be
            told
        :param migrating: tells the uuids of instances that are moved to or
            from here; asked only if that matters
        :param here: tells the uuids of the instances on this host; asked only
            if that matters
        :param starting: whether the service is starting
        :returns: what was healed; it is in the log, too
        :raises exception.KernelError: if the kernel's files can't be used
        :raises exception.LedgerError: if the ledger can't be used
        """
        # A guest that is started or taken away in between is in one of them.
        busy = self.busy()
        domains = defined()
        holds = self._pools.ledger.holds()
        # What wasn't asked isn't known, if it comes to matter meanwhile.
        moving = known = None
        if any(hold.purpose is not _GUEST for hold in holds):
            moving = migrating()
        if domains is not None and any(
            hold.purpose is _GUEST and hold.holder not in domains
            for hold in holds
        ):
            known = here()
        present = reconcile.Present(domains, moving, known, busy | self.busy())
        try:
            return self._reconciler.heal(present, starting=starting)
        except exception.PoolsReadOnly as error:
            self._read_only(error)
            return self._reconciler.heal(present, starting=starting)

    def _read_only(self, error: exception.PoolsReadOnly) -> None:
        """Leave the pools as they are from now on."""
        LOG.warning(READ_ONLY, error.reason)
        self._pools.writable = False

    def survey(self) -> snapshot.HostSnapshot:
        """Look at the host; changes nothing.

        :raises exception.KernelError: if the kernel's files can't be read
        :raises exception.LedgerError: if the ledger can't be read
        """
        pools = self._pools
        policy = pools.policy
        if not pools.writable:
            policy = dataclasses.replace(policy, dynamic=False)
        return snapshot.survey(
            pools.fs,
            pools.kernel,
            policy,
            pools.accounts.read(),
            pools.ledger.holds(),
            pools.standings(),
        )

    def holds(self, holder: str, purpose: model.Purpose) -> list[model.Hold]:
        """List what is held for a guest.

        :raises exception.LedgerError: if the ledger can't be read
        """
        return [
            hold
            for hold in self._pools.ledger.holds(holder)
            if hold.purpose is purpose
        ]

    def busy(self) -> frozenset[str]:
        """Tell on which guests somebody is at work."""
        with self._lock:
            now = self._ticks()
            self._expected = {
                holder: until
                for holder, until in self._expected.items()
                if until > now
            }
            return frozenset(self._expected) | frozenset(+self._at_work)

    @contextlib.contextmanager
    def at_work(self, holder: str) -> Iterator[None]:
        """Keep a guest from being healed while it is worked on."""
        with self._lock:
            self._at_work[holder] += 1
        try:
            yield
        finally:
            with self._lock:
                self._at_work[holder] -= 1

    def close(self) -> None:
        """Close the ledger."""
        self._pools.ledger.close()

    def _move(
        self, holder: str, old: model.Purpose, new: model.Purpose
    ) -> None:
        with self._later(holder, f'Its pages are still held as {old}'):
            if self.holds(holder, old):
                self._pools.move(holder, old, new)

    @contextlib.contextmanager
    def _later(self, holder: str, what: str) -> Iterator[None]:
        """Log an error of ours that mustn't stop what Nova does."""
        try:
            yield
        except exception.NUMAHugepagesError as error:
            LOG.error(
                'Guest %(holder)s: %(error)s. %(what)s; this is tried again '
                'when Nova next updates the resources of the host.',
                {'holder': holder, 'error': error, 'what': what},
            )
