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

"""Tests of what a kubelet has promised to its pods."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.kernel import kubelet

GIB = 1 << 30
LARGE = 1024 * 1024


def state(entries: Any) -> dict[str, Any]:
    """The file of a kubelet on a host with two nodes."""
    memory = dict.fromkeys(
        ('total', 'systemReserved', 'allocatable', 'reserved', 'free'), 0
    )
    return {
        'policyName': 'Static',
        'machineState': {
            str(node): {
                'numberOfAssignments': 1,
                'memoryMap': {'hugepages-1Gi': memory, 'memory': memory},
                'cells': [node],
            }
            for node in (0, 1)
        },
        'entries': entries,
        'checksum': 4142013182,
    }


def block(kind: str, size: Any, *nodes: Any) -> dict[str, Any]:
    return {'numaAffinity': list(nodes), 'type': kind, 'size': size}


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / 'memory_manager_state'


def test_pods(path: pathlib.Path) -> None:
    path.write_text(
        json.dumps(
            state(
                {
                    'one': {
                        'dpdk': [
                            block('memory', 5 * GIB, 0),
                            block('hugepages-1Gi', 2 * GIB, 0),
                        ],
                        'sidecar': [
                            block('hugepages-1Gi', GIB, 0),
                            block('hugepages-2Mi', 100 << 20, 0),
                        ],
                    },
                    'both nodes': {
                        'c': [block('hugepages-64Ki', 96 << 10, 0, 1)]
                    },
                    'small pages': {'c': [block('memory', GIB, 1)]},
                    'none': {'c': [block('hugepages-2Mi', 0, 1)]},
                }
            )
        )
    )

    assert kubelet.promised(path) == {
        'one': [
            kubelet.Promise(frozenset({0}), LARGE, 2),
            kubelet.Promise(frozenset({0}), LARGE, 1),
            kubelet.Promise(frozenset({0}), 2048, 50),
        ],
        'both nodes': [kubelet.Promise(frozenset({0, 1}), 64, 2)],
    }


@pytest.mark.parametrize(
    'text',
    [
        '{"policyName":"None","machineState":{},"entries":{},"checksum":1}',
        '{"policyName":"Static","entries":null}',
        '{}',
    ],
)
def test_a_kubelet_that_promises_nothing(
    path: pathlib.Path, text: str
) -> None:
    path.write_text(text)

    assert kubelet.promised(path) == {}


def test_a_host_without_a_kubelet(path: pathlib.Path) -> None:
    assert kubelet.promised(path) == {}


@pytest.mark.parametrize(
    'content',
    [
        '',
        'no JSON',
        '[]',
        '"text"',
        '{"entries": []}',
        '{"entries": [1]}',
        '{"podEntries": {"pod": {}}, "entries": {}}',
        '[' * 100_000,
        json.dumps(state({'pod': []})),
        json.dumps(state({'pod': {'c': 7}})),
        json.dumps(state({'pod': {'c': [{}]}})),
        json.dumps(state({'pod': {'c': [block('hugepages-1Gi', '1', 0)]}})),
        json.dumps(state({'pod': {'c': [block('hugepages-1Gi', -1, 0)]}})),
        json.dumps(state({'pod': {'c': [block('hugepages-1Gi', True, 0)]}})),
        json.dumps(state({'pod': {'c': [block('hugepages-1Gi', 1, 'a')]}})),
        json.dumps(state({'pod': {'c': [block(7, 1, 0)]}})),
        ' ' * (16 * 1024 * 1024 + 1),
    ],
)
def test_a_file_of_another_kind(path: pathlib.Path, content: str) -> None:
    path.write_text(content)

    with pytest.raises(exception.KernelError) as caught:
        kubelet.promised(path)

    assert str(path) in str(caught.value)
    assert 'a memory manager of Kubernetes 1.21 or later' in str(caught.value)


def test_a_file_that_cannot_be_read(path: pathlib.Path) -> None:
    path.mkdir()

    with pytest.raises(exception.KernelError, match='a file that can be read'):
        kubelet.promised(path)
