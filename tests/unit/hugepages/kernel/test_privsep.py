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

"""Tests of the privileged helper: what it does, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import pathlib
import re
import subprocess
import sys
from typing import Any

from oslo_privsep import capabilities
import pytest

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import mempolicy
from nova_numa_hugepages.hugepages.kernel import privsep
from nova_numa_hugepages.hugepages.kernel import processes
from tests.fixtures.kernel import FakeKernel
from tests.fixtures.kernel import FakeNode

KIB = 2048
GIB = 1048576
HERE = model.PoolKey(0, KIB)
GUEST = '00000000-0000-4000-8000-000000000001'


@pytest.fixture
def privileged(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is the privileged one."""
    monkeypatch.setattr(privsep.context, 'client_mode', False)


@pytest.fixture
def kernel(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> FakeKernel:
    """The kernel of this host."""
    kernel = FakeKernel(tmp_path, {0: FakeNode(pools={KIB: 8}), 1: FakeNode()})
    monkeypatch.setattr(privsep, '_FS', kernel.fs)
    return kernel


def nr_file(kernel: FakeKernel, node: int, size_kib: int) -> pathlib.Path:
    return hugetlb.nr_file(kernel.fs, node, size_kib)


class TestContext:
    def test_it_keeps_one_capability(self) -> None:
        # Nova's fixtures drop the defaults that modules gave to options when
        # they were imported, so this takes a process of its own.
        done = subprocess.run(
            [
                *(sys.executable, '-W', 'ignore', '-c'),
                f'from {privsep.__name__} import context; '
                'print(list(context.conf.capabilities))',
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )

        assert done.stdout.strip() == f'[{capabilities.CAP_SYS_PTRACE:d}]', (
            done.stderr
        )

    def test_the_helper_finds_it_by_its_name(self) -> None:
        command = privsep.context.helper_command('/tmp/x/privsep.sock')

        assert command[-4:] == [
            '--privsep_context',
            'nova_numa_hugepages.hugepages.kernel.privsep.context',
            '--privsep_sock_path',
            '/tmp/x/privsep.sock',
        ]

    def test_the_shipped_rule_of_sudo_starts_it(self) -> None:
        root = pathlib.Path(__file__).resolve().parents[4]
        rule = (root / 'etc/nova-numa-hugepages/sudoers').read_text()
        words = [word for word in rule.split() if word != '\\']

        at = words.index('--privsep_context')
        assert words[at + 1] == privsep.context.pypath

    def test_it_reaches_nothing_else(self) -> None:
        reached = {
            name
            for name, value in vars(privsep).items()
            if privsep.context.is_entrypoint(value)
        }

        assert reached == {
            '_answer',
            '_write_number',
            '_huge_maps',
            '_pod_promises',
        }

    def test_it_is_about_the_real_files(self) -> None:
        assert (
            hostfs.HostFS(pathlib.Path('/sys'), pathlib.Path('/proc'))
            == privsep._FS
        )


@pytest.mark.usefixtures('privileged')
class TestPrivileged:
    def test_each_verb_writes_its_file(self, kernel: FakeKernel) -> None:
        pools = hugetlb.Hugetlb(kernel.fs, privsep.write_number)

        pools.set_persistent(model.PoolKey(1, KIB), 17)
        pools.compact(1)
        pools.demote(model.PoolKey(0, GIB), 2)

        assert nr_file(kernel, 1, KIB).read_text() == '17'
        assert hugetlb.compact_file(kernel.fs, 1).read_text() == '1'
        assert hugetlb.demote_file(kernel.fs, 0, GIB).read_text() == '2'

    @pytest.mark.parametrize(
        'path',
        [
            'sys/devices/system/node/node2/compact',
            'sys/devices/system/node/node0/../node0/compact',
            'sys/devices/system/node/node0/online',
            'sys/devices/system/node/node0/hugepages/hugepages-4kB'
            '/nr_hugepages',
            'sys/devices/system/node/node0/hugepages/hugepages-2048kB'
            '/free_hugepages',
            'sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages',
            'proc/sys/vm/drop_caches',
            '',
        ],
    )
    def test_no_other_file_is_written(
        self, kernel: FakeKernel, tmp_path: pathlib.Path, path: str
    ) -> None:
        with pytest.raises(ValueError, match='is no file') as caught:
            privsep._write_number(f'{tmp_path}/{path}', 1)

        assert str(caught.value) == (
            f"'{tmp_path}/{path}' is no file that sets pools of this host"
        )

    def test_the_pages_of_the_host_are_changed_on_one_node(
        self, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = hugetlb.host_file(kernel.fs, KIB)
        found = []

        @contextlib.contextmanager
        def preferring(node: int) -> Iterator[None]:
            found.append((node, path.read_text()))
            yield
            found.append((node, path.read_text()))

        monkeypatch.setattr(mempolicy, 'preferring', preferring)

        privsep.write_number(path, 4096, 1)

        assert found == [(1, ''), (1, '4096')]

    @pytest.mark.parametrize(
        ('node', 'number', 'reason'),
        [
            (None, 1, 'is no file that sets pools of this host'),
            (2, 1, 'is no file that sets pools of this host by node 2'),
            ('0', 1, "is no file that sets pools of this host by node '0'"),
            (0, 4097, '4097 is not between 0 and 4096'),
        ],
    )
    def test_the_pages_of_the_host_need_a_node_of_it(
        self, kernel: FakeKernel, node: Any, number: int, reason: str
    ) -> None:
        path = hugetlb.host_file(kernel.fs, KIB)

        with pytest.raises(ValueError, match=re.escape(reason)):
            privsep._write_number(str(path), number, node)

        assert path.read_text() == ''

    @pytest.mark.parametrize('path', [None, 1, b'/dev/null'])
    def test_what_is_no_path_is_not_written(
        self, kernel: FakeKernel, path: Any
    ) -> None:
        with pytest.raises(ValueError, match='is no file'):
            privsep._write_number(path, 1)

    @pytest.mark.parametrize(
        ('size_kib', 'number', 'reason'),
        [
            (KIB, -1, '-1 is not between 0 and 2048'),
            (KIB, 2049, '2049 is not between 0 and 2048'),
            (KIB, 1.0, '1.0 is not between 0 and 2048'),
            (KIB, '1', "'1' is not between 0 and 2048"),
            (KIB, True, 'True is not between 0 and 2048'),
            (GIB, 5, '5 is not between 0 and 4'),
        ],
    )
    @pytest.mark.parametrize('file', [hugetlb.nr_file, hugetlb.demote_file])
    def test_no_more_than_fits_is_written(
        self,
        kernel: FakeKernel,
        file: Callable[[hostfs.HostFS, int, int], pathlib.Path],
        size_kib: int,
        number: Any,
        reason: str,
    ) -> None:
        before = nr_file(kernel, 0, KIB).read_text()

        with pytest.raises(ValueError, match='is not between') as caught:
            privsep._write_number(str(file(kernel.fs, 0, size_kib)), number)

        assert str(caught.value) == reason
        assert nr_file(kernel, 0, KIB).read_text() == before

    def test_files_that_can_not_be_used(
        self, kernel: FakeKernel, tmp_path: pathlib.Path
    ) -> None:
        # None of our errors can be made again on the other side.
        for path in ('node0/meminfo', 'online'):
            (tmp_path / 'sys/devices/system/node' / path).unlink()

            with pytest.raises(ValueError, match='No such file'):
                privsep._write_number(str(nr_file(kernel, 0, KIB)), 1)

    def test_the_huge_pages_of_a_guest(self, kernel: FakeKernel) -> None:
        pid = kernel.start_guest(GUEST, {HERE: 3})

        text = privsep.numa_maps(pid)

        assert processes.pages_of(text) == {HERE: 3}
        assert [line.split()[1] for line in text.splitlines()] == ['bind:0']

    def test_other_processes_are_none_of_our_business(
        self, kernel: FakeKernel
    ) -> None:
        other = kernel.take({HERE: 3})

        for pid in (other, other + 1, 0, -1, str(other), '../1', None):
            with pytest.raises(ProcessLookupError):
                privsep._huge_maps(pid)

    def test_a_guest_that_ends_while_it_is_looked_at(
        self, kernel: FakeKernel
    ) -> None:
        pid = kernel.start_guest(GUEST, {HERE: 3})
        (kernel.fs.proc / f'{pid}' / 'numa_maps').unlink()

        with pytest.raises(ProcessLookupError):
            privsep._huge_maps(pid)
