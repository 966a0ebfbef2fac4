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

"""Files of huge pages that no process has, in a copy of a host."""

from __future__ import annotations

import os
import pathlib

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlbfs

MOUNTS = (
    '22 1 0:20 / / rw - ext4 /dev/vda rw\n'
    '30 22 0:30 / /dev/huge\\040pages rw shared:9 - hugetlbfs none rw\n'
)


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    for name in ('proc/1', 'proc/7/fd', 'dev/huge pages/deep', 'sys'):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / 'proc/1/mountinfo').write_text(MOUNTS)
    (tmp_path / 'proc/7/maps').write_text('')
    return tmp_path


def unowned(root: pathlib.Path) -> list[hugetlbfs.HugeFile]:
    return hugetlbfs.FileOwners(
        hostfs.HostFS(root / 'sys', root / 'proc', root / 'run')
    ).unowned()


def leave(root: pathlib.Path, name: str = 'left') -> os.stat_result:
    path = root / 'dev/huge pages' / name
    path.write_bytes(b'x' * 100_000)
    os.sync()
    return path.stat()


def test_no_files(root: pathlib.Path) -> None:
    assert unowned(root) == []


def test_files_that_no_process_has(root: pathlib.Path) -> None:
    leave(root)
    leave(root, 'deep/er')
    (root / 'dev/huge pages/empty').touch()
    (root / 'dev/huge pages/link').symlink_to('/etc/passwd')
    found = unowned(root)
    assert [file.path for file in found] == [
        '/dev/huge pages/deep/er',
        '/dev/huge pages/left',
    ]
    assert all(file.pages > 0 for file in found)


def test_one_that_is_mapped(root: pathlib.Path) -> None:
    status = leave(root)
    device = f'{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}'
    (root / 'proc/7/maps').write_text(
        '7f0000000000-7f0000200000 rw-s 00000000 '
        f'{device} {status.st_ino}                   /dev/hugepages/left\n'
    )
    assert unowned(root) == []


def test_one_that_is_open(root: pathlib.Path) -> None:
    leave(root)
    (root / 'proc/7/fd/3').symlink_to(root / 'dev/huge pages/left')
    assert unowned(root) == []


def test_a_process_that_may_not_be_looked_into(
    root: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(root)
    read = pathlib.Path.read_bytes

    def refuse(path: pathlib.Path) -> bytes:
        if path.parts[-2:] == ('7', 'maps'):
            raise PermissionError(13, 'Permission denied')
        return read(path)

    monkeypatch.setattr(pathlib.Path, 'read_bytes', refuse)
    (root / 'proc/7/status').write_text('Name:\tx\nHugetlbPages:\t0 kB\n')
    assert len(unowned(root)) == 1
    (root / 'proc/7/status').write_text('HugetlbPages:\t    2048 kB\n')
    with pytest.raises(exception.KernelError, match='CAP_SYS_PTRACE'):
        unowned(root)


def test_a_folder_that_may_not_be_read(
    root: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(os, 'scandir', refuse)
    with pytest.raises(exception.KernelError, match='CAP_DAC_READ_SEARCH'):
        unowned(root)


def test_one_that_is_open_by_its_inode(root: pathlib.Path) -> None:
    status = leave(root)
    (root / 'proc/7/fd/3').symlink_to(root / 'dev/huge pages/left')
    (root / 'proc/7/fdinfo').mkdir()
    info = root / 'proc/7/fdinfo/3'
    info.write_text(f'pos:\t0\nino:\t{status.st_ino}\n')
    assert unowned(root) == []
    info.write_text('pos:\t0\nino:\t1\n')
    assert len(unowned(root)) == 1


def test_other_file_systems_are_not_touched(
    root: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(root)
    (root / 'proc/7/fd/3').symlink_to('/mnt/nfs/disk')
    stat = os.stat

    def refuse(path: object, **options: object) -> os.stat_result:
        if 'fd' in str(path):
            raise OSError(116, 'Stale file handle')
        return stat(path, **options)  # type: ignore

    monkeypatch.setattr(os, 'stat', refuse)
    assert len(unowned(root)) == 1


def test_who_has_them_is_asked_again_when_something_changes(
    root: pathlib.Path,
) -> None:
    leave(root)
    now = 0.0
    owners = hugetlbfs.FileOwners(
        hostfs.HostFS(root / 'sys', root / 'proc', root / 'run'), lambda: now
    )
    assert len(owners.unowned()) == 1
    (root / 'proc/7/fd/3').symlink_to(root / 'dev/huge pages/left')
    assert len(owners.unowned()) == 1
    now = 300.0
    assert owners.unowned() == []
    leave(root, 'other')
    assert len(owners.unowned()) == 1


def test_too_many_files(
    root: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hugetlbfs, '_MOST_FILES', 1)
    leave(root)
    leave(root, 'other')
    with pytest.raises(exception.KernelError, match='more than 1 files'):
        unowned(root)


def test_a_mount_of_any_name(root: pathlib.Path) -> None:
    """Without the inode, it is found by where hugetlbfs is mounted."""
    (root / 'mnt/fast').mkdir(parents=True)
    (root / 'proc/1/mountinfo').write_text(
        '30 22 0:30 / /mnt/fast rw shared:9 - hugetlbfs none rw\n'
    )
    path = root / 'mnt/fast/left'
    path.write_bytes(b'x' * 100_000)
    os.sync()
    assert len(unowned(root)) == 1
    (root / 'proc/7/fd/3').symlink_to(path)
    assert unowned(root) == []
