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

"""The time to make pages ready, against the kernel's own time for it.

On the pools of this machine, which are as before afterwards. Needs root.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import functools
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import policy
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.pools import Pools
from nova_numa_hugepages.hugepages.reconcile import Reconciler
from nova_numa_hugepages.hugepages.reconcile_rules import Present
from nova_numa_hugepages.hugepages.state import ledger
from nova_numa_hugepages.hugepages.state import lock

SIZES_GIB = (1, 4, 16)
SIZE_KIB = 2048
NODE_FREE_MIB = 1024

OVERHEAD_PERCENT = 10.0
TRANSACTION_MS = 5.0
SHOW_S = 0.5
PERIODIC_MS = 50.0

_HOLDER = '00000000-0000-4000-8000-000000000000'


@dataclasses.dataclass(frozen=True)
class GrowthCase:
    """Making pages of a size ready on one node.

    :ivar gib: memory in pages
    :ivar kernel_ms: what the kernel takes for one write, median; None if the
        node has less memory than that to spare
    :ivar ours_ms: from the call of ``hold`` to its return, median
    """

    gib: int
    kernel_ms: float | None = None
    ours_ms: float | None = None

    @property
    def overhead_percent(self) -> float | None:
        """The time that ours adds, as a part of the kernel's."""
        if self.kernel_ms is None or self.ours_ms is None:
            return None
        return (self.ours_ms / self.kernel_ms - 1) * 100


@dataclasses.dataclass(frozen=True)
class Result:
    """The measured times.

    :ivar transaction_ms: one change of the ledger, on disk, median
    :ivar show_s: ``host show``, from its start to its end, median
    :ivar periodic_ms: what the service does each minute, median
    :ivar guests: guests in the ledger for these two
    """

    growth: list[GrowthCase]
    transaction_ms: float
    show_s: float
    periodic_ms: float
    guests: int


def reason_not_to_run() -> str | None:
    """Return why pools can't be measured here, None if they can."""
    if os.geteuid():
        return 'page pools can be changed by root only'
    return hugetlb.read_only_reason(hostfs.HostFS())


def measure(*, repeats: int, guests_held: int = 20) -> Result:
    """Measure on this machine.

    :param guests_held: guests that the ledger has for the periodic work
    :raises RuntimeError: if the machine has pages in its pool, which other
        programs may wait for
    """
    fs = hostfs.HostFS()
    kernel = hugetlb.Hugetlb(fs, hugetlb.write_number)
    key = model.PoolKey(kernel.nodes()[0], SIZE_KIB)
    with tempfile.TemporaryDirectory() as folder, _restored(kernel, key):
        path = pathlib.Path(folder)
        book = ledger.Ledger.open(path / 'ledger.sqlite')
        pools = Pools(
            kernel,
            book,
            policy.PoolPolicy(
                node_free_mib=NODE_FREE_MIB, ceiling_percent=95, compact=False
            ),
            lock=lock.HostLock(path),
            read_maps=processes.MapsFile(fs),
        )
        with pools.locked():
            pools.refresh()
        growth = [
            _growth(kernel, pools, key, gib, repeats) for gib in SIZES_GIB
        ]
        transaction_ms = _transaction_ms(book, key)
        for number in range(guests_held):
            book.replace_holds(
                f'{number:08d}-0000-4000-8000-000000000000',
                model.Purpose.GUEST,
                [
                    model.Hold(
                        f'{number:08d}-0000-4000-8000-000000000000',
                        model.Purpose.GUEST,
                        0,
                        *key,
                        0,
                    )
                ],
            )
        periodic_ms = _periodic_ms(pools, repeats)
        show_s = _show_s(path / 'ledger.sqlite', repeats)
        book.close()
    return Result(growth, transaction_ms, show_s, periodic_ms, guests_held)


@contextlib.contextmanager
def _restored(kernel: hugetlb.Hugetlb, key: model.PoolKey) -> Iterator[None]:
    before = kernel.pool(key).persistent
    try:
        yield
    finally:
        kernel.set_persistent(key, before)


