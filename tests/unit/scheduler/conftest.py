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


"""Fixtures of the tests of the scheduler."""

import pytest

from nova_numa_hugepages.nova_fit import numa_fit
from nova_numa_hugepages.scheduler import demand
from nova_numa_hugepages.scheduler import filters
from tests.unit import nova_builders


@pytest.fixture
def numa_filter():
    yield filters.NUMAHugepagesFilter()
    numa_fit.uninstall()


@pytest.fixture
def alone(tmp_path):
    """Leave nothing behind for other tests."""
    demand.stop()
    with nova_builders.option('state_path', str(tmp_path)):
        yield
    demand.stop()
    numa_fit.uninstall()
