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


"""Tests of the facts that hosts report beside Nova's accounts."""

import json

import pytest

from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.core.host_stats import HostStats

VALUE = (
    '{"cells":{"0":{"distances":[10,21],'
    '"pages":{"2048":{"allocatable":128,"free":512}}},'
    '"1":{"distances":[21,10],"pages":{"1048576":{"free":4}}}},'
    '"version":1}'
)
FACTS = HostStats(
    distances={0: (10, 21), 1: (21, 10)},
    free={0: {2048: 512}, 1: {1048576: 4}},
    allocatable={0: {2048: 128}},
)


def value(cells, version=1):
    return json.dumps({'version': version, 'cells': cells})


def test_the_key_is_the_one_that_is_documented():
    assert (host_stats.STATS_KEY, host_stats.VERSION) == ('numa_hugepages', 1)


def test_facts_are_read():
    assert host_stats.parse(VALUE) == FACTS


def test_facts_are_written_as_they_are_read():
    assert FACTS.dump() == VALUE
    assert host_stats.parse(FACTS.dump()) == FACTS


def test_equal_facts_are_written_equally():
    turned = HostStats(
        distances={1: (21, 10), 0: (10, 21)},
        free={1: {1048576: 4}, 0: {2048: 512}},
        allocatable={0: {2048: 128}},
    )

    assert turned.dump() == VALUE


def test_no_facts_are_written_with_the_version():
    assert HostStats().dump() == '{"cells":{},"version":1}'


@pytest.mark.parametrize(
    'text',
    [
        '{"version": 1}',
        '{"version": 1, "cells": {}}',
        '{"version": 1, "cells": {"0": {}}}',
        '{"version": 1, "cells": {"0": {"pages": {"2048": {}}}}}',
    ],
)
def test_all_but_the_version_may_be_missing(text):
    assert host_stats.parse(text) == HostStats()


def test_keys_that_are_not_known_are_ignored():
    text = (
        '{"version": 1, "mood": "good", "cells": {"0": {"colour": [1], '
        '"distances": [10], "pages": {"4": {"free": 7, "warm": 1}}}}}'
    )

    assert host_stats.parse(text) == HostStats(
        distances={0: (10,)}, free={0: {4: 7}}
    )


