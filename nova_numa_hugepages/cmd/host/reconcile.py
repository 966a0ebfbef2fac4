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
from collections.abc import Sequence
import sys

from nova_numa_hugepages.cmd.host import base
from nova_numa_hugepages.cmd.host import errors
from nova_numa_hugepages.cmd.host import opening
from nova_numa_hugepages.cmd.host import settings
from nova_numa_hugepages.cmd.host.inspect import libvirt_domains
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import nodes
from nova_numa_hugepages.hugepages.pools import Pools
from nova_numa_hugepages.hugepages.reconcile import ReconcilePlan
from nova_numa_hugepages.hugepages.reconcile import Reconciler
from nova_numa_hugepages.hugepages.reconcile_rules import Present

EXIT_TO_FIX = 3
EXIT_UNDECIDED = 4


class Reconcile(base.HostCommand):
    """Compare ledger, instances and kernel of this host, and fix them.

    For a host on which nova-compute is stopped, because it does not start or
    its driver was switched off. While it runs it does the same by itself, when
    it starts and then once a minute. --dry-run can be used at any time.

    Pages are left alone that are held for an instance without a domain, as
    only Nova knows whether it was deleted or is just being rebuilt; and those
    that are held for a live migration or a resize, as only Nova knows whether
    it is in progress.
    """

    force = (
        'even if nova-compute runs, or if it is not known whether it does; if '
        'the ledger is not that of the configuration; and believe libvirt if '
        'it knows none of the instances that hold pages'
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            '--dry-run',
            action='store_true',
            help='print what would be fixed, and change nothing',
        )
        parser.add_argument(
            '--gone-without-domain',
            action='store_true',
            help='take instances without a domain for deleted, on a host on '
            'which Nova has none of them',
        )

    def changes(self, options: argparse.Namespace) -> bool:
        return not options.dry_run

    def act(
        self,
        options: argparse.Namespace,
        found: settings.Settings,
        fs: hostfs.HostFS,
    ) -> int:
        changes = self.changes(options)
        if changes and not options.force:
            _check_stopped(found)
        with opening.opened(
            self.machine, fs, found, to_change=changes
        ) as pools:
            reconciler = Reconciler(pools)
            if not changes:
                present = self._present(pools, found, options)
                plan = reconciler.plan(present, strict=True)
                return _report(
                    reconciler, plan, present, options, 'Would fix:'
                )
            self.quieten()
            with pools.locked():
                if not options.force:
                    # It may have been started while the lock was waited for.
                    _check_stopped(found)
                present = self._present(pools, found, options)
                fixed = _fix(reconciler, present, fs)
                plan = reconciler.plan(present, strict=True)
                return _report(
                    reconciler, plan, present, options, 'Still to fix:', fixed
                )

    def _present(
        self,
        pools: Pools,
        found: settings.Settings,
        options: argparse.Namespace,
    ) -> Present:
        """Find out which instances there are."""
        here = frozenset[str]() if options.gone_without_domain else None
        guests = {hold.holder for hold in pools.holds()}
        powered = {
            hold.holder for hold in pools.holds(None, model.Purpose.GUEST)
        }
        try:
            defined = self.machine.domains(
                found.libvirt_uri,
                guests & pools.running().keys(),
                () if options.force else powered,
            )
        except libvirt_domains.DomainsUnknown as error:
            print(
                f'It is not known which instances have a domain: {error}. So '
                'instances that are not running keep what is held for them, '
                'and instances that run on pages that are not in the ledger '
                'are not added to it.',
                file=sys.stderr,
            )
            return Present(None, here=here)
        return Present(defined, here=here)


def _check_stopped(found: settings.Settings) -> None:
    """Check that no service works with the pools."""
    running = opening.service(found)
    if running is not None:
        raise errors.Refused(
            f'Nothing was fixed: {running}. It does this by itself once a '
            'minute; to do it by hand, stop it first. Use --force to override.'
        )


def _fix(reconciler: Reconciler, present: Present, fs: hostfs.HostFS) -> bool:
    """Fix what can be fixed, and print it, also if an error ends it.

    :returns: whether anything was fixed
    """
    # All that is needed is read before anything is written, so that everything
    # stays as it is if a file of the kernel cannot be read. The service goes
    # without: it tries again each minute.
    plan = reconciler.plan(present, strict=True)
    reconciler.describe(plan)
    nodes.memory(fs)
    fixed: list[str] = []
    try:
        reconciler.apply(plan, quick=False, done=fixed)
    finally:
        _print_list('Fixed:', fixed)
    return bool(fixed)


def _report(
    reconciler: Reconciler,
    plan: ReconcilePlan,
    present: Present,
    options: argparse.Namespace,
    title: str,
    fixed: bool = False,
) -> int:
    """Print what there is to fix, and what cannot be decided.

    :param fixed: whether something was fixed before
    :returns: the exit code
    """
    left = reconciler.describe(plan)
    _print_list(title, left)
    if not left and not fixed:
        complete = (
            present.defined is not None
            and not plan.doubtful
            and not plan.young
        )
        print('Nothing to fix.' if complete else 'Nothing else to fix.')
    _print_list(
        'Undecided:',
        [
            f'instance {uuid} has no domain; if Nova does not have it on this '
            'host either: nova-numa-hugepages host release '
            f'{uuid}{settings.repeated(options)}'
            for uuid in plan.doubtful
        ],
    )
    if plan.young:
        print(
            f'Undecided until start_time_limit is over: '
            f'{", ".join(plan.young)}, which may be about to start.'
        )
    if left:
        return EXIT_TO_FIX
    return EXIT_UNDECIDED if plan.doubtful or present.defined is None else 0


def _print_list(title: str, sentences: Sequence[str]) -> None:
    if sentences:
        print(title)
    for sentence in sentences:
        print(f'- {sentence}')
