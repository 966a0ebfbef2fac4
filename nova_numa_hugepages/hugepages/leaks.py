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

"""Huge pages that stay in use when their guest has ended.

Some kernels lose pages of a guest that ends, and a program that the guest
shared its memory with, such as a switch, may keep them. The kernel doesn't say
whose they are, so they are found by what is more in use than before the guest
ended.
"""

from __future__ import annotations

import collections
from collections.abc import Collection
from collections.abc import Mapping

from oslo_log import log as logging

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from nova_numa_hugepages.hugepages.usage import PoolUsage

LOG = logging.getLogger(__name__)


class LeakFinder:
    """Finds leaked pages, and notes them in the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        # What was seen last: pages that others used, and those of the guests.
        self._occupied: Mapping[model.PoolKey, int] = {}
        # The most that others used which was not leaked.
        self._most: dict[model.PoolKey, int] = collections.Counter()
        self._guests: dict[
            processes.GuestProcess, dict[model.PoolKey, int]
        ] = {}

    def find(
        self,
        usage: Mapping[model.PoolKey, PoolUsage],
        running: Mapping[str, processes.GuestProcess],
        holds: Collection[model.Hold],
    ) -> None:
        """Find what leaked since the last time. Needs the lock.

        Leaked pages that are free again, or that the guests of a host that was
        rebooted had, are forgotten.

        :param running: the guests that run, by uuid
        :param holds: all holds
        """
        guests: dict[processes.GuestProcess, dict[model.PoolKey, int]] = {}
        for hold in holds:
            process = running.get(hold.holder)
            if process is not None and hold.state is model.State.TAKEN:
                pages = guests.setdefault(process, collections.Counter())
                pages[hold.key] += hold.pages
        ended: dict[model.PoolKey, int] = collections.Counter()
        for process in self._guests.keys() - guests.keys():
            for key, count in self._guests[process].items():
                ended[key] += count
        occupied = {key: used.occupied for key, used in usage.items()}
        before = self._ledger.leaks()
        leaks = {}
        for key, now in occupied.items():
            leaked = before.get(key, 0)
            # A program for which pages are reserved may have been restarted.
            known = min(usage[key].reserved, self._most[key]) + leaked
            was = max(known, self._occupied.get(key, now))
            more = min(ended[key], now - was)
            if more > 0:
                LOG.warning(
                    'Instances have ended, and %(count)d pages of %(pool)s '
                    'that they had are still in use. They are lost until the '
                    'kernel or the program that has them frees them, or the '
                    'host is rebooted.',
                    {'count': more, 'pool': key},
                )
            leaks[key] = min(now, leaked + max(0, more))
            if not usage[key].starting:
                self._most[key] = max(self._most[key], now - leaks[key])
        leaks = model.above_zero(leaks)
        if leaks != before:
            self._ledger.set_leaks(leaks)
        self._occupied, self._guests = occupied, guests
