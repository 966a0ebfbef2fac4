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
from collections.abc import Sequence
import dataclasses
import errno
import pathlib
import time
from typing import NamedTuple

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import accounts
from nova_numa_hugepages.hugepages import assembly
from nova_numa_hugepages.hugepages import domain_plan
from nova_numa_hugepages.hugepages import domain_xml
from nova_numa_hugepages.hugepages import pods
from nova_numa_hugepages.hugepages import sample
from nova_numa_hugepages.hugepages import virsh
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import hugetlbfs
from nova_numa_hugepages.hugepages.kernel import kubelet
from nova_numa_hugepages.hugepages.kernel import pageblocks
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.hugepages.state.ledger import Ledger

# The share of time in which guests on small pages may be looked at, and how
# many seconds of it may be saved up.
_SLOW_SHARE = 0.01
_MOST_SAVED_S = 1.0

# How old what the blocks were given out for may be, in seconds.
_BLOCKS_S = 300.0

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
        self._pods = pods.PodPages(fs, lambda: kubelet.promised(kubelet_state))
        self._clock = clock
        self._memory = _MemoryReader(
            read_memory or (lambda pid: processes.memory(fs, pid)), fs, ticks
        )
        self._domains: dict[processes.GuestProcess, _Known] = {}
        self._owners = hugetlbfs.FileOwners(fs, ticks)
        self._blocks = _PageBlocks(fs, ticks)

    def collect(self) -> sample.HostSample:
        """Take a sample of the host.

        What can't be read is among its problems, and the rest is there.

        :raises exception.KernelError: if the nodes, the pools or the processes
            of the host can't be read
        """
        processes.check_visible(self._fs)
        problems = sample.Problems()
        guests = processes.running(self._fs)
        libvirt = self._ask(guests, problems)
        ledger_problem = ''
        try:
            with Ledger.open(self._ledger, read_only=True) as ledger:
                return self._take(guests, libvirt, ledger, '', problems)
        except exception.LedgerMissing:
            # As beside another driver.
            pass
        except exception.LedgerError as error:
            ledger_problem = str(error)
            problems.found.append(ledger_problem)
        with Ledger.in_memory() as empty:
            return self._take(
                guests,
                libvirt,
                empty,
                ledger_problem,
                problems,
                has_ledger=False,
            )

    def _take(
        self,
        guests: Mapping[str, processes.GuestProcess],
        libvirt: sample.LibvirtSample,
        ledger: Ledger,
        ledger_problem: str,
        problems: sample.Problems,
        *,
        has_ledger: bool = True,
    ) -> sample.HostSample:
        """Take a sample.

        :param ledger: an empty one if there is none
        :param ledger_problem: why it can't be read, if there is one
        :raises exception.LedgerError: if the ledger can't be read
        """
        policy = self._policy
        if not has_ledger:
            # No pages are allocated then.
            policy = dataclasses.replace(policy, dynamic=False)
        holders = {hold.holder for hold in ledger.holds()}
        if (
            self._libvirt is not None
            and not libvirt.problem
            and not holders <= guests.keys()
        ):
            libvirt = dataclasses.replace(
                libvirt, defined=problems.read(self._libvirt.uuids, None)
            )
        self._memory.begin(
            {
                process
                for process in guests.values()
                if process.uuid not in holders
                and process in libvirt.domains
                and not libvirt.domains[process].needs
            },
            set(guests.values()),
        )
        writer = hugetlb.refusing('the monitor only reads')
        snapshot = assembly.take_snapshot(
            assembly.KernelAccess(self._fs, writer, self._memory),
            ledger,
            policy,
            self._pods,
        )
        drift: Sequence[str] = ()
        kernel = hugetlb.Hugetlb(self._fs, writer)
        if has_ledger:
            drift = accounts.Accounts(kernel, ledger).read().changes
        return sample.Sampler(
            kernel,
            self._memory,
            self._memory.small,
            self._owners.unowned,
            self._blocks.read,
            self._kubelet_state,
        ).take(
            snapshot,
            libvirt,
            now=self._clock(),
            has_ledger=has_ledger,
            ledger_problem=ledger_problem,
            drift=drift,
            problems=problems,
        )

    def _ask(
        self,
        guests: Mapping[str, processes.GuestProcess],
        problems: sample.Problems,
    ) -> sample.LibvirtSample:
        """Ask libvirt, until it doesn't answer: that takes as long each."""
        self._domains = {
            process: known
            for process, known in self._domains.items()
            if guests.get(process.uuid) == process
        }
        stats: Mapping[str, Mapping[str, str]] = {}
        problem = ''
        try:
            if self._libvirt is not None:
                stats = self._libvirt.stats()
                self._look_up(self._libvirt, guests, problems)
        except exception.LibvirtError as error:
            problem = str(error) if error.asked else ''
            problems.found.append(str(error))
        for known in self._domains.values():
            problems.found += known.problems
        return sample.LibvirtSample(
            {
                process: known.domain
                for process, known in self._domains.items()
            },
            stats,
            problem=problem,
        )

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
                self._domains[process] = _domain(uuid, libvirt.xml(uuid))
            except exception.LibvirtError as error:
                if error.timed_out:
                    raise
                # It may have ended, or run beside libvirt.
                problems.found.append(str(error))


