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

"""Where the releases of Nova differ for the driver."""

import types

from nova import objects
from nova.compute import claims
from nova.virt import hardware as nova_hardware
import pytest

from nova_numa_hugepages.libvirt import novas
from nova_numa_hugepages.nova_fit import numa_fit
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import pinned_cell
from tests.unit.nova_builders import devices
from tests.unit.nova_builders import guest
from tests.unit.nova_builders import topology


@pytest.fixture(autouse=True)
def stock_nova():
    yield
    numa_fit.uninstall()


def service(stats):
    """What the compute service gives to the driver."""
    known = None if stats is None else types.SimpleNamespace(stats=stats)
    tracker = types.SimpleNamespace(pci_tracker=known)
    return types.SimpleNamespace(_compute=types.SimpleNamespace(rt=tracker))


def test_devices_that_the_service_does_not_know_yet():
    assert novas.claim_devices(service(None))() is None
    assert novas.claim_devices(None)() is None


def test_scheduler_and_claim_keep_away_from_the_same_devices():
    # given: devices in the cell that would be taken, and a guest without
    host_topology = topology(host_cell(0), host_cell(1))
    stats = devices(host_topology, {0: 1})
    compute = service(stats)
    asked = guest(pinned_cell(1))
    numa_fit.install(host_devices=novas.claim_devices(compute))

    # when: the scheduler fits it, and then the claim of this Nova
    planned = nova_hardware.numa_fit_instance_to_host(
        host_topology, asked, None, pci_requests=[], pci_stats=stats
    )
    claim = claims.Claim.__new__(claims.Claim)
    claim.tracker = compute._compute.rt
    claim.instance = types.SimpleNamespace(numa_topology=asked)
    claim._pci_requests = objects.InstancePCIRequests(requests=[])
    why = claim._test_numa_topology(
        objects.ComputeNode(numa_topology=host_topology._to_json()), None
    )

    # then
    assert why is None
    assert [cell.id for cell in planned.cells] == [1]
    assert [cell.id for cell in claim.claimed_numa_topology.cells] == [1]
