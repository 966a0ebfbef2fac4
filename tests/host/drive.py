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

"""Steps of a test on the pools of the host that it runs on.

``python -m tests.host.drive`` stands for the service, without Nova. It reads
JSON from its standard input: the ``folder`` of the ledger, the ``policy``,
and ``steps``, each a list of the name of a function of `Service` and its
arguments. What each returned is written as one JSON list.
"""

from __future__ import annotations

from collections.abc import Callable
import json
import logging
import os
import pathlib
import signal
import sys
import time
from typing import Any

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.hugepages.pools import Pools
from nova_numa_hugepages.hugepages.reconcile import Reconciler
from nova_numa_hugepages.hugepages.reconcile_rules import Present
from nova_numa_hugepages.hugepages.state import lock
from nova_numa_hugepages.hugepages.state.ledger import Ledger


class Service:
    """The pools of this host, and what a test does with them."""

    def __init__(self, folder: pathlib.Path, policy: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        fs = hostfs.HostFS()
        self._ledger = Ledger.open(folder / 'ledger.sqlite')
        self._pools = Pools(
            hugetlb.Hugetlb(fs, hugetlb.write_number),
            self._ledger,
            PoolPolicy(**policy),
            lock=lock.HostLock(folder),
            read_maps=processes.MapsFile(fs),
        )

    def hold(
        self, holder: str, needs: list[list[int]], purpose: str = 'guest'
    ) -> list[str]:
        """Hold pages; returns why not, nothing if it did.

        :param needs: cell, node, size in KiB and pages each
        """
        try:
            self._pools.hold(
                holder,
                [model.PageNeed(*need) for need in needs],
                model.Purpose(purpose),
            )
        except exception.NotEnoughPages as error:
            return list(error.shortages)
        return []

    def taken(self, holder: str) -> None:
        """Note that a guest runs."""
        self._pools.mark_taken(holder)

    def arrived(self, holder: str) -> None:
        """Note that a guest was migrated to here and runs."""
        self._pools.move(holder, model.Purpose.INCOMING, model.Purpose.GUEST)
        self.taken(holder)

    def release(self, holder: str) -> None:
        """Give back what a guest held."""
        self._pools.release(holder)

    def heal(
        self, defined: list[str] | None, starting: bool = True
    ) -> list[str]:
        """Reconcile; returns what was done."""
        return Reconciler(self._pools).reconcile(
            Present(
                None if defined is None else frozenset(defined), frozenset()
            ),
            starting=starting,
        )

    def pools(self, size_kib: int = 2048) -> dict[str, dict[str, int]]:
        """Return the use of each node's pool of a size."""
        return {
            str(key.node): {
                'total': pool.usage.pool.total,
                'free': pool.usage.pool.free,
                'floor': pool.account.floor,
                'grown': pool.account.grown,
                'promised': pool.usage.promised,
                'occupied': pool.usage.occupied,
                'available': pool.usage.available,
            }
            for key, pool in self._pools.snapshot().pools.items()
            if key.size_kib == size_kib
        }

    def holds(self) -> list[list[Any]]:
        """List who holds what: holder, state, node and pages."""
        return sorted(
            [hold.holder, hold.state.value, hold.node, hold.pages]
            for hold in self._pools.holds()
        )

    def runs_on(self, holder: str) -> dict[str, int]:
        """Return the pages of a guest by node."""
        process = processes.running(hostfs.HostFS())[holder]
        return {
            str(key.node): count
            for key, count in self._pools.pages_of(process).items()
        }

    def wait_for(self, path: str) -> None:
        """Wait for a file to appear."""
        print('waiting', file=sys.stderr, flush=True)
        while not os.path.exists(path):
            time.sleep(0.001)

    def die_in(self, name: str) -> None:
        """Be killed when the ledger is next asked for an operation."""

        def die(*_: object, **__: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(self._ledger, name, die)


def main() -> None:
    """Run the steps."""
    logging.basicConfig(level=logging.INFO)
    request = json.load(sys.stdin)
    service = Service(pathlib.Path(request['folder']), request['policy'])
    results = []
    for name, *arguments in request['steps']:
        step: Callable[..., Any] = getattr(service, name)
        results.append(step(*arguments))
    json.dump(results, sys.stdout)


if __name__ == '__main__':
    main()
