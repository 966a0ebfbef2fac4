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

"""Why a guest does not fit, in the words of an operator.

One host's rejection names the guest cell and the nearest miss in numbers. The
rejections of many hosts are counted by constraint, so that one line tells an
operator what a request ran short of.
"""

from __future__ import annotations

from collections.abc import Iterable
import enum
from typing import NamedTuple
from typing import TYPE_CHECKING

from nova_numa_hugepages.core import units

if TYPE_CHECKING:
    from nova_numa_hugepages.core import model


class Reason(enum.IntEnum):
    """The constraint that fails, in the order in which they are judged.

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
    FLOATING = 21
    CANDIDATES = 22
    STOCK_CLAIM = 23
    STOCK_SEARCH = 24


class _Words(NamedTuple):
    """The texts of a reason: for one host, and for many."""

    one: str
    many: str


_WORDS = {
    Reason.EXTRA_SPEC: _Words('{detail}', '{detail}'),
    Reason.NO_TOPOLOGY: _Words(
        'the host reports no NUMA topology', 'no NUMA topology reported'
    ),
    Reason.TOO_FEW_CELLS: _Words(
        'needs {needed} host cells, the host has {best}',
        'with fewer than {needed} nodes (best {best})',
    ),
    Reason.PAGE_SIZE: _Words(
        'needs pages of {size}, no host cell offers them',
        'no pages of {size}',
    ),
    Reason.WHOLE_PAGES: _Words(
        'its memory of {needed} MiB is not a whole number of pages of {size}',
        'memory of {needed} MiB is not a whole number of pages of {size}',
    ),
    Reason.PAGES: _Words(
        'needs {needed} pages of {size}, most free on a host cell: {best}',
        'no node with {needed} free pages of {size} (best {best})',
    ),
    Reason.MEMORY: _Words(
        'needs {needed} MiB, most on a host cell: {best} MiB',
        'no node with {needed} MiB (best {best})',
    ),
    Reason.DEDICATED_CPUS: _Words(
        'needs {needed} dedicated CPUs, most free on a host cell: {best}',
        'not enough free dedicated CPUs (best {best} of {needed})',
    ),
    Reason.SHARED_CPUS: _Words(
        'needs {needed} shared CPUs, most on a host cell: {best}',
        'not enough shared CPUs (best {best} of {needed})',
    ),
    Reason.HYPERTHREADS: _Words(
        'asks for isolated threads; this host has thread siblings and CPUs '
        'for shared guests, so Placement would account the wrong CPUs',
        'thread siblings where the guest asks for isolated threads',
    ),
    Reason.THREADS: _Words(
        'needs {needed} free dedicated CPUs that are thread siblings, most '
        'on a host cell: {best}',
        'not enough free thread siblings (best {best} of {needed})',
    ),
    Reason.CORES: _Words(
        'needs {needed} whole free cores, most on a host cell: {best}',
        'not enough whole free cores (best {best} of {needed})',
    ),
    Reason.CPU_RATIO: _Words(
        'needs {needed} shared vCPUs within the CPU allocation ratio, most '
        'left on a host cell: {best}',
        'CPU allocation ratio reached (best {best} of {needed} vCPUs)',
    ),
    Reason.RAM_RATIO: _Words(
        'needs {needed} MiB within the RAM allocation ratio, most left on a '
        'host cell: {best} MiB',
        'RAM allocation ratio reached (best {best} of {needed} MiB)',
    ),
    Reason.SMALL_PAGES: _Words(
        'needs {needed} MiB outside of the page pools, most left on a host '
        'cell: {best} MiB',
        'not enough memory outside of the page pools (best {best} of '
        '{needed} MiB)',
    ),
    Reason.CELL_MEMORY: _Words(
        'needs {needed} MiB of memory that pages of all sizes share, most '
        'left on a host cell: {best} MiB',
        'not enough memory across page sizes (best {best} of {needed} MiB)',
    ),
    Reason.NETWORK: _Words(
        'no fitting host cells are near {detail}',
        'no fitting nodes near {detail}',
    ),
    Reason.DEVICES: _Words(
        'no fitting host cells have the PCI devices with the NUMA affinity '
        'that is asked for',
        'no fitting nodes with the PCI devices',
    ),
    Reason.DISTANCE: _Words(
        'its cells may be {needed} apart, the nearest fitting host cells are '
        '{best} apart',
        'fitting nodes are farther apart than {needed} (best {best})',
    ),
    Reason.SMT: _Words(
        'the guest requires thread siblings, the host has none',
        'no thread siblings',
    ),
    Reason.FLOATING: _Words(
        'needs {needed} MiB outside of the page pools of all host cells, '
        'left: {best} MiB',
        'not enough memory outside of the page pools of all nodes (best '
        '{best} of {needed} MiB)',
    ),
    Reason.CANDIDATES: _Words(
        'no allocation candidate of Placement is left for this host',
        'no allocation candidate left',
    ),
    Reason.STOCK_CLAIM: _Words(
        'the host runs the stock driver, whose claim would refuse this guest',
        'the claim of the stock driver would refuse',
    ),
    Reason.STOCK_SEARCH: _Words(
        'the host runs the stock driver, whose claim does not find a place '
        'among the first {needed} arrangements',
        'the claim of the stock driver finds no place among the first '
        '{needed} arrangements',
    ),
}

# Where the smaller figure is the nearer miss.
_LESS_IS_NEARER = frozenset({Reason.DISTANCE})


def explain(rejection: model.Rejection) -> str:
    """Tell why one host is rejected.

    :returns: for example ``guest cell 1: needs 2048 pages of 2 MiB, most
        free on a host cell: 1536``
    """
    text = _fill(_WORDS[rejection.reason].one, rejection, rejection.best)
    if rejection.guest_cell is None:
        return text
    return f'guest cell {rejection.guest_cell}: {text}'


def summarize(
    rejections: Iterable[model.Rejection], *, at_most: int
) -> list[str]:
    """Count rejections by constraint, with the nearest miss of each.

    :param rejections: one for each rejected host
    :param at_most: how many constraints to name; the rest are only counted
    :returns: texts such as ``19 no node with 512 free pages of 2 MiB (best
        448)``, the most frequent constraint first
    """
    counts: dict[tuple[object, ...], int] = {}
    nearest: dict[tuple[object, ...], model.Rejection] = {}
    for rejection in rejections:
        key = (
            rejection.reason,
            rejection.needed,
            rejection.page_size_kib,
            rejection.detail,
        )
        counts[key] = counts.get(key, 0) + 1
        known = nearest.get(key)
        if known is None or _nearer(rejection, known):
            nearest[key] = rejection
    # Most hosts first; equal counts by the constraint, so that the line is
    # the same for the same hosts in any order.
    keys = sorted(nearest, key=lambda key: (-counts[key], key[0], str(key)))
    texts = [
        f'{counts[key]} '
        + _fill(_WORDS[nearest[key].reason].many, nearest[key])
        for key in keys[:at_most]
    ]
    rest = sum(counts[key] for key in keys[at_most:])
    if rest:
        texts.append(f'{rest} for other reasons')
    return texts


def _nearer(one: model.Rejection, other: model.Rejection) -> bool:
    if one.reason in _LESS_IS_NEARER:
        return one.best < other.best
    return one.best > other.best


def _fill(
    template: str, rejection: model.Rejection, best: int | None = None
) -> str:
    size = rejection.page_size_kib
    return template.format(
        needed=rejection.needed,
        best=rejection.best if best is None else best,
        size='a huge size' if size is None else units.format_kib(size),
        detail=rejection.detail,
    )