def _growth(
    kernel: hugetlb.Hugetlb,
    pools: Pools,
    key: model.PoolKey,
    gib: int,
    repeats: int,
) -> GrowthCase:
    count = gib * 1024 * 1024 // key.size_kib
    start = kernel.pool(key).persistent
    kernel_ms: list[float] = []
    ours_ms: list[float] = []
    # The first round of each isn't counted: it sweeps the page cache out.
    for turn in range(repeats + 1):
        took = _ms(lambda: kernel.set_persistent(key, start + count))
        got = kernel.pool(key).persistent - start
        kernel.set_persistent(key, start)
        if got < count:
            return GrowthCase(gib)
        needs = [model.PageNeed(0, *key, count)]
        ours = _ms(functools.partial(pools.hold, _HOLDER, needs))
        pools.release(_HOLDER)
        if turn:
            kernel_ms.append(took)
            ours_ms.append(ours)
    return GrowthCase(
        gib, statistics.median(kernel_ms), statistics.median(ours_ms)
    )


def _transaction_ms(book: ledger.Ledger, key: model.PoolKey) -> float:
    hold = model.Hold(_HOLDER, model.Purpose.GUEST, 0, *key, 1)
    took = [
        _ms(lambda: book.replace_holds(_HOLDER, model.Purpose.GUEST, [hold]))
        for _ in range(100)
    ]
    book.drop(_HOLDER)
    return statistics.median(took)


def _periodic_ms(pools: Pools, repeats: int) -> float:
    reconciler = Reconciler(pools)

    def once() -> None:
        reconciler.reconcile(Present())
        pools.snapshot()

    return statistics.median(_ms(once) for _ in range(10 * repeats))


def _show_s(path: pathlib.Path, repeats: int) -> float:
    command = [
        str(pathlib.Path(sys.executable).with_name('nova-numa-hugepages')),
        'host',
        'show',
        '--ledger',
        str(path),
    ]
    return (
        statistics.median(
            _ms(
                lambda: subprocess.run(
                    command, check=True, stdout=subprocess.DEVNULL
                )
            )
            for _ in range(repeats + 1)
        )
        / 1000
    )


def _ms(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def misses(result: Result) -> list[str]:
    """List the goals that were missed."""
    found = [
        f'{growth.gib} GiB of pages: {growth.overhead_percent:.0f} % over the '
        f"kernel's time, the goal is {OVERHEAD_PERCENT:.0f} %"
        for growth in result.growth
        if growth.overhead_percent is not None
        and growth.overhead_percent >= OVERHEAD_PERCENT
    ]
    for what, value, goal, unit in (
        (
            'a change of the ledger',
            result.transaction_ms,
            TRANSACTION_MS,
            'ms',
        ),
        ('host show', result.show_s, SHOW_S, 's'),
        ('the periodic work', result.periodic_ms, PERIODIC_MS, 'ms'),
    ):
        if value >= goal:
            found.append(f'{what}: {value:.2f} {unit}, the goal is {goal:g}')
    return found


def table(result: Result) -> str:
    """Lay out the result in Markdown."""
    lines = [
        '| 2 MiB pages | the kernel | hold | overhead |',
        '| --- | ---: | ---: | ---: |',
    ]
    for growth in result.growth:
        if growth.kernel_ms is None or growth.ours_ms is None:
            lines.append(f'| {growth.gib} GiB | too little memory | | |')
        else:
            lines.append(
                f'| {growth.gib} GiB | {growth.kernel_ms:.1f} ms '
                f'| {growth.ours_ms:.1f} ms '
                f'| {growth.overhead_percent:.1f} % |'
            )
    lines += [
        '',
        '| what | median |',
        '| --- | ---: |',
        f'| a change of the ledger | {result.transaction_ms:.2f} ms |',
        f'| `host show` | {result.show_s:.2f} s |',
        f'| periodic work, {result.guests} guests held '
        f'| {result.periodic_ms:.1f} ms |',
    ]
    return '\n'.join(lines)
