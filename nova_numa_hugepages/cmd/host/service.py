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

from nova_numa_hugepages.virt import hostfs

# These commands may look at the same time as others.
_OURS = 'nova-numa-hugepages'


def user(fs: hostfs.HostFS, ledger: pathlib.Path) -> str | None:
    """Find a process that has a ledger open. To be asked before we open it.

    ``nova-compute`` has it open for as long as it runs. Processes of other
    users can only be asked by root.

    :returns: the process and its name, None if none was found
    """
    try:
        wanted = ledger.stat()
        names = os.listdir(fs.proc)
    except OSError:
        return None
    for name in filter(str.isdigit, names):
        folder = fs.proc / name
        if _has_open(folder / 'fd', wanted) and not _is_ours(folder):
            return f'process {name} ({_command(folder)})'
    return None


def _has_open(folder: pathlib.Path, wanted: os.stat_result) -> bool:
    try:
        descriptors = os.listdir(folder)
    except OSError:
        return False
    for descriptor in descriptors:
        try:
            # By the file, as a container has it under another name.
            if os.path.samestat((folder / descriptor).stat(), wanted):
                return True
        except OSError:
            continue
    return False


def _is_ours(folder: pathlib.Path) -> bool:
    return any(os.path.basename(word) == _OURS for word in _words(folder))


def _command(folder: pathlib.Path) -> str:
    """Name a program; of one in Python what Python runs."""
    words = [os.path.basename(word) for word in _words(folder)]
    for word in words:
        if word and not word.startswith(('python', '-')):
            return word
    return words[0] if words else 'ended since'


def _words(folder: pathlib.Path) -> list[str]:
    try:
        text = (folder / 'cmdline').read_text('utf-8', 'replace')
    except OSError:
        return []
    return [word for word in text.split('\0') if word]
