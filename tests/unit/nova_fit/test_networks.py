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

from tests.unit import nova_builders
from tests.unit.core import builders
from tests.unit.core import dice
from tests.unit.nova_fit.fitting import cells_of
from tests.unit.nova_fit.fitting import fit

NETWORKS = [
    nova_builders.network(physnets, tunneled)
    for physnets in ((), ('red',), ('blue',), ('red', 'blue'))
    for tunneled in (False, True)
]


@hypothesis.given(
    near=st.lists(
        st.tuples(st.sampled_from(NETWORKS), st.sampled_from([1, 1, 0])),
        min_size=1,
        max_size=4,
    ),
    count=st.integers(1, 2),
    asked=st.sampled_from(NETWORKS),
)
@dice.examples(0.2)
def test_a_guest_goes_where_nova_has_its_networks_near(near, count, asked):
    # Given host cells near some networks, of which a few have no free CPU,
    host = nova_builders.topology(
        *[
            builders.host_cell(
                number,
                cores=free,
                physnets=each.physnets,
                tunneled=each.tunneled,
            )
            for number, (each, free) in enumerate(near)
        ]
    )
    guest = nova_builders.guest(
        *[builders.pinned_cell(1, first=vcpu) for vcpu in range(count)]
    )

    # when a guest is fitted,
    found = fit(host, guest, None, nova_builders.limits(networks=asked))

    # then it is on cells that Nova agrees to, or on none if there are none.
    agreed = [
        {cell.id for cell in cells}
        for cells in itertools.combinations(host.cells, count)
        if all(cell.pcpuset for cell in cells)
        and nova_hardware._numa_cells_support_network_metadata(
            host, list(cells), asked
        )
    ]
    hypothesis.event(f'agreed: {bool(agreed)}')
    if found is None:
        assert agreed == []
    else:
        assert set(cells_of(found)) in agreed
