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

"""Tests of finding users of pages that no guest of ours has."""

from __future__ import annotations

from collections.abc import Mapping
import os
import pathlib

import pytest

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import cgroups
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from tests.fixtures.kernel import FakeKernel
from tests.fixtures.kernel import FakeNode

KIB = 2048
GIB = 1048576
MIB = 1048576
HERE = model.PoolKey(0, KIB)
THERE = model.PoolKey(1, KIB)
LARGE = model.PoolKey(1, GIB)
GUEST = '00000000-0000-4000-8000-000000000001'
SWITCH = '/system.slice/ovs-vswitchd.service'

Found = dict[model.PoolKey, dict[str, int]]


def look(
    kernel: FakeKernel,
    ours: Mapping[model.PoolKey, int] | None = None,
    skip_pids: tuple[int, ...] = (),
) -> Found:
    """Ask for the occupants of a kernel."""
    pools = hugetlb.Hugetlb(kernel.fs, kernel.write).pools()
    return cgroups.occupants(kernel.fs, pools, ours or {}, skip_pids)


@pytest.fixture
def kernel(tmp_path: pathlib.Path) -> FakeKernel:
    return FakeKernel(
        tmp_path,
        {
            0: FakeNode(pools={KIB: 20}),
            1: FakeNode(pools={KIB: 20, GIB: 2}),
        },
    )


