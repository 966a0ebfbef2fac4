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

"""The pools of this host, opened to be changed from the command line."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import logging
import os
import sys
from typing import Any

from nova_numa_hugepages.cmd.host import errors
from nova_numa_hugepages.cmd.host import ledgers
from nova_numa_hugepages.cmd.host import reserved
from nova_numa_hugepages.cmd.host.settings import Settings
from nova_numa_hugepages.hugepages import pools
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.state import lock
from nova_numa_hugepages.hugepages.state.ledger import Ledger

# Seconds to wait for whoever else is at work on the pools.
LOCK_TIMEOUT_S = 60.0


@contextlib.contextmanager
def opened(
    fs: hostfs.HostFS,
    settings: Settings,
    *,
    to_change: bool = True,
) -> Iterator[pools.Pools]:
    """Open the pools of this host with its ledger.

    :param to_change: whether anything may be changed
    :raises problems.NotAllowed: if this user may not do that
    :raises exception.LedgerError: if there is no ledger, or none that can be
        used
    """
    reason = hugetlb.read_only_reason(fs)
    writer: hugetlb.Writer = hugetlb.DirectWriter(fs)
    if to_change and reason is None:
        _check_pools(fs)
    elif to_change:
        print(f'The pools stay as they are: {reason}', file=sys.stderr)
    if not to_change:
        writer = hugetlb.RefusingWriter('this only looks')
    _check_ledger(settings, to_change)
    kernel = hugetlb.Hugetlb(fs, writer)
    for note in reserved.notes(
        settings.policy.reserved, kernel.pools().keys()
    ):
        print(note, file=sys.stderr)
    with Ledger.open(
        settings.ledger, create=False, read_only=not to_change
    ) as ledger:
        ledgers.check(ledger)
        yield pools.Pools(
            kernel,
            ledger,
            fs,
            settings.policy,
            lock=lock.HostLock(
                settings.ledger.parent,
                timeout_s=LOCK_TIMEOUT_S,
                waiting=_wait,
            ),
            read_maps=processes.MapsFile(fs),
            writable=reason is None,
        )


def _check_pools(fs: hostfs.HostFS) -> None:
    """Find out before anything is changed whether pools can be written."""
    kernel = hugetlb.Hugetlb(fs, hugetlb.RefusingWriter('this only looks'))
    for key in kernel.pools():
        path = fs.pool_folder(key) / 'nr_hugepages'
        if not os.access(path, os.W_OK):
            raise errors.NotAllowed(
                f'this user may not write {path}, nor change what is held '
                'for guests. Run it as root.'
            )


def _check_ledger(settings: Settings, to_change: bool) -> None:
    if ledgers.forbidden(settings.ledger, to_change=to_change):
        raise errors.NotAllowed(
            f'this user may not {"change" if to_change else "read"} the '
            f'ledger {settings.ledger}. Run it as root, or as the user of '
            'the service.'
        )


def _wait(holder: str) -> None:
    print(
        f'Waiting up to {LOCK_TIMEOUT_S:g} s for {holder}, which is at work '
        'on the pools …',
        file=sys.stderr,
        flush=True,
    )


def quieten(app: Any) -> None:
    """Keep what is printed anyway from being logged to the terminal, too."""
    if not app.options.verbose_level and not app.options.log_file:
        logging.getLogger('nova_numa_hugepages').setLevel(logging.ERROR)