@pytest.mark.parametrize('distance', [10, 255])
def test_distances_have_the_range_of_the_slit(distance):
    found = host_stats.parse(value({'3': {'distances': [distance]}}))

    assert found == HostStats(distances={3: (distance,)})


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'not JSON: Expecting value: line 1 column 1 (char 0)'),
        ('{', None),
        (
            '[1]',
            'expected an object, found [1]',
        ),
        ('{}', 'version: expected an integer, found None'),
        (
            '{"version": "1"}',
            "version: expected an integer, found '1'",
        ),
        (
            '{"version": true}',
            'version: expected an integer, found True',
        ),
        (
            '{"version": 2, "cells": 7}',
            'version 2 is not known here (up to 1 is); upgrade this service '
            'to the version of the compute',
        ),
        (
            '{"version": 0}',
            'version 0 is not known here (up to 1 is); upgrade this service '
            'to the version of the compute',
        ),
        (value([]), 'cells: expected an object, found []'),
        (value({'one': {}}), "cells: expected a number, found 'one'"),
        (value({'-1': {}}), "cells: expected a number, found '-1'"),
        (value({'²': {}}), "cells: expected a number, found '²'"),
        (
            value({'1' * 20: {}}),
            "cells: expected a number, found '11111111111111111111'",
        ),
        (value({'0': 7}), 'cells.0: expected an object, found 7'),
        (
            value({'0': {'distances': {}}}),
            'cells.0.distances: expected a list, found {}',
        ),
        (
            value({'0': {'distances': [10, 'far']}}),
            "cells.0.distances: expected an integer, found 'far'",
        ),
        (
            value({'0': {'distances': [9]}}),
            'cells.0.distances: 9 is not from 10 to 255',
        ),
        (
            value({'0': {'distances': [10, 256]}}),
            'cells.0.distances: 256 is not from 10 to 255',
        ),
        (
            value({'0': {'pages': []}}),
            'cells.0.pages: expected an object, found []',
        ),
        (
            value({'0': {'pages': {'2M': {}}}}),
            "cells.0.pages: expected a number, found '2M'",
        ),
        (
            value({'0': {'pages': {'2048': 512}}}),
            'cells.0.pages.2048: expected an object, found 512',
        ),
        (
            value({'0': {'pages': {'2048': {'free': -1}}}}),
            'cells.0.pages.2048.free: -1 is below 0',
        ),
        (
            value({'0': {'pages': {'2048': {'allocatable': 1.5}}}}),
            'cells.0.pages.2048.allocatable: expected an integer, found 1.5',
        ),
        (
            value({'0': {'pages': 'x' * 100}}),
            f"cells.0.pages: expected an object, found '{'x' * 36}...",
        ),
        ('[' * 100_000, None),
    ],
)
def test_a_value_that_can_t_be_read_names_what_is_wrong(text, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        host_stats.parse(text)

    if message is not None:
        assert str(caught.value) == message
    else:
        assert str(caught.value).startswith('not JSON: ')


class TestDistanceMatrix:
    """The distances in the order of a host's cells."""

    def test_rows_are_in_the_order_of_the_cells(self):
        known = HostStats(
            distances={0: (10, 12, 31), 2: (31, 32, 10), 1: (12, 10, 32)}
        )

        assert known.distance_matrix([0, 1, 2]) == (
            (10, 12, 31),
            (12, 10, 32),
            (31, 32, 10),
        )

    def test_the_two_directions_of_a_pair_count_by_the_larger_one(self):
        known = HostStats(distances={0: (10, 20), 1: (30, 10)})

        assert known.distance_matrix([0, 1]) == ((10, 30), (30, 10))

    @pytest.mark.parametrize(
        'distances',
        [
            pytest.param({}, id='no cell'),
            pytest.param({0: (10, 20)}, id='only one cell'),
            pytest.param({0: (10, 20), 1: (20,)}, id='too few of one'),
            pytest.param(
                {0: (10, 20, 30), 1: (20, 10, 30)}, id='too many of all'
            ),
        ],
    )
    def test_distances_that_are_not_all_there_are_unknown(self, distances):
        assert HostStats(distances=distances).distance_matrix([0, 1]) is None

    def test_the_same_facts_answer_for_hosts_with_other_cells(self):
        known = HostStats(distances={0: (10, 20), 1: (30, 10), 2: (40,)})

        assert known.distance_matrix([2]) == ((40,),)
        assert known.distance_matrix([0, 1]) == ((10, 30), (30, 10))
        assert known.distance_matrix([0, 1, 2]) is None

    def test_asking_changes_no_fact(self):
        known = host_stats.parse(VALUE)

        known.distance_matrix([0, 1])

        assert known == FACTS


def sixteen_nodes():
    """The facts of the largest host: 16 nodes with 1 TiB in two sizes."""
    ids = range(16)
    counts = {n: {2048: 524288, 1048576: 1024} for n in ids}
    return host_stats.HostStats(
        distances=dict.fromkeys(ids, (254,) * 16),
        free=counts,
        allocatable=counts,
        unusable_permille={n: {2048: 1000, 1048576: 1000} for n in ids},
    )


def test_how_fragmented_memory_is_survives_the_stats():
    known = host_stats.HostStats(
        allocatable={0: {2048: 7}}, unusable_permille={0: {2048: 20}}
    )

    assert host_stats.parse(known.dump()) == known
    assert '"unusable_permille":20' in known.dump()


def test_who_waits_survives_the_stats():
    known = host_stats.HostStats(waiting={'a-uuid': 1024})

    assert host_stats.parse(known.dump()) == known
    assert known.bounded(30) == host_stats.HostStats()


@pytest.mark.parametrize('waiting', [[], {'a-uuid': -1}, {'a-uuid': '1'}])
def test_who_waits_is_checked(waiting):
    text = json.dumps({'version': 1, 'waiting': waiting})
    with pytest.raises(ValueError, match='waiting'):
        host_stats.parse(text)


def test_all_that_a_host_of_16_nodes_reports_fits_in_16_kib():
    known = sixteen_nodes()

    assert len(known.dump()) < 16384
    assert known.bounded() is known


@pytest.mark.parametrize(
    ('length', 'left_out'),
    [
        (3000, {'unusable_permille'}),
        (2600, {'unusable_permille', 'free'}),
        (1500, {'unusable_permille', 'free', 'distances'}),
    ],
)
def test_what_is_missed_least_is_left_out_first(length, left_out):
    known = sixteen_nodes()

    less = known.bounded(length)

    assert len(less.dump()) <= length
    assert {
        name
        for name in ('unusable_permille', 'free', 'distances', 'allocatable')
        if not getattr(less, name)
    } == left_out
    assert host_stats.parse(less.dump()) == less
