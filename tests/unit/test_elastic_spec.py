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

"""Tests of what a flavor can ask for: the sizes of elastic guest cells."""

import pytest

from nova_numa_hugepages import elastic_spec
from nova_numa_hugepages import exception
from nova_numa_hugepages.elastic_spec import ElasticCell

PERCENT = 'numa_hugepages:elastic_base_percent'
MIB = 'numa_hugepages:elastic_base_mib'
SMALL, LARGE = 2048, 1048576


def check(specs, *cells_mib, page_kib=SMALL, **properties):
    """Check what a flavor asks for."""
    return elastic_spec.check(
        specs, properties, [(mib, page_kib) for mib in cells_mib]
    )


def test_a_flavor_that_asks_for_nothing():
    assert check({'hw:mem_page_size': 'large'}, 4096) is None


@pytest.mark.parametrize(
    ('specs', 'cells_mib', 'bases'),
    [
        ({PERCENT: '50'}, (4096,), [2048]),
        ({PERCENT: '50'}, (4096, 2048), [2048, 1024]),
        ({PERCENT: '25'}, (8192, 8192), [2048, 2048]),
        ({MIB: '1024'}, (4096, 2048), [1024, 1024]),
        # Of a cell that has no more all of it.
        ({MIB: '3072'}, (8192, 2048), [3072, 2048]),
        # Up, so that the rest is whole blocks.
        ({PERCENT: '50'}, (3000,), [3000 - 1408]),
        ({MIB: '2000'}, (4096,), [2048]),
        ({PERCENT: '100'}, (4096,), [4096]),
    ],
)
def test_the_base_of_each_cell(specs, cells_mib, bases):
    assert check(specs, *cells_mib) == [
        ElasticCell(base, mib)
        for base, mib in zip(bases, cells_mib, strict=True)
    ]


def test_with_pages_of_a_gibibyte_blocks_are_as_large():
    assert check({PERCENT: '30'}, 5 * 1024, page_kib=LARGE) == [
        ElasticCell(2 * 1024, 5 * 1024)
    ]


def test_a_guest_that_boots_with_much_has_large_blocks():
    [cell] = check({PERCENT: '50'}, 131 * 1024)
    assert cell == ElasticCell(67 * 1024, 131 * 1024)
    # Also if only what it is rounded up to is much.
    [cell] = check({MIB: str(64 * 1024 - 100)}, 90 * 1024)
    assert cell == ElasticCell(64 * 1024, 90 * 1024)


@pytest.mark.parametrize(
    ('specs', 'cells_mib', 'page_kib', 'properties', 'said'),
    [
        ({PERCENT: '50'}, (), SMALL, {}, 'not huge pages of 2 MiB or more'),
        ({PERCENT: '50'}, (4096,), 4, {}, 'Set hw:mem_page_size to 2MB'),
        ({PERCENT: '50'}, (4096,), 64, {}, 'not huge pages of 2 MiB or more'),
        (
            {PERCENT: '50'},
            (1536,),
            SMALL,
            {},
            'it would boot with 768 MiB, and its kernel needs at least 1024',
        ),
        (
            {MIB: '1024'},
            (8192,),
            SMALL,
            {},
            'it would boot with 1024 MiB, and its kernel needs at least 2048',
        ),
        (
            {PERCENT: '97'},
            (2048,),
            SMALL,
            {},
            'has 128 MiB beyond its base, which is the least',
        ),
        (
            {PERCENT: '75'},
            (2048, 2048),
            LARGE,
            {},
            'has 1024 MiB beyond its base',
        ),
        (
            {PERCENT: '50', 'hw:cpu_realtime': 'yes'},
            (4096,),
            SMALL,
            {},
            "hw:cpu_realtime is 'yes', which locks the memory",
        ),
        (
            {PERCENT: '50', 'hw:locked_memory': 'True'},
            (4096,),
            SMALL,
            {},
            "hw:locked_memory is 'True', which locks",
        ),
        (
            {PERCENT: '50'},
            (4096,),
            SMALL,
            {'hw_locked_memory': True},
            'hw_locked_memory is True, which locks',
        ),
        (
            {PERCENT: '50', 'hw:mem_encryption': 'true'},
            (4096,),
            SMALL,
            {},
            "hw:mem_encryption is 'true', which encrypts",
        ),
        (
            {PERCENT: '50'},
            (4096,),
            SMALL,
            {'hw_mem_encryption': True},
            'hw_mem_encryption is True, which encrypts',
        ),
        (
            {PERCENT: '50', 'hw:pmem': '6GB'},
            (4096,),
            SMALL,
            {},
            "hw:pmem is '6GB', which adds memory devices",
        ),
        (
            {PERCENT: '50'},
            (4096,),
            SMALL,
            {'hw_machine_type': 'pc-q35-6.2'},
            'machine type pc-q35-6.2 is too old for virtio-mem',
        ),
        (
            {PERCENT: '50'},
            (4096,),
            SMALL,
            {'hw_machine_type': 'pc-i440fx-5.1'},
            'machine type pc-i440fx-5.1 is too old',
        ),
    ],
)
def test_what_is_not_possible(specs, cells_mib, page_kib, properties, said):
    with pytest.raises(exception.ElasticRefused) as raised:
        check(specs, *cells_mib, page_kib=page_kib, **properties)

    assert said in str(raised.value)
    assert str(raised.value).endswith('on the flavor.')


@pytest.mark.parametrize(
    ('specs', 'properties'),
    [
        ({'hw:cpu_realtime': 'no', 'hw:locked_memory': 'false'}, {}),
        ({}, {'hw_locked_memory': False, 'hw_mem_encryption': None}),
        ({}, {'hw_machine_type': 'q35'}),
        ({}, {'hw_machine_type': 'pc-q35-7.0'}),
        ({}, {'hw_machine_type': 'pc-q35-10.1'}),
        ({}, {'hw_machine_type': 'pc-q35-rhel9.2.0'}),
    ],
)
def test_what_does_not_exclude_it(specs, properties):
    assert check({PERCENT: '50', **specs}, 4096, **properties)


@pytest.mark.parametrize(
    'specs',
    [
        {PERCENT: '24'},
        {PERCENT: '101'},
        {PERCENT: 'half'},
        {PERCENT: ''},
        {MIB: '0'},
        {MIB: '-1'},
        {MIB: '1GiB'},
        {MIB: '1024', PERCENT: '50'},
    ],
)
def test_values_that_have_no_meaning(specs):
    with pytest.raises(exception.InvalidExtraSpec, match='elastic_base_'):
        check(specs, 4096)


def test_an_image_asks_with_underscores():
    properties = {'numa_hugepages_elastic_base_percent': '80', 'os_type': 'x'}
    assert elastic_spec.image_base(properties).percent == 80
    assert elastic_spec.image_base({'os_type': 'x'}) is None
