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

"""Descriptions of guests whose memory is on huge pages of chosen nodes."""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
from typing import NamedTuple

from nova_numa_hugepages.hugepages import domain_xml
from tests.host.rig import folders
from tests.host.rig import packages


class Cell(NamedTuple):
    """A guest cell.

    :ivar node: the node that it is on
    :ivar mib: its memory; if it is elastic, what it boots with
    :ivar cpus: the CPUs of the host that its vCPUs are pinned to
    :ivar ceiling_mib: what an elastic cell may come to have; 0 for any other
    """

    node: int
    mib: int
    cpus: Sequence[int]
    ceiling_mib: int = 0


def describe(
    name: str,
    uuid: str,
    cells: Sequence[Cell],
    *,
    page_kib: int = 2048,
    console: pathlib.PurePath | None = None,
    user: int = 0,
    balloon: str | None = None,
    arguments: str = '',
    told: pathlib.PurePath | None = None,
    agent: bool = False,
) -> str:
    """Write the domain XML of a guest, as Nova would for strict placement.

    :param console: where its console goes; with it, it boots a kernel, which
        takes a minute or two. Without, it has nothing to boot, and runs all
        the same.
    :param user: the id of the user that its QEMU runs as
    :param balloon: whether its balloon reports free pages, ``on`` or
        ``off``; without, it has none. It reports statistics each second.
    :param arguments: for what runs in it, as ``guest-initramfs.sh`` has them
    :param told: a socket on which it is told what to do
    :param agent: whether it has QEMU's guest agent
    """
    vcpus = 0
    numa, memnodes, pins = [], [], []
    for number, cell in enumerate(cells):
        last = vcpus + len(cell.cpus) - 1
        numa.append(
            f"<cell id='{number}' cpus='{vcpus}-{last}' "
            f"memory='{cell.mib}' unit='MiB'/>"
        )
        memnodes.append(
            f"<memnode cellid='{number}' mode='strict' nodeset='{cell.node}'/>"
        )
        for cpu in cell.cpus:
            pins.append(f"<vcpupin vcpu='{vcpus}' cpuset='{cpu}'/>")
            vcpus += 1
    nodes = ','.join(str(cell.node) for cell in cells)
    cpus = ','.join(str(cpu) for cell in cells for cpu in cell.cpus)
    boot, serial = '', ''
    if console is not None:
        images = folders.folder() / 'images'
        boot = (
            f'<kernel>{images / "kernel"}</kernel>'
            f'<initrd>{images / ("agent.img" if agent else "guest.img")}'
            '</initrd>'
            '<cmdline>console=ttyS0 quiet mitigations=off '
            f'{arguments}</cmdline>'
        )
        serial = (
            f"<serial type='file'><source path='{console}'/>"
            "<target port='0'/></serial>"
        )
    if told is not None:
        serial += (
            f"<serial type='unix'><source mode='bind' path='{told}'/>"
            "<target port='1'/></serial>"
        )
    if agent:
        serial += (
            "<channel type='unix'><source mode='bind'/><target type='virtio' "
            "name='org.qemu.guest_agent.0'/></channel>"
        )
    ceilings, devices, slots = _elastic(cells, page_kib)
    memballoon = "<memballoon model='none'/>"
    if balloon is not None:
        memballoon = (
            f"<memballoon model='virtio' freePageReporting='{balloon}'>"
            "<stats period='1'/></memballoon>"
        )
    emulator = packages.program('qemu-system-x86_64')
    return f"""
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <metadata>
    <nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>
      <nova:name>{name}</nova:name><nova:flavor name='tested'/>
    </nova:instance>{ceilings}
  </metadata>{slots}
  <memory unit='MiB'>{sum(cell.mib for cell in cells)}</memory>
  <vcpu>{vcpus}</vcpu>
  <memoryBacking>
    <hugepages>
      <page size='{page_kib}' unit='KiB' nodeset='0-{len(cells) - 1}'/>
    </hugepages>
  </memoryBacking>
  <cputune>{''.join(pins)}<emulatorpin cpuset='{cpus}'/></cputune>
  <numatune>
    <memory mode='strict' nodeset='{nodes}'/>{''.join(memnodes)}
  </numatune>
  <os><type arch='x86_64' machine='q35'>hvm</type>{boot}</os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact'>
    <model>qemu64</model>
    <numa>{''.join(numa)}</numa>
  </cpu>
  <seclabel type='static' model='dac' relabel='yes'>
    <label>+{user}:+{user}</label>
  </seclabel>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <devices>
    <emulator>{emulator}</emulator>{serial}
    {memballoon}{devices}
  </devices>
</domain>
"""


def _elastic(cells: Sequence[Cell], page_kib: int) -> tuple[str, str, str]:
    """Describe what elastic cells may come to have.

    :returns: metadata, memory devices, and their slots
    """
    ceilings, devices, most = '', '', sum(cell.mib for cell in cells)
    for number, cell in enumerate(cells):
        if not cell.ceiling_mib:
            continue
        # A block more, as those of the guest are aligned.
        mib = cell.ceiling_mib - cell.mib + max(128, page_kib // 1024)
        most += mib
        ceilings += (
            f"<e:cell id='{number}' ceiling='{cell.ceiling_mib}' unit='MiB'/>"
        )
        devices += (
            "<memory model='virtio-mem'><target>"
            f"<size unit='MiB'>{mib}</size><node>{number}</node>"
            f"<block unit='KiB'>{page_kib}</block>"
            "<requested unit='KiB'>0</requested></target></memory>"
        )
    if not devices:
        return '', '', ''
    return (
        f"<e:elastic xmlns:e='{domain_xml.ELASTIC_NAMESPACE}'>{ceilings}"
        '</e:elastic>',
        devices,
        f"<maxMemory slots='{len(cells)}' unit='MiB'>{most}</maxMemory>",
    )
