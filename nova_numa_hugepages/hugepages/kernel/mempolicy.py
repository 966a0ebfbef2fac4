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

"""The memory policy of a thread: ``set_mempolicy(2)``, through libnuma."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import ctypes
import errno
import os

_LIBRARY = 'libnuma.so.1'
_MPOL_PREFERRED = 1
# More nodes than any kernel is built for. A kernel that is built for more than
# a mask can hold refuses to fill it.
_NODES = 4096
_WORD = 8 * ctypes.sizeof(ctypes.c_ulong)
_Mask = ctypes.c_ulong * (_NODES // _WORD)


@contextlib.contextmanager
def preferring(node: int) -> Iterator[None]:
    """Have this thread prefer the memory of one node; its policy comes back.

    :raises OSError: if there is no libnuma, the kernel has no such node, or
        this thread may not use it
    """
    library = ctypes.CDLL(_LIBRARY, use_errno=True)
    mode, before = ctypes.c_int(), _Mask()
    _call(library.get_mempolicy, ctypes.byref(mode), before, _NODES, None, 0)
    only = _Mask()
    only[node // _WORD] = 1 << node % _WORD
    _call(library.set_mempolicy, _MPOL_PREFERRED, only, _NODES)
    try:
        yield
    finally:
        _call(library.set_mempolicy, mode, before, _NODES)


def _call(function: ctypes._NamedFuncPointer, *arguments: object) -> None:
    if function(*arguments):
        # Its own number would look like one of the file that is written next.
        reason = os.strerror(ctypes.get_errno())
        raise OSError(
            errno.ENOTSUP, f'the memory policy cannot be set: {reason}'
        )
