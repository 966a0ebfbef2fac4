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

"""``nova-numa-hugepages host release``: for emergencies."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import datetime
import difflib
from typing import TYPE_CHECKING

from nova_numa_hugepages import exception
from nova_numa_hugepages.cmd.host import hostcommand
from nova_numa_hugepages.cmd.host import settings
from nova_numa_hugepages.core import units
from nova_numa_hugepages.virt import guests
from nova_numa_hugepages.virt import pages

# cliff loads all commands, whichever is run, so each loads late what it needs.
if TYPE_CHECKING:
    from nova_numa_hugepages.virt import pools as pools_module

_DESCRIPTION = """
Give back all pages that are held for a guest. For emergencies.

nova-compute does this by itself when a guest is gone. This is for a host on
which it can't, or for a guest that Nova has lost.
"""


class _Refused(exception.NUMAHugepagesError):
    """It isn't done; the text says why."""


class _UnknownHolder(settings.BadInput):
    """Nothing is held for whom it was asked for."""


class Release(hostcommand.HostCommand):
    """Give back all pages that are held for a guest, in an emergency."""

    description = _DESCRIPTION

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add its options."""
        parser.add_argument(
            'holder',
            metavar='HOLDER',
            help='the uuid of the guest, as host show tells it',
        )
        parser.add_argument(
            '--yes',
            action='store_true',
            help="don't ask for confirmation",
        )
        parser.add_argument(
            '--force',
            action='store_true',
            help='even if the guest runs',
        )

    def act(
        self, options: argparse.Namespace, found: settings.Settings
    ) -> int:
        """Release.

        :returns: the exit code
        """
        from nova_numa_hugepages.cmd.host import opening

        with opening.opened(settings.host_fs(options), found) as pools:
            holder = options.holder.lower()
            holds = pools.ledger.holds(holder)
            if not holds:
                raise _UnknownHolder(_unknown(pools, options.holder))
            running = guests.running(pools.fs).get(holder)
            print(f'For {holder}, which {_runs(running)}:')
            for hold in holds:
                print(f'- {_sentence(hold)}')
            if running and not options.force:
                raise _Refused(
                    'Not released: the guest runs on these pages. They would '
                    'be promised to others as soon as it stops, and it might '
                    'not start again. Stop it first; or, if you know better, '
                    'add --force.'
                )
            if not options.yes:
                self._confirm()
            before = pools.ledger.accounts()
            opening.quieten(self.app)
            pools.release(holder)
            print(f'Released. {_given(before, pools)}')
        return 0

    def _confirm(self) -> None:
        if not self.app.stdin.isatty():
            raise _Refused(
                'Not released: there is no terminal to ask for confirmation. '
                'Add --yes.'
            )
        print('Release all of this? [y/N] ', end='', flush=True)
        if self.app.stdin.readline().strip().lower() not in ('y', 'yes'):
            raise _Refused('Nothing was released.')


def _runs(process: guests.GuestProcess | None) -> str:
    if process is None:
        return 'does not run'
    return f'runs as process {process.pid}'


def _sentence(hold: pages.Hold) -> str:
    since = datetime.datetime.fromtimestamp(hold.since).astimezone()
    text = (
        f'{hold.pages} pages of {units.format_kib(hold.size_kib)} on node '
        f'{hold.node}, held since {since:%Y-%m-%d %H:%M %Z} for '
        + {
            pages.Purpose.GUEST: f'cell {hold.cell} of the guest',
            pages.Purpose.INCOMING: 'its migration to this host',
            pages.Purpose.RESIZE: 'its coming back from a resize',
        }[hold.purpose]
    )
    if hold.grown:
        text += f'; {hold.grown} of them were made for it'
    return text


def _unknown(pools: pools_module.Pools, holder: str) -> str:
    """Say that nothing is held, and for whom it may have been meant."""
    holders = sorted({hold.holder for hold in pools.ledger.holds()})
    text = f'Nothing is held for {holder}.'
    if not holders:
        return f'{text} Nothing is held for anybody.'
    near = [one for one in holders if one.startswith(holder.lower())]
    near += [
        process.uuid
        for process in guests.running(pools.fs).values()
        if process.name == holder and process.uuid in holders
    ]
    near = near or difflib.get_close_matches(holder.lower(), holders)
    if near:
        return f'{text} Did you mean {_or(near)}?'
    return f'{text} Who holds pages is told by: nova-numa-hugepages host show'


def _or(names: Sequence[str]) -> str:
    return ' or '.join(names[:5]) + (' …' if len(names) > 5 else '')


def _given(
    before: dict[pages.PoolKey, pages.Account], pools: pools_module.Pools
) -> str:
    """Say what went back to the kernel."""
    after = pools.ledger.accounts()
    given = {
        key: account.grown - after[key].grown
        for key, account in before.items()
        if key in after and account.grown > after[key].grown
    }
    if not given:
        return 'No page went back to the kernel.'
    sentences = [
        f'{count} pages of {units.format_kib(key.size_kib)} on node {key.node}'
        for key, count in sorted(given.items())
    ]
    return f'Back to the kernel went {", ".join(sentences)}.'
