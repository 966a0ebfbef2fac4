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

"""Alarms and leaks on this machine: each is raised, and ends.

Kernel, libvirt and QEMU are real. Only time is not: a day goes by in a moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
import contextlib
import json
import mmap
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from nova_numa_hugepages.hugepages import virsh
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import nodes
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.monitor import alarms
from nova_numa_hugepages.monitor import collector
from nova_numa_hugepages.monitor import history
from nova_numa_hugepages.monitor import insight
from nova_numa_hugepages.monitor import service
from nova_numa_hugepages.monitor.thresholds import Thresholds
from tests.host import scene
from tests.host.rig import domains
from tests.host.rig import folders
from tests.host.rig import local

_OCCUPY = str(folders.PROJECT / 'tests' / 'host' / 'occupy.py')
_PAGES = 64
_LIMIT_S = 300.0
_SOON_S = 60.0
_HOUR_S = 3600.0
_HUGE = 2 << 20
OTHER = '11111111-0000-4000-8000-000000000001'
# How much this machine is fragmented is not known.
_THRESHOLDS = Thresholds(after_s=0.0, fragmented_percent=101)


class Watch:
    """The monitor of this machine, and the service's part.

    :ivar service: changes pools and the ledger
    """

    def __init__(
        self,
        machine: local.LocalHost,
        folder: pathlib.Path,
        thresholds: Thresholds = _THRESHOLDS,
        **settings: Any,
    ) -> None:
        self.machine = machine
        self.service = scene.Service(machine, str(folder), **settings)
        self._later_s = 0.0
        self._ticks = 0.0
        policy = PoolPolicy(**self.service.policy)
        self._history = history.History(None, clock=self._clock)
        watched = collector.Collector(
            hostfs.HostFS(),
            policy,
            folder / 'ledger.sqlite',
            virsh.Virsh(machine.uri, 5.0),
            clock=self._clock,
            ticks=lambda: self._ticks,
        )
        self.monitor = service.Monitor(
            watched.collect,
            alarms.load(thresholds),
            insight.Analyst(self._history, policy, ticks=lambda: self._ticks),
            _HOUR_S,
            ticks=lambda: self._ticks,
        )

    def look(self, after_s: float = 0.0, *, clock: bool = False) -> set[str]:
        """Look again after some time; return which alarms are raised.

        :param clock: whether the clock of the host goes on as well. What a
            guest reported is old then.
        """
        self._ticks += after_s
        if clock:
            self._later_s += after_s
        assert self.monitor.step()
        return {alarm['alarm'] for alarm in self.monitor.alarms() or ()}

    def wait_for(self, name: str, *, raised: bool = True) -> None:
        """Look until an alarm is raised, or is over."""
        deadline = time.monotonic() + _LIMIT_S
        while (name in self.look(1.0)) is not raised:
            assert time.monotonic() < deadline, self.monitor.view()
            time.sleep(1)

    def leaks(self, hours: float, step_s: float) -> set[str]:
        """Let hours go by; return the kinds of leaks that are found then."""
        for _ in range(int(hours * _HOUR_S / step_s)):
            self.look(step_s, clock=True)
        view = self.monitor.view()
        assert view is not None
        found = {leak['kind'] for leak in view['leaks']}
        raised = {alarm['alarm'] for alarm in view['alarms']}
        assert ('memory_leaked' in raised) is bool(found)
        return found

    def _clock(self) -> float:
        return time.time() + self._later_s


@pytest.fixture
def watch(machine: local.LocalHost, tmp_path: pathlib.Path) -> Iterator[Watch]:
    scene.set_pools(machine, 0)
    try:
        yield Watch(machine, tmp_path)
    finally:
        scene.set_pools(machine, 0)


@contextlib.contextmanager
def running(
    watch: Watch, *, mib: int = 2 * _PAGES, held: int | None = None
) -> Iterator[scene.Guest]:
    """Run a guest.

    :param held: how many pages are held for it, if not those that it takes
    """
    guest = scene.Guest(watch.machine, domains.Cell(0, mib, [0]))
    needs = [[0, 0, 2048, mib // 2 if held is None else held]]
    watch.service.run(guest, needs)
    try:
        yield guest
    finally:
        guest.destroy()
        watch.service.do(['release', guest.uuid])


@contextlib.contextmanager
def taken(pages: int) -> Iterator[None]:
    """Have a program take pages."""
    with subprocess.Popen(
        [sys.executable, '-I', _OCCUPY, '0', str(pages)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert 'occupied' in process.stdout.readline()
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)


def _texts(watch: Watch, name: str) -> list[str]:
    view = watch.monitor.view()
    assert view is not None
    return [
        alarm['text'] for alarm in view['alarms'] if alarm['alarm'] == name
    ]


def test_a_guest_that_is_all_right(watch: Watch) -> None:
    with running(watch):
        assert watch.look() == set()
        assert watch.look(_HOUR_S) == set()


def test_memory_beyond(watch: Watch) -> None:
    scene.set_pools(watch.machine, _PAGES)
    with running(watch, held=_PAGES // 2):
        watch.look()
        assert watch.look(_SOON_S) == {'memory_beyond'}
    assert watch.look() == set()


@pytest.mark.nightly
def test_an_elastic_guest_that_takes_what_it_was_not_given(
    watch: Watch, tmp_path: pathlib.Path
) -> None:
    """QEMU before 8.2 lets it; its kernel has no driver that doesn't."""
    scene.set_pools(watch.machine, 4 * _PAGES)
    console = tmp_path / 'console'
    console.touch()
    guest = scene.Guest(
        watch.machine,
        domains.Cell(0, 192, [0], 448),
        console=console,
        arguments='ignore=virtio_mem touch=32',
    )
    watch.service.run(guest, [[0, 0, 2048, 96, 96, 224]])
    try:
        watch.wait_for('memory_beyond')
        (text,) = _texts(watch, 'memory_beyond')
        assert '32 pages of 2 MiB on NUMA node 0 beyond' in text
    finally:
        guest.destroy()
    watch.service.do(['release', guest.uuid])
    assert watch.look() == set()


