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

"""Tests of where the threads of a guest may run."""

from __future__ import annotations

import os
import pathlib
import threading

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import threads


@pytest.fixture
def fs(tmp_path: pathlib.Path) -> hostfs.HostFS:
    """A guest of two vCPUs."""
    fs = hostfs.HostFS(tmp_path / 'sys', tmp_path / 'proc')
    for number, (name, allowed) in enumerate(
        [
            ('qemu-system-x86', '0-7'),
            ('CPU 0/KVM', '3'),
            ('CPU 1/TCG', '2,4-5'),
            ('CPU x/KVM', '1'),
            ('worker', '0-7'),
        ]
    ):
        folder = fs.proc / f'77/task/{77 + number}'
        folder.mkdir(parents=True)
        (folder / 'comm').write_text(f'{name}\n')
        (folder / 'status').write_text(
            f'Name:\t{name}\nCpus_allowed:\tff\n'
            f'Cpus_allowed_list:\t{allowed}\n'
        )
    return fs


def test_vcpus(fs: hostfs.HostFS) -> None:
    assert threads.vcpu_affinity(fs, 77) == {
        0: frozenset({3}),
        1: frozenset({2, 4, 5}),
    }


def test_a_process_that_has_ended(fs: hostfs.HostFS) -> None:
    assert threads.vcpu_affinity(fs, 78) == {}


@pytest.mark.parametrize('name', ['comm', 'status'])
def test_a_thread_that_ends_meanwhile(fs: hostfs.HostFS, name: str) -> None:
    (fs.proc / '77/task/78' / name).unlink()

    assert threads.vcpu_affinity(fs, 77).keys() == {1}


def test_a_thread_without_a_list(fs: hostfs.HostFS) -> None:
    (fs.proc / '77/task/78/status').write_text('Name:\tCPU 0/KVM\n')

    with pytest.raises(exception.KernelError, match='Cpus_allowed_list'):
        threads.vcpu_affinity(fs, 77)


def test_a_real_thread() -> None:
    [cpu, *_] = os.sched_getaffinity(0)
    seen = {}

    def be_vcpu() -> None:
        thread = threading.get_native_id()
        pathlib.Path(f'/proc/self/task/{thread}/comm').write_text('CPU 5/KVM')
        os.sched_setaffinity(0, {cpu})
        seen.update(threads.vcpu_affinity(hostfs.HostFS(), os.getpid()))

    thread = threading.Thread(target=be_vcpu)
    thread.start()
    thread.join()

    assert seen == {5: frozenset({cpu})}
