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


"""Our rule for a guest's networks against that of stock Nova."""

import itertools

import hypothesis
from hypothesis import strategies as st
from nova.virt import hardware as nova_hardware

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.fit import fitter
from tests.unit import nova_builders
from tests.unit.core import builders
from tests.unit.core import dice

NAMES = ('red', 'blue', 'green')

networks = st.frozensets(st.sampled_from(NAMES))


def nova_agrees(host, cell_ids, physnets, tunneled):
    """Ask stock Nova whether a guest's networks may be near these cells."""
    topology = nova_builders.topology(*host.cells)
    return nova_hardware._numa_cells_support_network_metadata(
        topology,
        [cell for cell in topology.cells if cell.id in cell_ids],
        nova_builders.network(physnets, tunneled),
    )


@hypothesis.given(
    near=st.lists(
        st.tuples(networks, st.booleans(), st.booleans()),
        min_size=1,
        max_size=4,
    ),
    count=st.integers(1, 3),
    physnets=networks,
    tunneled=st.booleans(),
)
@dice.examples(0.05)
def test_a_guest_goes_where_nova_has_its_networks_near(
    near, count, physnets, tunneled
):
    # Given host cells near some networks, of which a few have no free CPU,
    host = builders.host(
        *[
            builders.host_cell(
                number, cores=int(free), physnets=names, tunneled=tunnel
            )
            for number, (names, tunnel, free) in enumerate(near)
        ]
    )
    guest = builders.request(
        *[builders.pinned_cell(1, first=vcpu) for vcpu in range(count)],
        physnets=physnets,
        tunneled=tunneled,
    )

    # when a guest is fitted,
    outcome = fitter.fit(guest, host)

    # then it is on cells that Nova agrees to, or on none if there are none.
    free = [cell.id for cell in host.cells if cell.free_cpus]
    agreed = [
        set(cell_ids)
        for cell_ids in itertools.combinations(free, count)
        if nova_agrees(host, cell_ids, physnets, tunneled)
    ]
    if isinstance(outcome, model.Plan):
        assert {cell.host_cell for cell in outcome.cells} in agreed
    else:
        assert agreed == []
