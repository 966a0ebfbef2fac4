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

"""A host of two nodes, and the manager of its huge pages."""

import pytest

from nova_numa_hugepages.hugepages.manager import HugePageManager
from tests.fixtures import kernel as fake_kernel
from tests.unit.hugepages import page_host


class Time:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def rig(tmp_path):
    """Two nodes with empty pools."""
    node = fake_kernel.FakeNode(pools={2048: 0})
    return page_host.Rig(tmp_path, {0: node, 1: node})


@pytest.fixture
def ticks():
    return Time()


@pytest.fixture
def manager(rig, ticks):
    return HugePageManager(rig.pools, ticks=ticks)
