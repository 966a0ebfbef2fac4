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

"""What else a figure depends on: the machine and its kernel."""

from __future__ import annotations

from importlib import metadata
import os
import pathlib
import platform
import re
import time
from typing import Any

from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import nodes

_FIELD = r'^{}\s*: (.*)$'
# The one that is chosen of several.
_CHOSEN = re.compile(r'\[(\S+)\]')


def read(fs: hostfs.HostFS) -> dict[str, Any]:
    """Read what figures depend on; what this machine doesn't tell is None.

    :raises exception.KernelError: if NUMA nodes can't be read
    """
    cpuinfo = _text(fs.proc / 'cpuinfo') or ''
    cpus = fs.sys / 'devices/system/cpu'
    transparent = fs.sys / 'kernel/mm/transparent_hugepage'
    memory = nodes.memory(fs)
    return {
        'package': metadata.version('nova-numa-hugepages'),
        'time': time.time(),
        'host': platform.node(),
        'kernel': os.uname().release,
        'kernel_arguments': _text(fs.proc / 'cmdline'),
        'processor': _field(cpuinfo, 'model name'),
        'microcode': _field(cpuinfo, 'microcode'),
        'virtual': 'hypervisor' in (_field(cpuinfo, 'flags') or '').split(),
        'emulated': 'TCG' in (_field(cpuinfo, 'model name') or ''),
        'governor': _text(cpus / 'cpu0/cpufreq/scaling_governor'),
        'smt': _text(cpus / 'smt/active'),
        'transparent_huge_pages': _chosen(_text(transparent / 'enabled')),
        'defragmentation': _chosen(_text(transparent / 'defrag')),
        'numa_balancing': _text(fs.proc / 'sys/kernel/numa_balancing'),
        'load_average': os.getloadavg()[0],
        'nodes': [
            {
                'id': node.id,
                'cpus': hostfs.format_ids(node.cpus),
                'distances': list(node.distances.values()),
                'memory_mib': memory[node.id].total_kib // 1024,
            }
            for node in nodes.read_nodes(fs).values()
        ],
    }


def warnings(found: dict[str, Any]) -> list[str]:
    """List what makes figures of a machine worth less.

    :param found: as `read` returns it
    """
    texts = []
    if found['emulated']:
        texts.append(
            'This machine is emulated: neither its memory nor its CPUs behave '
            'as real ones, and no ratio here means anything for real ones.'
        )
    elif found['virtual']:
        texts.append(
            'This is a virtual machine: on which pages and nodes of its host '
            'its memory lies is not known here, and its neighbours are not '
            'either.'
        )
    if len(found['nodes']) == 1:
        texts.append(
            'There is one NUMA node: nothing here tells what near and far '
            'memory are worth.'
        )
    if found['governor'] not in (None, 'performance'):
        texts.append(
            f'The frequency of the CPUs varies (governor {found["governor"]}).'
        )
    if found['numa_balancing'] not in (None, '0'):
        texts.append(
            'The kernel may move memory while it is measured '
            '(kernel.numa_balancing is on).'
        )
    return texts


def _text(path: pathlib.Path) -> str | None:
    try:
        return path.read_text('utf-8', 'replace').strip()
    except OSError:
        return None


def _field(cpuinfo: str, name: str) -> str | None:
    found = re.search(_FIELD.format(name), cpuinfo, re.MULTILINE)
    return found[1] if found else None


def _chosen(text: str | None) -> str | None:
    found = _CHOSEN.search(text or '')
    return found[1] if found else None
