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

"""A sample of a host: what each instance and node has, uses and loses.

One pass over the host makes one immutable value. What is promised, what is in
place and what is used inside stand side by side in it.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import pathlib
import re
from typing import NamedTuple
from typing import TypeVar

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.domain_plan import DomainPlan
from nova_numa_hugepages.hugepages.kernel import cgroups
from nova_numa_hugepages.hugepages.kernel import counters
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import hugetlbfs
from nova_numa_hugepages.hugepages.kernel import kubelet
from nova_numa_hugepages.hugepages.kernel import pageblocks
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.kernel import threads
from nova_numa_hugepages.hugepages.snapshot import HostSnapshot

Counts = Mapping[model.PoolKey, int]

_T = TypeVar('_T')
# No count of KiB or of faults is larger.
_NUMBER = re.compile(r'[0-9]{1,18}')


class MemoryInside(NamedTuple):
    """What the kernel of a guest says of its memory.

    Amounts are in KiB, and None where it doesn't say.

    :ivar available_kib: all that it can see
    :ivar usable_kib: what programs can have without swapping
    :ivar unused_kib: what is not in use, not even for caches
    :ivar caches_kib: cached files, which it can drop
    :ivar swap_in_kib: read back since its boot
    :ivar swap_out_kib: swapped out since its boot
    :ivar major_faults: accesses since its boot that waited for a disk
    :ivar updated: when it said so, in seconds since the epoch
    :ivar age_s: how old that is, in seconds
    """

    available_kib: int | None
    usable_kib: int | None
    unused_kib: int | None
    caches_kib: int | None
    swap_in_kib: int | None
    swap_out_kib: int | None
    major_faults: int | None
    updated: int
    age_s: float

    @property
    def used_kib(self) -> int | None:
        """What its programs have and can't be without."""
        if self.available_kib is None or self.usable_kib is None:
            return None
        return max(0, self.available_kib - self.usable_kib)


class SmallMemory(NamedTuple):
    """The memory of a QEMU that isn't in huge pages.

    :ivar kib: by node
    :ivar age_s: how old that is, in seconds
    """

    kib: Mapping[int, int]
    age_s: float


class Domain(NamedTuple):
    """What libvirt has of a domain.

    :ivar plan: what Nova wrote about it
    :ivar needs: the huge pages that it was started with; None if its XML
        doesn't say where they are
    """

    plan: DomainPlan
    needs: tuple[model.PageNeed, ...] | None


