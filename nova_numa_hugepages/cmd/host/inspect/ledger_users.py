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

"""Whether a ``nova-compute`` works with a ledger right now."""

from __future__ import annotations

import os
import pathlib
import re
from typing import NamedTuple

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.state.ledger import FILE_NAME

# These commands may look at the same time as others.
_OURS = 'nova-numa-hugepages'

_INODE = re.compile(r'^ino:\s*(\d+)$', re.MULTILINE)


class Users(NamedTuple):
    """Who has a ledger open.

    :ivar process: a process and its name, None if none was found
    :ivar hidden: a process whose open files this user may not see, None if
        there is none
    """

    process: str | None = None
    hidden: str | None = None


class _Wanted(NamedTuple):
    """What counts as the ledger.

    :ivar names: the names of its file
    :ivar file: which file it is, None if there is none
    """

    names: frozenset[str]
    file: os.stat_result | None

    @classmethod
    def of(cls, ledger: pathlib.Path) -> _Wanted:
        """Look at a ledger."""
        real = os.path.basename(os.path.realpath(ledger))
        names = frozenset({FILE_NAME, real})
        try:
            return cls(names, ledger.stat())
        except OSError:
            return cls(names, None)


def users(fs: hostfs.HostFS, ledger: pathlib.Path) -> Users:
    """Find a process other than these commands that has a ledger open.

    ``nova-compute`` has it open for as long as it runs. The pools are the
    host's, so a ledger elsewhere counts as well, if it has the same name.

    :param ledger: the one that is to be used
    :raises exception.KernelError: if the processes can't be listed
    """
    try:
        names = os.listdir(fs.proc)
    except OSError as error:
        raise exception.KernelError(
            fs.proc, hostfs.reason(error), 'a folder for each process'
        ) from error
    wanted = _Wanted.of(ledger)
    hidden = None
    own = _own(fs)
    for name in sorted(filter(str.isdigit, names), key=int):
        folder = fs.proc / name
        if name == own or _is_ours(folder):
            continue
        try:
            if _has_open(folder, wanted):
                return Users(process=_in_words(folder))
        except PermissionError:
            # Threads of the kernel have neither arguments nor files.
            if hidden is None and _words(folder):
                hidden = _in_words(folder)
    return Users(hidden=hidden)


def _own(fs: hostfs.HostFS) -> str | None:
    """Tell the id that this process has there."""
    try:
        return os.readlink(fs.proc / 'self')
    except OSError:
        return None


def _has_open(folder: pathlib.Path, wanted: _Wanted) -> bool:
    """Tell whether a process has a ledger open.

    :param folder: that of the process
    :raises PermissionError: if this user may not see that
    """
    try:
        descriptors = os.listdir(folder / 'fd')
    except PermissionError:
        raise
    except OSError:
        return False
    return any(_leads_to(folder, one, wanted) for one in descriptors)


def _leads_to(folder: pathlib.Path, descriptor: str, wanted: _Wanted) -> bool:
    path = folder / 'fd' / descriptor
    try:
        link = os.readlink(path)
    except PermissionError:
        raise
    except OSError:
        return False
    name = os.path.basename(link)
    if name.removesuffix(' (deleted)') in wanted.names:
        return True
    # What is no file, as a socket, has no path.
    if wanted.file is None or not link.startswith('/'):
        return False
    # A container may have it under another name, so it is told by the file.
    # Only what can be the ledger is looked at, as that never ends for a disk
    # on a network whose server is gone.
    if _inode(folder / 'fdinfo' / descriptor) != wanted.file.st_ino:
        return False
    try:
        return os.path.samestat(path.stat(), wanted.file)
    except OSError:
        return False


def _inode(path: pathlib.Path) -> int | None:
    """Tell which inode a descriptor has, without asking its file system.

    The format: ``/proc/PID/fdinfo`` in ``proc(5)``; the field ``ino`` is
    there from Linux 5.14 on.

    :returns: None if it isn't told
    :raises PermissionError: if this user may not see that
    """
    try:
        text = path.read_text('utf-8', 'replace')
    except PermissionError:
        raise
    except OSError:
        return None
    match = _INODE.search(text)
    return int(match[1]) if match else None


def _is_ours(folder: pathlib.Path) -> bool:
    """Tell whether a process is one of these commands."""
    words = _words(folder)[:2]
    if words and os.path.basename(words[0]).startswith('python'):
        words = words[1:]
    return bool(words) and os.path.basename(words[0]) == _OURS


def _in_words(folder: pathlib.Path) -> str:
    """Name a process and its program; of one in Python what Python runs."""
    words = [os.path.basename(word) for word in _words(folder)]
    program = words[0] if words else 'ended since'
    for word in words:
        if word and not word.startswith(('python', '-')):
            program = word
            break
    return f'process {folder.name} ({program})'


def _words(folder: pathlib.Path) -> list[str]:
    try:
        text = (folder / 'cmdline').read_text('utf-8', 'replace')
    except PermissionError:
        return ['unknown']
    except OSError:
        return []
    return [word for word in text.split('\0') if word]
