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
import enum

from oslo_log import log as logging

from nova_numa_hugepages.virt import guests
from nova_numa_hugepages.virt import pages
from nova_numa_hugepages.virt import pools as pools_module

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


class _Action(enum.Enum):
    KEEP = enum.auto()
    DROP = enum.auto()
    TAKE = enum.auto()
    ARRIVE = enum.auto()


@dataclasses.dataclass(frozen=True, slots=True)
class _Verdict:
    holder: str
    purpose: pages.Purpose
    action: _Action
    why: str = ''


class Reconciler:
    """Heals what has come apart.

    :param pools: the pools, with their ledger
    """

    def __init__(self, pools: pools_module.Pools) -> None:
        self._pools = pools
        # Shortages that were told, so that each is told once.
        self._told: dict[pages.PoolKey, int] = {}

    def look(self, present: Present, *, starting: bool = False) -> list[str]:
        """Tell what `heal` would do; changes nothing.

        :raises: as for `heal`
        """
        books = self._pools.accounts.read()
        holds = self._pools.ledger.holds()
        running = guests.running(self._pools.fs)
        found = list(books.changes)
        found += [
            verdict.why
            for verdict in self._judge(holds, running, present, starting)
        ]
        found += [why for _, why in self._adopted(holds, running, present)]
        found += list(self._overdue().values())
        for key, spare in self._pools.spare().items():
            found.append(f'{spare} idle pages of {key} would be given back')
        return found

    def heal(self, present: Present, *, starting: bool = False) -> list[str]:
        """Bring ledger, domains and kernel together. Idempotent.

        :param starting: whether the service is starting, so that nothing can
            be under way
        :returns: what was healed; what an operator should know of it is in
            the log, too
        :raises exception.KernelError: if the kernel's files can't be used
        :raises exception.LedgerError: if the ledger can't be used
        """
        pools = self._pools
        with pools.lock:
            holds = pools.ledger.holds()
            running = guests.running(pools.fs)
            adopted = self._adopted(holds, running, present)
            healed = list(pools.accounts.refresh().changes)
            for verdict in self._judge(holds, running, present, starting):
                self._carry_out(verdict)
                healed.append(verdict.why)
            for rows, why in adopted:
                pools.ledger.replace_holds(
                    rows[0].holder, pages.Purpose.GUEST, rows
                )
                healed.append(why)
            healed += self._make_good(starting)
            pools.report(healed)
            healed += [
                f'{count} idle pages of {key} were given back'
                for key, count in pools.trim().items()
            ]
        return healed

    def _carry_out(self, verdict: _Verdict) -> None:
        ledger = self._pools.ledger
        if verdict.action is _Action.DROP:
            ledger.drop(verdict.holder, verdict.purpose)
            return
        with ledger.transaction():
            if verdict.action is _Action.ARRIVE:
                ledger.move(
                    verdict.holder, verdict.purpose, pages.Purpose.GUEST
                )
            ledger.set_state(
                verdict.holder, pages.Purpose.GUEST, pages.State.TAKEN
            )

    def _judge(
        self,
        holds: Collection[pages.Hold],
        running: Mapping[str, guests.GuestProcess],
        present: Present,
        starting: bool,
    ) -> list[_Verdict]:
        """Judge each holder's holds for one purpose; those kept are left out.

        A holder on which the service is at work is left alone.
        """
        oldest: dict[tuple[str, pages.Purpose], pages.Hold] = {}
        for hold in holds:
            if hold.holder not in present.busy:
                oldest.setdefault((hold.holder, hold.purpose), hold)
        verdicts = []
        for (holder, purpose), hold in oldest.items():
            # What is younger may be under way in a thread of the service.
            age = self._pools.clock() - hold.since
            settled = starting or age >= self._pools.policy.start_limit_s
            if purpose is pages.Purpose.GUEST:
                verdict = self._guest(
                    hold, holder in running, present, settled
                )
            else:
                verdict = _moving(hold, holder in running, present, settled)
            if verdict.action is not _Action.KEEP:
                verdicts.append(verdict)
        return verdicts

    def _guest(
        self,
        hold: pages.Hold,
        runs: bool,
        present: Present,
        settled: bool,
    ) -> _Verdict:
        holder, state = hold.holder, hold.state
        if runs:
            if state is pages.State.HELD and settled:
                return _Verdict(
                    holder,
                    hold.purpose,
                    _Action.TAKE,
                    f'guest {holder} runs on the pages that were held for it',
                )
        elif present.defined is None:
            pass
        elif holder not in present.defined:
            # Nova takes domains away that it defines again later, and counts
            # their guests meanwhile.
            gone = present.here is not None and holder not in present.here
            if settled and gone:
                return _Verdict(
                    holder,
                    hold.purpose,
                    _Action.DROP,
                    f'guest {holder} is gone, so its pages were released',
                )
        elif not self._pools.policy.keep_powered_off and settled:
            return _Verdict(
                holder,
                hold.purpose,
                _Action.DROP,
                f'guest {holder} is powered off, so its pages were released',
            )
        return _Verdict(holder, hold.purpose, _Action.KEEP)

    def _adopted(
        self,
        holds: Collection[pages.Hold],
        running: Mapping[str, guests.GuestProcess],
        present: Present,
    ) -> list[tuple[Sequence[pages.Hold], str]]:
        """Find guests that run on huge pages without a hold."""
        known = {hold.holder for hold in holds} | present.busy
        found: list[tuple[Sequence[pages.Hold], str]] = []
        for uuid, process in sorted(running.items()):
            if uuid in known or uuid not in (present.defined or ()):
                continue
            rows = [
                pages.Hold(
                    uuid,
                    pages.Purpose.GUEST,
                    cell,
                    key.node,
                    key.size_kib,
                    count,
                    0,
                    pages.State.TAKEN,
                    self._pools.clock(),
                )
                for cell, (key, count) in enumerate(
                    sorted(self._pools.pages_of(process).items())
                )
            ]
            if rows:
                found.append(
                    (
                        rows,
                        f'guest {uuid} runs on pages that were in no ledger',
                    )
                )
        return found

    def _overdue(self) -> dict[pages.PoolKey, str]:
        """Tell which promises can't be kept."""
        return {
            key: f'{standing.overdue} of {standing.promised} pages of {key} '
            'that are promised to guests are missing'
            for key, standing in self._pools.standings().items()
            if standing.overdue
        }

    def _make_good(self, starting: bool) -> list[str]:
        """Make the pages that are promised and not there, as far as it goes.

        While the service runs, others wait for the lock, so only what the
        kernel has at hand is taken. A shortage that stays is told when it is
        found and when it changes.
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
            missing = pools.growth(wanted, quick=not starting).grow(wanted)
        healed = [
            f'{count - missing.get(key, 0)} of {standings[key].promised} '
            f'pages of {key} that are promised to guests were missing, and '
            'made anew'
            for key, count in wanted.items()
            if count > missing.get(key, 0)
        ]
        healed += [
            f'{count} pages of {key} that are promised to guests are missing; '
            'guests that are off may not start until memory is free on node '
            f'{key.node}'
            for key, count in missing.items()
            if self._told.get(key) != count
        ]
        self._told = missing
        return healed


def _moving(
    hold: pages.Hold, runs: bool, present: Present, settled: bool
) -> _Verdict:
    """Judge what is held for a guest that comes here or went away."""
    holder, purpose = hold.holder, hold.purpose
    arriving = purpose is pages.Purpose.INCOMING
    if (
        arriving
        and runs
        and holder in (present.defined or ())
        and present.migrating is not None
        and holder not in present.migrating
    ):
        return _Verdict(
            holder,
            purpose,
            _Action.ARRIVE,
            f'guest {holder} has arrived on the pages that were held for it',
        )
    if (
        present.migrating is None
        or holder in present.migrating
        or not settled
        or (arriving and runs)
    ):
        return _Verdict(holder, purpose, _Action.KEEP)
    what = 'migration' if arriving else 'resize'
    return _Verdict(
        holder,
        purpose,
        _Action.DROP,
        f'the {what} of guest {holder} has ended, so the pages held for it '
        'were released',
    )
