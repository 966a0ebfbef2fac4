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

"""Tests of reading the ledger while the service has it, or is gone."""

import sqlite3
import time

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from tests.unit.hugepages.state.ledgers import ALICE
from tests.unit.hugepages.state.ledgers import files
from tests.unit.hugepages.state.ledgers import filled
from tests.unit.hugepages.state.ledgers import GUEST
from tests.unit.hugepages.state.ledgers import hold
from tests.unit.hugepages.state.ledgers import KILLED
from tests.unit.hugepages.state.ledgers import next_line
from tests.unit.hugepages.state.ledgers import process
from tests.unit.hugepages.state.ledgers import run


@pytest.fixture
def path(tmp_path):
    """Where the ledger is."""
    return tmp_path / 'ledger.sqlite'


class TestReadOnly:
    def test_changes_no_file_if_no_process_has_it_open(self, path):
        filled(path)
        before = files(path.parent)

        with Ledger.open(path, read_only=True) as ledger:
            assert ledger.holds() == [hold('guest 0')]
            assert files(path.parent) == before

        assert files(path.parent) == before

    def test_changes_no_file_after_a_crash(self, path):
        assert run(path.parent, KILLED)[0] == -9
        before = files(path.parent)
        assert before.keys() == {
            'ledger.sqlite',
            'ledger.sqlite-shm',
            'ledger.sqlite-wal',
        }

        with Ledger.open(path, read_only=True) as ledger:
            assert ledger.holds() == [hold()]

        assert files(path.parent) == before

    def test_sees_what_the_service_does_meanwhile(self, path):
        with Ledger.open(path) as service:
            with Ledger.open(path, read_only=True) as ledger:
                assert ledger.holds() == []
                for count in range(3):
                    service.replace_holds(ALICE, GUEST, [hold(count=count)])
                    assert ledger.holds() == [hold(count=count)]
            service.replace_holds(ALICE, GUEST, [hold(count=7)])
            assert service.holds() == [hold(count=7)]

    def test_sees_what_another_process_does_meanwhile(self, path):
        script = """
with ledger.Ledger.open(path) as ledger:
    for count in range(1, 300):
        ledger.replace_holds(
            ALICE, GUEST, [hold(cell=c, count=count) for c in range(3)])
        if count == 1:
            report('began')
"""
        with process(path.parent, script) as service:
            assert next_line(service) == 'began'
            seen = []
            while not seen or seen[-1] < 299:
                with Ledger.open(path, read_only=True) as ledger:
                    counts = [one.pages for one in ledger.holds()]
                assert counts == [counts[0]] * 3
                seen.append(counts[0])

        assert seen == sorted(seen)

    def test_writes_nothing(self, path):
        filled(path)

        with Ledger.open(path, read_only=True) as ledger:
            with pytest.raises(exception.LedgerError, match='readonly'):
                ledger.drop('guest 0')
            assert ledger.holds() == [hold('guest 0')]

    def test_cannot_do_without_the_index_of_a_log(self, path):
        assert run(path.parent, KILLED)[0] == -9
        path.with_name('ledger.sqlite-shm').unlink()
        before = files(path.parent)

        with pytest.raises(
            exception.LedgerError, match='without changing files'
        ):
            Ledger.open(path, read_only=True)

        assert files(path.parent) == before


class TestRaces:
    """Another process opens or closes the ledger while it is opened here."""

    @staticmethod
    def meanwhile(monkeypatch, *events):
        """Let something happen before each time that SQLite opens a file."""
        left = list(events)
        connect = sqlite3.connect

        def late(file, **named):
            if left and file != ':memory:':
                left.pop(0)()
            return connect(file, **named)

        monkeypatch.setattr(sqlite3, 'connect', late)
        return left

    def test_the_service_ends(self, path, monkeypatch):
        service = Ledger.open(path)
        service.replace_holds(ALICE, GUEST, [hold()])
        left = self.meanwhile(monkeypatch, service.close)

        with Ledger.open(path, read_only=True) as ledger:
            assert ledger.holds() == [hold()]
        assert left == []

    def test_the_service_writes(self, path, monkeypatch):
        filled(path)

        def write():
            with Ledger.open(path) as service:
                service.replace_holds(ALICE, GUEST, [hold()])

        left = self.meanwhile(monkeypatch, write)

        with Ledger.open(path, read_only=True) as ledger:
            assert ledger.holds() == [hold(), hold('guest 0')]
        assert left == []

    def test_the_service_starts(self, path, monkeypatch):
        filled(path)
        service = []
        left = self.meanwhile(
            monkeypatch,
            lambda: service.append(Ledger.open(path)),
        )

        with Ledger.open(path, read_only=True) as ledger:
            assert ledger.holds() == [hold('guest 0')]
        assert left == []
        service[0].close()

    def test_the_service_starts_and_ends_all_the_time(self, path, monkeypatch):
        filled(path)

        def write():
            with Ledger.open(path) as service:
                service.set_boot_id(str(time.monotonic()))

        self.meanwhile(monkeypatch, *[write, lambda: None] * 5)

        with pytest.raises(exception.LedgerError, match='all the time'):
            Ledger.open(path, read_only=True)
