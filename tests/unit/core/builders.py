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


"""Short ways to write the values of ``core`` down.

CPUs are numbered by host cell: those of cell 0 from 0 on, those of cell 1
from 100 on, core by core.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence
import dataclasses

from nova_numa_hugepages.core import model

KIB_4 = 4
MIB_2 = 2048
GIB_1 = 1048576


def small(
    total_mib: int, used_mib: int = 0, reserved_mib: int = 0
) -> model.PagePool:
    """Make a pool of 4 KiB pages."""
    return model.PagePool(
        KIB_4, total_mib * 256, used_mib * 256, reserved_mib * 256
    )


def huge(total: int, used: int = 0, reserved: int = 0) -> model.PagePool:
    """Make a pool of 2 MiB pages."""
    return model.PagePool(MIB_2, total, used, reserved)


def giant(total: int, used: int = 0, reserved: int = 0) -> model.PagePool:
    """Make a pool of 1 GiB pages."""
    return model.PagePool(GIB_1, total, used, reserved)


def cpus(*ranges: tuple[int, int]) -> frozenset[int]:
    """List CPUs from the first up to the last, both included."""
    return frozenset(
        cpu for first, last in ranges for cpu in range(first, last + 1)
    )


def host_cell(
    number: int = 0,
    *,
    cores: int = 4,
    shared_cores: int = 0,
    threads: int = 1,
    pinned: Collection[int] = (),
    pools: tuple[model.PagePool, ...] = (),
    memory_mib: int | None = None,
    memory_used_mib: int = 0,
    shared_used: int = 0,
    socket: int | None = None,
    physnets: Collection[str] = (),
    tunneled: bool = False,
) -> model.HostCell:
    """Make a host cell.

    :param cores: cores for pinned vCPUs, the first ones
    :param shared_cores: cores for floating vCPUs, the ones that follow
    :param pinned: dedicated CPUs in use
    :param memory_mib: all memory; that of the pools, or 16 GiB, if None
    """
    first = number * 100
    last = first + cores * threads
    if memory_mib is None:
        memory_mib = (
            sum(pool.total * pool.size_kib for pool in pools) // 1024 or 16384
        )
    return model.HostCell(
        id=number,
        dedicated_cpus=frozenset(range(first, last)),
        shared_cpus=frozenset(range(last, last + shared_cores * threads)),
        pinned_cpus=frozenset(pinned),
        siblings=tuple(
            frozenset(range(cpu, cpu + threads))
            for cpu in range(first, last + shared_cores * threads, threads)
        ),
        memory_mib=memory_mib,
        memory_used_mib=memory_used_mib,
        shared_used=shared_used,
        pools=pools,
        socket=socket,
        physnets=frozenset(physnets),
        tunneled=tunneled,
    )


def host(
    *cells: model.HostCell,
    distances: tuple[tuple[int, ...], ...] | None = None,
    allocatable: tuple[dict[int, int], ...] = (),
) -> model.HostTopology:
    return model.HostTopology(cells, distances, allocatable)


def pinned_cell(
    count: int,
    memory_mib: int = 1024,
    page_size: int | None = None,
    *,
    first: int = 0,
    threads: model.ThreadPolicy = model.ThreadPolicy.PREFER,
) -> model.GuestCell:
    """Make a guest cell of dedicated vCPUs, numbered from `first` on."""
    return model.GuestCell(
        shared_vcpus=frozenset(),
        dedicated_vcpus=frozenset(range(first, first + count)),
        memory_mib=memory_mib,
        page_size=page_size,
        cpu_policy=model.CPUPolicy.DEDICATED,
        thread_policy=threads,
    )


def floating_cell(
    count: int,
    memory_mib: int = 1024,
    page_size: int | None = None,
    *,
    first: int = 0,
) -> model.GuestCell:
    """Make a guest cell of shared vCPUs, numbered from `first` on."""
    return model.GuestCell(
        shared_vcpus=frozenset(range(first, first + count)),
        dedicated_vcpus=frozenset(),
        memory_mib=memory_mib,
        page_size=page_size,
    )


def mixed_cell(
    shared: int,
    dedicated: int,
    memory_mib: int = 1024,
    page_size: int | None = None,
    *,
    threads: model.ThreadPolicy = model.ThreadPolicy.PREFER,
) -> model.GuestCell:
    """Make a guest cell of shared vCPUs and then dedicated ones."""
    return model.GuestCell(
        shared_vcpus=frozenset(range(shared)),
        dedicated_vcpus=frozenset(range(shared, shared + dedicated)),
        memory_mib=memory_mib,
        page_size=page_size,
        cpu_policy=model.CPUPolicy.MIXED,
        thread_policy=threads,
    )


def request(
    *cells: model.GuestCell,
    emulator_isolated: bool = False,
    physnets: Collection[str] = (),
    tunneled: bool = False,
    asks_devices: bool = False,
) -> model.Request:
    return model.Request(
        cells=cells,
        emulator_isolated=emulator_isolated,
        physnets=frozenset(physnets),
        tunneled=tunneled,
        asks_devices=asks_devices,
    )


@dataclasses.dataclass(frozen=True)
class Cards:
    """Devices of one kind, of which a guest asks for some.

    :ivar by_cell: free devices by host cell
    :ivar needed: devices that the chosen host cells have to have in sum
    """

    by_cell: dict[int, int]
    needed: int = 0

    def count(self, cell_id: int) -> int:
        return self.by_cell.get(cell_id, 0)

    def needs(self) -> Sequence[tuple[dict[int, int], int]]:
        return [(self.by_cell, self.needed)]

    def supports(self, cell_ids: frozenset[int]) -> bool:
        return sum(map(self.count, cell_ids)) >= self.needed
