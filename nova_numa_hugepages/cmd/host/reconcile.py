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

"""``nova-numa-hugepages host reconcile``: what the service does by itself."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from nova_numa_hugepages import exception
from nova_numa_hugepages.cmd.host import base
from nova_numa_hugepages.cmd.host import settings
from nova_numa_hugepages.cmd.host.inspect import host_root
from nova_numa_hugepages.cmd.host.inspect import ledger_users

# cliff loads all commands, whichever is run, so each loads late what it needs.
if TYPE_CHECKING:
    from nova_numa_hugepages.hugepages.kernel import hostfs
    from nova_numa_hugepages.hugepages.pools import Pools
    from nova_numa_hugepages.hugepages.reconcile import Reconciler
    from nova_numa_hugepages.hugepages.reconcile_rules import Present

EXIT_TO_HEAL = 3
EXIT_NOT_JUDGED = 4

_DESCRIPTION = """
Compare ledger, guests and kernel of this host, and heal.

For a host on which nova-compute is stopped, because it can't be started or
its driver was switched off. While it runs it does the same by itself, when it
starts and then once a minute. --dry-run can be used at any time.

Pages are left alone that are held for a guest without a domain, as only Nova
knows whether it is gone or is just being rebuilt; and those that are held for
a live migration or a resize, as only Nova knows whether it is under way.
"""


class _InUse(exception.NUMAHugepagesError):
    """The service runs."""


class Reconcile(base.HostCommand):
    """Compare ledger, guests and kernel of this host, and heal."""

    description = _DESCRIPTION
    force = (
        'even if a process has the ledger open, as nova-compute has, or if '
        'that cannot be seen; if the ledger is not that of the configuration; '
        'and believe libvirt if it knows none of the guests that hold pages'
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add its options."""
        parser.add_argument(
            '--dry-run',
            action='store_true',
            help='say what would be healed, and change nothing',
        )
        parser.add_argument(
            '--gone-without-domain',
            action='store_true',
            help='take guests for gone that have no domain, for a host on '
            'which Nova has none of them',
        )

    def changes(self, options: argparse.Namespace) -> bool:
        """Tell whether it is to heal."""
        return not options.dry_run

    def act(
        self, options: argparse.Namespace, found: settings.Settings
    ) -> int:
        """Reconcile.

        :returns: the exit code
        """
        from nova_numa_hugepages.cmd.host import opening
        from nova_numa_hugepages.hugepages.reconcile import Reconciler

        fs = host_root.host_fs(options.root)
        heals = self.changes(options)
        if heals:
            _check_unused(fs, found, options)
        with opening.opened(fs, found, to_change=heals) as pools:
            reconciler = Reconciler(pools)
            if not heals:
                present = _present(pools, found, options)
                return _result(reconciler, present, options, 'To heal:')
            opening.quieten(self.app)
            with pools.locked():
                # It may have been started while the lock was waited for.
                _check_unused(fs, found, options)
                present = _present(pools, found, options)
                healed = _heal(reconciler, present, fs)
                return _result(
                    reconciler, present, options, 'Still to heal:', healed
                )


def _check_unused(
    fs: hostfs.HostFS, found: settings.Settings, options: argparse.Namespace
) -> None:
    if options.force:
        return
    users = ledger_users.users(fs, found.ledger)
    if users.process is not None:
        raise _InUse(
            f'Nothing was healed: {users.process} has the ledger '
            f'{found.ledger} open, or another one. If that is nova-compute, '
            'it heals by itself once a minute; to heal by hand, stop it '
            'first. Or, if you know better, add --force.'
        )
    if users.hidden is not None:
        raise _InUse(
            'Nothing was healed: whether nova-compute runs is not known, as '
            f'this user may not see which files {users.hidden} has open. '
            'Run it as root, with the capability CAP_SYS_PTRACE. Or, if '
            'nova-compute is stopped, add --force.'
        )


def _heal(
    reconciler: Reconciler,
    present: Present,
    fs: hostfs.HostFS,
) -> bool:
    """Heal, and tell what was healed, however far that goes.

    :returns: whether anything was
    """
    from nova_numa_hugepages.hugepages.kernel import nodes

    # All that is needed is read before anything is written, so that where the
    # kernel's files can't be read all stays as it is. The service does
    # without: it looks once a minute.
    plan = reconciler.plan(present, strict=True)
    reconciler.describe(plan)
    nodes.memory(fs)
    healed: list[str] = []
    try:
        reconciler.apply(plan, quick=False, done=healed)
    finally:
        _tell('Healed:', healed)
    return bool(healed)


def _result(
    reconciler: Reconciler,
    present: Present,
    options: argparse.Namespace,
    title: str,
    healed: bool = False,
) -> int:
    """Tell what there is to heal, and what can't be told.

    :param healed: whether something was healed before
    :returns: the exit code
    """
    plan = reconciler.plan(present, strict=True)
    left = reconciler.describe(plan)
    doubtful, young = plan.doubtful, plan.young
    _tell(title, left)
    if not left and not healed:
        known = present.defined is not None and not doubtful and not young
        print('Nothing to heal.' if known else 'Nothing else to heal.')
    _tell(
        'Not judged:',
        [
            f'guest {uuid} has no domain; if Nova does not have it on this '
            'host either: nova-numa-hugepages host release '
            f'{uuid}{settings.as_given(options)}'
            for uuid in doubtful
        ],
    )
    if young:
        print(
            f'Too young to be judged: {", ".join(young)}, as '
            'start_time_limit is not over yet.'
        )
    if left:
        return EXIT_TO_HEAL
    return EXIT_NOT_JUDGED if doubtful or present.defined is None else 0


def _present(
    pools: Pools,
    found: settings.Settings,
    options: argparse.Namespace,
) -> Present:
    from nova_numa_hugepages.cmd.host.inspect import libvirt_domains
    from nova_numa_hugepages.hugepages import model
    from nova_numa_hugepages.hugepages.reconcile_rules import Present

    holds = pools.holds()
    running = pools.running().keys()
    defined, how = libvirt_domains.defined(
        found.libvirt_uri,
        {hold.holder for hold in holds} & running,
        ()
        if options.force
        else {
            hold.holder
            for hold in holds
            if hold.purpose is model.Purpose.GUEST
        },
    )
    if defined is None:
        print(
            f'Which guests are defined is not known ({how}). So guests that '
            'do not run keep what is held for them, as it cannot be judged '
            'whether they are gone, and guests that run on pages that are '
            'not in the ledger are not added to it.',
            file=sys.stderr,
        )
    return Present(
        defined, here=frozenset() if options.gone_without_domain else None
    )


def _tell(title: str, sentences: list[str]) -> None:
    if sentences:
        print(title)
    for sentence in sentences:
        print(f'- {sentence}')
