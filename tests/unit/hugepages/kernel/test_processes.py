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

"""Tests of finding running guests and their memory."""

from __future__ import annotations

import pathlib

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import processes
from tests.fixtures.kernel import FakeKernel

KIB = 2048
GIB = 1048576
HERE = model.PoolKey(0, KIB)
GUEST = '00000000-0000-4000-8000-000000000001'
OTHER = '00000000-0000-4000-8000-000000000002'


@pytest.fixture
def kernel(tmp_path: pathlib.Path) -> FakeKernel:
    kernel = FakeKernel(tmp_path)
    kernel.write_nr(0, KIB, 8)
    return kernel


def process(
    root: pathlib.Path,
    pid: int,
    *words: str,
    stat: str = '',
    user: int = 0,
    cgroup: str = '/',
) -> None:
    """Have a process that the kernel of the tests knows nothing of."""
    folder = root / 'proc' / str(pid)
    folder.mkdir(parents=True)
    (folder / 'cmdline').write_text(''.join(f'{word}\0' for word in words))
    (folder / 'stat').write_text(
        stat or f'{pid} (qemu) S 1' + ' 0' * 17 + ' 77 0 0\n'
    )
    (folder / 'status').write_text(f'Name:\tqemu\nUid:\t{user}\t0\t0\t0\n')
    (folder / 'cgroup').write_text(f'0::{cgroup}\n')


