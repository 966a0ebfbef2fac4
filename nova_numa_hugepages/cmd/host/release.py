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
import sys
from typing import NamedTuple
import uuid

from nova_numa_hugepages import exception
from nova_numa_hugepages.cmd.host import base
from nova_numa_hugepages.cmd.host import errors
from nova_numa_hugepages.cmd.host import opening
from nova_numa_hugepages.cmd.host import settings
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.pools import Pools


class _State(NamedTuple):
    """What the user agrees to release.

    :ivar service: the service that may run, None if none does
    """

    holds: list[model.Hold]
    process: processes.GuestProcess | None
    service: str | None


class Release(base.HostCommand):
    """Release all pages held for an instance, in an emergency.

    nova-compute does this by itself when an instance is deleted. This is for a
    host on which nova-compute is stopped, or for an instance that Nova has
    lost. It waits for its turn if nova-compute is at work on the pools.
    """

    force = (
        'even if the instance runs, or may be about to start; or if the '
        'ledger is not that of the configuration'
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            'holder',
            metavar='HOLDER',
            help='the uuid of the instance, as in host show',
        )
        parser.add_argument(
            '--yes',
            action='store_true',
            help='do not ask for confirmation',
        )

    def act(
        self,
        options: argparse.Namespace,
        found: settings.Settings,
        fs: hostfs.HostFS,
    ) -> int:
        given = settings.repeated(options)
        with opening.opened(self.machine, fs, found) as pools:
            holder = _uuid(options.holder, given)
            state = _read(pools, found, holder)
            if not state.holds:
                raise errors.BadInput(
                    f'No pages are held for {holder}. The instances that hold '
                    f'pages are in: nova-numa-hugepages host show{given}'
                    if pools.holds()
                    else 'No reservations on this host.'
                )
            runs = 'is not running'
            if state.process is not None:
                runs = f'is running as process {state.process.pid}'
            print(f'Instance {holder}, which {runs}:')
            for hold in state.holds:
                print(f'- {_sentence(hold)}')
            if not options.force:
                _check_running(state.process)
                _check_settled(pools, state.holds)
            if state.service:
                print(
                    f'Warning: {state.service}, and it may be about to start '
                    'the instance.',
                    file=sys.stderr,
                    flush=True,
                )
            if not options.yes:
                self._confirm()
            self.quieten()
            with pools.locked():
                if _read(pools, found, holder) != state:
                    raise errors.Refused(
                        'Not released: the instance, or what is held for it, '
                        'or nova-compute changed meanwhile. Run the command '
                        'again.'
                    )
                pools.drop(holder)
                print('Released.', flush=True)
                _free(pools, given)
        return 0

    def _confirm(self) -> None:
        if not self.app.stdin.isatty():
            raise errors.Refused(
                'Not released: there is no terminal to ask for confirmation. '
                'Add --yes.'
            )
        print('Release all of this? [y/N] ', end='', flush=True)
        if self.app.stdin.readline().strip().lower() not in ('y', 'yes'):
            raise errors.Refused('Nothing was released.')


def _read(pools: Pools, found: settings.Settings, holder: str) -> _State:
    return _State(
        pools.holds(holder),
        pools.running().get(holder),
        opening.service(found),
    )


def _check_running(process: processes.GuestProcess | None) -> None:
    if process is not None:
        raise errors.Refused(
            'Not released: the instance runs on these pages. They would be '
            'promised to others as soon as it stops, and it might not start '
            'again. Stop it first. Use --force to override.'
        )


def _check_settled(pools: Pools, holds: Sequence[model.Hold]) -> None:
    """Check that the instance cannot be about to start.

    Until libvirt has started its process, it has nothing but its holds.

    :raises errors.Refused: if it may be
    """
    limit_s = pools.policy.start_limit_s
    young = [
        hold.since
        for hold in holds
        if hold.state is model.State.HELD
        and pools.now() - hold.since < limit_s
    ]
    if young:
        raise errors.Refused(
            'Not released: the instance may be about to start, as some of '
            'this has been held for less than start_time_limit '
            f'({limit_s:g} s). Try again after '
            f'{opening.when(max(young) + limit_s):%Y-%m-%d %H:%M:%S %Z}. Use '
            '--force to override.'
        )


def _free(pools: Pools, options: str) -> None:
    """Free what is idle now, and print it.

    :param options: those to repeat for another command
    """
    freed: dict[model.PoolKey, int] = {}
    try:
        pools.trim(freed)
    except exception.NUMAHugepagesError as error:
        raise errors.Refused(
            f'{errors.advice(error).rstrip(".")}. Pages that were allocated '
            'for the instance stay in the pools. To free them: '
            f'nova-numa-hugepages host reconcile{options}'
        ) from error
    finally:
        pages = model.in_words(freed) if freed else 'no pages'
        print(f'Freed {pages}.', flush=True)


def _sentence(hold: model.Hold) -> str:
    since = f'{opening.when(hold.since):%Y-%m-%d %H:%M %Z}'
    purpose = {
        model.Purpose.GUEST: f'guest cell {hold.cell}',
        model.Purpose.INCOMING: 'its migration to this host',
        model.Purpose.RESIZE: 'the revert of its resize',
    }[hold.purpose]
    text = f'{model.in_words({hold.key: hold.pages})}, held since {since} for '
    text += purpose
    if hold.grown:
        text += f'; {hold.grown} of them were allocated for it'
    return text


def _uuid(text: str, options: str) -> str:
    """Write a uuid as the ledger has it.

    :param options: those to repeat for another command
    :raises errors.BadInput: if it is none
    """
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise errors.BadInput(
            f'HOLDER: found {text!r}, expected the uuid of an instance, as in '
            f'nova-numa-hugepages host show{options}'
        ) from error
