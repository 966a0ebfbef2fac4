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


"""Tests of the fit: networks and devices, which concern a set of cells."""

from nova_numa_hugepages.core.fit.fitter import fit
from nova_numa_hugepages.core.rejection import Reason
from nova_numa_hugepages.core.rejection import Rejection
from tests.unit.core.builders import Cards
from tests.unit.core.builders import host
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import request
from tests.unit.core.fit.fitting import cells_of
from tests.unit.core.fit.fitting import four_free_cells


class TestNetworks:
    """The host cells that networks are near to."""

    NEAR_2 = (
        host_cell(0),
        host_cell(1),
        host_cell(2, physnets={'red'}, tunneled=True),
        host_cell(3, physnets={'blue'}),
    )

    def placed(self, *cells, networks=NEAR_2, **others):
        return fit(request(*cells, **others), host(*networks))

    def test_a_guest_without_networks_goes_anywhere(self):
        assert cells_of(self.placed(pinned_cell(1))) == [0]

    def test_a_physical_network_is_near_a_chosen_cell(self):
        one, two = pinned_cell(1), pinned_cell(1, first=1)

        assert cells_of(self.placed(one, physnets={'red'})) == [2]
        assert cells_of(self.placed(one, two, physnets={'red'})) == [0, 2]
        assert cells_of(self.placed(one, two, physnets={'red', 'blue'})) == [
            2,
            3,
        ]

    def test_the_tunnel_is_near_a_chosen_cell(self):
        assert cells_of(self.placed(pinned_cell(1), tunneled=True)) == [2]

    def test_networks_near_no_cell_are_used_from_anywhere(self):
        nowhere = tuple(host_cell(number) for number in range(2))

        assert cells_of(
            self.placed(
                pinned_cell(1),
                networks=nowhere,
                physnets={'red'},
                tunneled=True,
            )
        ) == [0]

    def test_one_cell_can_t_be_near_two_networks(self):
        outcome = self.placed(
            pinned_cell(1), physnets={'red', 'blue'}, tunneled=True
        )

        assert outcome == Rejection(
            Reason.NETWORK,
            detail='physical network blue, physical network red, the tunnel '
            'endpoint',
        )

    def test_a_cell_near_the_network_has_to_fit_as_well(self):
        outcome = self.placed(
            pinned_cell(5),
            networks=(host_cell(0, cores=8), *self.NEAR_2[1:]),
            physnets={'red'},
        )

        assert outcome == Rejection(
            Reason.NETWORK, detail='physical network red'
        )


class TestDevices:
    """PCI devices, which concern the set of host cells."""

    ONE = request(pinned_cell(1), asks_devices=True)
    TWO = request(pinned_cell(1), pinned_cell(1, first=1), asks_devices=True)

    def test_the_set_has_the_devices(self):
        topology = host(*four_free_cells())
        # Cell 3 has most, but 1 and 2 have enough together with it alone.
        cards = Cards({1: 2, 2: 1, 3: 3}, needed=5)

        plan = fit(self.TWO, topology, devices=cards)

        assert cells_of(plan) == [3, 1]

    def test_no_set_has_them(self):
        outcome = fit(
            self.TWO,
            host(*four_free_cells()),
            devices=Cards({1: 1, 2: 1, 3: 1}, needed=3),
        )

        assert outcome == Rejection(Reason.DEVICES)

    def test_devices_of_a_full_cell_are_out_of_reach(self):
        full = host_cell(2, cores=1, pinned={200})
        topology = host(host_cell(0), host_cell(1), full)

        outcome = fit(self.ONE, topology, devices=Cards({2: 1}, needed=1))

        assert outcome == Rejection(Reason.DEVICES)

    def test_a_host_that_reports_no_devices_is_not_asked(self):
        assert cells_of(fit(self.ONE, host(host_cell()))) == [0]

    def test_a_guest_that_asks_for_none_is_not_refused(self):
        plan = fit(
            request(pinned_cell(1)),
            host(host_cell(0), host_cell(1)),
            devices=Cards({}, needed=1),
        )

        assert cells_of(plan) == [0]

    def test_devices_and_networks_are_asked_for_together(self):
        topology = host(
            host_cell(0),
            host_cell(1, physnets={'red'}),
            host_cell(2, physnets={'red'}),
        )
        guest = request(
            pinned_cell(1),
            pinned_cell(1, first=1),
            physnets={'red'},
            asks_devices=True,
        )

        plan = fit(guest, topology, devices=Cards({0: 1}, needed=1))

        assert cells_of(plan) == [0, 1]
