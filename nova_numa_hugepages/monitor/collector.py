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

"""Samples of this host, one after the other.

What is slow to read, and changes seldom or slowly, is kept from one sample to
the next: the plan of a domain for as long as its QEMU runs, and where the
small pages of a guest are until its turn comes again.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import pathlib
import time

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import accounts
from nova_numa_hugepages.hugepages import assembly
from nova_numa_hugepages.hugepages import domain_plan
from nova_numa_hugepages.hugepages import domain_xml
from nova_numa_hugepages.hugepages import sample
from nova_numa_hugepages.hugepages import virsh
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import kubelet
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.hugepages.state.ledger import Ledger

# The share of time in which guests on small pages may be looked at, and how
# many seconds of it may be saved up.
_SLOW_SHARE = 0.01
_MOST_SAVED_S = 1.0

ReadMemory = Callable[[int], processes.ProcessMemory]


class Collector:
    """Takes samples of this host. Changes nothing.

    :param policy: the operator's policy for the pools
    :param ledger: where the ledger is, if there is one
    :param libvirt: None if it isn't to be asked
    :param read_memory: reads where the memory of a process is; as the kernel
        has it if None
    :param clock: seconds since the epoch
    :param ticks: seconds of a clock that only goes forward
    """

    def __init__(
        self,
        fs: hostfs.HostFS,
        policy: PoolPolicy,
        ledger: pathlib.Path,
        libvirt: virsh.Libvirt | None,
        *,
        read_memory: ReadMemory | None = None,
        kubelet_state: pathlib.Path = kubelet.STATE,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fs = fs
        self._policy = policy
        self._ledger = ledger
        self._libvirt = libvirt
        self._kubelet_state = kubelet_state
        self._clock = clock
        self._ticks = ticks
        self._memory = _MemoryReader(
            read_memory or (lambda pid: processes.memory(fs, pid)), fs, ticks
        )
        self._domains: dict[processes.GuestProcess, sample.Domain] = {}

    def collect(self) -> sample.HostSample:
        """Take a sample of the host.

        What can't be read is among its problems, and the rest is there.

        :raises exception.KernelError: if the nodes or the pools can't be read
        """
        problems = sample.Problems()
        guests = processes.running(self._fs)
        libvirt = self._ask(guests, problems)
        ledger = problems.read(self._open, None)
        has_ledger = ledger is not None
        writer = hugetlb.refusing('the monitor only reads')
        with ledger or Ledger.in_memory() as opened:
            self._memory.begin(
                guests,
                on_huge_pages={hold.holder for hold in opened.holds()}
                | {
                    uuid
                    for uuid, domain in libvirt.domains.items()
                    if domain.needs
                },
            )
            snapshot = assembly.take_snapshot(
                assembly.KernelAccess(self._fs, writer, self._memory),
                opened,
                self._policy,
            )
            kernel = hugetlb.Hugetlb(self._fs, writer)
            drift = accounts.Accounts(kernel, opened).read().changes
        return sample.Sampler(
            self._fs, self._memory, self._memory.small, self._kubelet_state
        ).take(
            snapshot,
            libvirt,
            now=self._clock(),
            has_ledger=has_ledger,
            drift=drift if has_ledger else (),
            problems=problems,
        )

    def _ask(
        self,
        guests: Mapping[str, processes.GuestProcess],
        problems: sample.Problems,
    ) -> sample.LibvirtSample:
        """Ask libvirt, until it doesn't answer: that takes as long each."""
        self._domains = {
            process: domain
            for process, domain in self._domains.items()
            if guests.get(process.uuid) == process
        }
        stats: Mapping[str, Mapping[str, str]] = {}
        problem = ''
        try:
            if self._libvirt is not None and guests:
                stats = self._libvirt.stats()
                self._look_up(self._libvirt, guests, problems)
        except exception.LibvirtError as error:
            problem = str(error)
            problems.found.append(problem)
        return sample.LibvirtSample(
            {process.uuid: found for process, found in self._domains.items()},
            stats,
            problem,
        )

    def _open(self) -> Ledger | None:
        """Open the ledger; None if there is none, as beside another driver."""
        try:
            return Ledger.open(self._ledger, read_only=True)
        except exception.LedgerMissing:
            return None

    def _look_up(
        self,
        libvirt: virsh.Libvirt,
        guests: Mapping[str, processes.GuestProcess],
        problems: sample.Problems,
    ) -> None:
        """Read the plans of the domains that aren't known yet.

        :raises exception.LibvirtError: if libvirt takes too long
        """
        for uuid, process in guests.items():
            if process in self._domains:
                continue
            try:
                self._domains[process] = _domain(libvirt.xml(uuid), problems)
            except exception.LibvirtError as error:
                if error.timed_out:
                    raise
                # It may have ended, or be of somebody else.
                problems.found.append(str(error))


