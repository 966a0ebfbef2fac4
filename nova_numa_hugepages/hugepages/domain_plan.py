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

"""Whose domain it is, and which CPUs its vCPUs are pinned to, by its XML.

Source: https://libvirt.org/formatdomain.html, "CPU Tuning", and the classes of
``LibvirtConfigGuestMetaNova`` in Nova's ``nova/virt/libvirt/config.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from xml.etree import ElementTree

from nova_numa_hugepages import exception
from nova_numa_hugepages.core.printable import printable
from nova_numa_hugepages.hugepages.kernel import hostfs

_MOST_SPECS = 1000
_MOST_CELLS = 64
_MOST_VCPUS = 4096


class DomainPlan(NamedTuple):
    """What Nova wrote about an instance when it started.

    All of it is empty for a domain that isn't Nova's. No text has control
    characters or is longer than 255 characters.

    :ivar name: the name of the instance, which its user chose
    :ivar flavor: the name of its flavor
    :ivar project: the id of its project
    :ivar extra_specs: those of its flavor
    :ivar vcpus: the CPUs of the host that each of its vCPUs may run on; those
        that aren't pinned are left out
    :ivar cells: the numbers of the vCPUs of each of its guest cells, by the
        number of the cell
    """

    name: str = ''
    flavor: str = ''
    project: str = ''
    extra_specs: Mapping[str, str] = {}
    vcpus: Mapping[int, frozenset[int]] = {}
    cells: Mapping[int, frozenset[int]] = {}

    @property
    def own_cpus(self) -> dict[int, int]:
        """The CPU of each vCPU that may run on that one only."""
        return {
            vcpu: min(cpus)
            for vcpu, cpus in self.vcpus.items()
            if len(cpus) == 1
        }


def read(xml: str) -> DomainPlan:
    """Read the XML of a domain.

    :raises exception.InvalidDomain: if it isn't the XML of a domain
    """
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise exception.InvalidDomain(f'it is no XML: {error}') from error
    instance = root.find('./metadata/{*}instance')
    if instance is None:
        return DomainPlan(vcpus=_pins(root), cells=_cells(root))
    flavor = instance.find('{*}flavor')
    project = instance.find('{*}owner/{*}project')
    specs = instance.findall('{*}flavor/{*}extraSpecs/{*}extraSpec')
    return DomainPlan(
        _clean(instance.findtext('{*}name')),
        _clean(None if flavor is None else flavor.get('name')),
        _clean(None if project is None else project.get('uuid')),
        {
            _clean(spec.get('name')): _clean(spec.text)
            for spec in specs[:_MOST_SPECS]
        },
        _pins(root),
        _cells(root),
    )


def _pins(root: ElementTree.Element) -> dict[int, frozenset[int]]:
    pins = {}
    for pin in root.findall('./cputune/vcpupin'):
        number, cpus = pin.get('vcpu', ''), pin.get('cpuset', '')
        if not (number.isascii() and number.isdecimal()):
            raise exception.InvalidDomain(f'it pins the vCPU {number!r}')
        try:
            pins[int(number)] = frozenset(hostfs.parse_set(cpus))
        except ValueError as error:
            raise exception.InvalidDomain(
                f'it pins vCPU {number} to {cpus!r}: {error}'
            ) from error
    return pins


def _cells(root: ElementTree.Element) -> dict[int, frozenset[int]]:
    cells = root.findall('./cpu/numa/cell')
    if not cells:
        text = (root.findtext('vcpu') or '').strip()
        if not (text.isascii() and text.isdecimal()):
            return {}
        return {0: frozenset(range(min(int(text), _MOST_VCPUS)))}
    found = {}
    for index, cell in enumerate(cells[:_MOST_CELLS]):
        number, cpus = cell.get('id', str(index)), cell.get('cpus')
        if not (number.isascii() and number.isdecimal()):
            raise exception.InvalidDomain(f'guest cell {number!r}')
        try:
            found[int(number)] = frozenset(
                hostfs.parse_set(cpus) if cpus else ()
            )
        except ValueError as error:
            raise exception.InvalidDomain(
                f'guest cell {number} has the vCPUs {cpus!r}: {error}'
            ) from error
    return found


def _clean(text: str | None) -> str:
    return printable((text or '').strip())
