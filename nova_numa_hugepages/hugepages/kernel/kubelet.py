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

"""The huge pages that a kubelet on the host has promised to its pods.

Its memory manager notes them in a file, for pods whose containers ask for as
much as they may use. What it promises the kernel doesn't know before the pod
has taken it.

Source: ``pkg/kubelet/cm/memorymanager/state`` of Kubernetes, from 1.21 on.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import json
import pathlib
import re
from typing import Any
from typing import NamedTuple

from nova_numa_hugepages import exception
from nova_numa_hugepages.core.printable import printable
from nova_numa_hugepages.hugepages.kernel import hostfs

STATE = pathlib.Path('/var/lib/kubelet/memory_manager_state')

# 1 GiB is 1Gi, 2 MiB is 2Mi, 64 KiB is 64Ki.
_TYPE = re.compile(r'hugepages-([1-9][0-9]*)([KMG])i', re.ASCII)
_KIB = {'K': 1, 'M': 1024, 'G': 1024 * 1024}
# No host has more pods than fit in that.
_MOST_BYTES = 16 * 1024 * 1024


class Promise(NamedTuple):
    """Huge pages that a container was promised.

    :ivar nodes: where they may be; on any of them if there are several
    """

    nodes: frozenset[int]
    size_kib: int
    pages: int


Promises = Mapping[str, Sequence[Promise]]
"""What pods were promised, by their uid."""


def read(path: pathlib.Path = STATE) -> bytes | None:
    """Read the file of the kubelet.

    :returns: None without a kubelet
    :raises OSError: if it can't be read
    """
    try:
        with path.open('rb') as file:
            return file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return None


def promised(path: pathlib.Path = STATE) -> Promises:
    """Read the huge pages that pods were promised.

    :raises exception.KernelError: if the file can't be read, or is another one
        than is known
    """
    try:
        return parse(read(path), path)
    except OSError as error:
        raise exception.KernelError(
            path, hostfs.reason(error), 'a file that can be read'
        ) from error


def parse(text: bytes | None, path: pathlib.Path = STATE) -> Promises:
    """Get the huge pages that pods were promised out of the file.

    :param text: as `read` gets it
    :returns: empty without a kubelet, or if its memory manager promises
        nothing
    :raises exception.KernelError: if it is another file than is known
    """
    if text is None:
        return {}
    try:
        if len(text) > _MOST_BYTES:
            raise ValueError(f'over {_MOST_BYTES} bytes')
        state = json.loads(text)
        if state.get('podEntries'):
            raise ValueError('podEntries are of a version that is not known')
        entries = state.get('entries')
        entries = {} if entries is None else _table(entries)
        return {
            printable(pod): found
            for pod, containers in entries.items()
            if (found := _promises(_table(containers)))
        }
    except (
        AttributeError,
        KeyError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise exception.KernelError(
            path,
            f'{type(error).__name__}: {error}',
            'the state of a memory manager of Kubernetes 1.21 or later',
        ) from error


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f'{value!r:.40} is no object')
    return value


def _promises(containers: dict[str, Any]) -> list[Promise]:
    """List the huge pages of the containers of a pod."""
    found = []
    for blocks in containers.values():
        for block in blocks:
            match = _TYPE.fullmatch(block['type'])
            if match is None:
                # Small pages.
                continue
            size_kib = int(match[1]) * _KIB[match[2]]
            size = block['size']
            if type(size) is not int or size < 0:
                raise ValueError(f'{size!r:.40} is no size in bytes')
            nodes = frozenset(block['numaAffinity'])
            for node in nodes:
                if type(node) is not int or node < 0:
                    raise ValueError(f'{node!r:.40} is no node')
            pages = -(-size // (size_kib * 1024))
            if pages:
                found.append(Promise(nodes, size_kib, pages))
    return found
