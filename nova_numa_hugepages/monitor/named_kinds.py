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

"""Kinds of instances that the operator names: flavors, in one line each."""

from __future__ import annotations

from collections.abc import Sequence
import re

from oslo_utils import strutils

from nova_numa_hugepages.core import units
from nova_numa_hugepages.core.capacity import guest_kinds
from nova_numa_hugepages.monitor.room import Cell
from nova_numa_hugepages.monitor.room import Kind

_FORM = (
    'NAME:vcpus=V:ram=MIB:mem_page_size=SIZE[:numa_nodes=N]'
    '[:cpu_policy=dedicated]'
)
_DEFAULTS = {'numa_nodes': '1', 'cpu_policy': 'shared'}
_NAMES = {'vcpus', 'ram', 'mem_page_size', *_DEFAULTS}
_NUMBER = re.compile(r'[0-9]{1,9}')


def parse(text: str) -> Kind:
    """Read a flavor, for example ``db:vcpus=8:ram=4096:mem_page_size=2MB``.

    :raises ValueError: if it is something else, or no host could take it
    """
    name, *parts = text.strip().split(':')
    found = dict(part.partition('=')[::2] for part in parts)
    values = {**_DEFAULTS, **found}
    if (
        not name
        or len(found) < len(parts)
        or values.keys() != _NAMES
        or values['cpu_policy'] not in ('shared', 'dedicated')
    ):
        raise ValueError(f'{text!r} is not like {_FORM}')
    cells, vcpus, ram_mib = (
        _number(text, values[key]) for key in ('numa_nodes', 'vcpus', 'ram')
    )
    size_kib = _size_kib(text, values['mem_page_size'])
    memory_mib, rest = divmod(ram_mib, cells)
    if rest or vcpus % cells or not units.pages_for(memory_mib, size_kib):
        raise ValueError(
            f'{text!r} cannot be split into {cells} NUMA nodes with whole '
            'pages'
        )
    cpus = vcpus // cells if values['cpu_policy'] == 'dedicated' else 0
    cell = Cell(cpus, memory_mib * units.KIB_PER_MIB, size_kib)
    kind = Kind(name, (cell,) * cells)
    if not guest_kinds.plausible(kind.guest_kind):
        raise ValueError(f'{text!r} is larger than any host')
    return kind


def parse_all(texts: Sequence[str]) -> tuple[Kind, ...]:
    """Read flavors.

    :raises ValueError: as `parse`, or if two have one name
    """
    kinds = tuple(map(parse, texts))
    names = [kind.name for kind in kinds]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f'{name!r} is named twice')
    return kinds


def _number(text: str, value: str) -> int:
    if not _NUMBER.fullmatch(value) or not int(value):
        raise ValueError(f'{text!r}: {value!r} is no number above 0')
    return int(value)


def _size_kib(text: str, value: str) -> int:
    if _NUMBER.fullmatch(value):
        size_kib = int(value)
    else:
        try:
            size_kib = strutils.string_to_bytes(value, return_int=True) // 1024
        except ValueError as error:
            raise ValueError(
                f'{text!r}: {value!r} is no size, for example 2048 or 2MB'
            ) from error
    if size_kib <= 64 or size_kib & (size_kib - 1):
        raise ValueError(
            f'{text!r}: {value!r} is no size of huge pages, for example 2MB'
        )
    return size_kib