def _domain(xml: str, problems: sample.Problems) -> sample.Domain:
    return sample.Domain(
        problems.read(lambda: domain_plan.read(xml), domain_plan.DomainPlan()),
        problems.read(lambda: tuple(domain_xml.page_needs(xml)), None),
    )


class _MemoryReader:
    """Reads where the memory of guests is, once for each sample.

    A `processes.MapsReader`. Those on small pages have their turn when there
    is time for one.
    """

    def __init__(
        self,
        read: ReadMemory,
        fs: hostfs.HostFS,
        ticks: Callable[[], float],
    ) -> None:
        self._read = processes.translated(read, fs)
        self._ticks = ticks
        self._slow: set[int] = set()
        self._now: dict[int, processes.ProcessMemory] = {}
        self._found: dict[
            processes.GuestProcess, tuple[float, processes.ProcessMemory]
        ] = {}
        self._saved_s = _MOST_SAVED_S
        self._last = ticks()

    def begin(
        self,
        guests: Mapping[str, processes.GuestProcess],
        on_huge_pages: set[str],
    ) -> None:
        """Begin a sample.

        :param guests: those that run
        :param on_huge_pages: those of them that have huge pages, by uuid
        """
        self._now.clear()
        running = set(guests.values())
        self._found = {
            process: found
            for process, found in self._found.items()
            if process in running
        }
        slow = [
            process
            for uuid, process in guests.items()
            if uuid not in on_huge_pages
        ]
        self._slow = {process.pid for process in slow}
        now = self._ticks()
        self._saved_s += (now - self._last) * _SLOW_SHARE
        self._saved_s = min(self._saved_s, _MOST_SAVED_S)
        self._last = now
        for process in sorted(slow, key=self._age_first):
            if self._saved_s <= 0:
                break
            began = self._ticks()
            try:
                self._found[process] = (began, self._read(process.pid))
            except (exception.KernelError, ProcessLookupError):
                # It is among the problems when its pages are asked for.
                self._found.pop(process, None)
            self._saved_s -= self._ticks() - began

    def __call__(self, pid: int) -> str:
        """Read where the huge pages of a process are."""
        if pid in self._slow:
            for process, (_, memory) in self._found.items():
                if process.pid == pid:
                    return memory.huge_maps
            return ''
        if pid not in self._now:
            self._now[pid] = self._read(pid)
        return self._now[pid].huge_maps

    def small(
        self, process: processes.GuestProcess
    ) -> sample.SmallMemory | None:
        """Return where the small pages of a guest are, as far as known."""
        if process.pid in self._now:
            memory = self._now[process.pid]
            return sample.SmallMemory(memory.small_kib, 0.0)
        if process in self._found:
            then, memory = self._found[process]
            return sample.SmallMemory(memory.small_kib, self._ticks() - then)
        return None

    def _age_first(self, process: processes.GuestProcess) -> float:
        found = self._found.get(process)
        return found[0] if found else float('-inf')
