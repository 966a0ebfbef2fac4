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

"""Scatters the free memory of a node: ``python fragment.py NODE [LEAVE_MIB]``.

To be run inside a virtual host, as root. It takes all of the node's free
memory but LEAVE_MIB, locks one small page in each stretch of 64 KiB, and
gives the others back. Nearly all of the node is free then, but not one block
of 2 MiB, and compaction can't help as it may not move locked pages.

It says ``scattered`` when that is done, and keeps it so until it is asked to
end.
"""

from collections.abc import Iterator
import contextlib
import ctypes
import mmap
import pathlib
import re
import signal
import sys

_STRETCH = 64 << 10
_PAGE = mmap.PAGESIZE
_HUGE = 2 << 20
_STEP = 8 << 20
_MADV_POPULATE_WRITE = 23
_SYS_SET_MEMPOLICY = 238
_MPOL_BIND = 2

_VM = pathlib.Path('/proc/sys/vm')
_libc = ctypes.CDLL(None, use_errno=True)


def main(node: int, leave_mib: int = 64) -> None:
    """Scatter the free memory of a node, and wait for a signal.

    After blocks were broken up the kernel may raise the watermark of a node
    for a while, here by more than is left free. It is asked not to, as it
    would end this process to get back above it.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with _set('watermark_boost_factor'), _set('compact_unevictable_allowed'):
        _scatter(node, leave_mib)


@contextlib.contextmanager
def _set(name: str, value: str = '0') -> Iterator[None]:
    """Have another setting of the kernel meanwhile."""
    path = _VM / name
    before = path.read_text()
    path.write_text(value)
    try:
        yield
    finally:
        path.write_text(before)


def _scatter(node: int, leave_mib: int) -> None:
    (_VM / 'drop_caches').write_text('3')
    _bind(node)
    left = leave_mib << 20
    size = max(0, _free(node) - left) // _HUGE * _HUGE
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    taken = 0
    while taken < size and _free(node) > left:
        step = min(_STEP, size - taken)
        memory.madvise(_MADV_POPULATE_WRITE, taken, step)
        taken += step
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for offset in range(0, taken, _STRETCH):
        _check(_libc.mlock(ctypes.c_void_p(start + offset), _PAGE))
        memory.madvise(mmap.MADV_DONTNEED, offset + _PAGE, _STRETCH - _PAGE)
    print(f'scattered {taken >> 20} MiB of node {node}', flush=True)
    signal.pause()


def _bind(node: int) -> None:
    """Let all memory of this process come from one node."""
    mask = ctypes.c_ulong(1 << node)
    _check(
        _libc.syscall(
            _SYS_SET_MEMPOLICY,
            _MPOL_BIND,
            ctypes.byref(mask),
            ctypes.sizeof(mask) * 8,
        )
    )


def _free(node: int) -> int:
    path = f'/sys/devices/system/node/node{node}/meminfo'
    found = re.search(r'MemFree:\s+(\d+) kB', pathlib.Path(path).read_text())
    assert found is not None
    return int(found[1]) << 10


def _check(status: int) -> None:
    if status:
        raise OSError(ctypes.get_errno(), 'the kernel refused')


if __name__ == '__main__':
    main(*map(int, sys.argv[1:]))
