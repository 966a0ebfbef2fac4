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

"""Dedicated vCPUs onto the threads and cores of one host cell.

A core is a set of thread siblings. Dedicated CPUs of which the host names no
siblings count as cores of their own, except under ``isolate``: Nova accounts
an isolated guest by its sibling sets, so CPUs outside of them would be handed
out again.
"""

from __future__ import annotations

from collections.abc import Sequence

from nova_numa_hugepages.core import model

_Core = tuple[int, ...]


def threads_per_core(cell: model.HostCell) -> int:
    """Return the most threads that a core of the cell has, at least 1."""
    return max(map(len, cell.siblings), default=1) or 1


def shares_cores(cell: model.HostCell) -> bool:
    """Check whether it has thread siblings, and CPUs of both kinds apart."""
    return (
        threads_per_core(cell) > 1 and cell.shared_cpus != cell.dedicated_cpus
    )


def free_cores(cell: model.HostCell) -> list[_Core]:
    """List the free dedicated CPUs by core.

    :returns: cores with at least one free dedicated CPU, each with its free
        dedicated CPUs; both in ascending order, whatever the host's
    """
    free = cell.free_cpus
    cores = []
    grouped: set[int] = set()
    for siblings in cell.siblings:
        threads = siblings & free
        if threads:
            cores.append(tuple(sorted(threads)))
            grouped |= threads
    cores.extend((cpu,) for cpu in free - grouped)
    return sorted(cores)


def whole_cores(cell: model.HostCell) -> list[_Core]:
    """List the cores of which all threads are dedicated and free.

    :returns: as `free_cores`
    """
    free = cell.free_cpus
    return sorted(
        tuple(sorted(siblings))
        for siblings in cell.siblings
        if siblings and siblings <= free
    )


def isolated_room(cell: model.HostCell) -> tuple[int, int]:
    """Count the whole free cores.

    A core with fewer threads than others has one that Nova doesn't manage,
    and which may be busy. An isolated vCPU doesn't go there; the emulator's
    threads may.

    :returns: those for vCPUs, and all of them
    """
    threads = threads_per_core(cell)
    free = cell.free_cpus
    whole = [len(core) for core in cell.siblings if core and core <= free]
    return whole.count(threads), len(whole)


def sibling_room(cell: model.HostCell) -> int:
    """Count the vCPUs that fit under ``require``, at most."""
    return most_siblings(free_siblings(cell))


def free_siblings(cell: model.HostCell) -> tuple[int, ...]:
    """Count the free threads of each core that has two or more.

    :returns: largest first
    """
    if threads_per_core(cell) == 1:
        return ()
    sizes = [len(core) for core in free_cores(cell)]
    return tuple(sorted((size for size in sizes if size > 1), reverse=True))


def most_siblings(sizes: Sequence[int]) -> int:
    """Count the vCPUs that fit if each core gives as many, at least two.

    :param sizes: free threads of each core, as `free_siblings`
    """
    return max(
        (
            threads * sum(size >= threads for size in sizes)
            for threads in range(2, max(sizes, default=0) + 1)
        ),
        default=0,
    )


def pin(
    cell: model.HostCell,
    guest: model.GuestCell,
    *,
    emulator: int,
    pack: bool,
) -> tuple[tuple[tuple[int, int], ...], frozenset[int]] | None:
    """Pin the dedicated vCPUs of a guest cell.

    :param emulator: dedicated CPUs for the emulator, see
        `emulator.emulator_cpus`
    :param pack: take threads of cores that are in use already first; else
        each guest gets cores of its own while there are some
    :returns: (vCPU, host CPU) pairs by vCPU, and the host CPUs for the
        emulator; None if they don't fit
    """
    vcpus = sorted(guest.dedicated_vcpus)
    if guest.thread_policy is model.ThreadPolicy.ISOLATE:
        return _isolate(cell, vcpus, emulator)
    cores = free_cores(cell)
    if pack:
        # Cores with the fewest free threads first.
        cores.sort(key=len)
    if sum(map(len, cores)) < len(vcpus) + emulator:
        return None
    chosen = _choose(cores, len(vcpus), guest.thread_policy, cell, pack)
    if chosen is None:
        return None
    taken = set(chosen)
    rest = [cpu for core in cores for cpu in core if cpu not in taken]
    return (
        tuple(zip(vcpus, chosen, strict=True)),
        frozenset(rest[:emulator]),
    )


def _isolate(
    cell: model.HostCell, vcpus: Sequence[int], emulator: int
) -> tuple[tuple[tuple[int, int], ...], frozenset[int]] | None:
    """Give each vCPU, and the emulator, a whole free core."""
    threads = threads_per_core(cell)
    whole = whole_cores(cell)
    chosen = [core for core in whole if len(core) == threads][: len(vcpus)]
    rest = [core for core in whole if core not in chosen][:emulator]
    if len(chosen) < len(vcpus) or len(rest) < emulator:
        return None
    return (
        tuple(zip(vcpus, (core[0] for core in chosen), strict=True)),
        frozenset(core[0] for core in rest),
    )


def _choose(
    cores: Sequence[_Core],
    count: int,
    policy: model.ThreadPolicy,
    cell: model.HostCell,
    pack: bool,
) -> list[int] | None:
    """Choose host CPUs under ``prefer`` or ``require``.

    As many threads of each core as possible first, so that the vCPUs of a
    guest are siblings; under ``prefer`` any CPUs when that doesn't do.
    """
    if not count:
        return []
    require = policy is model.ThreadPolicy.REQUIRE
    if require and threads_per_core(cell) == 1:
        return None
    if pack and not require:
        return [cpu for core in cores for cpu in core][:count]
    for threads in range(max(map(len, cores), default=0), 0, -1):
        if require and threads == 1:
            break
        usable = [core for core in cores if len(core) >= threads]
        if threads * len(usable) >= count:
            cpus = [cpu for core in usable for cpu in core[:threads]]
            return cpus[:count]
    return None if require else [cpu for core in cores for cpu in core][:count]
