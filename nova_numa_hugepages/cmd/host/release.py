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
from typing import NamedTuple
from typing import TYPE_CHECKING

from nova_numa_hugepages import exception
from nova_numa_hugepages.cmd.host import base
from nova_numa_hugepages.cmd.host import errors
from nova_numa_hugepages.cmd.host import ledgers
from nova_numa_hugepages.cmd.host import settings
from nova_numa_hugepages.cmd.host.inspect import host_root
from nova_numa_hugepages.cmd.host.inspect import ledger_users
from nova_numa_hugepages.core import units
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import processes

# cliff loads all commands, whichever is run, so each loads late what it needs.
if TYPE_CHECKING:
    from nova_numa_hugepages.hugepages.kernel import hostfs
    from nova_numa_hugepages.hugepages.pools import Pools

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


class _Seen(NamedTuple):
    """What somebody who is asked agrees to."""

    holds: list[model.Hold]
    process: processes.GuestProcess | None
    users: ledger_users.Users


class _UnknownHolder(errors.BadInput):
    """Nothing is held for whom it was asked for."""


class Release(base.HostCommand):
    """Give back all pages held for a guest, in an emergency."""

    description = _DESCRIPTION
    force = (
        'even if the guest runs, or may be about to start; or if the ledger '
        'is not that of the configuration'
    )

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

    def act(
        self, options: argparse.Namespace, found: settings.Settings
    ) -> int:
        """Release.

        :returns: the exit code
        """
        from nova_numa_hugepages.cmd.host import opening

        fs = host_root.host_fs(options.root)
        with opening.opened(fs, found) as pools:
            holder = _uuid(options.holder)
            seen = _see(fs, pools, holder)
            if not seen.holds:
                raise _UnknownHolder(
                    _unknown(pools, options.holder, settings.as_given(options))
                )
            print(f'For {holder}, which {_runs(seen.process)}:')
            for hold in seen.holds:
                print(f'- {_sentence(hold)}')
            if seen.process and not options.force:
                raise _Refused(
                    'Not released: the guest runs on these pages. They would '
                    'be promised to others as soon as it stops, and it might '
                    'not start again. Stop it first; or, if you know better, '
                    'add --force.'
                )
            if not options.force:
                _check_settled(pools, seen.holds)
            _warn(seen.users)
            if not options.yes:
                self._confirm()
            opening.quieten(self.app)
            with pools.locked():
                if _see(fs, pools, holder) != seen:
                    raise _Refused(
                        'Not released: the guest, or what is held for it, or '
                        'who has the ledger open, changed meanwhile. Look at '
                        'it again.'
                    )
                pools.drop(holder)
                print('Released.', flush=True)
                _give_back(pools, settings.as_given(options))
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


def _see(fs: hostfs.HostFS, pools: Pools, holder: str) -> _Seen:
    return _Seen(
        pools.holds(holder),
        pools.running().get(holder),
        ledger_users.users(fs, pools.ledger_path),
    )


def _check_settled(pools: Pools, holds: Sequence[model.Hold]) -> None:
    """See that the guest can't be about to start.

    Until libvirt has started its process, nothing but its holds tells of it.

    :raises _Refused: if it may be
    """
    limit_s = pools.policy.start_limit_s
    young = [
        hold.since
        for hold in holds
        if hold.state is model.State.HELD
        and pools.now() - hold.since < limit_s
    ]
    if young:
        raise _Refused(
            'Not released: the guest may be about to start, as not all of '
            'this is held for as long as a start may take (start_time_limit, '
            f'{limit_s:g} s). Try it again after '
            f'{ledgers.when(max(young) + limit_s):%Y-%m-%d %H:%M:%S %Z}. Or, '
            'if you know that it does not start, add --force.'
        )


def _warn(users: ledger_users.Users) -> None:
    if users.process:
        text = f'The ledger is open in {users.process}. If that is'
    elif users.hidden:
        text = (
            f'This user may not see which files {users.hidden} has open. If '
            'that is'
        )
    else:
        return
    print(
        f'{text} nova-compute, it may be about to start the guest.',
        file=sys.stderr,
        flush=True,
    )


def _give_back(pools: Pools, options: str) -> None:
    """Give back what is idle now, and tell what went.

    :param options: what has to be repeated for another command
    """
    given: dict[model.PoolKey, int] = {}
    try:
        pools.trim(given)
    except exception.NUMAHugepagesError as error:
        raise _Refused(
            f'{errors.advice(error).rstrip(".")}. What was made for the '
            'guest stays in the pools, and is offered to the kernel again by: '
            f'nova-numa-hugepages host reconcile{options}'
        ) from error
    finally:
        print(_given(given), flush=True)


def _runs(process: processes.GuestProcess | None) -> str:
    if process is None:
        return 'does not run'
    return f'runs as process {process.pid}'


def _sentence(hold: model.Hold) -> str:
    since = f'{ledgers.when(hold.since):%Y-%m-%d %H:%M %Z}'
    text = (
        f'{hold.pages} pages of {units.format_kib(hold.size_kib)} on node '
        f'{hold.node}, held since {since} for '
        + {
            model.Purpose.GUEST: f'cell {hold.cell} of the guest',
            model.Purpose.INCOMING: 'its migration to this host',
            model.Purpose.RESIZE: 'its coming back from a resize',
        }[hold.purpose]
    )
    if hold.grown:
        text += f'; {hold.grown} of them were made for it'
    return text


def _uuid(text: str) -> str:
    """Write a uuid as the ledger has it; another text stays as it is."""
    match = _UUID.fullmatch(text.lower())
    return '-'.join(match.groups()) if match else text.lower()


def _unknown(pools: Pools, holder: str, options: str) -> str:
    """Say that nothing is held, and for whom it may have been meant.

    :param options: what has to be repeated for another command
    """
    holders = sorted({hold.holder for hold in pools.holds()})
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
        for process in pools.running().values()
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


def _given(given: Mapping[model.PoolKey, int]) -> str:
    """Say what went back to the kernel."""
    if not given:
        return 'No page went back to the kernel.'
    sentences = [
        f'{count} pages of {units.format_kib(key.size_kib)} on node {key.node}'
        for key, count in sorted(given.items())
    ]
    return f'Back to the kernel went {", ".join(sentences)}.'
