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

"""Processes that are killed, or whose writes fail, at a system call.

By ``ptrace(2)``, on x86-64.
"""

from __future__ import annotations

from collections.abc import Callable
import ctypes
import dataclasses
import errno
import os
import platform
import signal
import traceback
from typing import Any

SUPPORTED = platform.machine() == 'x86_64'

_TRACEME, _PEEKUSER, _POKEUSER, _SYSCALL, _SETOPTIONS = 0, 3, 6, 24, 0x4200
_OPTIONS = 0x1 | 0x100000  # TRACESYSGOOD and EXITKILL
_SYSCALL_STOP = signal.SIGTRAP | 0x80
# Places in the kernel's struct user.
_RAX, _ORIG_RAX = 10 * 8, 15 * 8
# write, pwrite64, fsync, fdatasync, ftruncate
_WRITES = frozenset({1, 18, 74, 75, 77})
# read, pread64
_READS = frozenset({0, 17})

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, *[ctypes.c_void_p] * 2]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a traced process.

    :ivar happened: whether what was planned for it happened
    :ivar answer: what the work returned, or the traceback of its error; empty
        if it was killed
    """

    happened: bool
    answer: str = ''


def run(
    work: Callable[[], str],
    at: int,
    *,
    kill: bool = False,
    fail: int = 0,
    meanwhile: Callable[[], object] | None = None,
) -> Outcome:
    """Run something in a child.

    :param at: before which of its system calls something happens
    :param kill: whether it is killed then
    :param fail: the error of the next write from then on, 0 for none
    :param meanwhile: what others do before the next read from then on
    """
    readable, writable = os.pipe()
    pid = os.fork()
    if not pid:
        _be_traced(work, readable, writable)
    os.close(writable)
    with os.fdopen(readable, 'rb') as answer:
        os.waitpid(pid, 0)
        _ptrace(_SETOPTIONS, pid, 0, _OPTIONS)
        calls, happened, entering = 0, False, True
        passed_on = 0
        while True:
            _ptrace(_SYSCALL, pid, 0, passed_on)
            _, status = os.waitpid(pid, 0)
            if not os.WIFSTOPPED(status):
                break
            passed_on = 0
            if os.WSTOPSIG(status) != _SYSCALL_STOP:
                passed_on = os.WSTOPSIG(status)
                continue
            if entering and calls >= at and not happened:
                if kill:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    return Outcome(True)
                call = _ptrace(_PEEKUSER, pid, _ORIG_RAX)
                if meanwhile is not None:
                    if call in _READS:
                        meanwhile()
                        happened = True
                elif call in _WRITES:
                    _refuse(pid, fail)
                    happened = True
                    calls += 1
                    continue
            calls += entering
            entering = not entering
        return Outcome(happened, answer.read().decode())


def _be_traced(work: Callable[[], str], readable: int, writable: int) -> None:
    """Do the work of the child; never returns."""
    try:
        os.close(readable)
        _ptrace(_TRACEME)
        os.kill(os.getpid(), signal.SIGSTOP)
        answer = work()
    except BaseException:
        answer = traceback.format_exc()
    try:
        # No write that could be made to fail.
        os.writev(writable, [answer.encode()])
    finally:
        os._exit(0)


def _refuse(pid: int, error: int) -> None:
    """Have a system call that begins return an error, and do nothing."""
    _ptrace(_POKEUSER, pid, _ORIG_RAX, (1 << 64) - 1)
    _ptrace(_SYSCALL, pid)
    os.waitpid(pid, 0)
    _ptrace(_POKEUSER, pid, _RAX, (1 << 64) - error)


def _ptrace(
    request: int, pid: int = 0, address: int = 0, data: int = 0
) -> Any:
    ctypes.set_errno(0)
    found = _libc.ptrace(request, pid, address, data)
    if found == -1 and ctypes.get_errno():
        code = ctypes.get_errno()
        raise OSError(code, f'ptrace: {errno.errorcode.get(code, code)}')
    return found
