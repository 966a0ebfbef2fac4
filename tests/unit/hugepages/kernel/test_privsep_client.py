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

"""Tests of what calls the privileged helper, and of a real helper.

`TestAsRoot` starts the privileged process on this machine. It writes nothing
that changes a pool.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import errno
import os
import pathlib
import subprocess
import sys

from oslo_privsep import daemon
import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import kubelet
from nova_numa_hugepages.hugepages.kernel import privsep
from tests.fixtures.kernel import FakeKernel
from tests.fixtures.kernel import FakeNode

KIB = 2048
SMALL = model.PoolKey(0, KIB)
LARGE = model.PoolKey(0, 1048576)
GUEST = '00000000-0000-4000-8000-000000000001'


@pytest.fixture
def kernel(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> FakeKernel:
    """The kernel of this host."""
    kernel = FakeKernel(tmp_path, {0: FakeNode(pools={KIB: 8}), 1: FakeNode()})
    monkeypatch.setattr(privsep, '_FS', kernel.fs)
    return kernel


class TestClient:
    """What the other side of the privileged process makes of its errors."""

    @pytest.mark.parametrize(
        ('raised', 'expected', 'text'),
        [
            (
                PermissionError(errno.EACCES, 'Permission denied'),
                exception.PoolsReadOnly,
                'huge page pools cannot be changed: {path}: Permission denied',
            ),
            (
                OSError(errno.EROFS, 'Read-only file system'),
                exception.PoolsReadOnly,
                'huge page pools cannot be changed: {path}: Read-only file '
                'system',
            ),
            (
                OSError(errno.EINVAL, 'Invalid argument'),
                exception.KernelError,
                '{path}: expected a file that can be written, found Invalid '
                'argument',
            ),
            (
                OSError('Premature eof'),
                exception.KernelError,
                '{path}: expected a file that can be written, found Premature '
                'eof',
            ),
            (
                ValueError('7 is not between 0 and 5'),
                exception.KernelError,
                '{path}: expected what this host has, found 7 is not between '
                '0 and 5',
            ),
            (
                daemon.FailedToDropPrivileges('helper exited (1)'),
                exception.PoolsReadOnly,
                'huge page pools cannot be changed: the privileged helper '
                'cannot be started: helper exited (1). Its command is the '
                'option helper_command of [numa_hugepages_privileged]',
            ),
        ],
    )
    def test_writing(
        self,
        kernel: FakeKernel,
        monkeypatch: pytest.MonkeyPatch,
        raised: Exception,
        expected: type[Exception],
        text: str,
    ) -> None:
        pools = hugetlb.Hugetlb(kernel.fs, privsep.write_number)
        monkeypatch.setattr(privsep, '_write_number', failing(raised))
        verbs: list[tuple[Callable[[], None], pathlib.Path]] = [
            (
                lambda: pools.set_persistent(SMALL, 1),
                hugetlb.nr_file(kernel.fs, *SMALL),
            ),
            (lambda: pools.compact(0), hugetlb.compact_file(kernel.fs, 0)),
            (
                lambda: pools.demote(LARGE, 1),
                hugetlb.demote_file(kernel.fs, *LARGE),
            ),
        ]
        for write, path in verbs:
            with pytest.raises(expected) as caught:
                write()

            assert str(caught.value) == text.format(path=path)

    def test_a_command_that_is_not_there(
        self, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        raised = FileNotFoundError(errno.ENOENT, 'No such file', 'sudo')
        monkeypatch.setattr(privsep, '_write_number', failing(raised))

        with pytest.raises(
            exception.PoolsReadOnly, match=r"cannot be started: .*'sudo'"
        ):
            privsep.write_number(hugetlb.nr_file(kernel.fs, *SMALL), 1)

    def test_a_guest_that_is_gone(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        raised = OSError(errno.ESRCH, os.strerror(errno.ESRCH))
        monkeypatch.setattr(privsep, '_huge_maps', failing(raised))

        with pytest.raises(ProcessLookupError):
            privsep.numa_maps(7)

    @pytest.mark.parametrize(
        ('raised', 'text'),
        [
            (
                PermissionError(errno.EACCES, 'Permission denied'),
                '/proc/7/numa_maps: expected a file that can be read, found '
                'Permission denied',
            ),
            (
                daemon.FailedToDropPrivileges('helper exited (1)'),
                '/proc/7/numa_maps: expected a file that can be read, found '
                'the privileged helper cannot be started: helper exited (1). '
                'Its command is the option helper_command of '
                '[numa_hugepages_privileged]',
            ),
            (
                FileNotFoundError(errno.ENOENT, 'No such file', 'sudo'),
                '/proc/7/numa_maps: expected a file that can be read, found '
                'the privileged helper cannot be started: [Errno 2] No such '
                "file: 'sudo'. Its command is the option helper_command of "
                '[numa_hugepages_privileged]',
            ),
        ],
    )
    def test_a_guest_that_can_not_be_looked_at(
        self, monkeypatch: pytest.MonkeyPatch, raised: Exception, text: str
    ) -> None:
        monkeypatch.setattr(privsep, '_huge_maps', failing(raised))

        with pytest.raises(exception.KernelError) as caught:
            privsep.numa_maps(7)

        assert str(caught.value) == text

    @pytest.mark.parametrize(
        ('raised', 'text'),
        [
            (
                PermissionError(errno.EACCES, 'Permission denied'),
                'found Permission denied',
            ),
            (
                daemon.FailedToDropPrivileges('helper exited (1)'),
                'cannot be started: helper exited',
            ),
            (ValueError('it is odd'), 'a file that can be used, found it is'),
            (
                FileNotFoundError(errno.ENOENT, 'No such file', 'sudo'),
                "cannot be started: .*'sudo'",
            ),
        ],
    )
    def test_a_kubelet_that_can_not_be_read(
        self,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: pathlib.Path,
        raised: Exception,
        text: str,
    ) -> None:
        monkeypatch.setattr(kubelet, 'STATE', tmp_path / 'state')
        monkeypatch.setattr(privsep, '_pod_promises', failing(raised))

        with pytest.raises(exception.KernelError, match=text):
            privsep.pod_promises()

    def test_without_a_kubelet_the_helper_is_not_asked(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
    ) -> None:
        monkeypatch.setattr(kubelet, 'STATE', tmp_path / 'none' / 'state')
        monkeypatch.setattr(privsep, '_pod_promises', failing(OSError()))

        assert privsep.pod_promises() == {}

    def test_the_helper_is_looked_for_first(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        error = daemon.FailedToDropPrivileges('helper exited (1)')
        monkeypatch.setattr(privsep, '_answer', failing(error))

        with pytest.raises(
            exception.PoolsReadOnly, match='cannot be started: helper exited'
        ):
            privsep.check()


def failing(error: Exception) -> Callable[..., None]:
    def fail(*args: object) -> None:
        raise error

    return fail


_HELPED = """
import sys
from oslo_config import cfg
from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hostfs, hugetlb, privsep
cfg.CONF([], project='test')
cfg.CONF.set_override('helper_command', sys.argv[1], privsep.CFG_SECTION)
privsep.check()
kernel = hugetlb.Hugetlb(hostfs.HostFS(), privsep.write_number)
node = kernel.nodes()[0]
largest = model.PoolKey(node, kernel.sizes(node)[-1])
kernel.set_persistent(largest, kernel.pool(largest).persistent)
kernel.compact(node)
try:
    kernel.set_persistent(model.PoolKey(4711, 2048), 1)
except exception.KernelError as error:
    print(error)
print('maps:', repr(privsep.numa_maps(int(sys.argv[2]))))
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or hugetlb.read_only_reason(hostfs.HostFS()) is not None,
    reason='needs root on a host with huge pages',
)
class TestAsRoot:
    @pytest.fixture
    def stranger(self) -> Iterator[int]:
        """What looks like a guest, with rights that the helper hasn't."""
        with subprocess.Popen(
            ['/bin/sh', '-c', 'echo up; read x', 'qemu', '-uuid', GUEST],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            yield process.pid
            process.kill()

    def test_pools_are_written_and_a_guest_looked_at(
        self, stranger: int
    ) -> None:
        helper = pathlib.Path(sys.executable).parent / 'privsep-helper'

        done = subprocess.run(
            [
                *(sys.executable, '-W', 'ignore', '-c', _HELPED),
                *(str(helper), str(stranger)),
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )

        path = hugetlb.nr_file(hostfs.HostFS(), 4711, KIB)
        assert done.stdout.splitlines() == [
            f'{path}: expected what this host has, found {str(path)!r} is no '
            'file that sets pools of this host',
            "maps: ''",
        ], done.stderr
