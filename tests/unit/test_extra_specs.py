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

"""Extra specs, as the scheduler, the driver and Nova's API read them."""

import json
import pathlib

from nova import exception as nova_exception
from nova.api.validation.extra_specs import validators
import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages import extra_specs
from nova_numa_hugepages.api import extra_specs as api_extra_specs

NAME = 'numa_hugepages:max_distance'
DISTANCES = 'numa_hugepages:guest_distances'
USED = 'numa_hugepages:alarm_used_percent'
BASE_PERCENT = 'numa_hugepages:elastic_base_percent'
BASE_MIB = 'numa_hugepages:elastic_base_mib'

GOOD = {'10': 10, '21': 21, '255': 255, ' 40 ': 40}
BAD = ['9', '256', '-21', '0', '', 'near', '21.0', '2 1', '0x15', '9' * 5000]


def test_a_flavor_without_the_extra_spec_sets_no_limit():
    assert extra_specs.max_distance({'hw:numa_nodes': '2'}) is None


@pytest.mark.parametrize(('value', 'distance'), GOOD.items())
def test_the_scheduler_reads_a_distance(value, distance):
    assert extra_specs.max_distance({NAME: value}) == distance


@pytest.mark.parametrize('value', BAD, ids=lambda value: repr(value)[:8])
def test_the_scheduler_refuses_other_values(value):
    with pytest.raises(exception.InvalidExtraSpec) as caught:
        extra_specs.max_distance({NAME: value})

    assert str(caught.value).startswith(
        f'extra spec {NAME} is {value!r}; expected an integer from 10 to 255'
    )


@pytest.mark.parametrize('value', GOOD)
def test_the_api_accepts_what_the_scheduler_reads(value):
    validators.validate(NAME, value)


@pytest.mark.parametrize('value', BAD, ids=lambda value: repr(value)[:8])
def test_the_api_refuses_what_the_scheduler_refuses(value):
    with pytest.raises(nova_exception.ValidationError):
        validators.validate(NAME, value)


def test_the_api_refuses_names_that_are_not_ours_to_have():
    with pytest.raises(nova_exception.ValidationError):
        validators.validate('numa_hugepages:max_distanze', '21')


def test_the_validators_cover_the_namespace():
    names = [validator.name for validator in api_extra_specs.register()]

    assert names == [NAME, DISTANCES, BASE_PERCENT, BASE_MIB, USED]


@pytest.mark.parametrize(
    ('name', 'value', 'base'),
    [
        (BASE_PERCENT, '25', extra_specs.ElasticBase(25, None)),
        (BASE_PERCENT, '100', extra_specs.ElasticBase(100, None)),
        (BASE_MIB, '2048', extra_specs.ElasticBase(None, 2048)),
    ],
)
def test_the_driver_reads_a_base(name, value, base):
    validators.validate(name, value)

    assert extra_specs.elastic_base({name: value}) == base
    assert extra_specs.elastic_base({}) is None


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        *((BASE_PERCENT, value) for value in ('24', '101', '', '50%', '50.5')),
        *((BASE_MIB, value) for value in ('0', '-1', '1GiB', str(2**31))),
    ],
)
def test_a_base_that_is_none_is_refused(name, value):
    with pytest.raises(exception.InvalidExtraSpec, match='integer from'):
        extra_specs.elastic_base({name: value})
    with pytest.raises(nova_exception.ValidationError):
        validators.validate(name, value)


@pytest.mark.parametrize(
    ('value', 'percent'), [('1', 1), ('75', 75), ('100', 100)]
)
def test_the_monitor_reads_a_share(value, percent):
    validators.validate(USED, value)

    assert extra_specs.alarm_used_percent({USED: value}) == percent
    assert extra_specs.alarm_used_percent({}) is None


@pytest.mark.parametrize('value', ['', '0', '101', '-5', '7.5', 'much'])
def test_a_share_that_is_none_is_refused(value):
    with pytest.raises(exception.InvalidExtraSpec, match='from 1 to 100'):
        extra_specs.alarm_used_percent({USED: value})
    with pytest.raises(nova_exception.ValidationError):
        validators.validate(USED, value)


def test_distances_are_not_exposed_by_default():
    assert extra_specs.guest_distances({'hw:numa_nodes': '2'}) is False


@pytest.mark.parametrize(
    ('value', 'answer'),
    [
        ('true', True),
        ('Yes', True),
        ('1', True),
        ('false', False),
        ('0', False),
    ],
)
def test_the_driver_reads_a_boolean(value, answer):
    validators.validate(DISTANCES, value)

    assert extra_specs.guest_distances({DISTANCES: value}) is answer


@pytest.mark.parametrize('value', ['', 'near', '2', 'true false'])
def test_a_value_that_is_no_boolean_is_refused(value):
    with pytest.raises(exception.InvalidExtraSpec, match="'true' or 'false'"):
        extra_specs.guest_distances({DISTANCES: value})
    with pytest.raises(nova_exception.ValidationError):
        validators.validate(DISTANCES, value)


def test_horizon_shows_what_the_api_accepts():
    # The format is that of glance/etc/metadefs, which names no schema.
    path = (
        pathlib.Path(__file__).parents[2]
        / 'etc/nova-numa-hugepages/metadefs/compute-numa-hugepages.json'
    )
    found = json.loads(path.read_text())
    kinds = {'integer': int, 'boolean': bool}

    assert found['resource_type_associations'] == [
        {'name': 'OS::Nova::Flavor'}
    ]
    assert {
        name: (
            kinds[known['type']],
            known.get('minimum'),
            known.get('maximum'),
        )
        for name, known in found['properties'].items()
    } == {
        spec.name: (
            spec.value['type'],
            spec.value.get('min'),
            spec.value.get('max'),
        )
        for spec in api_extra_specs.register()
    }