@dataclasses.dataclass(frozen=True, slots=True)
class InstanceSample:
    """An instance that runs.

    :ivar domain: None if libvirt doesn't know it, or wasn't asked
    :ivar promised: the pages that are held for it, or without a ledger those
        that it was started with; None if neither is known
    :ivar starting: whether it may not have all of them yet
    :ivar in_place: the pages that it has; None if that can't be read
    :ivar small: the rest of its memory; None if that isn't known yet
    :ivar inside: what its kernel says; None if it says nothing
    :ivar vcpus: the CPUs that each of its vCPUs may run on; None if that can't
        be read
    :ivar elastic: what is held for its elastic cells
    """

    process: processes.GuestProcess
    domain: Domain | None
    promised: Counts | None
    starting: bool
    in_place: Counts | None
    small: SmallMemory | None
    inside: MemoryInside | None
    vcpus: Mapping[int, frozenset[int]] | None
    elastic: tuple[model.Hold, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether it is known what was promised to it, and what it has."""
        return self.promised is not None and self.in_place is not None

    @property
    def astray(self) -> dict[model.PoolKey, int]:
        """Pages that it has where none are promised to it, by pool.

        Empty if that isn't known.
        """
        if self.promised is None or self.in_place is None:
            return {}
        return model.above_zero(
            {
                key: count - self.promised.get(key, 0)
                for key, count in self.in_place.items()
            }
        )

    @property
    def absent(self) -> dict[model.PoolKey, int]:
        """Pages that are promised to it and that it doesn't have, by pool.

        Empty if that isn't known.
        """
        if self.promised is None or self.in_place is None:
            return {}
        return model.above_zero(
            {
                key: count - self.in_place.get(key, 0)
                for key, count in self.promised.items()
            }
        )

    @property
    def off_plan(self) -> dict[int, frozenset[int]]:
        """The CPUs of each vCPU that may run where it is not pinned."""
        pins = self.domain.plan.vcpus if self.domain else {}
        return {
            number: cpus - pins[number]
            for number, cpus in (self.vcpus or {}).items()
            if number in pins and cpus - pins[number]
        }


@dataclasses.dataclass(frozen=True, slots=True)
class HostSample:
    """A host.

    :ivar time: when it was looked at, in seconds since the epoch
    :ivar snapshot: its nodes and pools, and who holds what
    :ivar has_ledger: whether a ledger was read; without one nothing is held,
        and no pages are ours
    :ivar ledger_problem: why a ledger that is there can't be read; empty if it
        was, or there is none
    :ivar instances: those that run, by uuid
    :ivar others: who else has pages, by pool
    :ivar pods: what a kubelet promised to pods
    :ivar reserved: pages that the kernel keeps for mappings which haven't
        touched them yet, by page size in KiB
    :ivar reserved_by: what control groups that aren't instances have reserved,
        used or not, by page size in KiB
    :ivar mapped_kib: huge pages that processes other than guests have; those
        that several have count for each. 0 if none are in use beside those of
        guests, None if that can't be read.
    :ivar files: files of hugetlbfs that no process has; None if that can't be
        read
    :ivar page_blocks: what the blocks of each node were given out for; empty
        if that can't be read, or no pages are lost to fragmentation
    :ivar defined: the uuids of all domains that libvirt has; None if it wasn't
        asked, as all holders run, or doesn't answer
    :ivar node_counters: how often each node gave small pages
    :ivar host_counters: how often the host was short of memory in one piece;
        None if that can't be read
    :ivar pressure: how much tasks wait for memory; None if the kernel doesn't
        say
    :ivar drift: how ledger and kernel are apart, a sentence each
    :ivar libvirt_problem: why libvirt doesn't answer; empty if it does, or
        wasn't asked
    :ivar problems: what could not be read, and why, a sentence each
    """

    time: float
    snapshot: HostSnapshot
    has_ledger: bool
    ledger_problem: str
    instances: Mapping[str, InstanceSample]
    others: Mapping[model.PoolKey, Mapping[str, int]]
    pods: kubelet.Promises
    reserved: Mapping[int, int]
    reserved_by: Mapping[int, Mapping[str, int]]
    mapped_kib: int | None
    files: Sequence[hugetlbfs.HugeFile] | None
    page_blocks: Mapping[int, pageblocks.PageBlocks]
    defined: frozenset[str] | None
    node_counters: Mapping[int, counters.NodeCounters]
    host_counters: counters.HostCounters | None
    pressure: counters.Pressure | None
    drift: tuple[str, ...]
    libvirt_problem: str
    problems: tuple[str, ...]

    def of_others(self, key: model.PoolKey) -> int:
        """Return how many pages of a pool others than instances use."""
        return sum(self.others.get(key, {}).values())

    def available_kib(self, node: int) -> int | None:
        """Return how much of a NUMA node new instances can have.

        As huge pages of one size, of that of which they can have most.

        :returns: in KiB; None if it has no huge pages, and gets none
        """
        pools = {
            key: pool
            for key, pool in self.snapshot.pools.items()
            if key.node == node
        }
        if not self.snapshot.can_grow and not any(
            pool.usage.pool.total for pool in pools.values()
        ):
            return None
        return max(
            (
                (max(0, pool.usage.available) + pool.allocatable)
                * key.size_kib
                for key, pool in pools.items()
            ),
            default=None,
        )


class Problems:
    """What can't be read while a sample is taken. The rest goes on."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def read(self, read: Callable[[], _T], otherwise: _T) -> _T:
        """Read something; return what stands in for it if it can't be."""
        try:
            return read()
        except exception.NUMAHugepagesError as error:
            self.found.append(str(error))
            return otherwise


@dataclasses.dataclass(frozen=True, slots=True)
class LibvirtSample:
    """What libvirt says of the instances.

    :ivar domains: by the process of the guest
    :ivar stats: as `virsh.Virsh.stats` gets them
    :ivar defined: the uuids of all domains; None if they aren't known
    :ivar problem: why it doesn't answer; empty if it does, or wasn't asked
    """

    domains: Mapping[processes.GuestProcess, Domain] = dataclasses.field(
        default_factory=dict
    )
    stats: Mapping[str, Mapping[str, str]] = dataclasses.field(
        default_factory=dict
    )
    defined: frozenset[str] | None = None
    problem: str = ''


@dataclasses.dataclass(frozen=True, slots=True)
class Sampler:
    """Takes a sample of a host. Changes nothing.

    :ivar kernel: its kernel
    :ivar read_maps: reads where the huge pages of a process are
    :ivar small: gets the rest of the memory of a guest, after that was read
    :ivar read_files: lists the files of hugetlbfs that no process has
    :ivar read_blocks: reads what the blocks of each node were given out for
    :ivar kubelet_state: the file of the kubelet's memory manager
    """

    kernel: hugetlb.Hugetlb
    read_maps: processes.MapsReader
    small: Callable[[processes.GuestProcess], SmallMemory | None]
    read_files: Callable[[], Sequence[hugetlbfs.HugeFile]]
    read_blocks: Callable[[], Mapping[int, pageblocks.PageBlocks]]
    kubelet_state: pathlib.Path = kubelet.STATE

    def take(
        self,
        snapshot: HostSnapshot,
        libvirt: LibvirtSample,
        *,
        now: float,
        has_ledger: bool,
        ledger_problem: str,
        drift: Sequence[str],
        problems: Problems,
    ) -> HostSample:
        """Take it.

        :param now: in seconds since the epoch
        :param has_ledger: whether what is held is in the snapshot
        :param ledger_problem: why a ledger that is there can't be read
        :param drift: how ledger and kernel are apart, a sentence each
        :param problems: has what could not be read so far, and gets the rest
        """
        fs = self.kernel.fs
        instances = {}
        for uuid, process in snapshot.guests.items():
            domain = libvirt.domains.get(process)
            in_place = problems.read(
                functools.partial(self._pages, process), None
            )
            held = _held(snapshot, uuid)
            instances[uuid] = InstanceSample(
                process,
                domain,
                model.by_pool(held) if has_ledger else _started_with(domain),
                any(hold.state is model.State.HELD for hold in held),
                in_place,
                self.small(process),
                inside(libvirt.stats.get(process.name, {}), now),
                problems.read(
                    functools.partial(threads.vcpu_affinity, fs, process.pid),
                    None,
                ),
                tuple(hold for hold in held if hold.ceiling),
            )
        pids = {guest.pid for guest in snapshot.guests.values()}
        others = snapshot.others(
            fs, (one.in_place for one in instances.values())
        )
        return HostSample(
            now,
            snapshot,
            has_ledger,
            ledger_problem,
            instances,
            others,
            problems.read(lambda: kubelet.promised(self.kubelet_state), {}),
            problems.read(self.kernel.reserved, {}),
            cgroups.reserved(
                fs, {key.size_kib for key in snapshot.pools}, pids
            ),
            problems.read(lambda: processes.mapped_kib(fs, pids), None)
            if others
            else 0,
            problems.read(self.read_files, None),
            problems.read(self.read_blocks, {})
            if any(pool.fragmented for pool in snapshot.pools.values())
            else {},
            libvirt.defined,
            problems.read(lambda: counters.of_nodes(fs), {}),
            problems.read(lambda: counters.of_host(fs), None),
            problems.read(lambda: counters.pressure(fs), None),
            tuple(drift),
            libvirt.problem,
            tuple(dict.fromkeys(problems.found)),
        )

    def _pages(self, process: processes.GuestProcess) -> Counts | None:
        """Read the huge pages of a guest; None if it has ended."""
        try:
            return processes.pages_of(self.read_maps(process.pid))
        except ProcessLookupError:
            return None


def _held(snapshot: HostSnapshot, uuid: str) -> list[model.Hold]:
    """List the pages that are held for an instance that runs here."""
    return [
        hold
        for pool in snapshot.pools.values()
        for hold in pool.holds
        if hold.holder == uuid and hold.purpose is not model.Purpose.RESIZE
    ]


def _started_with(domain: Domain | None) -> Counts | None:
    """Return the pages that a domain was started with, None if not known.

    An elastic one may have come to have others since.
    """
    if (
        domain is None
        or domain.needs is None
        or any(need.ceiling for need in domain.needs)
    ):
        return None
    return model.by_pool(domain.needs)


def inside(stats: Mapping[str, str], now: float) -> MemoryInside | None:
    """Read what the kernel of a guest says of its memory.

    :param stats: those of its domain, as libvirt has them
    :param now: in seconds since the epoch
    :returns: None if it has never said anything: it has no balloon, or no
        driver for it, or its statistics are switched off
    """

    def number(name: str) -> int | None:
        text = stats.get(f'balloon.{name}', '')
        # A guest can say anything.
        return int(text) if _NUMBER.fullmatch(text) else None

    updated = number('last-update')
    if not updated:
        return None
    return MemoryInside(
        number('available'),
        number('usable'),
        number('unused'),
        number('disk_caches'),
        number('swap_in'),
        number('swap_out'),
        number('major_fault'),
        updated,
        max(0.0, now - updated),
    )
