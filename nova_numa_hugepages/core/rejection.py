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

"""Rejections: why an instance does not fit, in the words of an operator.

One host's rejection names the guest cell and the nearest miss in numbers. The
rejections of many hosts are counted by constraint, so that one line shows an
operator what a request ran short of.
"""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
import enum
from typing import NamedTuple

from nova_numa_hugepages.core import units


class Reason(enum.IntEnum):
    """The constraint that fails, in the order in which they are checked.

    Of several misses the one with the higher value came further, and so is
    the nearer one.
    """

    EXTRA_SPEC = 1
    NO_TOPOLOGY = 2
    TOO_FEW_CELLS = 3
    PAGE_SIZE = 4
    WHOLE_PAGES = 5
    PAGES = 6
    MEMORY = 7
    DEDICATED_CPUS = 8
    SHARED_CPUS = 9
    HYPERTHREADS = 10
    THREADS = 11
    CORES = 12
    CPU_RATIO = 13
    RAM_RATIO = 14
    SMALL_PAGES = 15
    CELL_MEMORY = 16
    NETWORK = 17
    DEVICES = 18
    DISTANCE = 19
    SMT = 20
    HOST_MEMORY = 21
    CANDIDATES = 22
    STOCK_CLAIM = 23
    STOCK_SEARCH = 24


class Miss(NamedTuple):
    """The constraint that a guest cell fails on a host cell, by how much."""

    reason: Reason
    needed: int = 0
    best: int = 0
    page_size_kib: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Rejection:
    """Why an instance does not fit on a host, with the nearest miss.

    :ivar reason: the constraint that fails
    :ivar needed: how much of it is needed, in the unit of the reason
    :ivar best: the most that a host cell offers, in the same unit
    :ivar guest_cell: the guest cell that finds no place, None if it is not
        about one
    :ivar page_size_kib: the page size that it is about, if any
    :ivar detail: names that belong to the reason, such as a physical network
    """

    reason: Reason
    needed: int = 0
    best: int = 0
    guest_cell: int | None = None
    page_size_kib: int | None = None
    detail: str = ''

    def __str__(self) -> str:
        """Explain the rejection of one host.

        :returns: for example ``guest NUMA node 1: no NUMA node with 2048 free
            2 MiB pages (most: 1536)``
        """
        if self.guest_cell is None:
            return self.text
        return f'guest NUMA node {self.guest_cell}: {self.text}'

    @property
    def text(self) -> str:
        """The explanation, which does for many hosts, too."""
        size = self.page_size_kib
        return _TEXTS[self.reason].format(
            needed=self.needed,
            best=self.best,
            size='huge' if size is None else units.format_kib(size),
            detail=self.detail,
        )


_TEXTS = {
    Reason.EXTRA_SPEC: '{detail}',
    Reason.NO_TOPOLOGY: 'no NUMA topology reported',
    Reason.TOO_FEW_CELLS: 'fewer than {needed} NUMA nodes (most: {best})',
    Reason.PAGE_SIZE: 'no {size} pages',
    Reason.WHOLE_PAGES: (
        'memory of {needed} MiB is not a whole number of {size} pages'
    ),
    Reason.PAGES: (
        'no NUMA node with {needed} free {size} pages (most: {best})'
    ),
    Reason.MEMORY: (
        'no NUMA node with {needed} MiB of memory (most: {best} MiB)'
    ),
    Reason.DEDICATED_CPUS: (
        'no NUMA node with {needed} free dedicated CPUs (most: {best})'
    ),
    Reason.SHARED_CPUS: (
        'no NUMA node with {needed} shared CPUs (most: {best})'
    ),
    # Placement would account the wrong CPUs.
    Reason.HYPERTHREADS: (
        'thread siblings and CPUs for shared instances, where the instance '
        'asks for isolated threads'
    ),
    Reason.THREADS: (
        'no NUMA node with {needed} free thread siblings (most: {best})'
    ),
    Reason.CORES: (
        'no NUMA node with {needed} whole free cores (most: {best})'
    ),
    Reason.CPU_RATIO: (
        'no NUMA node with {needed} shared vCPUs left within the CPU '
        'allocation ratio (most: {best})'
    ),
    Reason.RAM_RATIO: (
        'no NUMA node with {needed} MiB left within the RAM allocation ratio '
        '(most: {best} MiB)'
    ),
    Reason.SMALL_PAGES: (
        'no NUMA node with {needed} MiB left outside of the huge page pools '
        '(most: {best} MiB)'
    ),
    Reason.CELL_MEMORY: (
        'no NUMA node with {needed} MiB left across page sizes (most: {best} '
        'MiB)'
    ),
    Reason.NETWORK: 'no fitting NUMA nodes near {detail}',
    Reason.DEVICES: (
        'no fitting NUMA nodes with the PCI devices, by their NUMA affinity'
    ),
    Reason.DISTANCE: (
        'fitting NUMA nodes are farther apart than {needed} (nearest: {best})'
    ),
    Reason.SMT: 'no thread siblings, which the instance requires',
    Reason.HOST_MEMORY: (
        'not {needed} MiB left outside of the huge page pools of all NUMA '
        'nodes (most: {best} MiB)'
    ),
    Reason.CANDIDATES: 'no allocation candidate of Placement left',
    Reason.STOCK_CLAIM: 'the claim of the stock driver would refuse',
    Reason.STOCK_SEARCH: (
        'the claim of the stock driver finds no place among the first '
        '{needed} arrangements'
    ),
}


def summarize(rejections: Iterable[Rejection], *, at_most: int) -> list[str]:
    """Count rejections by constraint, with the nearest miss of each.

    :param rejections: one for each rejected host
    :param at_most: how many constraints to name; the rest are only counted
    :returns: texts such as ``19 hosts: no NUMA node with 512 free 2 MiB pages
        (most: 448)``, the most frequent constraint first
    """
    counts: dict[tuple[object, ...], int] = {}
    nearest: dict[tuple[object, ...], Rejection] = {}
    for rejection in rejections:
        key = (
            rejection.reason,
            rejection.needed,
            rejection.page_size_kib,
            rejection.detail,
        )
        counts[key] = counts.get(key, 0) + 1
        before = nearest.get(key)
        if before is None or _nearer(rejection, before):
            nearest[key] = rejection
    # Most hosts first; equal counts by the constraint, so that the line is
    # the same for the same hosts in any order.
    keys = sorted(nearest, key=lambda key: (-counts[key], key[0], str(key)))
    texts = [
        f'{_hosts(counts[key])}: {nearest[key].text}' for key in keys[:at_most]
    ]
    rest = sum(counts[key] for key in keys[at_most:])
    if rest:
        texts.append(f'{_hosts(rest)}: other reasons')
    return texts


def _nearer(one: Rejection, other: Rejection) -> bool:
    if one.reason is Reason.DISTANCE:
        return one.best < other.best
    return one.best > other.best


def _hosts(count: int) -> str:
    return '1 host' if count == 1 else f'{count} hosts'
