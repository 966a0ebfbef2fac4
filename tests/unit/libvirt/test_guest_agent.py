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

"""Tests of what guest agents say of their NUMA nodes."""

import itertools
import types

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.elastic import CellMemory
from nova_numa_hugepages.libvirt import guest_agent
from tests.unit.libvirt.fake_agent import Agent
from tests.unit.libvirt.fake_agent import MEMINFO


def test_what_is_usable_is_read_of_each_cell():
    agent = Agent(node0=MEMINFO.replace('Node 1', 'Node 0'), node1=MEMINFO)

    assert guest_agent.cell_memory(agent, None, [1]) == {
        1: CellMemory(4096000, 123400)
    }
    assert agent.asked == [
        (
            'guest-file-open',
            {'path': '/sys/devices/system/node/node1/meminfo', 'mode': 'r'},
        ),
        ('guest-file-read', {'handle': 2, 'count': 8192}),
        ('guest-file-close', {'handle': 2}),
    ]
    assert guest_agent.cell_memory(agent, None, [0, 1]).keys() == {0, 1}


@pytest.mark.parametrize(
    'text',
    [
        '',
        'Node 1 MemTotal: 4096000 kB',
        MEMINFO.replace('Node 1', 'Node 2'),
        MEMINFO.replace('4096000', '4096'),
        MEMINFO.replace('20000 kB', '-20000 kB'),
        MEMINFO.replace('3000 kB', f'{"9" * 30} kB'),
        MEMINFO.replace('MemFree', 'Free'),
    ],
)
def test_a_file_that_says_something_else(text):
    with pytest.raises(exception.GuestAgentError, match='guest-file-read'):
        guest_agent.cell_memory(Agent(node1=text), None, [1])


@pytest.mark.parametrize(
    ('command', 'answer'),
    [
        ('guest-file-open', ''),
        ('guest-file-open', '[' * 100_000),
        ('guest-file-open', '[]'),
        ('guest-file-open', '{"error": {"class": "CommandNotFound"}}'),
        ('guest-file-read', '{"return": 7}'),
        ('guest-file-read', '{"return": {"buf-b64": 7}}'),
        ('guest-file-read', '{"return": {"buf-b64": "x"}}'),
        ('guest-file-read', '{"return": {"buf-b64": "/////w=="}}'),
        ('guest-file-read', '{"return": {"buf": "TQ=="}}'),
    ],
)
def test_an_answer_that_is_none(command, answer):
    agent = Agent(node1=MEMINFO)
    agent.answers[command] = answer

    with pytest.raises(exception.GuestAgentError, match=command) as raised:
        guest_agent.cell_memory(agent, None, [1])

    assert len(str(raised.value)) < 200


def test_one_that_is_slow_is_given_up():
    agent = Agent(node0=MEMINFO.replace('Node 1', 'Node 0'), node1=MEMINFO)
    times = itertools.count(0.0, 0.4)

    with pytest.raises(exception.GuestAgentError, match='no answer in 2 s'):
        guest_agent.cell_memory(agent, None, [0, 1], ticks=lambda: next(times))

    assert len(agent.asked) == 6


def test_libvirt_asks_with_a_time_limit(monkeypatch):
    calls = []
    module = types.ModuleType('libvirt_qemu')
    module.qemuAgentCommand = lambda *args: calls.append(args) or '{}'
    monkeypatch.setitem(__import__('sys').modules, 'libvirt_qemu', module)
    host = types.SimpleNamespace(_wrap_libvirt_proxy=lambda module: module)

    assert guest_agent.ask_by(host)('domain', 'command') == '{}'

    assert calls == [('domain', 'command', 2, 0)]
