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

"""The values that the fit takes and returns.

They are built once, never changed, and know nothing of Nova.
``nova_fit/translate.py`` makes them from Nova's objects and back.

Host cells and page pools are named tuples rather than dataclasses, because a
scheduler builds thousands of them for each request.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from collections.abc import Set
import dataclasses
import enum
from typing import NamedTuple
from typing import Protocol


class PageRequest(enum.IntEnum):
    """Page sizes that a guest can ask for by name.

    The values are Nova's (``nova.virt.hardware.MEMPAGES_*``). A guest that
    names a size asks for a positive number of KiB instead, and one that asks
    for none has None.
    """

    SMALL = -1
    LARGE = -2
    ANY = -3


# Pages of more than one size meet these, so that the fit has to choose one.
SEVERAL_SIZES = frozenset({PageRequest.LARGE, PageRequest.ANY})

NO_PAGES: Mapping[int, int] = {}


class CPUPolicy(enum.StrEnum):
    """Whether the CPUs of a guest are its own."""

    SHARED = 'shared'
    DEDICATED = 'dedicated'
    MIXED = 'mixed'


class ThreadPolicy(enum.StrEnum):
    """How the dedicated CPUs of a guest relate to the threads of a core."""

    PREFER = 'prefer'
    REQUIRE = 'require'
    ISOLATE = 'isolate'


class PagePool(NamedTuple):
    """The pages of one size in one host cell. All counts are pages."""

    size_kib: int
    total: int
    used: int = 0
    reserved: int = 0

    @property
    def free(self) -> int:
        """Pages that no guest uses and the operator doesn't hold back."""
        return self.total - self.used - self.reserved


class HostCell(NamedTuple):
    """A NUMA node of a host, as Nova accounts for it.

    :ivar id: Nova's id of the cell
    :ivar shared_cpus: host CPUs for vCPUs that float
    :ivar dedicated_cpus: host CPUs for vCPUs that are pinned
    :ivar pinned_cpus: host CPUs that guests are pinned to
    :ivar siblings: the threads of each core
    :ivar memory_mib: all memory of the cell
    :ivar memory_used_mib: memory of the guests with a cell here
    :ivar shared_used: floating vCPUs of the guests with a cell here
    :ivar pools: the pages, smallest size first; may be empty
    :ivar socket: the socket that the cell belongs to, None if unknown
    :ivar physnets: physical networks that are near this cell
    :ivar tunneled: whether tunneled networks are near this cell
    """

    id: int
    shared_cpus: Set[int] = frozenset()
    dedicated_cpus: Set[int] = frozenset()
    pinned_cpus: Set[int] = frozenset()
    siblings: Sequence[Set[int]] = ()
    memory_mib: int = 0
    memory_used_mib: int = 0
    shared_used: int = 0
    pools: Sequence[PagePool] = ()
    socket: int | None = None
    physnets: Set[str] = frozenset()
    tunneled: bool = False

    @property
    def free_memory_mib(self) -> int:
        """Memory that no guest with a cell here uses (Nova's account)."""
        return self.memory_mib - self.memory_used_mib

    @property
    def free_cpus(self) -> Set[int]:
        """Dedicated host CPUs that no guest is pinned to."""
        return self.dedicated_cpus - self.pinned_cpus


@dataclasses.dataclass(frozen=True, slots=True)
class HostTopology:
    """The NUMA nodes of a host.

    :ivar cells: the host cells in Nova's order
    :ivar distances: ``distances[i][j]`` is the distance between ``cells[i]``
        and ``cells[j]``, the same as ``distances[j][i]``; None where unknown:
        all are then equally near
    :ivar allocatable: for each cell of ``cells``, page size in KiB to pages
        of the reported total that do not exist yet but could be made; empty
        where unknown: all reported pages exist
    """

    cells: tuple[HostCell, ...]
    distances: Sequence[Sequence[int]] | None = None
    allocatable: tuple[Mapping[int, int], ...] = ()

    def allocatable_of(self, index: int) -> Mapping[int, int]:
        """Get `allocatable` of one host cell, empty where unknown."""
        return self.allocatable[index] if self.allocatable else NO_PAGES


@dataclasses.dataclass(frozen=True, slots=True)
class GuestCell:
    """A NUMA node of a guest.

    :ivar shared_vcpus: vCPUs that float
    :ivar dedicated_vcpus: vCPUs that are pinned one to one
    :ivar memory_mib: its memory
    :ivar page_size: a size in KiB, a `PageRequest`, or None for no wish
    """

    shared_vcpus: frozenset[int]
    dedicated_vcpus: frozenset[int]
    memory_mib: int
    page_size: int | None = None
    cpu_policy: CPUPolicy = CPUPolicy.SHARED
    thread_policy: ThreadPolicy = ThreadPolicy.PREFER


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """The request of a guest to a host.

    :ivar cells: its guest cells, in the guest's order
    :ivar emulator_isolated: whether the emulator's threads get a dedicated
        CPU of their own, see `fit.emulator`
    :ivar physnets: physical networks that it is connected to
    :ivar tunneled: whether it is connected to a tunneled network
    :ivar asks_devices: whether it asks for PCI devices
    """

    cells: tuple[GuestCell, ...]
    emulator_isolated: bool = False
    physnets: frozenset[str] = frozenset()
    tunneled: bool = False
    asks_devices: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """The overcommit ratios of a host."""

    cpu_ratio: float = 1.0
    ram_ratio: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Strategy:
    """How the operator wants the fit to choose.

    :ivar pack: fill the fullest host cells and cores first
        (``[compute] packing_host_numa_cells_allocation_strategy``)
    :ivar account_small_pages: admit guests on small pages only against
        memory that is not in page pools
    """

    pack: bool = False
    account_small_pages: bool = True


class Devices(Protocol):
    """The PCI devices of a host, by the host cells that they are near.

    An answer may depend only on the set. `supports` is the truth and costs
    time; `needs` are conditions that any supported set meets, and cost none.
    """

    def count(self, cell_id: int) -> int:
        """Count the free devices of a host cell, of whatever kind."""

    def needs(self) -> Sequence[tuple[dict[int, int], int]]:
        """List what any supported set of host cells has to provide.

        :returns: pairs of (cell id to devices, devices needed at least in
            sum over the set); cells that are not named provide none
        """

    def supports(self, cell_ids: frozenset[int]) -> bool:
        """Check whether all requested devices can go with these cells."""


class CellPlan(NamedTuple):
    """Where one guest cell goes.

    :ivar host_cell: Nova's id of the host cell
    :ivar page_size_kib: the page size; None where the guest has no wish and
        the host cell's smallest pages are taken
    :ivar pages: that many pages of it; None with a page size of None
    :ivar pinning: (vCPU, host CPU) pairs by vCPU
    :ivar emulator_cpus: host CPUs for the emulator's threads
    """

    host_cell: int
    page_size_kib: int | None
    pages: int | None
    pinning: tuple[tuple[int, int], ...] = ()
    emulator_cpus: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """Where a guest goes on a host.

    :ivar cells: one `CellPlan` for each guest cell, in the guest's order
    :ivar distance: sum of the distances between the chosen host cells, each
        pair once, 0 for one cell
    :ivar farthest: the largest of these distances, 0 for one cell and where
        distances are unknown
    """

    cells: tuple[CellPlan, ...]
    distance: int = 0
    farthest: int = 0
