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

"""Reconciliation of ledger, domains and kernel: a plan, and its application.

It finds what no hook has seen: a service that was killed, a guest that ended
by itself or was moved away while the service was down, an operator who
changed a pool by hand, a reboot of the host.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

from oslo_log import log as logging

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import reconcile_rules
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.pools import Pools
from nova_numa_hugepages.hugepages.reconcile_rules import Present

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class ReconcilePlan:
    """The changes that bring the ledger in step with the guests.

    :ivar changes: what is to be changed, in this order
    :ivar holds: what will be held then
    :ivar doubtful: the uuids of instances without a domain that Nova may have
        on this host nevertheless
    :ivar young: the uuids of instances without a domain that may be about to
        start
    """

    changes: Sequence[reconcile_rules.Change]
    holds: Sequence[model.Hold]
    doubtful: Sequence[str]
    young: Sequence[str]


class Reconciler:
    """Brings ledger, domains and kernel in step.

    Each method raises `exception.KernelError` if the kernel's files can't be
    used, and `exception.LedgerError` if the ledger can't be.
    """

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        # Missing pages, and guests that can't be read, that were logged.
        self._missing: Mapping[model.PoolKey, int] = {}
        self._unreadable: frozenset[str] = frozenset()

    def plan(
        self,
        present: Present,
        *,
        starting: bool = False,
        strict: bool = False,
    ) -> ReconcilePlan:
        """Plan what is to be changed; changes nothing.

        Needs the lock if it is to be applied.

        :param starting: whether the service is starting, so that nothing can
            be in progress in it
        :param strict: whether to raise an error if it can't be read which
            pages a guest has; otherwise that guest is left alone
        """
        pools = self._pools
        if not pools.policy.keep_powered_off:
            # A guest that runs and isn't seen would count as powered off.
            pools.check_processes()
        running = pools.running()
        if strict:
            for process in running.values():
                pools.pages_of(process)
        holds = reconcile_rules.grouped(pools.holds())
        rules = reconcile_rules.Rules(
            pools.policy,
            present,
            running,
            self._complete(holds, running),
            pools.now(),
            starting,
        )
        known = {holder for holder, _ in holds}
        changes = rules.judge(holds) + self._adopt(known, running, present)
        return ReconcilePlan(
            changes,
            reconcile_rules.holds_after(holds, changes),
            *rules.undecided(holds),
        )

    def describe(self, plan: ReconcilePlan) -> list[str]:
        """Describe what `apply` would do; changes nothing."""
        pools = self._pools
        check = pools.check_accounts()
        usage = pools.usage(holds=plan.holds)
        return [
            *check.changes,
            *(change.sentence('would be') for change in plan.changes),
            *(
                f'{used.overdue} of {used.promised} pages of {key} that are '
                'reserved for instances are missing'
                for key, used in usage.items()
                if used.overdue
            ),
            *(
                f'{count} idle pages of {key} would be freed'
                for key, count in pools.freeable(check.accounts, usage).items()
            ),
        ]

    def apply(
        self,
        plan: ReconcilePlan,
        *,
        quick: bool = True,
        done: list[str] | None = None,
    ) -> list[str]:
        """Apply a plan, and bring the pools in step. Needs the lock.

        :param quick: whether others wait, so that only those pages are
            allocated that the kernel has at hand
        :param done: receives a sentence for each change as soon as it is
            done, also if an error ends it
        :returns: what was done, and then which pages are found missing that
            can't be allocated; it is in the log, too
        :raises exception.PoolsReadOnly: if the pools turn out to be read-only
        """
        done = [] if done is None else done
        done += self._pools.refresh()
        self._pools.find_leaks()
        for change in plan.changes:
            self._pools.replace(change.holder, change.holds)
            done.append(change.sentence('were'))
            LOG.warning(
                'Huge pages: instance %s.',
                change.text('were'),
                instance_uuid=change.holder,
            )
        missing = self._allocate(quick, done)
        self._pools.make_ready(is_short=bool(missing))
        freed: dict[model.PoolKey, int] = {}
        try:
            self._pools.trim(freed)
        finally:
            done += [
                f'{count} idle pages of {key} were freed'
                for key, count in freed.items()
            ]
        return done + missing

    def reconcile(
        self, present: Present, *, starting: bool = False
    ) -> list[str]:
        """Plan and apply, as the service does. Idempotent.

        :param starting: as for `plan`; there is time then
        :returns: as for `apply`
        """
        with self._pools.locked():
            plan = self.plan(present, starting=starting)
            return self.apply(plan, quick=not starting)

    def _adopt(
        self,
        known: set[str],
        running: Mapping[str, processes.GuestProcess],
        present: Present,
    ) -> list[reconcile_rules.Change]:
        """Find guests that run on huge pages without a hold.

        :param known: the uuids of those that have one
        """
        changes = []
        unreadable = set()
        for uuid, process in sorted(running.items()):
            if (
                uuid in known
                or uuid in present.busy
                or uuid not in (present.defined or ())
            ):
                continue
            try:
                pages = self._pools.pages_of(process)
            except exception.KernelError as error:
                unreadable.add(uuid)
                if uuid not in self._unreadable:
                    LOG.warning(
                        'Instance is not in the ledger and its huge pages '
                        'cannot be read; nothing stays reserved when it is '
                        'powered off: %s',
                        error,
                        instance_uuid=uuid,
                    )
                continue
            if pages:
                changes.append(
                    reconcile_rules.adoption(uuid, pages, self._pools.now())
                )
        self._unreadable = frozenset(unreadable)
        return changes

    def _complete(
        self,
        holds: reconcile_rules.Grouped,
        running: Mapping[str, processes.GuestProcess],
    ) -> set[str]:
        """Find the guests that have taken all of their pages.

        Those that can't be read, too: they are not known to be starting.
        """
        found = set()
        for (holder, purpose), rows in holds.items():
            if (
                purpose is not model.Purpose.GUEST
                or rows[0].state is not model.State.HELD
                or holder not in running
            ):
                continue
            try:
                has = self._pools.pages_of(running[holder])
            except exception.KernelError:
                found.add(holder)
                continue
            wanted = model.at_boot_by_pool(rows)
            if all(has.get(key, 0) >= wanted[key] for key in wanted):
                found.add(holder)
        return found

    def _allocate(self, quick: bool, done: list[str]) -> list[str]:
        """Allocate the pages that are promised and missing, if possible.

        A shortage that stays is logged when it is found and when it changes.

        :param done: receives what was allocated
        :returns: what is missing
        """
        usage = self._pools.usage()
        wanted = {
            key: used.overdue for key, used in usage.items() if used.overdue
        }
        allocated: dict[model.PoolKey, int] = {}
        try:
            missing = dict(
                self._pools.allocate(wanted, quick=quick, allocated=allocated)
            )
            # What others have reserved may be on any node.
            for key in [*missing]:
                for other in usage:
                    owed = min(missing[key], usage[key].owed)
                    if owed and other.size_kib == key.size_kib:
                        left = self._pools.allocate(
                            {other: owed}, quick=quick, allocated=allocated
                        )
                        missing[key] -= owed - left.get(other, 0)
            missing = model.above_zero(missing)
        except BaseException:
            done += _logged(
                f'{count} pages of {key} were allocated'
                for key, count in allocated.items()
            )
            raise
        done += _logged(
            f'{count - missing.get(key, 0)} of {usage[key].promised} pages of '
            f'{key} that are reserved for instances were missing, and were '
            'allocated'
            for key, count in wanted.items()
            if count > missing.get(key, 0)
        )
        found = _logged(
            f'{count} pages of {key} that are reserved for instances are '
            'missing; instances that are powered off may not start until '
            f'memory is free on NUMA node {key.node}'
            for key, count in missing.items()
            if self._missing.get(key) != count
        )
        self._missing = missing
        return found


def _logged(sentences: Iterable[str]) -> list[str]:
    """Log sentences, and return them."""
    found = list(sentences)
    for sentence in found:
        LOG.warning('Huge pages: %s.', sentence)
    return found