class _PageBlocks:
    """What the blocks of the nodes were given out for, read now and then.

    The kernel holds a lock of each node while it counts them.
    """

    def __init__(self, fs: hostfs.HostFS, ticks: Callable[[], float]) -> None:
        self._fs = fs
        self._ticks = ticks
        self._found: Mapping[int, pageblocks.PageBlocks] = {}
        self._read: float | None = None

    def read(self) -> Mapping[int, pageblocks.PageBlocks]:
        """Get them.

        :raises exception.KernelError: if they can't be read
        """
        now = self._ticks()
        if self._read is None or now - self._read >= _BLOCKS_S:
            self._found = pageblocks.of_nodes(self._fs)
            self._read = now
        return self._found


class _Known(NamedTuple):
    """What is known of a domain, and what could not be read of it."""

    domain: sample.Domain
    problems: list[str]


def _domain(uuid: str, xml: str) -> _Known:
    problems = sample.Problems()
    domain = sample.Domain(
        problems.read(lambda: domain_plan.read(xml), domain_plan.DomainPlan()),
        problems.read(lambda: tuple(domain_xml.page_needs(xml)), None),
    )
    return _Known(
        domain, [f'instance {uuid}: {text}' for text in problems.found]
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
        self._slow: dict[int, processes.GuestProcess] = {}
        self._now: dict[int, processes.ProcessMemory] = {}
        self._found: dict[
            processes.GuestProcess, tuple[float, processes.ProcessMemory]
        ] = {}
        self._saved_s = _MOST_SAVED_S
        self._last = ticks()

    def begin(
        self,
        slow: set[processes.GuestProcess],
        running: set[processes.GuestProcess],
    ) -> None:
        """Begin a sample.

        :param slow: the guests on small pages
        :param running: all guests
        """
        self._now.clear()
        self._found = {
            process: found
            for process, found in self._found.items()
            if process in running
        }
        self._slow = {process.pid: process for process in slow}
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
            except ProcessLookupError:
                self._found.pop(process, None)
            except exception.KernelError:
                # It is among the problems when its pages are asked for.
                self._found.pop(process, None)
                del self._slow[process.pid]
            self._saved_s -= self._ticks() - began

    def __call__(self, pid: int) -> str:
        """Read where the huge pages of a process are.

        :raises ProcessLookupError: if it has ended, or had no turn yet
        :raises exception.KernelError: if that can't be read
        """
        slow = self._slow.get(pid)
        if slow is not None:
            if slow not in self._found:
                raise ProcessLookupError(errno.ESRCH, 'not looked at yet')
            return self._found[slow][1].huge_maps
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
