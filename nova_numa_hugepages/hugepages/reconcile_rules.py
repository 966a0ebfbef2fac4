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

"""What is to become of holds that are compared with guests and domains."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence
import dataclasses
import enum
from typing import TYPE_CHECKING

from nova_numa_hugepages.hugepages import model

if TYPE_CHECKING:
    from nova_numa_hugepages.hugepages import reconcile


class Action(enum.Enum):
    """What is done: nothing, or what the names say."""

    KEEP = enum.auto()
    DROP = enum.auto()
    TAKE = enum.auto()
    ARRIVE = enum.auto()


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of a holder's holds for one purpose.

    :ivar why: what was found
    :ivar what: what is released for that, if anything is
    """

    holder: str
    purpose: model.Purpose
    action: Action
    why: str = ''
    what: str = ''

    def told(self, verb: str) -> str:
        """Tell of it, as done or as still to be done."""
        if not self.what:
            return self.why
        return f'{self.why}, so {self.what} {verb} released'


def oldest(
    holds: Collection[model.Hold], busy: Collection[str]
) -> dict[tuple[str, model.Purpose], model.Hold]:
    """Tell the oldest hold of each holder for each purpose.

    :param busy: holders that are left out
    """
    found: dict[tuple[str, model.Purpose], model.Hold] = {}
    for hold in holds:
        if hold.holder not in busy:
            found.setdefault((hold.holder, hold.purpose), hold)
    return found


def later(
    holds: Collection[model.Hold],
    verdicts: Collection[Verdict],
    adopted: Collection[Sequence[model.Hold]],
) -> list[model.Hold]:
    """Tell what will be held once all that was judged is carried out."""
    judged = {(one.holder, one.purpose): one.action for one in verdicts}
    found = [hold for rows in adopted for hold in rows]
    for hold in holds:
        action = judged.get((hold.holder, hold.purpose))
        if action is None:
            found.append(hold)
        elif action is not Action.DROP:
            found.append(
                dataclasses.replace(
                    hold,
                    purpose=model.Purpose.GUEST,
                    state=model.State.TAKEN,
                )
            )
    return found


def moving(
    hold: model.Hold, runs: bool, present: reconcile.Present, settled: bool
) -> Verdict:
    """Judge what is held for a guest that comes here or went away."""
    holder, purpose = hold.holder, hold.purpose
    arriving = purpose is model.Purpose.INCOMING
    if (
        arriving
        and runs
        and holder in (present.defined or ())
        and present.migrating is not None
        and holder not in present.migrating
    ):
        return Verdict(
            holder,
            purpose,
            Action.ARRIVE,
            f'guest {holder} has arrived on the pages that were held for it',
        )
    if (
        present.migrating is None
        or holder in present.migrating
        or not settled
        or (arriving and runs)
    ):
        return Verdict(holder, purpose, Action.KEEP)
    what = 'migration' if arriving else 'resize'
    return Verdict(
        holder,
        purpose,
        Action.DROP,
        f'the {what} of guest {holder} has ended',
        'the pages held for it',
    )
