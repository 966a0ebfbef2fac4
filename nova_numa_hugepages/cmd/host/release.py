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
from collections.abc import Mapping
from collections.abc import Sequence
import difflib
import re
import sys
from typing import TYPE_CHECKING

from nova_numa_hugepages import exception
from nova_numa_hugepages.cmd.host import hostcommand
from nova_numa_hugepages.cmd.host import ledgers
from nova_numa_hugepages.cmd.host import problems
from nova_numa_hugepages.cmd.host import roots
from nova_numa_hugepages.cmd.host import service
from nova_numa_hugepages.cmd.host import settings
from nova_numa_hugepages.core import units
from nova_numa_hugepages.virt import guests
from nova_numa_hugepages.virt import pages

# cliff loads all commands, whichever is run, so each loads late what it needs.
if TYPE_CHECKING:
    from nova_numa_hugepages.virt import pools as pools_module

_DESCRIPTION = """
Give back all pages held for a guest, in an emergency.

nova-compute does this by itself when a guest is gone. This is for a host on
which nova-compute is stopped, or for a guest that Nova has lost. It waits for
its turn if nova-compute is at work on the pools.
"""

_UUID = re.compile(
    r'([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})'
    r'-?([0-9a-f]{12})'
)


class _Refused(exception.NUMAHugepagesError):
    """It isn't done; the text says why."""


class _UnknownHolder(problems.BadInput):
    """Nothing is held for whom it was asked for."""


class Release(hostcommand.HostCommand):
    """Give back all pages held for a guest, in an emergency."""

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

        fs = roots.host_fs(options.root)
        user = service.user(fs, found.ledger)
        with opening.opened(fs, found) as pools:
            holder = _uuid(options.holder)
            holds = pools.ledger.holds(holder)
            if not holds:
                raise _UnknownHolder(
                    _unknown(pools, options.holder, settings.as_given(options))
                )
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
            if user:
                print(
                    f'The ledger is open in {user}. If that is nova-compute, '
                    'it may be about to start the guest.',
                    file=sys.stderr,
                    flush=True,
                )
            if not options.yes:
                self._confirm()
            opening.quieten(self.app)
            print(f'Released. {_given(pools.release(holder))}')
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
    since = f'{ledgers.when(hold.since):%Y-%m-%d %H:%M %Z}'
    text = (
        f'{hold.pages} pages of {units.format_kib(hold.size_kib)} on node '
        f'{hold.node}, held since {since} for '
        + {
            pages.Purpose.GUEST: f'cell {hold.cell} of the guest',
            pages.Purpose.INCOMING: 'its migration to this host',
            pages.Purpose.RESIZE: 'its coming back from a resize',
        }[hold.purpose]
    )
    if hold.grown:
        text += f'; {hold.grown} of them were made for it'
    return text


def _uuid(text: str) -> str:
    """Write a uuid as the ledger has it; another text stays as it is."""
    match = _UUID.fullmatch(text.lower())
    return '-'.join(match.groups()) if match else text.lower()


def _unknown(pools: pools_module.Pools, holder: str, options: str) -> str:
    """Say that nothing is held, and for whom it may have been meant.

    :param options: what has to be repeated for another command
    """
    holders = sorted({hold.holder for hold in pools.ledger.holds()})
    wanted = _uuid(holder)
    text = (
        f'Nothing is held for {wanted}.'
        if _UUID.fullmatch(wanted)
        else f'{holder} is no uuid.'
    )
    if not holders:
        return f'{text} Nothing is held for anybody.'
    near = [one for one in holders if one.startswith(wanted)]
    near += [
        process.uuid
        for process in guests.running(pools.fs).values()
        if process.name == holder and process.uuid in holders
    ]
    near = near or difflib.get_close_matches(wanted, holders)
    if near:
        return f'{text} Did you mean {_or(near)}?'
    return (
        f'{text} Who holds pages is told by: nova-numa-hugepages host show'
        f'{options}'
    )


def _or(names: Sequence[str]) -> str:
    return ' or '.join(names[:5]) + (' …' if len(names) > 5 else '')


def _given(given: Mapping[pages.PoolKey, int]) -> str:
    """Say what went back to the kernel."""
    if not given:
        return 'No page went back to the kernel.'
    sentences = [
        f'{count} pages of {units.format_kib(key.size_kib)} on node {key.node}'
        for key, count in sorted(given.items())
    ]
    return f'Back to the kernel went {", ".join(sentences)}.'
