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

from nova_numa_hugepages.cmd.host import hostcommand
from nova_numa_hugepages.cmd.host import settings

# cliff loads all commands, whichever is run, so each loads late what it needs.
if TYPE_CHECKING:
    from nova_numa_hugepages.virt import pools as pools_module
    from nova_numa_hugepages.virt import reconcile

EXIT_TO_HEAL = 3

_DESCRIPTION = """
Compare the ledger, the guests and the kernel of this host, and heal what has
come apart.

nova-compute does the same when it starts, and then once a minute. This is for
hosts on which it can't be started. Pages that are held for a live migration or
a resize are left alone, as only Nova knows whether it is under way.
"""


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

    def act(
        self, options: argparse.Namespace, found: settings.Settings
    ) -> int:
        """Reconcile.

        :returns: the exit code
        """
        from nova_numa_hugepages.cmd.host import opening
        from nova_numa_hugepages.virt import reconcile

        with opening.opened(
            settings.host_fs(options), found, to_change=not options.dry_run
        ) as pools:
            present = _present(pools, found.libvirt_uri)
            reconciler = reconcile.Reconciler(pools)
            if options.dry_run:
                left = reconciler.look(present)
                _tell('To heal:', left)
            else:
                opening.quieten(self.app)
                healed = reconciler.heal(present)
                _tell('Healed:', healed)
                left = reconciler.look(present) if healed else []
                if left:
                    _tell('Still to heal:', left)
        return EXIT_TO_HEAL if left else 0


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


def _tell(title: str, sentences: list[str]) -> None:
    if not sentences:
        print('Nothing to heal.')
        return
    print(title)
    for sentence in sentences:
        print(f'- {sentence}')
