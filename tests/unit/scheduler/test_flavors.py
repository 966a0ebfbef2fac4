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


"""The flavors of the cloud, and the demand that is pinned to them."""

import logging

from nova import context
from nova import objects
from nova.tests import fixtures as nova_fixtures
from oslo_db import exception as db_exception
import pytest

from nova_numa_hugepages import conf as package_conf
from nova_numa_hugepages import exception
from nova_numa_hugepages.core.capacity import guest_kinds
from nova_numa_hugepages.scheduler import flavors
from nova_numa_hugepages.scheduler.flavors import FlavorKinds
from nova_numa_hugepages.scheduler.flavors import PinnedMix
from tests.unit import nova_builders
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import MIB_2
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import request

PINNED = {'hw:cpu_policy': 'dedicated'}
PAGES = {'hw:mem_page_size': '2MB'}
TWO_CELLS = {**PINNED, **PAGES, 'hw:numa_nodes': '2'}

PINNED_KIND = guest_kinds.guest_kind(request(pinned_cell(4, 1024)))
PAGES_KIND = guest_kinds.guest_kind(request(floating_cell(4, 1024, MIB_2)))


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def database():
    """Nova's API database, and a configuration that names it."""
    package_conf.register_opts(nova_builders.CONF)
    with (
        nova_builders.option('connection', 'sqlite://', 'api_database'),
        nova_fixtures.Database(database='api'),
        # A flavor that is created is announced to other services.
        nova_fixtures.RPCFixture('nova.test'),
    ):
        yield


def flavor(name, specs, **others):
    """Make a flavor of four vCPUs, which is in no database."""
    known = {
        'name': name,
        'flavorid': name,
        'vcpus': 4,
        'memory_mb': 1024,
        'root_gb': 0,
        'ephemeral_gb': 0,
        'swap': 0,
        'rxtx_factor': 1.0,
        'vcpu_weight': 0,
        'disabled': False,
        'is_public': True,
        'extra_specs': specs,
    }
    return objects.Flavor(context.get_admin_context(), **{**known, **others})


def create(name, specs=PINNED, **others):
    made = flavor(name, specs, **others)
    made.create()
    return made


def levels(caplog):
    return [
        record.levelname
        for record in caplog.records
        if record.name == flavors.__name__
    ]


class TestKinds:
    @pytest.mark.parametrize(
        ('specs', 'kind'),
        [
            ({}, None),
            ({'hw:cpu_policy': 'shared'}, None),
            (PINNED, PINNED_KIND),
            (PAGES, PAGES_KIND),
            (
                TWO_CELLS,
                guest_kinds.guest_kind(
                    request(
                        pinned_cell(2, 512, MIB_2),
                        pinned_cell(2, 512, MIB_2, first=2),
                    )
                ),
            ),
            (
                {**TWO_CELLS, 'numa_hugepages:max_distance': '20'},
                guest_kinds.guest_kind(
                    request(
                        pinned_cell(2, 512, MIB_2),
                        pinned_cell(2, 512, MIB_2, first=2),
                    ),
                    20,
                ),
            ),
            (
                {**PINNED, 'hw:emulator_threads_policy': 'isolate'},
                guest_kinds.guest_kind(
                    request(pinned_cell(4, 1024), emulator_isolated=True)
                ),
            ),
        ],
    )
    def test_of_flavors(self, specs, kind):
        assert flavors.kind_of(flavor('any', specs)) == kind

    def test_a_flavor_may_come_without_extra_specs(self):
        assert flavors.kind_of(objects.Flavor(vcpus=1, memory_mb=64)) is None


