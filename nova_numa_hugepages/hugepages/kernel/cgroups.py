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

"""Users of the huge pages that no guest of ours has.

The kernel counts them by cgroup, if the controller for huge pages is on, as
it is for containers. Users without a cgroup of their own are unknown: to read
the memory maps of all processes would take too long, and is none of our
business.

Source: the part on HugeTLB in ``Documentation/admin-guide/cgroup-v2.rst`` and
``hugetlb_cgroup_read_numa_stat`` in ``mm/hugetlb_cgroup.c`` of the kernel.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import os
import re

from nova_numa_hugepages import exception
from nova_numa_hugepages.core import units
from nova_numa_hugepages.core.printable import printable
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hostfs

UNKNOWN = 'unknown'
"""The user of pages that no cgroup accounts for."""

_ALL_NODES = -1

# The kernel has no longer paths. Who makes a group chooses its name.
_LONGEST = 4096

_LINE = re.compile(r'^(\w*total)=\d+((?: N\d+=\d+)*)$', re.MULTILINE)
_NODE = re.compile(r'N(\d+)=(\d+)')


def occupants(
    fs: hostfs.HostFS,
    pools: Mapping[model.PoolKey, model.Pool],
    ours: Mapping[model.PoolKey, int],
    skip_pids: Collection[int] = (),
) -> dict[model.PoolKey, dict[str, int]]:
    """Find the users of the pages that are in use and not ours.

    The counters aren't read at one time, so what is attributed may differ
    from what is in use by what has changed in between.

    :param pools: the pools, as the kernel says
    :param ours: pages in use that our guests have, by pool
    :param skip_pids: the processes of our guests, whose cgroups are left out
    :returns: by pool: the path of a cgroup, or `UNKNOWN`, to pages. Pools
        without are left out.
    """
    found: dict[model.PoolKey, dict[str, int]] = {}
    others = {
        key: pool.in_use - ours.get(key, 0) for key, pool in pools.items()
    }
    if any(count > 0 for count in others.values()):
        for path, key, count in users(fs, pools, skip_pids):
            found.setdefault(key, {})[path] = count
    for key, count in others.items():
        rest = count - sum(found.get(key, {}).values())
        if rest > 0:
            found.setdefault(key, {})[UNKNOWN] = rest
    return found


def users(
    fs: hostfs.HostFS,
    pools: Collection[model.PoolKey],
    skip_pids: Collection[int] = (),
) -> Iterator[tuple[str, model.PoolKey, int]]:
    """Find the pages of each cgroup that isn't one of our guests.

    :param pools: those that there are
    :param skip_pids: the processes of our guests, whose cgroups are left out
    :returns: the path of a cgroup, a pool, and how many pages it has of it,
        without those of the cgroups in it
    """
    tree = _tree(fs)
    if tree is None:
        return
    homes = {tree.home(fs, pid) for pid in skip_pids}
    for size_kib in sorted({key.size_kib for key in pools}):
        name = f'hugetlb.{_name(size_kib)}.numa_stat'
        for path, usage in tree.walk(name):
            if path in homes:
                continue
            for node, size in usage.items():
                key = model.PoolKey(node, size_kib)
                count = size // (size_kib * 1024)
                if key in pools and count > 0:
                    yield printable(path, _LONGEST), key, count


def reserved(
    fs: hostfs.HostFS,
    sizes_kib: Collection[int],
    skip_pids: Collection[int] = (),
) -> dict[int, dict[str, int]]:
    """Find what cgroups that aren't our guests have reserved, used or not.

    :param skip_pids: the processes of our guests, whose cgroups are left out
    :returns: by page size in KiB: the path of a cgroup to pages, without
        those of the cgroups in it
    """
    tree = _tree(fs)
    if tree is None:
        return {}
    homes = {tree.home(fs, pid) for pid in skip_pids}
    found: dict[int, dict[str, int]] = {}
    file = 'usage_in_bytes' if tree.controller else 'current'
    for size_kib in sizes_kib:
        name = f'hugetlb.{_name(size_kib)}.rsvd.{file}'
        for path, usage in tree.walk(name):
            count = usage.get(_ALL_NODES, 0) // (size_kib * 1024)
            if path not in homes and count > 0:
                found.setdefault(size_kib, {})[printable(path, _LONGEST)] = (
                    count
                )
    return found


def _name(size_kib: int) -> str:
    """Write a page size as names of files have it: 2MB for 2 MiB."""
    return units.format_kib(size_kib).replace(' ', '').replace('i', '')


@dataclasses.dataclass(frozen=True, slots=True)
class _Tree:
    """The tree of cgroups that huge pages are counted in.

    :ivar root: its folder
    :ivar controller: what it is called in ``/proc/PID/cgroup``
    """

    root: str
    controller: str

    def home(self, fs: hostfs.HostFS, pid: int) -> str:
        """Find the cgroup that the pages of a process are counted in.

        :returns: empty if it can't be found
        """
        path = fs.proc / f'{pid:d}' / 'cgroup'
        try:
            lines = fs.text(path).splitlines()
        except exception.KernelError:
            return ''
        for line in lines:
            _, controllers, name = [*line.split(':', 2), '', ''][:3]
            if self.controller in controllers.split(','):
                break
        else:
            return ''
        # libvirt has groups for the threads, in which no memory is counted.
        while name.strip('/') and not self._counts(name):
            name = name.rpartition('/')[0]
        return name or '/'

    def walk(
        self, name: str, path: str = ''
    ) -> Iterator[tuple[str, dict[int, int]]]:
        """Read what each cgroup has apart from those in it.

        :param name: of the file with the counters
        :param path: the cgroup to begin with
        :returns: paths with bytes by node
        """
        own = self._usage(path, name)
        if own is not None and not any(own.values()):
            return
        for child in self._children(path):
            below = self._usage(child, name)
            if below is None:
                continue
            yield from self.walk(name, child)
            if own is not None:
                for node, size in below.items():
                    own[node] = own.get(node, 0) - size
        if own is not None:
            yield path or '/', own

    def _usage(self, path: str, name: str) -> dict[int, int] | None:
        """Read what a cgroup and those in it have, in bytes by node.

        What the kernel doesn't split by node is that of `_ALL_NODES`.
        """
        try:
            with open(f'{self.root}{path}/{name}', encoding='ascii') as file:
                text = file.read()
        except (OSError, UnicodeDecodeError):
            return None
        if text.strip().isdigit():
            return {_ALL_NODES: int(text)}
        lines = dict(_LINE.findall(text))
        # The first version has its own pages in a line named total.
        line = lines.get('hierarchical_total', lines.get('total'))
        if line is None:
            return None
        return {int(node): int(size) for node, size in _NODE.findall(line)}

    def _children(self, path: str) -> list[str]:
        try:
            with os.scandir(f'{self.root}{path}') as entries:
                return sorted(
                    f'{path}/{entry.name}'
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False)
                )
        except OSError:
            return []

    def _counts(self, path: str) -> bool:
        # Which cgroup that is comes from a file, but has to be in the tree.
        if '..' in path.split('/'):
            return False
        try:
            names = os.listdir(f'{self.root}{path}')
        except OSError:
            return False
        return any(
            name.startswith('hugetlb.') and name.endswith('.numa_stat')
            for name in names
        )


def _tree(fs: hostfs.HostFS) -> _Tree | None:
    """Find where huge pages are counted."""
    root = fs.sys / 'fs/cgroup'
    for folder in (root, root / 'unified'):
        with contextlib.suppress(OSError):
            controllers = (folder / 'cgroup.controllers').read_text()
            if 'hugetlb' in controllers.split():
                return _Tree(os.fspath(folder), '')
    folder = root / 'hugetlb'
    return _Tree(os.fspath(folder), 'hugetlb') if folder.is_dir() else None
