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

"""What the guest agent of an instance says of its NUMA nodes.

QEMU's guest agent reads a file of the guest's kernel for each node. Nothing
runs in the guest for it. What it answers is the guest's word.

See "QEMU Guest Agent Protocol Reference" of QEMU, and ``node_meminfo`` in
``drivers/base/node.c`` of the kernel.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from collections.abc import Iterable
import json
import re
import time
from typing import Any
from typing import Final

from nova.virt.libvirt import host as libvirt_host

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.elastic import CellMemory

Ask = Callable[[Any, str], str]
"""Sends a command to the agent of a domain of libvirt, and returns its answer.

Both are JSON. Raises libvirt.libvirtError if there is no agent, or no answer.
"""

# So long a guest may take, in seconds; they are looked at one by one.
_LIMIT_S: Final = 2
_PATH: Final = '/sys/devices/system/node/node{}/meminfo'
# The file has about 1,500 characters.
_MOST_BYTES: Final = 8192
_LINE: Final = re.compile(r'^Node (\d+) ([\w()]+): +(\d{1,15}) kB$', re.M)
# What programs can have: free memory, cached files, and what the kernel
# itself can do without.
_USABLE: Final = (
    'MemFree',
    'Active(file)',
    'Inactive(file)',
    'SReclaimable',
)


def ask_by(host: libvirt_host.Host) -> Ask:
    """Return how agents are asked by the libvirt of a host."""
    import libvirt_qemu

    # Where Nova runs with eventlet, others go on meanwhile.
    libvirt = host._wrap_libvirt_proxy(libvirt_qemu)

    def ask(domain: Any, command: str) -> str:
        answer: str = libvirt.qemuAgentCommand(domain, command, _LIMIT_S, 0)
        return answer

    return ask


def cell_memory(
    ask: Ask,
    domain: Any,
    cells: Iterable[int],
    *,
    ticks: Callable[[], float] = time.monotonic,
) -> dict[int, CellMemory]:
    """Read how much memory of guest cells is usable.

    :param domain: a domain of libvirt
    :param ticks: seconds of a clock that only goes forward
    :raises exception.GuestAgentError: if that can't be read from its answers,
        or it is slow
    :raises libvirt.libvirtError: if there is no agent, or no answer
    """
    began = ticks()

    def ask_in_time(domain: Any, command: str) -> str:
        answer = ask(domain, command)
        took = ticks() - began
        if took > _LIMIT_S:
            raise exception.GuestAgentError(
                'its NUMA nodes', f'no answer in {_LIMIT_S} s'
            )
        return answer

    return {
        cell: _parse(cell, _read(ask_in_time, domain, cell)) for cell in cells
    }


def _read(ask: Ask, domain: Any, cell: int) -> str:
    def run(name: str, **arguments: object) -> Any:
        command = {'execute': name, 'arguments': arguments}
        answer = ask(domain, json.dumps(command))
        try:
            return json.loads(answer)['return']
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise exception.GuestAgentError(name, answer) from error

    handle = run('guest-file-open', path=_PATH.format(cell), mode='r')
    # One that doesn't answer now isn't asked to close it: that would take
    # as long again.
    found = run('guest-file-read', handle=handle, count=_MOST_BYTES)
    run('guest-file-close', handle=handle)
    try:
        return base64.b64decode(found['buf-b64']).decode('ascii')
    except (TypeError, KeyError, ValueError, binascii.Error) as error:
        raise exception.GuestAgentError(
            'guest-file-read', str(found)
        ) from error


def _parse(cell: int, text: str) -> CellMemory:
    kib = {
        name: int(count)
        for node, name, count in _LINE.findall(text)
        if int(node) == cell
    }
    try:
        total_kib = kib['MemTotal']
        usable_kib = sum(kib[name] for name in _USABLE)
    except KeyError as error:
        raise exception.GuestAgentError('guest-file-read', text) from error
    if not total_kib >= usable_kib:
        raise exception.GuestAgentError('guest-file-read', text)
    return CellMemory(total_kib, usable_kib)