@pytest.mark.usefixtures('database')
class TestReading:
    def test_the_flavors_that_ask_for_something_are_read(self, caplog):
        create('pinned')
        create('pages', PAGES)
        create('private', PAGES, is_public=False)
        create('plain', {})

        assert FlavorKinds(600).kinds() == {
            'pinned': PINNED_KIND,
            'pages': PAGES_KIND,
            'private': PAGES_KIND,
        }
        assert levels(caplog) == []

    def test_a_disabled_flavor_does_not_count(self):
        create('pinned')
        create('old', PAGES, disabled=True)

        assert FlavorKinds(600).kinds() == {'pinned': PINNED_KIND}

    def test_they_are_read_again_after_a_while(self, clock):
        known = FlavorKinds(600, clock)
        first = create('first')
        assert set(known.kinds()) == {'first'}

        create('second')
        first.destroy()
        clock.now += 599.0
        assert set(known.kinds()) == {'first'}

        clock.now += 2.0
        assert set(known.kinds()) == {'second'}

    def test_bad_extra_specs_are_logged_once(self, clock, caplog):
        bad = [
            create('no number', {'hw:numa_nodes': 'two'}),
            create('no policy', {'hw:cpu_policy': 'mine'}),
            create('no size', {'hw:mem_page_size': 'huge'}),
            create('far', {**PINNED, 'numa_hugepages:max_distance': '1'}),
        ]
        create('good')
        known = FlavorKinds(600, clock)

        for _ in range(3):
            assert known.kinds() == {'good': PINNED_KIND}
            clock.now += 601.0

        assert levels(caplog) == ['WARNING'] * len(bad)
        assert [
            [
                each.name
                for each in bad
                if f'Ignoring flavor {each.name} ' in line
            ]
            for line in sorted(caplog.messages)
        ] == [['far'], ['no number'], ['no policy'], ['no size']]
        assert all('until its extra specs are' in t for t in caplog.messages)

    def test_they_are_logged_again_at_debug(self, clock, caplog):
        caplog.set_level(logging.DEBUG, flavors.__name__)
        create('bad', {'hw:numa_nodes': 'two'})
        known = FlavorKinds(600, clock)
        known.kinds()
        clock.now += 601.0
        known.kinds()

        assert levels(caplog) == ['WARNING', 'DEBUG', 'DEBUG', 'DEBUG']

    def test_an_error_of_the_database_leaves_what_was_read(
        self, clock, caplog, monkeypatch
    ):
        # given: flavors that were read, and a database that went away
        create('pinned')
        known = FlavorKinds(600, clock)
        known.kinds()
        asked = []

        def away(*_, **__):
            asked.append(clock.now)
            raise db_exception.DBConnectionError('gone')

        with monkeypatch.context() as broken:
            broken.setattr(objects.FlavorList, 'get_all', away)
            clock.now += 601.0

            # then: they still count, and it is not asked with each request
            for _ in range(3):
                assert set(known.kinds()) == {'pinned'}
            assert asked == [clock.now]
            assert levels(caplog) == ['WARNING']
            assert 'will retry in 600 s' in caplog.messages[0]
            assert 'gone' in caplog.messages[0]

        # and: when it is back, they are read again
        create('new')
        clock.now += 601.0
        assert set(known.kinds()) == {'pinned', 'new'}

    def test_they_need_not_be_read(self):
        create('pinned')

        assert FlavorKinds(0).kinds() == {}


def test_without_a_database_there_are_none(caplog):
    with nova_builders.option('connection', None, 'api_database'):
        assert FlavorKinds(600).kinds() == {}

    assert levels(caplog) == []


@pytest.mark.usefixtures('database')
class TestPinned:
    def test_the_shares_are_those_of_the_kinds(self):
        create('pinned')
        create('pages', PAGES)
        create('the same', PAGES)
        create('other', TWO_CELLS)

        mix = PinnedMix(
            FlavorKinds(600), {'pinned': '3', 'pages': '1.5', 'the same': '1'}
        )

        assert mix.mix() == {PINNED_KIND: 3.0, PAGES_KIND: 2.5}

    def test_nothing_may_be_pinned(self):
        create('pinned')

        assert PinnedMix(FlavorKinds(600), {}).mix() == {}

    def test_a_flavor_that_does_not_count_is_logged_once(self, clock, caplog):
        create('pinned')
        create('plain', {})
        mix = PinnedMix(
            FlavorKinds(600, clock),
            {'pinned': '1', 'plain': '1', 'new': '2'},
        )

        for _ in range(2):
            assert mix.mix() == {PINNED_KIND: 1.0}

        assert levels(caplog) == ['WARNING', 'WARNING']
        assert [
            name
            for name, line in zip(
                ('plain', 'new'), caplog.messages, strict=True
            )
            if f'Ignoring flavor {name} of [numa_hugepages] demand_mix' in line
        ] == ['plain', 'new']

        # And counts as soon as it is there.
        create('new', PAGES)
        clock.now += 601.0
        assert mix.mix() == {PINNED_KIND: 1.0, PAGES_KIND: 2.0}

    def test_if_none_counts_nothing_is_pinned(self):
        assert PinnedMix(FlavorKinds(600), {'lost': '1'}).mix() == {}


@pytest.mark.parametrize(
    'share', ['', 'many', '0', '-1', 'nan', 'inf', '1e999', '1;2']
)
def test_a_share_that_is_no_number_is_refused(share):
    with pytest.raises(exception.InvalidOption) as caught:
        PinnedMix(FlavorKinds(600), {'good': '1', 'bad': share})

    assert str(caught.value) == (
        f'option [numa_hugepages] demand_mix: flavor bad has the share '
        f'{share!r}, expected a number above 0'
    )
