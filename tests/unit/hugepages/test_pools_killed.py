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

"""The service is killed at every step, with a real signal.

The process that holds and releases pages is a child with a ledger on disk and
the lock of the host. It is killed before and after each write to the ledger or
to a pool, and before and after each commit. Then a new one starts, and has
to find out.
"""

from __future__ import annotations

from collections.abc import Callable
import json
import os
import pathlib
import shutil
import signal
import socket
import tempfile
from typing import Any

import pytest

from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.pools import Pools
from nova_numa_hugepages.hugepages.reconcile import Reconciler
from nova_numa_hugepages.hugepages.reconcile_rules import Present
from nova_numa_hugepages.hugepages.state import lock
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from tests.fixtures import kernel as fake_kernel
from tests.unit.hugepages import page_host

A, B = map(page_host.guest, (1, 2))
NODES = {
    0: fake_kernel.FakeNode(total=1024, used=64, pools={2048: 10}),
    1: fake_kernel.FakeNode(total=1024, used=64),
}
MOST_STEPS = 400


class _Deadly(page_host.Steps):
    """Kills this process for real."""

    def step(self, operation: str = '') -> None:
        if self.kill_at is not None and self.count >= self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1


class _RemoteWriter:
    """Writes to a kernel that is in the process above."""

    def __init__(self, channel: socket.socket, steps: _Deadly) -> None:
        self._channel = channel
        self._steps = steps

    def __call__(
        self, path: pathlib.Path, number: int, node: int | None = None
    ) -> None:
        self._steps.step()
        message = [os.fspath(path), number, node]
        self._channel.sendall(f'{json.dumps(message)}\n'.encode())
        assert self._channel.recv(1)
        self._steps.step()


def _pools(folder: pathlib.Path, writer: hugetlb.Writer, ledger: Any) -> Pools:
    fs = hostfs.HostFS(folder / 'kernel/sys', folder / 'kernel/proc')
    return Pools(
        hugetlb.Hugetlb(fs, writer),
        ledger,
        page_host.POLICY,
        lock=lock.HostLock(folder),
        read_maps=processes.MapsFile(fs),
        sleep=lambda _: None,
    )


def _killed(
    folder: pathlib.Path,
    kernel: fake_kernel.FakeKernel,
    work: Callable[[Pools], object],
    kill_at: int,
) -> bool:
    """Work in a child, and return whether it was killed."""
    here, there = socket.socketpair()
    child = os.fork()
    if not child:
        code = 1
        try:
            here.close()
            steps = _Deadly()
            steps.kill_at = kill_at
            ledger = page_host.stepping(
                Ledger.open(folder / 'ledger.sqlite'), steps
            )
            work(_pools(folder, _RemoteWriter(there, steps), ledger))
            code = 0
        finally:
            os._exit(code)
    there.close()
    with here, here.makefile('r', encoding='ascii') as lines:
        for line in lines:
            path, number, node = json.loads(line)
            kernel.write(pathlib.Path(path), number, node)
            try:
                here.sendall(b'.')
            except BrokenPipeError:
                break
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def _hold(pools: Pools) -> None:
    pools.hold(A, page_host.needs((0, 60), (1, 40)))


def _release(pools: Pools) -> None:
    pools.release(B)


def _reconcile(pools: Pools) -> None:
    Reconciler(pools).reconcile(Present(frozenset(), frozenset()))


@pytest.mark.parametrize('work', [_hold, _release, _reconcile])
def test_whenever_it_is_killed_no_page_is_lost_or_promised_twice(
    work: Callable[[Pools], object],
) -> None:
    shm = '/dev/shm' if os.path.isdir('/dev/shm') else None
    for kill_at in range(MOST_STEPS):
        folder = pathlib.Path(tempfile.mkdtemp(dir=shm))
        try:
            if not _once(folder, work, kill_at):
                # It got through: there is no further step.
                assert kill_at > 8
                return
        finally:
            shutil.rmtree(folder)
    pytest.fail('it never got through')


def _once(
    folder: pathlib.Path,
    work: Callable[[Pools], object],
    kill_at: int,
) -> bool:
    # Given a guest that is off and another one that runs,
    kernel = fake_kernel.FakeKernel(folder / 'kernel', NODES)
    path = folder / 'ledger.sqlite'
    runs = page_host.guest(3)
    with Ledger.open(path) as ledger:
        pools = _pools(folder, kernel.write, ledger)
        _reconcile(pools)
        pools.hold(B, page_host.needs((0, 30)))
        pools.hold(runs, page_host.needs((0, 5), (1, 20)))
        kernel.start_guest(runs, {page_host.pool(0): 5, page_host.pool(1): 20})
        pools.mark_taken(runs)
    # When the service is killed,
    killed = _killed(folder, kernel, work, kill_at)
    with Ledger.open(path) as ledger:
        # Then the next one finds what is there, and promises no page twice.
        pools = _pools(folder, kernel.write, ledger)
        reconciler = Reconciler(pools)
        reconciler.reconcile(
            Present(frozenset({B, runs}), frozenset()), starting=True
        )
        for used in pools.usage().values():
            assert not used.overdue, kill_at
            assert used.available >= 0, kill_at
        kernel.check()
        check = pools.check_accounts()
        assert not check.changes, kill_at
        assert [
            check.accounts[page_host.pool(node)].floor for node in (0, 1)
        ] == [10, 0], kill_at
        # And when all guests have gone, all pages have.
        kernel.stop_guest(runs)
        reconciler.reconcile(Present(frozenset(), frozenset()), starting=True)
        assert pools.holds() == []
        assert [kernel.pool(page_host.pool(n)).total for n in (0, 1)] == [
            10,
            0,
        ], kill_at
    return killed
