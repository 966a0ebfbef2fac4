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

"""The monitor on real kernels, with real libvirt and QEMU."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import os
import pathlib
import signal
import sys
import time

from prometheus_client import parser
import pytest

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import sample
from nova_numa_hugepages.hugepages import virsh
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.monitor import collector
from tests.host import conftest
from tests.host import scene
from tests.host.rig import domains
from tests.host.rig import folders
from tests.host.rig import local
from tests.host.rig import virtual

_MOVE = str(folders.PROJECT / 'tests' / 'host' / 'move_pages.py')
_LIMIT_S = 120.0

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def look(host: virtual.VirtualHost, ledger: str) -> Values:
    """Run the monitor on a host, and read its metrics."""
    text = host.run(
        [
            *(sys.executable, '-m', 'nova_numa_hugepages.cmd.main'),
            *('monitor', '--once', '--ledger', ledger),
        ],
        timeout=180,
    ).out
    return {
        (
            row.name.removeprefix('numa_hugepages_'),
            frozenset(row.labels.items()),
        ): row.value
        for family in parser.text_string_to_metric_families(text)
        for row in family.samples
    }


def of(guest: scene.Guest, node: int) -> frozenset[tuple[str, str]]:
    """Label what an instance has on a node."""
    return frozenset(
        {
            ('resource', guest.uuid),
            ('node', str(node)),
            ('page_size', '2MiB'),
        }
    )


def on(node: int) -> frozenset[tuple[str, str]]:
    """Label a pool."""
    return frozenset({('node', str(node)), ('page_size', '2MiB')})


def test_memory_that_is_moved_behind_its_back(
    host: virtual.VirtualHost, service: conftest.Make
) -> None:
    """What is promised and what is in place differ then, by node."""
    guest = scene.Guest(host, *scene.CELLS)
    ours = service()
    ours.run(guest)
    ledger = f'{ours.folder}/ledger.sqlite'

    found = look(host, ledger)
    assert found['instance_promised_pages', of(guest, 1)] == 64
    assert found['instance_in_place_pages', of(guest, 1)] == 64
    assert found['instance_in_place_pages', of(guest, 3)] == 32
    assert ('instance_astray_pages', of(guest, 0)) not in found
    assert found['pool_grown_pages', on(1)] == 64
    assert found['monitor_problems', frozenset()] == 0

    scene.set_pools(host, 40)
    pid = host.run(['pgrep', '-f', guest.uuid]).out.split()[0]
    host.run([sys.executable, '-I', _MOVE, pid, '3', '0'])

    found = look(host, ledger)
    assert found['instance_promised_pages', of(guest, 3)] == 32
    assert ('instance_in_place_pages', of(guest, 3)) not in found
    assert found['instance_in_place_pages', of(guest, 0)] == 32
    assert found['instance_astray_pages', of(guest, 0)] == 32
    assert found['instance_absent_pages', of(guest, 3)] == 32


@contextlib.contextmanager
def looking(
    host: virtual.VirtualHost, folder: str
) -> Iterator[Callable[[], set[str]]]:
    """Run the monitor on a host; get the alarms of a look that begins now."""
    file = f'{folder}/alarms'
    process = host.spawn(
        [sys.executable, '-m', 'tests.host.keep_looking', folder, file]
    )

    def look() -> tuple[int, set[str]]:
        number, *names = (host.run(['cat', file]).out or '-1').split()
        return int(number), set(names)

    def wait() -> set[str]:
        deadline = time.monotonic() + _LIMIT_S
        first = None
        while True:
            assert time.monotonic() < deadline
            if host.run(['test', '-s', file], check=False).status == 0:
                number, names = look()
                first = number if first is None else first
                # One may be under way, and two make an alarm.
                if number >= first + 3:
                    return names
            time.sleep(1)

    try:
        yield wait
    finally:
        process.kill(signal.SIGTERM)


@pytest.mark.nightly
def test_alarms_on_memory_that_was_moved_and_moved_back(
    host: virtual.VirtualHost, service: conftest.Make
) -> None:
    guest = scene.Guest(host, *scene.CELLS)
    ours = service()
    ours.run(guest)
    with looking(host, ours.folder) as alarms:
        assert alarms() == set()
        scene.set_pools(host, 40)
        ours.do(['heal', [guest.uuid]])
        pid = host.run(['pgrep', '-f', guest.uuid]).out.split()[0]
        host.run([sys.executable, '-I', _MOVE, pid, '3', '0'])
        assert 'memory_misplaced' in alarms()
        host.run([sys.executable, '-I', _MOVE, pid, '0', '3'])
        assert 'memory_misplaced' not in alarms()


def test_alarms_on_memory_in_pieces(
    host: virtual.VirtualHost, service: conftest.Make
) -> None:
    ours = service()
    ours.do(['heal', []])
    with looking(host, ours.folder) as alarms:
        assert alarms() == set()
        with scene.scattered(host, 2):
            assert 'memory_fragmented' in alarms()
        assert 'memory_fragmented' not in alarms()


def test_what_a_guest_uses_inside(
    machine: local.LocalHost, tmp_path: pathlib.Path
) -> None:
    """Beside another driver, without a ledger."""
    scene.set_pools(machine, 128)
    console = tmp_path / 'console'
    console.touch()
    guest = scene.Guest(
        machine, domains.Cell(0, 256, [0]), console=console, balloon='off'
    )
    guest.start()
    try:
        watcher = collector.Collector(
            hostfs.HostFS(),
            PoolPolicy(),
            tmp_path / 'none.sqlite',
            virsh.Virsh(machine.uri),
        )
        deadline = time.monotonic() + _LIMIT_S
        while True:
            found = watcher.collect()
            instance = found.instances[guest.uuid]
            if instance.inside is not None and instance.inside.used_kib:
                break
            assert time.monotonic() < deadline, found.problems
            time.sleep(1)
        _check(found, instance)
        # It is pinned to CPU 0.
        assert instance.off_plan == {}
        (thread,) = [
            int(task.name)
            for task in pathlib.Path(
                f'/proc/{instance.process.pid}/task'
            ).iterdir()
            if (task / 'comm').read_text().startswith('CPU 0/')
        ]
        os.sched_setaffinity(thread, os.sched_getaffinity(0))
        others = frozenset(os.sched_getaffinity(0) - {0})
        instance = watcher.collect().instances[guest.uuid]
        assert instance.off_plan == ({0: others} if others else {})
    finally:
        guest.destroy()
        scene.set_pools(machine, 0)


def _check(found: sample.HostSample, instance: sample.InstanceSample) -> None:
    """Check the three numbers of a guest with 256 MiB on node 0."""
    pages = {model.PoolKey(0, 2048): 128}
    assert found.problems == ()
    assert not found.has_ledger
    assert instance.promised == instance.in_place == pages
    inside = instance.inside
    assert inside is not None
    assert inside.available_kib is not None
    assert inside.used_kib is not None
    assert 128 * 1024 < inside.available_kib <= 256 * 1024
    assert 0 < inside.used_kib < inside.available_kib
    assert inside.age_s < 10
    assert instance.small is not None
    assert instance.small.kib[0] > 10 * 1024
