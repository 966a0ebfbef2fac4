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


"""A small fleet in which pages of 1 GiB are scarce.

Stock Nova sends guests that fit anywhere to ``roomy``, which has most of all,
and with it most of the slots for guests on pages of 1 GiB::

            pinned CPUs   pages of 2 MiB   pages of 1 GiB   small pages
    roomy            16            4 GiB           16 GiB         12 GiB
    medium            4            4 GiB            4 GiB          8 GiB
    plain             6            4 GiB                -          4 GiB
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.fixtures import cloud as embedded

MIB_2 = 2048
GIB_1 = 1024 * 1024


def host(
    name: str, *, cores: int, memory_gib: int, pages: dict[int, int]
) -> embedded.HostSpec:
    """Get a host of one node with one core for floating vCPUs."""
    return embedded.HostSpec(
        name,
        (
            embedded.NodeSpec(
                cores=1 + cores,
                memory_mib=memory_gib * 1024,
                pages=pages,
                shared_cores=1,
            ),
        ),
    )


HOSTS = (
    host('roomy', cores=8, memory_gib=32, pages={MIB_2: 2048, GIB_1: 16}),
    host('medium', cores=2, memory_gib=16, pages={MIB_2: 2048, GIB_1: 4}),
    host('plain', cores=3, memory_gib=8, pages={MIB_2: 2048}),
)

# The demand for pages of 1 GiB. Of the first one there are two slots, all on
# roomy; of the second one there are four there and one on medium.
SCARCE: dict[str, dict[str, Any]] = {
    'database': {
        'vcpus': 8,
        'ram_mib': 8192,
        'extra_specs': {
            'hw:cpu_policy': 'dedicated',
            'hw:mem_page_size': '1GB',
        },
    },
    'report': {
        'vcpus': 4,
        'ram_mib': 4096,
        'extra_specs': {
            'hw:cpu_policy': 'dedicated',
            'hw:mem_page_size': '1GB',
        },
    },
}

# A guest that fits on any host. It takes a slot of both kinds of the demand
# on roomy, of one on medium, and none on plain.
SMALL: dict[str, Any] = {
    'vcpus': 2,
    'ram_mib': 1024,
    'specs': {'hw:cpu_policy': 'dedicated', 'hw:mem_page_size': '2MB'},
}

FLOATING: dict[str, Any] = {'vcpus': 1, 'ram_mib': 512}


def create_scarce(api: embedded.ComputeAPI) -> dict[str, str]:
    """Create the flavors that ask for pages of 1 GiB.

    :returns: their ids by name
    """
    return {
        name: api.create_flavor(name, **flavor)
        for name, flavor in SCARCE.items()
    }


def hosts_of(servers: Iterable[dict[str, Any]]) -> list[str | None]:
    """Get the hosts of servers."""
    return [server['OS-EXT-SRV-ATTR:host'] for server in servers]