def test_memory_absent(watch: Watch) -> None:
    with running(watch, held=2 * _PAGES):
        watch.look()
        assert watch.look(_HOUR_S) == {'memory_absent'}
    assert watch.look() == set()


def test_vcpus_off_their_plan(watch: Watch) -> None:
    cpus = os.sched_getaffinity(0)
    if len(cpus) < 2:
        pytest.skip('this machine has one CPU')
    with running(watch) as guest:
        pid = int(
            watch.machine.run(['pgrep', '-f', guest.uuid]).out.split()[0]
        )
        (thread,) = [
            int(task.name)
            for task in pathlib.Path(f'/proc/{pid}/task').iterdir()
            if (task / 'comm').read_text().startswith('CPU 0/')
        ]
        os.sched_setaffinity(thread, cpus)
        watch.look()
        assert watch.look(_SOON_S) == {'cpus_off_plan'}
        os.sched_setaffinity(thread, {0})
        assert watch.look() == set()


@pytest.mark.nightly
def test_a_guest_that_fills_its_memory(
    watch: Watch, tmp_path: pathlib.Path
) -> None:
    console = tmp_path / 'console'
    console.touch()
    guest = scene.Guest(
        watch.machine,
        domains.Cell(0, 256, [0]),
        console=console,
        balloon='off',
        arguments='fill=184',
    )
    watch.service.run(guest)
    try:
        watch.wait_for('memory_used')
        # Its programs free the memory.
        watch.wait_for('memory_used', raised=False)
        # Then it leaves most of it unused, for a day.
        for _ in range(25):
            assert 'memory_used' not in watch.look(_HOUR_S)
        assert 'memory_unused' in watch.look()
    finally:
        guest.destroy()
    watch.service.do(['release', guest.uuid])
    assert watch.look() == set()


@pytest.mark.nightly
def test_a_guest_that_swaps(
    machine: local.LocalHost, tmp_path: pathlib.Path
) -> None:
    """It never uses all of its memory, as what it fills is swapped out."""
    scene.set_pools(machine, 0)
    watch = Watch(
        machine,
        tmp_path,
        Thresholds(used_percent=100, after_s=0.0, fragmented_percent=101),
    )
    console = tmp_path / 'console'
    console.touch()
    guest = scene.Guest(
        machine,
        domains.Cell(0, 256, [0]),
        console=console,
        balloon='off',
        arguments='swap=512 fill=320',
    )
    watch.service.run(guest)
    try:
        watch.wait_for('memory_used')
        (text,) = _texts(watch, 'memory_used')
        assert 'MiB back from its swap' in text
        # Its programs free the memory.
        watch.wait_for('memory_used', raised=False)
    finally:
        guest.destroy()
        watch.service.do(['release', guest.uuid], ['heal', []])
    assert watch.look() == set()


