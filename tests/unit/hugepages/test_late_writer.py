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

"""A service was killed, and its privileged helper is still at work."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
import pathlib
import subprocess
import sys

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.kernel import hugetlb
from tests.unit.hugepages import page_host
from tests.unit.hugepages.state import ledgers

A = page_host.guest(1)
POOL = page_host.pool(0)

# Locks a file as its arguments say, until the process is ended.
_LOCKS = """
import fcntl
file = open(sys.argv[2], 'r+')
fcntl.lockf(file, getattr(fcntl, sys.argv[3]) | fcntl.LOCK_NB)
report('locked')
sys.stdin.read()
"""


@contextlib.contextmanager
def locked(path: pathlib.Path, how: str = 'LOCK_EX') -> Iterator[None]:
    """Have another process hold a lock on a file."""
    with ledgers.process(path.parent, _LOCKS, path, how) as running:
        assert ledgers.next_line(running) == 'locked'
        yield


@pytest.fixture
def rig(tmp_path: pathlib.Path) -> page_host.Rig:
    """A service that was killed when it had asked for 20 pages."""
    rig = page_host.make(tmp_path, page_host.NODE)

    def kill() -> None:
        rig.steps.kill_at = 0
        raise page_host.Killed

    rig.at_first_write(kill)
    with pytest.raises(page_host.Killed):
        rig.pools.hold(A, page_host.needs((0, 20)))
    assert rig.total() == 0
    rig.start()
    return rig


@pytest.mark.parametrize(
    'files',
    [
        lambda fs, key: hugetlb.nr_file(fs, *key),
        lambda fs, key: hugetlb.host_file(fs, key.size_kib),
    ],
    ids=['of the node', 'of the host'],
)
def test_what_the_helper_writes_late_is_ours(rig: page_host.Rig, files):
    path = hugetlb.nr_file(rig.kernel.fs, *POOL)
    at_work = contextlib.ExitStack()
    at_work.enter_context(locked(files(rig.kernel.fs, POOL)))

    def late(_: float = 0.0) -> None:
        rig.kernel.write(path, 20)
        at_work.close()
        rig.sleep = pytest.fail

    rig.sleep = late
    with at_work:
        rig.reconcile(starting=True)
    if rig.sleep is late:
        # It wasn't waited for.
        late()
    rig.reconcile()

    assert rig.account(0) == (0, 0)
    assert rig.total() == 0


def test_nothing_is_waited_for_but_what_was_announced(tmp_path):
    rig = page_host.make(tmp_path, page_host.NODE)
    rig.sleep = pytest.fail

    with locked(hugetlb.nr_file(rig.kernel.fs, *POOL)):
        rig.reconcile(starting=True)


def test_a_lock_to_read_stops_nothing(rig: page_host.Rig):
    path = hugetlb.nr_file(rig.kernel.fs, *POOL)
    rig.sleep = pytest.fail

    with locked(path, 'LOCK_SH'):
        rig.reconcile(starting=True)
        hugetlb.write_number(path, 7)

    assert path.read_text().startswith('7')


def test_a_helper_that_hangs_is_named(rig: page_host.Rig):
    with (
        locked(hugetlb.nr_file(rig.kernel.fs, *POOL)),
        pytest.raises(exception.KernelError, match=r'process \d+ \(python'),
    ):
        rig.reconcile(starting=True)


def test_a_file_is_locked_while_it_is_written(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'nr_hugepages'
    path.touch()
    found = []

    def write(descriptor: int, data: bytes) -> int:
        # The locks of its own process don't keep a process from anything.
        found.append(subprocess.check_output([sys.executable, '-c', _ASKS]))
        return len(data)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, 'write', write)
    hugetlb.write_number(path, 7)

    assert found == [f'process {os.getpid()} (python)\n'.encode()]


_ASKS = """
import fcntl
from nova_numa_hugepages.hugepages.kernel import file_locks
file = open('nr_hugepages')
print(file_locks.holder(file.fileno(), fcntl.F_RDLCK))
"""
