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
from nova_numa_hugepages.cmd.host import hostcommand
from nova_numa_hugepages.cmd.host import roots
from nova_numa_hugepages.cmd.host import service
from nova_numa_hugepages.cmd.host import settings

# cliff loads all commands, whichever is run, so each loads late what it needs.
if TYPE_CHECKING:
    from nova_numa_hugepages.virt import hostfs
    from nova_numa_hugepages.virt import pools as pools_module
    from nova_numa_hugepages.virt import reconcile

EXIT_TO_HEAL = 3

_DESCRIPTION = """
Compare ledger, guests and kernel of this host, and heal.

For a host on which nova-compute is stopped, because it can't be started or
its driver was switched off. While it runs it does the same by itself, when it
starts and then once a minute. This command doesn't know on which guests it is
at work, and could take one for gone that is just being rebuilt. --dry-run can
be used at any time.

Pages that are held for a live migration or a resize are left alone, as only
Nova knows whether it is under way.
"""


class _InUse(exception.NUMAHugepagesError):
    """The service runs."""


class Reconcile(hostcommand.HostCommand):
    """Compare ledger, guests and kernel of this host, and heal."""

    description = _DESCRIPTION

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add its options."""
        parser.add_argument(
            '--dry-run',
            action='store_true',
            help='say what would be healed, and change nothing',
        )
        parser.add_argument(
            '--force',
            action='store_true',
            help='even if a process has the ledger open, as nova-compute has',
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
        from nova_numa_hugepages.virt import nodes
        from nova_numa_hugepages.virt import reconcile

        fs = roots.host_fs(options.root)
        if not options.dry_run and not options.force:
            _check_unused(fs, found)
        with opening.opened(fs, found, to_change=not options.dry_run) as pools:
            present = _present(pools, found.libvirt_uri)
            nothing = (
                'Nothing to heal.'
                if present.defined is not None
                else 'Nothing else to heal.'
            )
            reconciler = reconcile.Reconciler(pools)
            if options.dry_run:
                left = reconciler.look(present)
                _tell('To heal:', left, nothing)
            else:
                opening.quieten(self.app)
                # All that is needed is read before anything is written, so
                # that where the kernel's files can't be read all stays as it
                # is. The service does without: it looks once a minute.
                reconciler.look(present)
                nodes.memory(fs)
                healed = reconciler.heal(present)
                _tell('Healed:', healed, nothing)
                left = reconciler.look(present) if healed else []
                if left:
                    _tell('Still to heal:', left, nothing)
        return EXIT_TO_HEAL if left else 0


def _check_unused(fs: hostfs.HostFS, found: settings.Settings) -> None:
    user = service.user(fs, found.ledger)
    if user is not None:
        raise _InUse(
            f'Nothing was healed: {user} has the ledger {found.ledger} open. '
            'If that is nova-compute, it heals by itself once a minute; to '
            'heal by hand, stop it first. Or, if you know better, add '
            '--force.'
        )


def _present(
    pools: pools_module.Pools, libvirt_uri: str | None
) -> reconcile.Present:
    from nova_numa_hugepages.cmd.host import domains
    from nova_numa_hugepages.virt import guests
    from nova_numa_hugepages.virt import reconcile

    holders = {hold.holder for hold in pools.ledger.holds()}
    defined, how = domains.defined(
        libvirt_uri, holders & guests.running(pools.fs).keys()
    )
    if defined is None:
        print(
            f'Which guests are defined is not known ({how}). So guests that '
            'do not run keep what is held for them, and guests that run on '
            'pages that are not in the ledger are not added to it.',
            file=sys.stderr,
        )
    return reconcile.Present(defined=defined)


def _tell(title: str, sentences: list[str], nothing: str) -> None:
    if not sentences:
        print(nothing)
        return
    print(title)
    for sentence in sentences:
        print(f'- {sentence}')
