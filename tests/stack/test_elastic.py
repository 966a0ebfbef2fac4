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

"""An instance whose memory is elastic, through Nova's API."""

from __future__ import annotations

import json
import sys
from typing import Any

from openstack import exceptions
import pytest

from nova_numa_hugepages.hugepages import domain_xml
from tests.stack import api
from tests.stack import checks
from tests.stack import cloud_setup
from tests.stack import host_state
from tests.stack import hosts

_CELLS = 4
_BASE_MIB = 320
# One block of 128 MiB more.
_CEILING_MIB = 448
_BASE = dict.fromkeys(range(_CELLS), _BASE_MIB // 2)
_CEILING = dict.fromkeys(range(_CELLS), _CEILING_MIB // 2)
_MORE = (_CEILING_MIB - _BASE_MIB) << 20
# Under emulation in an emulated host.
_BOOT_S = 600.0


@pytest.mark.scenario(13, 'an elastic instance: set by hand, and migrated')
def test_elastic(
    client: api.Client, node1: hosts.ComputeHost, node2: hosts.ComputeHost
) -> None:
    used = _ram_used(client)
    checks.wait_for_room(client, client.pages(), node2)

    # It boots with its base,
    server = client.boot(_flavor(client), host='node1')

    state = host_state.read(node1)
    assert state.placed[server] == _BASE
    assert state.holds[server, checks.GUEST] == _BASE
    # and what it may come to have is there.
    assert state.total == list(_CEILING.values())
    # Nova counts all of it.
    allocated = client.allocations(server)['node1']
    assert allocated['MEMORY_MB'] == _CELLS * _CEILING_MIB
    assert allocated['PCPU'] == _CELLS
    assert _ram_used(client) - used == _CELLS * _CEILING_MIB

    # An operator gives it all that it may have. Its disk has no kernel that
    # could take it.
    _elastic(node1, '--set', f'{server}={_CELLS * _CEILING_MIB}MiB')
    asked = dict.fromkeys(range(_CELLS), (_MORE, 0))
    _wait_for_devices(node1, server, asked)
    assert host_state.read(node1).holds[server, checks.GUEST] == _CEILING

    # That goes with it while it is under way.
    _migrate(client, server)

    state = host_state.read(node2)
    assert state.placed[server] == _BASE
    assert state.holds[server, checks.GUEST] == _CEILING
    assert _devices(node2, server) == asked
    wanted = [row['wanted_mib'] for row in _elastic(node2)]
    assert wanted == [_CEILING_MIB] * _CELLS
    checks.check_empty(node1)

    # Off and on it has it, too, and then by its use.
    client.act(server, 'reboot', {'type': 'HARD'})
    client.wait(server, 'ACTIVE')
    assert _devices(node2, server) == asked
    client.delete([server])
    checks.check_empty(node2)
    assert _ram_used(client) == used


@pytest.mark.scenario(13, 'an elastic instance: migrated while it is large')
def test_large_one_migrates(
    client: api.Client, node1: hosts.ComputeHost, node2: hosts.ComputeHost
) -> None:
    checks.wait_for_room(client, client.pages(), node2)
    server = client.boot(
        _flavor(client), host='node1', image=cloud_setup.BOOTS
    )
    client.wait_for_console(server, 'beat 1', limit_s=_BOOT_S)
    # Its kernel takes all that it may have.
    _elastic(node1, '--set', f'{server}={_CELLS * _CEILING_MIB}MiB')
    large = dict.fromkeys(range(_CELLS), (_MORE, _MORE))
    _wait_for_devices(node1, server, large)
    assert host_state.read(node1).placed[server] == _CEILING

    _migrate(client, server)

    state = host_state.read(node2)
    assert state.placed[server] == _CEILING
    assert state.holds[server, checks.GUEST] == _CEILING
    assert _devices(node2, server) == large
    checks.check_empty(node1)

    # There it gives it back.
    _elastic(node2, '--set', f'{server}={_CELLS * _BASE_MIB}MiB')
    _wait_for_devices(node2, server, dict.fromkeys(range(_CELLS), (0, 0)))

    def settled() -> bool:
        state = host_state.read(node2)
        return bool(state.holds[server, checks.GUEST] == _BASE)

    api.wait_until(settled, lambda: host_state.read(node2))
    assert host_state.read(node2).placed[server] == _BASE


@pytest.mark.scenario(13, 'elastic memory that is not possible is refused')
def test_impossible(client: api.Client) -> None:
    specs = {'hw__mem_page_size': '2048', 'hw__numa_nodes': '1'}
    # By the API, where a value has no meaning;
    with pytest.raises(
        exceptions.BadRequestException, match='less than the min value'
    ):
        client.flavor(
            mib=2048, **specs, numa_hugepages__elastic_base_percent='10'
        )
    # or by the scheduler, where it can't be.
    flavor = client.flavor(
        mib=512, **specs, numa_hugepages__elastic_base_percent='50'
    )
    [server] = client.create(flavor, host='node1')
    refused = client.wait(server, 'ERROR')
    assert 'No valid host was found' in refused['fault']['message']


def _flavor(client: api.Client) -> str:
    return client.flavor(
        vcpus=_CELLS,
        mib=_CELLS * _CEILING_MIB,
        hw__cpu_policy='dedicated',
        hw__mem_page_size='2048',
        hw__numa_nodes=str(_CELLS),
        numa_hugepages__elastic_base_mib=str(_BASE_MIB),
    )


def _migrate(client: api.Client, server: str) -> None:
    client.act(
        server,
        'os-migrateLive',
        {'host': 'node2', 'block_migration': 'auto'},
    )
    client.wait_for_host(server, 'node2')


def _wait_for_devices(
    host: hosts.ComputeHost,
    server: str,
    wanted: dict[int, tuple[int, int]],
) -> None:
    api.wait_until(
        lambda: _devices(host, server) == wanted,
        lambda: _devices(host, server),
        limit_s=_BOOT_S,
        interval_s=5,
    )


def _elastic(host: hosts.ComputeHost, *arguments: str) -> list[dict[str, Any]]:
    """Run ``host elastic`` on a host."""
    out = host.machine.run(
        [
            *(sys.executable, '-m', 'nova_numa_hugepages.cmd.main'),
            *('host', 'elastic', '-f', 'json'),
            *(*host.options, *arguments),
        ],
        timeout=300,
    ).out
    found: list[dict[str, Any]] = json.loads(out)
    return found


def _devices(
    host: hosts.ComputeHost, server: str
) -> dict[int, tuple[int, int | None]]:
    """Return what each cell is asked to have beyond its base, and has.

    In bytes.
    """
    xml = host.machine.virsh('dumpxml', server).out
    return {
        cell: (device.requested, device.current)
        for cell, device in domain_xml.memory_devices(xml).items()
    }


def _ram_used(client: api.Client) -> int:
    """Return how much of the quota of memory is used, in MiB."""
    answer = client.compute.get('/limits')
    exceptions.raise_from_response(answer)
    used: int = answer.json()['limits']['absolute']['totalRAMUsed']
    return used
