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

"""Takes huge pages, as a program that knows nothing of us would.

``python occupy.py NODE PAGES [CGROUP]``: maps that many pages of 2 MiB of a
node, in a cgroup of its own if one is named, says ``occupied``, and keeps
them until it is ended.
"""

import ctypes
import mmap
import os
import pathlib
import signal
import sys

_MAP_HUGETLB = 0x40000
_HUGE = 2 << 20
_SYS_SET_MEMPOLICY = 238
_MPOL_BIND = 2


def main(node: str, pages: str, cgroup: str = '') -> None:
    """Take pages, and wait for a signal."""
    if cgroup:
        folder = pathlib.Path('/sys/fs/cgroup') / cgroup
        folder.mkdir(exist_ok=True)
        (folder / 'cgroup.procs').write_text(str(os.getpid()))
    mask = ctypes.c_ulong(1 << int(node))
    ctypes.CDLL(None).syscall(
        _SYS_SET_MEMPOLICY, _MPOL_BIND, ctypes.byref(mask), 64
    )
    size = int(pages) * _HUGE
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_HUGETLB
    memory = mmap.mmap(-1, size, flags)
    for offset in range(0, size, _HUGE):
        memory[offset] = 1
    print(f'occupied {pages} pages of node {node}', flush=True)
    signal.pause()


if __name__ == '__main__':
    main(*sys.argv[1:])
