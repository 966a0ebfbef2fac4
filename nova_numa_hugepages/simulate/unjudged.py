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

"""What flavors ask for, and a simulation does not judge."""

from __future__ import annotations

import collections
from collections.abc import Iterable

import os_traits

from nova_numa_hugepages.simulate import scenario
from nova_numa_hugepages.simulate import schedulers

_WHOLE = {
    'pci_passthrough:alias': 'PCI devices',
    'accel:device_profile': 'accelerators',
}
_JUDGED = {
    f'trait:{os_traits.HW_CPU_HYPERTHREADING}',
    *(f'resources:{name}' for name in schedulers.RESOURCES),
}


def describe(flavors: Iterable[scenario.Flavor]) -> str:
    """Describe it in a sentence, empty if there is none."""
    found = collections.Counter(
        kind
        for flavor in flavors
        for kind in {*map(_kind, flavor.extra_specs)}
        if kind is not None
    )
    if not found:
        return ''
    parts = [
        f'{kind} ({count} flavor{"s" if count > 1 else ""})'
        for kind, count in sorted(found.items())
    ]
    return f'Flavors ask for what is not judged: {", ".join(parts)}.'


def _kind(name: str) -> str | None:
    if name in _JUDGED:
        return None
    prefix = name.partition(':')[0]
    if prefix == 'aggregate_instance_extra_specs':
        return 'aggregates'
    # With or without the name of a group.
    if prefix.startswith('trait'):
        return 'traits'
    if prefix.startswith('resources'):
        return 'resources of Placement'
    return _WHOLE.get(name)
