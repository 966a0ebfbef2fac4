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

"""Tests of the memory policy of a thread, on this machine."""

from __future__ import annotations

import ctypes
import errno
import pathlib
import re

import pytest

from nova_numa_hugepages.hugepages.kernel import mempolicy


def _usable() -> bool:
    try:
        with mempolicy.preferring(0):
            return True
    except OSError:
        return False


usable = pytest.mark.skipif(
    not _usable(), reason='no libnuma, or not allowed to set a policy'
)


def policies() -> set[str]:
    """Return the policies of the memory of this thread."""
    text = pathlib.Path('/proc/thread-self/numa_maps').read_text()
    return set(re.findall(r'^[0-9a-f]+ (\S+)', text, re.MULTILINE))


@usable
def test_a_thread_prefers_a_node_for_a_while() -> None:
    before = policies()

    with mempolicy.preferring(0):
        meanwhile = policies()

    assert any(policy.startswith('prefer') for policy in meanwhile)
    assert policies() == before


@usable
def test_its_policy_comes_back_after_an_error() -> None:
    before = policies()

    with pytest.raises(KeyError), mempolicy.preferring(0):
        raise KeyError

    assert policies() == before


@usable
def test_a_node_that_is_not_there() -> None:
    with (
        pytest.raises(OSError, match='the memory policy cannot be set') as it,
        mempolicy.preferring(4000),
    ):
        pass

    assert it.value.errno == errno.ENOTSUP


def test_without_libnuma(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, **_: object) -> None:
        raise OSError(f'{name}: cannot open shared object file')

    monkeypatch.setattr(ctypes, 'CDLL', missing)

    with pytest.raises(OSError, match='libnuma'), mempolicy.preferring(0):
        pass
