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

"""Extra specs of the namespace ``numa_hugepages`` in the API."""

from __future__ import annotations

from tempest.lib import decorators
from tempest.lib import exceptions
from tempest.lib.common.utils import data_utils

from nova_numa_hugepages.tempest.tests import base

_MAX_DISTANCE = 'numa_hugepages:max_distance'
_GUEST_DISTANCES = 'numa_hugepages:guest_distances'


class ExtraSpecsTest(base.BaseTest):
    """Invalid values are refused before a server is requested."""

    def setUp(self) -> None:
        super().setUp()
        self.flavor = self.create_flavor(self.make_spec())

    def _set(self, name: str, value: str) -> None:
        self.flavors_client.set_flavor_extra_spec(self.flavor, **{name: value})

    def _assert_refused(self, name: str, value: str) -> None:
        self.assertRaises(exceptions.BadRequest, self._set, name, value)
        specs = self.flavors_client.list_flavor_extra_specs(self.flavor)
        self.assertNotIn(name, specs['extra_specs'])

    @decorators.idempotent_id('b66d8fff-c922-4258-bd3c-0919de34e3d7')
    def test_good_values_are_accepted(self) -> None:
        self._set(_MAX_DISTANCE, '21')
        self._set(_GUEST_DISTANCES, 'true')

        specs = self.flavors_client.list_flavor_extra_specs(self.flavor)
        self.assertEqual(
            ('21', 'true'),
            (
                specs['extra_specs'][_MAX_DISTANCE],
                specs['extra_specs'][_GUEST_DISTANCES],
            ),
        )

    @decorators.attr(type=['negative'])
    @decorators.idempotent_id('ca9229cc-2f7b-463c-8ed8-b4aee968bb33')
    def test_max_distance_that_is_no_number(self) -> None:
        self._assert_refused(_MAX_DISTANCE, 'abc')

    @decorators.attr(type=['negative'])
    @decorators.idempotent_id('73152718-8fb7-4eb7-a172-f823f2599d16')
    def test_max_distance_below_that_of_a_node_to_itself(self) -> None:
        self._assert_refused(_MAX_DISTANCE, '9')

    @decorators.attr(type=['negative'])
    @decorators.idempotent_id('2ec27ec3-e4e9-4947-a73b-ac02b60d6e22')
    def test_max_distance_that_no_firmware_reports(self) -> None:
        self._assert_refused(_MAX_DISTANCE, '256')

    @decorators.attr(type=['negative'])
    @decorators.idempotent_id('7d429fba-b0d4-4a3e-8b5f-f4d4c337ee21')
    def test_guest_distances_that_is_no_boolean(self) -> None:
        self._assert_refused(_GUEST_DISTANCES, 'far')

    @decorators.attr(type=['negative'])
    @decorators.idempotent_id('51437d14-f4c3-4042-bb59-7cf9986a8065')
    def test_name_that_is_not_known(self) -> None:
        self._assert_refused(
            f'numa_hugepages:{data_utils.rand_name("x")}', 'true'
        )