class TestUnified:
    def test_no_users(self, kernel: FakeKernel) -> None:
        assert look(kernel) == {}

    def test_a_switch_and_a_guest_of_ours(self, kernel: FakeKernel) -> None:
        pid = kernel.start_guest(GUEST, {HERE: 5, THERE: 1})
        kernel.take({HERE: 3, THERE: 2, LARGE: 1}, cgroup=SWITCH)

        assert look(kernel, {HERE: 5, THERE: 1}, (pid,)) == {
            HERE: {SWITCH: 3},
            THERE: {SWITCH: 2},
            LARGE: {SWITCH: 1},
        }

    def test_a_guest_that_is_not_ours(self, kernel: FakeKernel) -> None:
        pid = kernel.start_guest(GUEST, {HERE: 5})

        assert look(kernel) == {
            HERE: {f'/machine.slice/machine-qemu\\x2d{pid}.scope': 5}
        }

    def test_containers_within_others(self, kernel: FakeKernel) -> None:
        kernel.take({HERE: 1}, cgroup='/kubepods')
        kernel.take({HERE: 2}, cgroup='/kubepods/pod1/web')
        kernel.take({HERE: 4}, cgroup='/kubepods/pod1/db')
        kernel.take({HERE: 3}, cgroup='/kubepods/pod1/db')

        assert look(kernel) == {
            HERE: {
                '/kubepods': 1,
                '/kubepods/pod1/web': 2,
                '/kubepods/pod1/db': 7,
            }
        }

    def test_a_controller_that_is_off_below(
        self, kernel: FakeKernel, tmp_path: pathlib.Path
    ) -> None:
        kernel.take({HERE: 2}, cgroup='/kubepods/pod1')
        for path in (tmp_path / 'sys/fs/cgroup/kubepods/pod1').iterdir():
            path.unlink()

        assert look(kernel) == {HERE: {'/kubepods': 2}}

    def test_a_controller_that_is_off(self, tmp_path: pathlib.Path) -> None:
        kernel = FakeKernel(
            tmp_path, {0: FakeNode(pools={KIB: 9})}, cgroups=False
        )
        pid = kernel.start_guest(GUEST, {HERE: 4})
        kernel.take({HERE: 3})

        assert look(kernel, {HERE: 4}, (pid,)) == {HERE: {cgroups.UNKNOWN: 3}}

    def test_what_no_cgroup_accounts_for(
        self, kernel: FakeKernel, tmp_path: pathlib.Path
    ) -> None:
        kernel.take({HERE: 7}, cgroup=SWITCH)
        (tmp_path / f'sys/fs/cgroup{SWITCH}/hugetlb.2MB.numa_stat').write_text(
            f'total={4 * 2 * MIB} N0={4 * 2 * MIB} N1=0\n'
        )
        (
            tmp_path / 'sys/fs/cgroup/system.slice/hugetlb.2MB.numa_stat'
        ).write_text(f'total={5 * 2 * MIB} N0={5 * 2 * MIB} N1=0\n')

        assert look(kernel) == {
            HERE: {SWITCH: 4, '/system.slice': 1, cgroups.UNKNOWN: 2}
        }

    def test_a_guest_that_is_gone_meanwhile(self, kernel: FakeKernel) -> None:
        kernel.take({HERE: 3}, cgroup=SWITCH)

        assert look(kernel, {}, (4711,)) == {HERE: {SWITCH: 3}}

    def test_a_process_that_names_a_cgroup_outside(
        self,
        kernel: FakeKernel,
        tmp_path: pathlib.Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        # The kernel does so when this process is in a namespace of cgroups.
        pid = kernel.take({HERE: 3}, cgroup=SWITCH)
        (tmp_path / f'proc/{pid}/cgroup').write_text('0::/../../../etc\n')
        listed = []
        listdir = os.listdir

        def watched(path: str) -> list[str]:
            listed.append(os.fspath(path))
            return listdir(path)

        monkeypatch.setattr(os, 'listdir', watched)

        assert look(kernel, {}, (pid,)) == {HERE: {SWITCH: 3}}
        assert not [path for path in listed if '..' in path]


class TestVersionOne:
    @pytest.fixture
    def fs(self, tmp_path: pathlib.Path) -> hostfs.HostFS:
        """A guest in one group, and a database in a container."""
        fs = hostfs.HostFS(tmp_path / 'sys', tmp_path / 'proc')
        root = fs.sys / 'fs/cgroup/hugetlb'
        for path, own, below in (
            ('', 0, 12),
            ('machine/guest', 6, 6),
            ('machine', 0, 6),
            ('docker/0123', 4, 4),
            ('docker', 2, 6),
        ):
            folder = root / path
            folder.mkdir(parents=True, exist_ok=True)
            (folder / 'hugetlb.2MB.numa_stat').write_text(
                f'total={own * 2 * MIB} N0={own * 2 * MIB} N1=0\n'
                f'hierarchical_total={below * 2 * MIB} '
                f'N0={below * 2 * MIB} N1=0\n'
            )
        (fs.proc / '7').mkdir(parents=True)
        (fs.proc / '7/cgroup').write_text(
            '11:memory:/machine/else\n'
            '4:cpuset,hugetlb:/machine/guest/emulator\n'
            '0::/\n'
        )
        return fs

    def test_groups_have_their_own_pages(self, fs: hostfs.HostFS) -> None:
        pools = {HERE: model.Pool(0, KIB, 20, 8)}

        found = cgroups.occupants(fs, pools, {HERE: 6}, [7])

        assert found == {HERE: {'/docker': 2, '/docker/0123': 4}}

    def test_pages_of_other_pools_are_left_out(
        self, fs: hostfs.HostFS
    ) -> None:
        pools = {THERE: model.Pool(1, KIB, 20, 19)}

        found = cgroups.occupants(fs, pools, {}, [7])

        assert found == {THERE: {cgroups.UNKNOWN: 1}}


def test_a_host_without_cgroups(tmp_path: pathlib.Path) -> None:
    fs = hostfs.HostFS(tmp_path / 'sys', tmp_path / 'proc')
    pools = {
        HERE: model.Pool(0, KIB, 20, 8),
        THERE: model.Pool(1, KIB, 20, 20),
        LARGE: model.Pool(1, GIB, 2, 1),
    }

    assert cgroups.occupants(fs, pools, {HERE: 10, LARGE: 1}) == {
        HERE: {cgroups.UNKNOWN: 2}
    }


def test_what_they_have_reserved(kernel: FakeKernel) -> None:
    guest = kernel.start_guest('7f1c0000-0000-4000-8000-000000000001', {})
    group = kernel.fs.sys / 'fs/cgroup'
    for path, kib in (
        ('', 3000 * 1024),
        ('a.slice', 100 * 2048),
        ('a.slice/b.service', 60 * 2048),
        ('machine.slice', 900 * 2048),
        (f'machine.slice/machine-qemu\\x2d{guest}.scope', 900 * 2048),
        ('idle.slice', 0),
    ):
        folder = group / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'hugetlb.2MB.rsvd.current').write_text(f'{kib * 1024}\n')
    found = cgroups.reserved(kernel.fs, [2048, 1048576], [guest])
    assert found[2048]['/a.slice'] == 40
    assert found[2048]['/a.slice/b.service'] == 60
    assert not any('qemu' in path for path in found[2048])
    assert found.keys() == {2048}
