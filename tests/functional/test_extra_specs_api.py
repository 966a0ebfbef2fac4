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


"""Our extra specs, validated by Nova's API over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fixtures import cloud as embedded

HOSTS = (embedded.HostSpec('host', (embedded.NodeSpec(memory_mib=2048),)),)

VALIDATING = '2.86'
NOT_VALIDATING = '2.85'
NAME = 'numa_hugepages:max_distance'


@pytest.fixture
def flavor(cloud: embedded.EmbeddedCloud) -> Iterator[str]:
    """A flavor without extra specs."""
    flavor_id = cloud.api.create_flavor('plain', vcpus=1, ram_mib=512)
    yield flavor_id
    cloud.api.delete_flavor(flavor_id)


def add(
    cloud: embedded.EmbeddedCloud,
    flavor: str,
    name: str,
    value: str,
    microversion: str = VALIDATING,
) -> dict[str, dict[str, str]]:
    """Add an extra spec to a flavor."""
    answer: dict[str, dict[str, str]] = cloud.api.request(
        'POST',
        f'/flavors/{flavor}/os-extra_specs',
        {'extra_specs': {name: value}},
        microversion=microversion,
    )
    return answer


@pytest.mark.parametrize('value', ['10', '21', '255'])
def test_good_distance_is_taken(
    cloud: embedded.EmbeddedCloud, flavor: str, value: str
) -> None:
    # Given a flavor, when a distance that can be is added,
    answer = add(cloud, flavor, NAME, value)

    # then the flavor has it.
    assert answer == {'extra_specs': {NAME: value}}


@pytest.mark.parametrize(
    ('value', 'problem'),
    [
        ('9', "'9' is less than the min value of '10'"),
        ('-1', "'-1' is less than the min value of '10'"),
        ('256', "'256' is greater than the max value of '255'"),
        ('12.5', "'12.5' is not a valid integer value"),
        ('near', "'near' is not a valid integer value"),
        ('1O', "'1O' is not a valid integer value"),
        ('', "'' is not a valid integer value"),
    ],
)
def test_bad_distance_is_refused(
    cloud: embedded.EmbeddedCloud, flavor: str, value: str, problem: str
) -> None:
    # Given a flavor, when a distance that cannot be is added,
    with pytest.raises(embedded.APIError) as refusal:
        add(cloud, flavor, NAME, value)

    # then it is a bad request whose text says what is wrong,
    assert refusal.value.status == 400
    assert problem in refusal.value.message
    # and the flavor has nothing.
    assert cloud.api.request('GET', f'/flavors/{flavor}/os-extra_specs') == {
        'extra_specs': {}
    }


def test_unknown_name_is_refused(
    cloud: embedded.EmbeddedCloud, flavor: str
) -> None:
    # Given a flavor, when a name of our namespace that isn't ours is added,
    with pytest.raises(embedded.APIError) as refusal:
        add(cloud, flavor, 'numa_hugepages:max_distanze', '20')

    # then it is a bad request whose text names it.
    assert refusal.value.status == 400
    assert 'numa_hugepages:max_distanze' in refusal.value.message


def test_bad_update_is_refused(
    cloud: embedded.EmbeddedCloud, flavor: str
) -> None:
    # Given a flavor with a distance,
    add(cloud, flavor, NAME, '20')

    # when it is changed to one that cannot be,
    with pytest.raises(embedded.APIError) as refusal:
        cloud.api.request(
            'PUT',
            f'/flavors/{flavor}/os-extra_specs/{NAME}',
            {NAME: 'far'},
            microversion=VALIDATING,
        )

    # then it is a bad request, and the distance is what it was.
    assert refusal.value.status == 400
    assert cloud.api.request(
        'GET', f'/flavors/{flavor}/os-extra_specs/{NAME}'
    ) == {NAME: '20'}


def test_old_microversion_is_not_validated(
    cloud: embedded.EmbeddedCloud, flavor: str
) -> None:
    # Given a flavor, when a client of before the validation adds anything,
    answer = add(cloud, flavor, NAME, 'near', microversion=NOT_VALIDATING)

    # then Nova takes it: it is for the filter to cope with.
    assert answer == {'extra_specs': {NAME: 'near'}}
