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

"""Moves the memory of a process to another node, behind everybody's back.

``python -I move_pages.py PID FROM TO`` does what ``migratepages`` of numactl
does, and prints how many pages could not be moved.

Source: ``migrate_pages(2)``.
"""

import ctypes
import os
import sys

_MIGRATE_PAGES = 256  # On x86-64.


def main(pid: int, source: int, target: int) -> int:
    """Move it; return how many pages stayed.

    :raises OSError: if the kernel refuses
    """
    libc = ctypes.CDLL(None, use_errno=True)
    masks = [ctypes.c_ulong(1 << node) for node in (source, target)]
    left = libc.syscall(
        _MIGRATE_PAGES,
        pid,
        ctypes.c_ulong(64),
        ctypes.byref(masks[0]),
        ctypes.byref(masks[1]),
    )
    if left < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(left)


if __name__ == '__main__':
    print(main(*map(int, sys.argv[1:])))
