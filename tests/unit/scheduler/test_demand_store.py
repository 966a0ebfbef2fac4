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


"""The file that keeps the learned demand over a restart."""

import json
import logging
import os

import hypothesis
import pytest

from nova_numa_hugepages import conf as package_conf
from nova_numa_hugepages import exception
from nova_numa_hugepages.core.capacity import guest_kinds
from nova_numa_hugepages.scheduler import demand_store
from nova_numa_hugepages.scheduler.demand_store import DemandFile
from tests.unit import nova_builders
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import MIB_2
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import request
from tests.unit.core.capacity.slot_strategies import counts
from tests.unit.core.dice import examples

NOW = 1.7e9
SMALL = guest_kinds.guest_kind(request(pinned_cell(2, 4, MIB_2)))
LARGE = guest_kinds.guest_kind(
    request(
        pinned_cell(8, 64, nova_builders.LARGE),
        pinned_cell(8, 64, nova_builders.LARGE, first=8),
        emulator_isolated=True,
    ),
    20,
)
FLOATING = guest_kinds.guest_kind(request(floating_cell(2, 4)))
LEARNED = {SMALL: 2.5, LARGE: 0.125, FLOATING: 40.0}

CELL = {
    'number': 1,
    'vcpus': 2,
    'cpus': 2,
    'shared': 0,
    'memory_kib': 4096,
    'page_size': 2048,
    'cpu_policy': 'dedicated',
    'thread_policy': 'prefer',
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'demand.json'


@pytest.fixture
def aside(tmp_path):
    return tmp_path / 'demand.json.broken'


def document(cells=(CELL,), *, count=1, farthest=None, **others):
    """Write a file with one kind of guest."""
    entry = {'count': count, 'farthest': farthest, 'cells': list(cells)}
    return json.dumps({'version': 1, 'at': NOW, 'kinds': [entry], **others})


def names(folder):
    return sorted(found.name for found in folder.iterdir())


def levels(caplog):
    return [record.levelname for record in caplog.records]


class TestRoundTrip:
    def test_what_was_saved_is_loaded(self, path):
        DemandFile(path).save(LEARNED, NOW)

        assert DemandFile(path).load(NOW + 60) == (LEARNED, NOW)

    @examples(0.01)
    @hypothesis.given(counts())
    def test_every_kind_comes_back(self, tmp_path_factory, drawn):
        path = tmp_path_factory.mktemp('kinds') / 'demand.json'
        kind = guest_kinds.guest_kind(drawn.request, drawn.farthest)

        DemandFile(path).save({kind: 1.5}, NOW)

        assert DemandFile(path).load(NOW) == ({kind: 1.5}, NOW)

    def test_a_guest_of_many_cells_comes_back(self, path):
        kind = guest_kinds.guest_kind(
            request(*[pinned_cell(1, 4, first=n) for n in range(64)])
        )

        DemandFile(path).save({kind: 1.0}, NOW)

        assert DemandFile(path).load(NOW) == ({kind: 1.0}, NOW)

    def test_what_is_too_much_for_a_file_is_left_out(self, path):
        # given: more than 4 MiB, the largest kinds last
        kinds = {
            guest_kinds.guest_kind(
                request(
                    *[
                        pinned_cell(1 + cell, number + 1, first=64 * cell)
                        for cell in range(60)
                    ]
                )
            ): 1000.0 - number
            for number in range(600)
        }

        DemandFile(path).save(kinds, NOW)

        # then: those that are asked for most come back
        assert 3 << 20 < path.stat().st_size <= 4 << 20
        found, _ = DemandFile(path).load(NOW)
        assert found == dict(list(kinds.items())[: len(found)])

    def test_nothing_comes_of_no_file(self, path, caplog):
        assert DemandFile(path).load(NOW) == ({}, NOW)
        assert caplog.records == []

    def test_no_demand_comes_back_too(self, path):
        DemandFile(path).save({}, NOW)

        assert DemandFile(path).load(NOW) == ({}, NOW)

    def test_what_comes_from_the_future_is_of_now(self, path):
        DemandFile(path).save(LEARNED, NOW + 1e6)

        assert DemandFile(path).load(NOW) == (LEARNED, NOW)


class TestBrokenFiles:
    """They are put aside and logged, and the scheduler goes on."""

    @pytest.mark.parametrize(
        ('text', 'reason'),
        [
            ('', 'Expecting value'),
            ('{', 'Expecting property name'),
            ('null', 'not subscriptable'),
            ('[]', 'list indices'),
            ('{}', "'version' is missing"),
            (document(version=2), 'its version is not 1'),
            (document(version='9' * 999), 'its version is not 1'),
            (document(at='today'), 'not supported between'),
            (document(at=float('nan')), 'nan is not from 0 to '),
            (document(at=float('inf')), 'inf is not from 0 to '),
            (document(at=-1), '-1 is not from 0 to '),
            (document(at=10**400), 'is not from 0 to '),
            (f'{{"version": 1, "at": {"9" * 5000}}}', 'integer string'),
            (document(kinds=None), 'not iterable'),
            (document(kinds={'a': 1}), 'indices must be'),
            (document(kinds=[1]), 'not subscriptable'),
            (document(kinds=[{}]), "'cells' is missing"),
            (document(count=-1), '-1 is not from 0 to '),
            (document(count=1e300), '1e+300 is not from 0 to '),
            (document(count='1'), 'not supported between'),
            (document(farthest=1.5), 'interpreted as an integer'),
            (document(cells=[]), 'not a plausible guest: '),
            (document(cells=[[]]), 'list indices'),
            (document(cells=[{}]), "'number' is missing"),
            (document(cells=[CELL] * 5000), 'not a plausible guest: '),
            (document([{**CELL, 'number': 0}]), 'not a guest cell: '),
            (document([{**CELL, 'number': 10**9}]), 'not a plausible guest'),
            (document([{**CELL, 'vcpus': 10**9}]), 'not a guest cell: '),
            (document([{**CELL, 'vcpus': -1}]), 'not a guest cell: '),
            (document([{**CELL, 'vcpus': '2'}]), 'interpreted as an integer'),
            (document([{**CELL, 'shared': 1.0}]), 'interpreted as an integer'),
            (document([{**CELL, 'cpus': 9}]), 'not a guest cell: '),
            (document([{**CELL, 'page_size': 0}]), '0 is not a valid'),
            (document([{**CELL, 'page_size': -4}]), '-4 is not a valid'),
            (document([{**CELL, 'memory_kib': 0}]), 'not a plausible guest'),
            (document([{**CELL, 'memory_kib': 1 << 99}]), 'not a plausible'),
            (document([{**CELL, 'cpu_policy': 'x'}]), "'x' is not a valid"),
            (document([{**CELL, 'cpu_policy': []}]), '[] is not a valid'),
            (document([{**CELL, 'thread_policy': 1}]), '1 is not a valid'),
            ('[' * 100_000, 'recursion'),
            ('\udcff', "codec can't decode byte"),
            (document() + ' ' * (4 << 20), 'more than 4194304 bytes'),
        ],
    )
    def test_the_demand_is_learned_from_the_start(
        self, path, aside, caplog, text, reason
    ):
        content = text.encode(errors='surrogateescape')
        path.write_bytes(content)

        assert DemandFile(path).load(NOW) == ({}, NOW)

        assert aside.read_bytes() == content
        assert levels(caplog) == ['WARNING']
        (line,) = caplog.messages
        assert line.startswith(
            f'Could not read the learned demand from {path}: '
        )
        assert reason in line
        assert 'Error(' not in line
        assert line.endswith(
            f'. Starting without it; the file is kept as {aside}.'
        )
        assert len(line) < 600

    def test_and_kept_again(self, path, aside):
        path.write_text('{')
        store = DemandFile(path)
        store.load(NOW)

        store.save(LEARNED, NOW)

        assert DemandFile(path).load(NOW) == (LEARNED, NOW)
        assert aside.read_text() == '{'

    def test_one_that_cannot_be_opened_is_put_aside(self, path, aside, caplog):
        # given: a link to itself
        path.symlink_to(path)

        assert DemandFile(path).load(NOW) == ({}, NOW)

        assert aside.is_symlink()
        assert levels(caplog) == ['WARNING']

    def test_one_that_cannot_be_put_aside_is_left_as_it_is(
        self, path, aside, caplog
    ):
        # given: a folder where it should go
        path.write_text('{')
        aside.mkdir()
        store = DemandFile(path)

        assert store.load(NOW) == ({}, NOW)
        store.save(LEARNED, NOW)

        assert path.read_text() == '{'
        assert levels(caplog) == ['ERROR']
        assert 'not kept over a restart' in caplog.messages[0]
        assert '[numa_hugepages] demand_file' in caplog.messages[0]

    def test_what_is_not_known_is_ignored(self, path):
        path.write_text(
            json.dumps(
                {**json.loads(document([{**CELL, 'new': 1}])), 'more': []}
            )
        )

        assert DemandFile(path).load(NOW) == ({SMALL: 1.0}, NOW)


class TestWriting:
    @pytest.fixture
    def clock(self):
        class Clock:
            now = 1000.0

            def __call__(self):
                return self.now

        return Clock()

    def test_it_is_done_once_a_minute(self, path, clock):
        store = DemandFile(path, clock)
        store.save({SMALL: 1.0}, NOW)
        clock.now += 59.9
        store.save({SMALL: 2.0}, NOW)
        assert DemandFile(path).load(NOW) == ({SMALL: 1.0}, NOW)

        clock.now += 0.2
        store.save({SMALL: 3.0}, NOW)
        assert DemandFile(path).load(NOW) == ({SMALL: 3.0}, NOW)

    def test_a_failure_is_logged_once_and_tried_again(
        self, tmp_path, clock, caplog
    ):
        folder = tmp_path / 'folder'
        path = folder / 'demand.json'
        store = DemandFile(path, clock)
        for _ in range(3):
            store.save(LEARNED, NOW)
            clock.now += 61.0
        assert levels(caplog) == ['ERROR']
        (line,) = caplog.messages
        assert line.startswith(
            f'Could not write the learned demand to {path}: '
        )
        assert line.endswith('set [numa_hugepages] demand_file.')

        # When it works again, and then fails again
        folder.mkdir()
        store.save(LEARNED, NOW)
        assert DemandFile(path).load(NOW) == (LEARNED, NOW)
        assert levels(caplog) == ['ERROR']
        path.unlink()
        folder.rmdir()
        clock.now += 61.0
        store.save(LEARNED, NOW)

        # Then that is logged, too
        assert levels(caplog) == ['ERROR', 'ERROR']

    def test_a_failure_leaves_no_temporary_file(self, tmp_path, path, caplog):
        # given: a folder has come in the way
        store = DemandFile(path)
        (path / 'inside').mkdir(parents=True)

        store.save(LEARNED, NOW)

        assert names(tmp_path) == ['demand.json']
        assert levels(caplog) == ['ERROR']

    def test_a_success_leaves_no_temporary_file(self, tmp_path, path, caplog):
        caplog.set_level(logging.DEBUG)

        DemandFile(path).save(LEARNED, NOW)

        assert names(tmp_path) == ['demand.json']
        assert caplog.records == []

    def test_a_kill_leaves_the_old_file_or_the_new_one(
        self, path, monkeypatch
    ):
        DemandFile(path).save(LEARNED, NOW)

        def killed(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(os, 'fsync', killed)
        with pytest.raises(KeyboardInterrupt):
            DemandFile(path).save({SMALL: 1.0}, NOW)

        assert names(path.parent) == ['demand.json']
        assert DemandFile(path).load(NOW) == (LEARNED, NOW)


class TestConfiguration:
    """What the file is, by ``[numa_hugepages] demand_file``."""

    @pytest.fixture(autouse=True)
    def state_path(self, tmp_path):
        package_conf.register_opts(nova_builders.CONF)
        with nova_builders.option('state_path', str(tmp_path)):
            yield tmp_path

    def opened(self, name):
        with nova_builders.option('demand_file', name, 'numa_hugepages'):
            return demand_store.open_configured()

    def test_it_is_in_the_state_path(self, tmp_path):
        self.opened('here.json').save(LEARNED, NOW)

        assert names(tmp_path) == ['here.json']

    def test_it_may_be_elsewhere(self, tmp_path_factory):
        other = tmp_path_factory.mktemp('other')

        self.opened(str(other / 'there.json')).save(LEARNED, NOW)

        assert names(other) == ['there.json']

    def test_nothing_may_be_kept(self):
        assert self.opened('') is None

    @pytest.mark.parametrize(
        ('name', 'reason'),
        [
            ('no/such/folder.json', 'no/such is not a folder that'),
            ('file/demand.json', 'file is not a folder that'),
            ('.', 'is a folder'),
            ('folder', 'folder is a folder'),
        ],
    )
    def test_where_it_cannot_be_it_is_refused(self, tmp_path, name, reason):
        (tmp_path / 'folder').mkdir()
        (tmp_path / 'file').touch(mode=0o755)

        with pytest.raises(exception.InvalidOption) as caught:
            self.opened(name)

        assert str(caught.value).startswith(
            'option [numa_hugepages] demand_file: '
        )
        assert reason in str(caught.value)

    def test_a_folder_without_permission_is_refused(
        self, tmp_path, monkeypatch
    ):
        # Who runs the tests may be allowed everything.
        monkeypatch.setattr(os, 'access', lambda *_: False)

        with pytest.raises(exception.InvalidOption, match='can write to'):
            self.opened('here.json')
