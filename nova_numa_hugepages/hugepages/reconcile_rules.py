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

"""Rules for what the ledger should hold, given guests, domains and Nova.

Pure: everything that they judge by is passed in.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.policy import PoolPolicy

_GUEST = model.Purpose.GUEST
_INCOMING = model.Purpose.INCOMING

# The holds of a holder for a purpose, one for each guest cell.
Grouped = Mapping[tuple[str, model.Purpose], Sequence[model.Hold]]


@dataclasses.dataclass(frozen=True, slots=True)
class Present:
    """The guests that libvirt, Nova and the service know.

    :ivar defined: the uuids of the domains that libvirt knows, running or
        not; None if libvirt can't be asked, and no hold of a guest that
        doesn't run is then dropped
    :ivar migrating: the uuids of instances that are being migrated or resized
        to or from this host; None if that isn't known
    :ivar here: the uuids of instances that Nova has on this host, whether
        they have a domain or not; None if that isn't known
    :ivar busy: the uuids of instances on which the service is at work
    """

    defined: frozenset[str] | None = None
    migrating: frozenset[str] | None = None
    here: frozenset[str] | None = frozenset()
    busy: frozenset[str] = frozenset()

    def gone(self, holder: str) -> bool:
        """Check whether a guest without a domain is known to be gone.

        Nova takes domains away that it defines again later, and counts their
        guests meanwhile.
        """
        return self.here is not None and holder not in self.here


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """A correction of what is held for a guest.

    :ivar why: what was found of the instance
    :ivar holds: what is to be held for which purpose, perhaps nothing
    """

    holder: str
    why: str
    holds: Mapping[model.Purpose, Sequence[model.Hold]]

    def text(self, verb: str) -> str:
        """Describe it, without the name of the instance.

        :param verb: ``were`` if it is done, ``would be`` if it isn't yet
        """
        if any(self.holds.values()):
            return self.why
        return f'{self.why}; its pages {verb} released'

    def sentence(self, verb: str) -> str:
        """Describe it with the uuid of the instance."""
        return f'instance {self.holder} {self.text(verb)}'


@dataclasses.dataclass(frozen=True, slots=True)
class Rules:
    """The rules, with what they judge by.

    :ivar running: the uuids of the guests that run
    :ivar complete: the uuids of those that have all the pages that were
        reserved for them
    :ivar now: in seconds since the epoch
    :ivar starting: whether the service is starting, so that nothing can be
        in progress in it
    """

    policy: PoolPolicy
    present: Present
    running: Collection[str]
    complete: Collection[str]
    now: float
    starting: bool = False

    def judge(self, holds: Grouped) -> list[Change]:
        """Judge what is held for each holder and purpose.

        A holder on which the service is at work is left alone.
        """
        changes = []
        for (holder, purpose), rows in holds.items():
            if holder not in self.present.busy:
                rule = self._guest if purpose is _GUEST else self._moving
                change = rule(rows)
                if change is not None:
                    changes.append(change)
        return changes

    def undecided(self, holds: Grouped) -> tuple[list[str], list[str]]:
        """List the guests that may be gone, which isn't known for certain.

        Those that don't run and have no domain, if the domains are known.

        :returns: the uuids of those that Nova may have here nevertheless, and
            of those that may be about to start
        """
        doubtful, young = [], []
        for (holder, purpose), rows in holds.items():
            if (
                purpose is not _GUEST
                or holder in self.present.busy
                or holder in self.running
                or self.present.defined is None
                or holder in self.present.defined
            ):
                continue
            if not self._settled(rows):
                young.append(holder)
            elif not self.present.gone(holder):
                doubtful.append(holder)
        return doubtful, young

    def _settled(self, rows: Sequence[model.Hold]) -> bool:
        """Check whether a start can't be in progress in the service."""
        # Set back or forward, the clock must not keep it for long.
        age = abs(self.now - rows[0].since)
        return self.starting or age >= self.policy.start_limit_s

    def _guest(self, rows: Sequence[model.Hold]) -> Change | None:
        """Judge what is held for a guest that is here."""
        holder = rows[0].holder
        if not self._settled(rows):
            return None
        if holder in self.running:
            if rows[0].state is model.State.HELD and holder in self.complete:
                return Change(
                    holder,
                    'runs on the pages that were reserved for it',
                    {_GUEST: _taken(rows)},
                )
        elif self.present.defined is None:
            pass
        elif holder not in self.present.defined:
            if self.present.gone(holder):
                return Change(holder, 'is gone', {_GUEST: ()})
        elif not self.policy.keep_powered_off:
            return Change(holder, 'is powered off', {_GUEST: ()})
        return None

    def _moving(self, rows: Sequence[model.Hold]) -> Change | None:
        """Judge what is held for a guest that comes here or went away."""
        holder, purpose = rows[0].holder, rows[0].purpose
        migrating = self.present.migrating
        if migrating is None or holder in migrating:
            return None
        if purpose is _INCOMING and holder in self.running:
            if holder not in (self.present.defined or ()):
                return None
            return Change(
                holder,
                'has arrived on the pages that were reserved for it',
                {_GUEST: _taken(rows), _INCOMING: ()},
            )
        # A deleted instance needs no revert.
        deleted = purpose is not _INCOMING and self.present.gone(holder)
        if not (self._settled(rows) or deleted):
            return None
        what = 'migration' if purpose is _INCOMING else 'resize'
        return Change(holder, f'has no {what} in progress', {purpose: ()})


def adoption(
    holder: str, pages: Mapping[model.PoolKey, int], now: float
) -> Change:
    """Have a guest hold the pages that it runs on."""
    return Change(
        holder,
        'runs on pages that are not in the ledger',
        {
            _GUEST: [
                model.Hold(
                    holder,
                    _GUEST,
                    cell,
                    *key,
                    count,
                    state=model.State.TAKEN,
                    since=now,
                )
                for cell, (key, count) in enumerate(sorted(pages.items()))
            ]
        },
    )


def grouped(holds: Collection[model.Hold]) -> Grouped:
    """Group holds by holder and purpose."""
    found: dict[tuple[str, model.Purpose], list[model.Hold]] = {}
    for hold in holds:
        found.setdefault((hold.holder, hold.purpose), []).append(hold)
    return found


def holds_after(
    holds: Grouped, changes: Collection[Change]
) -> list[model.Hold]:
    """List what will be held once changes are applied."""
    after = dict(holds)
    for change in changes:
        for purpose, rows in change.holds.items():
            after[change.holder, purpose] = rows
    return [hold for rows in after.values() for hold in rows]


def _taken(rows: Sequence[model.Hold]) -> list[model.Hold]:
    """Have a guest run on its pages."""
    return [
        dataclasses.replace(row, purpose=_GUEST, state=model.State.TAKEN)
        for row in rows
    ]