def test_a_node_that_is_exhausted(
    machine: local.LocalHost, tmp_path: pathlib.Path
) -> None:
    host = hostfs.HostFS()
    memory = nodes.memory(host)[0]
    # Instances may have a twentieth of the node.
    share_kib = memory.total_kib // 20
    free_kib = memory.free_kib + memory.reclaimable_kib // 2
    watch = Watch(
        machine,
        tmp_path,
        Thresholds(after_s=0.0, free_percent=2, fragmented_percent=101),
        node_free_mib=(free_kib - share_kib) // 1024,
    )
    watch.service.do(['heal', None])
    assert watch.look() == set()
    pages = share_kib * 4 // 5 // 2048
    assert watch.service.do(['hold', OTHER, [[0, 0, 2048, pages]]]) == [[]]
    try:
        assert watch.look() == {'node_exhausted'}
    finally:
        watch.service.do(['release', OTHER])
    assert watch.look() == set()


def test_pages_that_others_took(watch: Watch) -> None:
    guest = scene.Guest(watch.machine, domains.Cell(0, 2 * _PAGES, [0]))
    watch.service.do(['hold', guest.uuid, guest.needs])
    with taken(_PAGES // 2):
        watch.look()
        assert 'pages_taken' in watch.look(_SOON_S)
    assert 'pages_taken' not in watch.look()
    watch.service.do(['release', guest.uuid])


def test_a_ledger_that_is_apart(watch: Watch) -> None:
    watch.service.do(['heal', None])
    scene.set_pools(watch.machine, 7)
    watch.look()
    assert watch.look(200.0) == {'ledger_apart'}
    watch.service.do(['heal', None])
    assert watch.look() == set()


def test_a_libvirt_that_hangs(watch: Watch) -> None:
    with running(watch):
        watch.look()
        pid = watch.machine.libvirtd_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            watch.look()
            assert watch.look(_SOON_S) == {'libvirt_silent'}
        finally:
            os.kill(pid, signal.SIGCONT)
        watch.wait_for('libvirt_silent', raised=False)


def test_files_that_were_left(watch: Watch, tmp_path: pathlib.Path) -> None:
    scene.set_pools(watch.machine, 8)
    watch.service.do(['heal', None])
    mount = tmp_path / 'huge pages'
    mount.mkdir()
    watch.machine.run(['mount', '-t', 'hugetlbfs', 'none', str(mount)])
    try:
        path = mount / 'left'
        with path.open('w+b') as file:
            file.truncate(4 * _HUGE)
            with mmap.mmap(file.fileno(), 4 * _HUGE) as memory:
                for page in range(4):
                    memory[page * _HUGE] = 1
                assert watch.leaks(0.3, 60.0) == set()
        assert watch.leaks(0.3, 60.0) == {'file'}
        path.unlink()
        assert watch.leaks(0.1, 60.0) == set()
    finally:
        watch.machine.run(['umount', str(mount)])


def test_a_hold_without_a_domain(watch: Watch) -> None:
    guest = scene.Guest(watch.machine, domains.Cell(0, 2 * _PAGES, [0]))
    watch.service.do(['hold', guest.uuid, guest.needs])
    assert watch.leaks(1.2, 60.0) == {'no_domain'}
    watch.service.do(['release', guest.uuid])
    assert watch.leaks(0.1, 60.0) == set()


def test_reservations_that_are_never_used(watch: Watch) -> None:
    scene.set_pools(watch.machine, 8)
    watch.service.do(['heal', None])
    with mmap.mmap(
        -1,
        4 * _HUGE,
        mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000,
    ):
        assert watch.leaks(26, 1200.0) == {'reserved'}
    assert watch.leaks(1, 1200.0) == set()


def test_surplus_that_stays(watch: Watch) -> None:
    watch.service.do(['heal', None])
    path = pathlib.Path('/proc/sys/vm/nr_overcommit_hugepages')
    before = path.read_text()
    path.write_text('8')
    try:
        with taken(4):
            assert 'surplus' in watch.leaks(26, 1200.0)
        assert watch.leaks(1, 1200.0) == set()
    finally:
        path.write_text(before)


def test_pages_that_were_allocated_and_stay_idle(
    watch: Watch, tmp_path: pathlib.Path
) -> None:
    # A service that keeps pages warm, which the configuration says no more.
    warm = scene.Service(watch.machine, str(tmp_path), warm_mib=1024)
    guest = scene.Guest(watch.machine, domains.Cell(0, 2 * _PAGES, [0]))
    warm.do(['hold', guest.uuid, guest.needs], ['release', guest.uuid])
    assert watch.leaks(26, 1200.0) == {'idle'}
    watch.service.do(['heal', []])
    assert watch.leaks(1, 1200.0) == set()


def test_pages_that_no_process_has(watch: Watch) -> None:
    scene.set_pools(watch.machine, 8)
    watch.service.do(['heal', None])
    group = pathlib.Path('/sys/fs/cgroup')
    controllers = group / 'cgroup.controllers'
    if (group / 'hugetlb').is_dir() or (
        controllers.exists() and 'hugetlb' in controllers.read_text().split()
    ):
        pytest.skip('here the control group of this test has them')
    # The kernel has them for a file without a name that is open, not mapped.
    file = os.memfd_create('lost', 0x4)
    try:
        os.posix_fallocate(file, 0, 4 * _HUGE)
        assert watch.leaks(1.2, 60.0) == {'unowned'}
    finally:
        os.close(file)
    assert watch.leaks(0.1, 60.0) == set()


def test_a_qemu_whose_own_memory_grows(watch: Watch) -> None:
    with running(watch) as guest:
        for hour in range(49):
            watch.machine.virsh(
                'qemu-monitor-command',
                guest.name,
                json.dumps(
                    {
                        'execute': 'object-add',
                        'arguments': {
                            'qom-type': 'memory-backend-ram',
                            'id': f'leak{hour}',
                            'size': 8 << 20,
                            'prealloc': True,
                        },
                    }
                ),
            )
            found = watch.leaks(1, _HOUR_S)
            assert not found or hour > 40
        assert found == {'own_memory'}
        # It settles.
        assert watch.leaks(30, _HOUR_S) == set()


@pytest.mark.nightly
def test_a_guest_whose_use_only_rises(
    watch: Watch, tmp_path: pathlib.Path
) -> None:
    guests = []
    for number in range(3):
        console = tmp_path / f'console{number}'
        console.touch()
        guests.append(
            scene.Guest(
                watch.machine,
                domains.Cell(0, 256, [0]),
                console=console,
                balloon='off',
                arguments='grow=1' if number == 1 else '',
            )
        )
    try:
        for guest in guests:
            watch.service.run(guest)
            assert guest.console is not None
            scene.wait_for_beat(watch.machine, guest.console, 1, _LIMIT_S)
        # As long as it grows by a MiB, an hour goes by.
        for _ in range(49):
            time.sleep(2.2)
            found = watch.leaks(1, _HOUR_S)
        assert found == {'guest_use'}
    finally:
        for guest in guests:
            guest.destroy()
    assert watch.leaks(1, _HOUR_S) == set()
    for guest in guests:
        watch.service.do(['release', guest.uuid])


def test_pages_that_an_instance_left(
    watch: Watch, tmp_path: pathlib.Path
) -> None:
    guest = scene.Guest(watch.machine, domains.Cell(0, 2 * _PAGES, [0]))
    watch.service.run(guest)
    scene.set_pools(watch.machine, 2 * _PAGES)
    ended = tmp_path / 'ended'
    with futures.ThreadPoolExecutor() as pool:
        # The service has seen it, and then it ends.
        healing = pool.submit(
            watch.service.do,
            ['heal', [guest.uuid]],
            ['wait_for', str(ended)],
            ['heal', [guest.uuid]],
        )
        time.sleep(5)
        guest.destroy()
        # The kernel doesn't say whose pages these were before.
        with taken(_PAGES // 2):
            ended.touch()
            healing.result()
            assert watch.look() == {'memory_leaked'}
            view = watch.monitor.view()
            assert view is not None
            assert [leak['kind'] for leak in view['leaks']] == ['left']
    watch.service.do(['release', guest.uuid], ['heal', []])
    assert watch.look() == set()
