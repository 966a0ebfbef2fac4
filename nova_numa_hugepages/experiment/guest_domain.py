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

"""The libvirt domain of an arm.

Source: ``docs/formatdomain.rst`` of libvirt.
"""

from __future__ import annotations

import pathlib
from typing import NamedTuple

from lxml import etree
from lxml.builder import E

from nova_numa_hugepages.experiment.plan import Arm
from nova_numa_hugepages.experiment.plan import SMALL


class GuestFiles(NamedTuple):
    """The files of a guest.

    :ivar kernel: that it boots
    :ivar image: its initramfs
    :ivar console: what its kernel writes
    :ivar port: a socket on which it is told what to run
    """

    kernel: pathlib.Path
    image: pathlib.Path
    console: pathlib.Path
    port: pathlib.Path


def describe(
    name: str,
    uuid: str,
    arm: Arm,
    files: GuestFiles,
    *,
    virt_type: str,
    memory_mib: int,
    cpu: int,
    node: int,
) -> str:
    """Write the XML of the domain.

    :param virt_type: ``kvm``, or ``qemu`` where the host has none
    :param cpu: of the host, on which it runs
    :param node: of the host, on which its memory is
    """
    backing = E.memoryBacking()
    if arm.page_kib is not None:
        page = E.page(size=str(arm.page_kib), unit='KiB')
        backing.append(E.hugepages(page))
    elif arm.pages == SMALL:
        # Anonymous memory of QEMU asks for transparent huge pages.
        backing.append(E.source(type='memfd'))
    model = 'host-passthrough' if virt_type == 'kvm' else 'maximum'
    domain = E.domain(
        E.name(name),
        E.uuid(uuid),
        E.memory(str(memory_mib), unit='MiB'),
        E.vcpu('1'),
        backing,
        E.cputune(
            E.vcpupin(vcpu='0', cpuset=str(cpu)),
            E.emulatorpin(cpuset=str(cpu)),
        ),
        E.numatune(E.memory(mode='strict', nodeset=str(node))),
        E.os(
            E.type('hvm'),
            E.kernel(str(files.kernel)),
            E.initrd(str(files.image)),
            E.cmdline('console=ttyS0 quiet panic=-1'),
        ),
        E.features(E.acpi()),
        E.cpu(mode=model),
        E.on_reboot('destroy'),
        E.devices(
            E.serial(
                E.source(path=str(files.console)),
                E.target(port='0'),
                type='file',
            ),
            E.serial(
                E.source(mode='bind', path=str(files.port)),
                E.target(port='1'),
                type='unix',
            ),
            E.memballoon(model='none'),
        ),
        type=virt_type,
    )
    text: str = etree.tostring(domain, pretty_print=True, encoding='unicode')
    return text
