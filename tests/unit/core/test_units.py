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


"""Tests of page sizes and amounts of memory."""

import pytest

from nova_numa_hugepages.core import units


@pytest.mark.parametrize(
    ('size_kib', 'text'),
    [
        (4, '4 KiB'),
        (64, '64 KiB'),
        (1024, '1 MiB'),
        (1536, '1536 KiB'),
        (2048, '2 MiB'),
        (1048576, '1 GiB'),
        (1572864, '1536 MiB'),
        (16 * 1048576, '16 GiB'),
        (0, '0 KiB'),
    ],
)
def test_an_amount_is_written_in_the_largest_unit_that_divides_it(
    size_kib, text
):
    assert units.format_kib(size_kib) == text


@pytest.mark.parametrize(
    ('memory_mib', 'size_kib', 'pages'),
    [
        (1024, 4, 262144),
        (1024, 2048, 512),
        (1024, 1048576, 1),
        (1023, 2048, None),
        (1, 2048, None),
        (1536, 1048576, None),
        (0, 2048, 0),
        # Too large for a float to hold exactly.
        (2**60 + 1, 1024, 2**60 + 1),
    ],
)
def test_memory_is_a_whole_number_of_pages_or_none(
    memory_mib, size_kib, pages
):
    assert units.pages_for(memory_mib, size_kib) == pages


def test_pages_are_integers():
    assert type(units.pages_for(1024, 2048)) is int