class TestRunning:
    def test_guests_beside_other_processes(self, kernel: FakeKernel) -> None:
        one = kernel.start_guest(GUEST, {HERE: 1}, name='instance-0000000a')
        two = kernel.start_guest(OTHER, {HERE: 1}, name='instance-0000000b')
        kernel.take({HERE: 1})

        assert processes.running(kernel.fs) == {
            GUEST: processes.GuestProcess(
                one, GUEST, 'instance-0000000a', 5100
            ),
            OTHER: processes.GuestProcess(
                two, OTHER, 'instance-0000000b', 5200
            ),
        }

    def test_a_guest_that_has_ended(self, kernel: FakeKernel) -> None:
        kernel.start_guest(GUEST, {HERE: 1})
        kernel.start_guest(OTHER, {HERE: 1})

        kernel.stop_guest(GUEST)
        kernel.stop_guest(OTHER, zombie=True)

        assert processes.running(kernel.fs) == {}

    def test_of_two_with_one_uuid_the_last_counts(
        self, tmp_path: pathlib.Path
    ) -> None:
        fs = hostfs.HostFS(tmp_path, tmp_path / 'proc')
        fields = ' 0' * 17
        for pid, started in ((7, 50), (8, 90), (9, 60)):
            process(
                tmp_path,
                pid,
                *('qemu', '-uuid', GUEST),
                stat=f'{pid} (a) S 0) S 1{fields} {started} 0\n',
            )

        assert processes.running(fs) == {
            GUEST: processes.GuestProcess(8, GUEST, '', 90)
        }

    @pytest.mark.parametrize(
        'words',
        [
            ('qemu-system-x86_64', '-name', 'guest=a'),
            ('qemu-system-x86_64', '-uuid'),
            ('qemu-system-x86_64', '-uuid', 'none'),
            ('qemu-system-x86_64', '-uuid', f'{GUEST}0'),
            ('qemu-system-x86_64', '-uuid', f'{{{GUEST}}}'),
            ('qemu-system-x86_64', '-uuid', f'urn:uuid:{GUEST}'),
            ('qemu-system-x86_64', '-uuid', GUEST.replace('-', '')),
            ('virt-install', '--uuid', GUEST),
            ('sh', '-c', f'qemu -uuid {GUEST}'),
            (),
        ],
    )
    def test_what_is_no_guest(
        self, tmp_path: pathlib.Path, words: tuple[str, ...]
    ) -> None:
        process(tmp_path, 7, *words)

        fs = hostfs.HostFS(tmp_path, tmp_path / 'proc')
        assert processes.running(fs) == {}
        assert processes.guest(fs, 7) is None

    @pytest.mark.parametrize(
        ('cgroup', 'found'),
        [
            (
                r'/machine.slice/machine-qemu\x2d1\x2dinstance\x2d00000001'
                '.scope/libvirt/emulator',
                True,
            ),
            ('/machine/qemu-1-instance-00000001.libvirt-qemu/vcpu0', True),
            ('/../../docker-7.scope/machine/qemu-1-a.libvirt-qemu', True),
            ('/', False),
            ('/system.slice/postgresql.service', False),
            ('/system.slice/libvirtd.service', False),
            ('/user.slice/user-1000.slice/a.libvirt-qemu', False),
        ],
    )
    def test_of_other_users_libvirt_says_which_are_guests(
        self, tmp_path: pathlib.Path, cgroup: str, found: bool
    ) -> None:
        words = ('qemu', '-name', 'guest=a', '-uuid', GUEST)
        process(tmp_path, 7, *words, user=1000, cgroup=cgroup)
        fs = hostfs.HostFS(tmp_path, tmp_path / 'proc', tmp_path / 'run')

        assert (processes.guest(fs, 7) is not None) is found

    @pytest.mark.parametrize(
        ('name', 'noted', 'found'),
        [
            ('a', '7', True),
            ('a', '8', False),
            ('../../b', '7', False),
            ('a' * 300, '7', False),
        ],
    )
    def test_of_guests_without_control_groups_libvirt_notes_the_process(
        self, tmp_path: pathlib.Path, name: str, noted: str, found: bool
    ) -> None:
        words = ('qemu', '-name', f'guest={name}', '-uuid', GUEST)
        process(tmp_path, 7, *words, user=1000)
        folder = tmp_path / 'run/libvirt/qemu'
        folder.mkdir(parents=True)
        (folder / 'a.pid').write_text(f'{noted}\n')
        (tmp_path / 'run/b.pid').write_text(noted)
        fs = hostfs.HostFS(tmp_path, tmp_path / 'proc', tmp_path / 'run')

        assert (processes.guest(fs, 7) is not None) is found

    def test_a_stranger_doesn_t_stand_for_a_guest(
        self, tmp_path: pathlib.Path
    ) -> None:
        # The guest started first.
        process(tmp_path, 7, 'qemu', '-uuid', GUEST)
        late = '8 (qemu) S 1' + ' 0' * 17 + ' 99 0 0\n'
        process(tmp_path, 8, 'qemu', '-uuid', GUEST, stat=late, user=1000)
        fs = hostfs.HostFS(tmp_path, tmp_path / 'proc', tmp_path / 'run')

        assert processes.running(fs)[GUEST].pid == 7

    @pytest.mark.parametrize(
        ('argument', 'name'),
        [
            ('guest=instance-00000001,debug-threads=on', 'instance-00000001'),
            ('guest=a,,b=c,debug-threads=on', 'a,b=c'),
            ('old', 'old'),
        ],
    )
    def test_names(
        self, tmp_path: pathlib.Path, argument: str, name: str
    ) -> None:
        uuid = 'ABCDEF00-0000-4000-8000-000000000001'
        process(tmp_path, 7, 'qemu', '-name', argument, '-uuid', uuid)

        fs = hostfs.HostFS(tmp_path, tmp_path / 'proc')
        expected = processes.GuestProcess(7, uuid.lower(), name, 77)
        assert processes.running(fs) == {uuid.lower(): expected}
        assert processes.guest(fs, 7) == expected

    def test_a_process_that_ends_while_it_is_looked_at(
        self, tmp_path: pathlib.Path
    ) -> None:
        process(tmp_path, 7, 'qemu', '-uuid', GUEST)
        (tmp_path / 'proc/7/stat').unlink()
        (tmp_path / 'proc/8').mkdir()

        fs = hostfs.HostFS(tmp_path, tmp_path / 'proc')
        assert processes.running(fs) == {}

    def test_a_process_that_can_not_be_read_is_not_gone(
        self, kernel: FakeKernel, tmp_path: pathlib.Path
    ) -> None:
        # Given a process whose arguments are no file that can be read.
        pid = kernel.start_guest(GUEST, {})
        path = tmp_path / f'proc/{pid}/cmdline'
        path.unlink()
        path.mkdir()

        with pytest.raises(exception.KernelError) as caught:
            processes.running(kernel.fs)

        assert str(caught.value) == (
            f'{path}: expected a file that can be read, found Is a directory'
        )

    def test_no_processes_at_all(self, tmp_path: pathlib.Path) -> None:
        fs = hostfs.HostFS(tmp_path, tmp_path / 'proc')

        with pytest.raises(exception.KernelError) as caught:
            processes.running(fs)

        assert str(caught.value) == (
            f'{tmp_path}/proc: expected a folder for each process, found No '
            'such file or directory'
        )


# From QEMU 7.2 under libvirt 9.0, and from a process with large pages.
NUMA_MAPS = """\
55d0c1a6f000 default file=/usr/bin/qemu-system-x86_64 mapped=2 N1=2 kernelpagesize_kB=4
7f1a40000000 bind:1 file=/memfd:ram-node0\\040(deleted) huge dirty=512 N1=512 kernelpagesize_kB=2048
7f1a80000000 bind:3 file=/dev/hugepages/libvirt/qemu/1-a/huge huge anon=3 dirty=510 active=0 N2=10 N3=500 kernelpagesize_kB=2048
7f1ac0000000 prefer:1 file=/anon_hugepage\\040(deleted) huge anon=2 dirty=2 N1=2 kernelpagesize_kB=2048
7f1b00000000 default file=/huge1G/x huge dirty=1 N3=1 kernelpagesize_kB=1048576
7f1b40000000 default file=/mnt/huge mapped=77 N0=77 kernelpagesize_kB=4
7f1b50000000 default file=/memfd:x huge
7f1b60000000 default anon=512 dirty=512 N0=512 kernelpagesize_kB=4
7ffd2f7e1000 default stack anon=4 dirty=4 N1=4 kernelpagesize_kB=4
"""  # noqa: E501


