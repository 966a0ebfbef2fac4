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

"""The CPUs that the threads of a guest may run on.

QEMU names the thread of a vCPU after it if libvirt asks for that, which it
does by default (``debug-threads=on``).
"""

from __future__ import annotations

import os
import re

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.kernel import hostfs

_GONE = (FileNotFoundError, ProcessLookupError)

# With the accelerator at the end. The kernel cuts names after 15 bytes.
_VCPU = re.compile(r'CPU (\d+)/(?:KVM|TCG)', re.ASCII)
_ALLOWED = re.compile(
    r'^Cpus_allowed_list:\t([\d,-]*)$', re.MULTILINE | re.ASCII
)


def vcpu_affinity(fs: hostfs.HostFS, pid: int) -> dict[int, frozenset[int]]:
    """Read which CPUs each vCPU of a guest may run on.

    :param pid: the process of the guest
    :returns: the host's numbers of CPUs by the number of the vCPU; empty if
        the process has ended or its threads have other names
    :raises exception.KernelError: if a file can't be used
    """
    folder = fs.proc / f'{pid:d}' / 'task'
    found = {}
    for name in _threads(folder):
        try:
            match = _VCPU.fullmatch(fs.text(folder / name / 'comm').strip())
            if match is None:
                continue
            path = folder / name / 'status'
            text = fs.text(path)
        except exception.KernelError as error:
            # Threads come and go.
            if isinstance(error.__cause__, _GONE):
                continue
            raise
        allowed = _ALLOWED.search(text)
        if allowed is None:
            raise exception.KernelError(
                path, 'none', 'a line with Cpus_allowed_list'
            )
        found[int(match[1])] = frozenset(hostfs.parse_ids(allowed[1]))
    return found


def _threads(folder: os.PathLike[str]) -> list[str]:
    try:
        return sorted(os.listdir(folder), key=int)
    except _GONE:
        return []
    except OSError as error:
        raise exception.KernelError(
            folder, hostfs.reason(error), 'a folder for each thread'
        ) from error
