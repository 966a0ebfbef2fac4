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

"""Ledger, domains and kernel compared, and brought back together.

What no hook saw is found here: a service that was killed, a guest that ended
by itself or was moved away while the service was down, an operator who
changed a pool by hand, a host that started anew.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

from oslo_log import log as logging

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import reconcile_rules
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.hugepages.pools import Pools

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Present:
    """What the ledger is compared with, beside processes and pools.

    :ivar defined: the uuids of the domains that libvirt knows, running or
        not; None if that can't be told, and no hold of a guest that doesn't
        run is then given up
    :ivar migrating: the uuids of instances that are being migrated or resized
        to or from this host; None if that can't be told
    :ivar here: the uuids of instances that Nova has on this host, whether
        they have a domain or not; None if that can't be told
    :ivar busy: the uuids of instances on which the service is at work
    """

    defined: frozenset[str] | None = None
    migrating: frozenset[str] | None = None
    here: frozenset[str] | None = frozenset()
    busy: frozenset[str] = frozenset()

    def gone(self, holder: str) -> bool:
        """Tell whether a guest without a domain is known to be gone.

        Nova takes domains away that it defines again later, and counts their
        guests meanwhile.
        """
        return self.here is not None and holder not in self.here


class Reconciler:
    """Heals what has come apart.

    :param pools: the pools, with their ledger
    """

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        # Shortages that were told, so that each is told once.
        self._told: dict[model.PoolKey, int] = {}
        # So are guests that can't be looked at.
        self._unseen: frozenset[str] = frozenset()

    def look(self, present: Present, *, starting: bool = False) -> list[str]:
        """Tell what `heal` would do; changes nothing.

        :raises: as for `heal`
        """
        pools = self._pools
        books = pools.accounts.read()
        holds = pools.ledger.holds()
        running = processes.running(pools.fs)
        for process in running.values():
            # The service does without; who asks is told nothing that is
            # guessed.
            pools.pages_of(process)
        verdicts = self._judge(holds, running, present, starting)
        adopted = self._adopted(holds, running, present)
        found = [*books.changes]
        found += [verdict.told('would be') for verdict in verdicts]
        found += [
            f'guest {rows[0].holder} runs on pages that are in no ledger'
            for rows in adopted
        ]
        later = reconcile_rules.later(holds, verdicts, adopted)
        found += [
            f'{standing.overdue} of {standing.promised} pages of {key} that '
            'are promised to guests are missing'
            for key, standing in pools.standings(holds=later).items()
            if standing.overdue
        ]
        found += [
            f'{spare} idle pages of {key} would be given back'
            for key, spare in pools.spare(books.accounts, later).items()
        ]
        return found

    def unsure(self, present: Present) -> tuple[list[str], list[str]]:
        """Tell of which guests it can't be told whether they are gone.

        Those that don't run and have no domain, if it is known which do.

        :returns: the uuids of those that Nova may have here nevertheless, and
            of those that may be about to start
        :raises: as for `heal`
        """
        holds = self._pools.ledger.holds()
        running = processes.running(self._pools.fs)
        doubtful, young = [], []
        for (holder, purpose), hold in reconcile_rules.oldest(
            holds, present.busy
        ).items():
            if (
                purpose is not model.Purpose.GUEST
                or holder in running
                or present.defined is None
                or holder in present.defined
            ):
                continue
            if not self._settled(hold):
                young.append(holder)
            elif not present.gone(holder):
                doubtful.append(holder)
        return doubtful, young

    def heal(
        self,
        present: Present,
        *,
        starting: bool = False,
        quick: bool | None = None,
        healed: list[str] | None = None,
    ) -> list[str]:
        """Bring ledger, domains and kernel together. Idempotent.

        :param starting: whether the service is starting, so that nothing can
            be under way
        :param quick: whether others wait, so that only those pages are made
            that the kernel has at hand; unless the service is starting, if
            None
        :param healed: takes a sentence for each thing as soon as it is
            healed, should an error end it
        :returns: what was healed, and then which pages are found missing that
            can't be made; it is in the log, too
        :raises exception.KernelError: if the kernel's files can't be used
        :raises exception.PoolsReadOnly: if pools can't be written here
        :raises exception.LedgerError: if the ledger can't be used
        """
        pools = self._pools
        healed = [] if healed is None else healed
        quick = not starting if quick is None else quick
        with pools.lock:
            holds = pools.ledger.holds()
            running = processes.running(pools.fs)
            adopted = self._adopted(holds, running, present)
            self._note(healed, *pools.accounts.refresh().changes)
            for verdict in self._judge(holds, running, present, starting):
                self._carry_out(verdict)
                self._note(healed, verdict.told('were'))
            for rows in adopted:
                holder = rows[0].holder
                pools.ledger.replace_holds(holder, model.Purpose.GUEST, rows)
                self._note(
                    healed,
                    f'guest {holder} runs on pages that were in no ledger',
                )
            missing = self._make_good(quick, healed)
            given: dict[model.PoolKey, int] = {}
            try:
                pools.trim(given)
            finally:
                healed += [
                    f'{count} idle pages of {key} were given back'
                    for key, count in given.items()
                ]
        return healed + missing

    def _note(self, healed: list[str], *sentences: str) -> None:
        """Tell of what was healed, where it is asked for and in the log."""
        healed += sentences
        self._pools.report(sentences)

    def _carry_out(self, verdict: reconcile_rules.Verdict) -> None:
        ledger = self._pools.ledger
        if verdict.action is reconcile_rules.Action.DROP:
            ledger.drop(verdict.holder, verdict.purpose)
            return
        with ledger.transaction():
            if verdict.action is reconcile_rules.Action.ARRIVE:
                ledger.move(
                    verdict.holder, verdict.purpose, model.Purpose.GUEST
                )
            ledger.set_state(
                verdict.holder, model.Purpose.GUEST, model.State.TAKEN
            )

    def _judge(
        self,
        holds: Collection[model.Hold],
        running: Mapping[str, processes.GuestProcess],
        present: Present,
        starting: bool,
    ) -> list[reconcile_rules.Verdict]:
        """Judge each holder's holds for one purpose; those kept are left out.

        A holder on which the service is at work is left alone.
        """
        verdicts = []
        for (holder, purpose), hold in reconcile_rules.oldest(
            holds, present.busy
        ).items():
            settled = starting or self._settled(hold)
            if purpose is model.Purpose.GUEST:
                verdict = self._guest(
                    hold, holder in running, present, settled
                )
            else:
                verdict = reconcile_rules.moving(
                    hold, holder in running, present, settled
                )
            if verdict.action is not reconcile_rules.Action.KEEP:
                verdicts.append(verdict)
        return verdicts

    def _settled(self, hold: model.Hold) -> bool:
        """Tell whether a hold can't be under way in the service any more."""
        age = self._pools.clock() - hold.since
        return age >= self._pools.policy.start_limit_s

    def _guest(
        self,
        hold: model.Hold,
        runs: bool,
        present: Present,
        settled: bool,
    ) -> reconcile_rules.Verdict:
        holder, state = hold.holder, hold.state
        if runs:
            if state is model.State.HELD and settled:
                return reconcile_rules.Verdict(
                    holder,
                    hold.purpose,
                    reconcile_rules.Action.TAKE,
                    f'guest {holder} runs on the pages that were held for it',
                )
        elif present.defined is None:
            pass
        elif holder not in present.defined:
            if settled and present.gone(holder):
                return reconcile_rules.Verdict(
                    holder,
                    hold.purpose,
                    reconcile_rules.Action.DROP,
                    f'guest {holder} is gone',
                    'its pages',
                )
        elif not self._pools.policy.keep_powered_off and settled:
            return reconcile_rules.Verdict(
                holder,
                hold.purpose,
                reconcile_rules.Action.DROP,
                f'guest {holder} is powered off',
                'its pages',
            )
        return reconcile_rules.Verdict(
            holder, hold.purpose, reconcile_rules.Action.KEEP
        )

    def _adopted(
        self,
        holds: Collection[model.Hold],
        running: Mapping[str, processes.GuestProcess],
        present: Present,
    ) -> list[Sequence[model.Hold]]:
        """Find guests that run on huge pages without a hold.

        :returns: for each what it is to hold
        """
        known = {hold.holder for hold in holds} | present.busy
        found: list[Sequence[model.Hold]] = []
        unseen = set()
        for uuid, process in sorted(running.items()):
            if uuid in known or uuid not in (present.defined or ()):
                continue
            try:
                has = self._pools.pages_of(process)
            except exception.KernelError as error:
                unseen.add(uuid)
                if uuid not in self._unseen:
                    LOG.warning(
                        'Guest %(uuid)s is in no ledger, and which huge pages '
                        'it has is not known, so none are kept for it when '
                        'it is off: %(error)s',
                        {'uuid': uuid, 'error': error},
                    )
                continue
            rows = [
                model.Hold(
                    uuid,
                    model.Purpose.GUEST,
                    cell,
                    key.node,
                    key.size_kib,
                    count,
                    0,
                    model.State.TAKEN,
                    self._pools.clock(),
                )
                for cell, (key, count) in enumerate(sorted(has.items()))
            ]
            if rows:
                found.append(rows)
        self._unseen = frozenset(unseen)
        return found

    def _make_good(self, quick: bool, healed: list[str]) -> list[str]:
        """Make the pages that are promised and not there, as far as it goes.

        A shortage that stays is told when it is found and when it changes.

        :param healed: takes what was made
        :returns: what is missing
        """
        pools = self._pools
        standings = pools.standings()
        wanted = {
            key: standing.overdue
            for key, standing in standings.items()
            if standing.overdue
        }
        missing = dict(wanted)
        if wanted and pools.policy.dynamic and pools.writable:
            policy = _quickly(pools.policy) if quick else None
            growth = pools.growth(wanted, policy=policy)
            try:
                missing = growth.grow(wanted)
            except BaseException:
                self._note(
                    healed,
                    *(
                        f'{count} pages of {key} were made anew'
                        for key, count in growth.made.items()
                    ),
                )
                raise
        self._note(
            healed,
            *(
                f'{count - missing.get(key, 0)} of {standings[key].promised} '
                f'pages of {key} that are promised to guests were missing, '
                'and made anew'
                for key, count in wanted.items()
                if count > missing.get(key, 0)
            ),
        )
        told = [
            f'{count} pages of {key} that are promised to guests are missing; '
            'guests that are off may not start until memory is free on node '
            f'{key.node}'
            for key, count in missing.items()
            if self._told.get(key) != count
        ]
        pools.report(told)
        self._told = missing
        return told


def _quickly(policy: PoolPolicy) -> PoolPolicy:
    """Allow no more than to take what the kernel has at hand."""
    return dataclasses.replace(
        policy,
        compact=False,
        demote=False,
        hand_over=False,
        time_limit_s=0.0,
    )