class TestPages:
    def test_huge_mappings_only(self, tmp_path: pathlib.Path) -> None:
        process(tmp_path, 7, 'qemu')
        (tmp_path / 'proc/7/numa_maps').write_text(NUMA_MAPS)
        fs = hostfs.HostFS(tmp_path, tmp_path / 'proc')

        assert processes.pages_of(processes.huge_maps(fs, 7)) == {
            model.PoolKey(1, KIB): 514,
            model.PoolKey(2, KIB): 10,
            model.PoolKey(3, KIB): 500,
            model.PoolKey(3, GIB): 1,
        }

    @pytest.mark.parametrize(
        ('size_kib', 'expected'), [(KIB, 3 * KIB), (GIB, GIB + KIB)]
    )
    def test_memory_that_is_mapped_and_not_touched(
        self, tmp_path: pathlib.Path, size_kib: int, expected: int
    ) -> None:
        # Of 4 pages of 2 MiB 2 are touched, of 2 of 1 GiB one. Of which size a
        # page is that nothing was touched of isn't known.
        process(tmp_path, 7, 'qemu')
        folder = tmp_path / 'proc/7'
        (folder / 'maps').write_text(
            '100000000000-100000800000 rw-s 00000000 00:0f 7 /memfd:a\n'
            '200000000000-200080000000 rw-s 00000000 00:0f 8 /memfd:b\n'
            '300000000000-300000200000 rw-p 00000000 00:0f 9 /memfd:c\n'
            '400000000000-400000200000 rw-p 00000000 00:00 0\n'
        )
        (folder / 'numa_maps').write_text(
            '100000000000 bind:0 file=/memfd:a huge N0=2 '
            'kernelpagesize_kB=2048\n'
            '200000000000 bind:0 file=/memfd:b huge N0=1 '
            'kernelpagesize_kB=1048576\n'
            '300000000000 bind:0 file=/memfd:c huge\n'
            '400000000000 default anon=1 N0=1 kernelpagesize_kB=4\n'
        )
        maps = processes.huge_maps(
            hostfs.HostFS(tmp_path, tmp_path / 'proc'), 7
        )

        assert processes.untouched_kib(maps, size_kib) == expected
        # No other process can map the one page that isn't known.
        assert processes.untouched_kib(maps, size_kib, private=True) == 0

    def test_memory_that_comes_and_goes_keeps_no_pages(
        self, tmp_path: pathlib.Path
    ) -> None:
        process(tmp_path, 7, 'qemu')
        folder = tmp_path / 'proc/7'
        name = '/dev/hugepages/libvirt/qemu/1-one/qemu_back_mem'
        (folder / 'maps').write_text(
            f'100000000000-100000800000 rw-s 00000000 00:0f 7 {name}.a.x\n'
            f'200000000000-200000800000 rw-s 00000000 00:0f 8 {name}.b.x\n'
        )
        (folder / 'numa_maps').write_text(
            f'100000000000 bind:0 file={name}.ram-node0.Ab1 huge N0=1 '
            'kernelpagesize_kB=2048\n'
            f'200000000000 bind:0 file={name}.memvirtiomem0.Cd2 huge N0=1 '
            'kernelpagesize_kB=2048\n'
        )
        maps = processes.huge_maps(
            hostfs.HostFS(tmp_path, tmp_path / 'proc'), 7
        )

        assert processes.untouched_kib(maps, 2048) == 3 * 2048
        assert processes.pages_of(maps) == {model.PoolKey(0, 2048): 2}

    def test_a_process_without(self) -> None:
        assert processes.pages_of('') == {}

    def test_a_guest_that_has_not_touched_all(
        self, kernel: FakeKernel
    ) -> None:
        pid = kernel.start_guest(GUEST, {HERE: 5}, touch=False)
        read = processes.MapsFile(kernel.fs)
        assert processes.pages_of(read(pid)) == {}

        kernel.touch(GUEST, 2)

        assert processes.pages_of(read(pid)) == {HERE: 2}
        assert read(pid) == kernel.read_maps(pid)


class TestMapsFile:
    @pytest.mark.parametrize('way', ['file', 'kernel'])
    def test_a_process_that_is_gone(
        self, kernel: FakeKernel, way: str
    ) -> None:
        pid = kernel.start_guest(GUEST, {HERE: 1})
        kernel.stop_guest(GUEST)
        read = (
            processes.MapsFile(kernel.fs)
            if way == 'file'
            else kernel.read_maps
        )

        with pytest.raises(ProcessLookupError):
            read(pid)

    def test_a_file_that_can_not_be_read(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / '7/numa_maps').mkdir(parents=True)

        with pytest.raises(exception.KernelError) as caught:
            processes.MapsFile(hostfs.HostFS(tmp_path, tmp_path))(7)

        assert str(caught.value) == (
            f'{tmp_path}/7/numa_maps: expected a file that can be read, found '
            'Is a directory'
        )
