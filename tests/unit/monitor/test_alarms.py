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

"""When alarms are raised, and when they are over."""

from __future__ import annotations

from collections.abc import Iterator
import logging
import math
import pathlib
from typing import Any

import pytest

from nova_numa_hugepages.hugepages.sample import HostSample
from nova_numa_hugepages.monitor import alarms
from nova_numa_hugepages.monitor import labels
from nova_numa_hugepages.monitor.insight import Insight
from nova_numa_hugepages.monitor.thresholds import DEFAULTS
from tests.unit.hugepages import page_host
from tests.unit.monitor import watched

ONE = labels.Subject(resource=page_host.guest(1))
TWO = labels.Subject(node='1', page_size='2MiB')


class Probe(alarms.Alarm):
    """Finds what it is told to."""

    name = 'probe'
    after_s = 60.0
    ends_below = 0.8

    def __init__(self) -> None:
        super().__init__(DEFAULTS)
        self.levels: dict[labels.Subject, float | None] = {}

    def check(
        self, sample: HostSample, insight: Insight
    ) -> Iterator[alarms.Finding]:
        """Find it."""
        for subject, level in self.levels.items():
            yield alarms.Finding(subject, level, f'level {level}.', 'Do it.')


class Broken(alarms.Alarm):
    """Can't be checked."""

    name = 'broken'

    def check(
        self, sample: HostSample, insight: Insight
    ) -> Iterator[alarms.Finding]:
        """Fail."""
        raise ZeroDivisionError


class Book:
    """A book of alarms, and time."""

    def __init__(
        self,
        root: pathlib.Path,
        *others: alarms.Alarm,
        gap_s: float = math.inf,
    ) -> None:
        self.probe = Probe()
        self.ticks = 0.0
        self.book = alarms.AlarmBook(
            [*others, self.probe], gap_s, ticks=lambda: self.ticks
        )
        self.sample = watched.Watched(root, page_host.grown(4)).look()

    def look(self, after_s: float = 0.0) -> list[labels.Subject]:
        """Look again; return which subjects have an alarm."""
        self.ticks += after_s
        self.book.update(self.sample, Insight())
        return [one.finding.subject for one in self.book.raised]


@pytest.fixture
def book(tmp_path: pathlib.Path) -> Book:
    return Book(tmp_path)


def test_it_has_to_be_so_for_some_time(book: Book) -> None:
    book.probe.levels = {ONE: 1.0}
    assert book.look() == []
    assert book.look(59.0) == []
    assert book.look(1.0) == [ONE]


def test_what_comes_and_goes_begins_again(book: Book) -> None:
    book.probe.levels = {ONE: 1.0}
    book.look()
    book.probe.levels = {ONE: 0.99}
    assert book.look(59.0) == []
    book.probe.levels = {ONE: 1.0}
    assert book.look(1.0) == []
    assert book.look(60.0) == [ONE]


def test_it_is_over_only_when_it_is_well_below(book: Book) -> None:
    book.probe.levels = {ONE: 1.0}
    book.look()
    book.look(60.0)
    book.probe.levels = {ONE: 0.8}
    assert book.look(600.0) == [ONE]
    book.probe.levels = {ONE: 0.79}
    assert book.look() == []


def test_a_subject_that_is_gone_is_all_right(book: Book) -> None:
    book.probe.levels = {ONE: 1.0, TWO: 2.0}
    book.look()
    assert book.look(60.0) == [ONE, TWO]
    del book.probe.levels[ONE]
    assert book.look() == [TWO]


def test_what_is_not_known_stays_as_it_is(book: Book) -> None:
    book.probe.levels = {ONE: 1.0}
    book.look()
    book.look(60.0)
    book.probe.levels = {ONE: None, TWO: None}
    assert book.look(600.0) == [ONE]


def test_an_alarm_that_fails_stops_no_other(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    book = Book(tmp_path, Broken(DEFAULTS))
    book.probe.levels = {ONE: 1.0}
    book.look()
    assert book.look(60.0) == [ONE]
    failed = [line for line in caplog.messages if 'broken' in line]
    assert failed == ['The alarm broken cannot be checked']


@pytest.mark.parametrize('level', ['high', [1], object()])
def test_an_alarm_whose_level_is_no_number_stops_no_other(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, level: Any
) -> None:
    other = Probe()
    other.name = 'another'
    other.levels = {ONE: level}
    book = Book(tmp_path, other)
    book.probe.levels = {ONE: 1.0}
    book.look()
    assert book.look(60.0) == [ONE]
    assert 'The alarm another cannot be checked' in caplog.messages


def test_each_is_logged_once_and_once_when_it_is_over(
    book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    book.probe.levels = {ONE: 1.0}
    for _ in range(4):
        book.look(60.0)
    book.probe.levels = {}
    book.look()
    book.look()
    assert [line for line in caplog.messages if 'probe' in line] == [
        'Alarm probe (warning): level 1.0. Do it.',
        'Alarm probe is over: level 1.0.',
    ]


def test_what_is_shown(book: Book) -> None:
    book.probe.levels = {TWO: 1.0}
    book.look()
    book.look(60.0)
    (one,) = book.book.raised
    assert one.as_json() == {
        'alarm': 'probe',
        'severity': 'warning',
        'since': 1000.0,
        'resource': '',
        'node': '1',
        'page_size': '2MiB',
        'text': 'level 1.0.',
        'remedy': 'Do it.',
    }


def test_time_in_which_nothing_is_known_does_not_count(book: Book) -> None:
    book.probe.levels = {ONE: 1.0}
    book.look()
    book.look(30.0)
    book.probe.levels = {ONE: None}
    book.look(600.0)
    book.probe.levels = {ONE: 1.0}
    assert book.look(600.0) == []
    assert book.look(29.0) == []
    assert book.look(1.0) == [ONE]


def test_a_gap_between_looks_does_not_count(tmp_path: pathlib.Path) -> None:
    book = Book(tmp_path, gap_s=40.0)
    book.probe.levels = {ONE: 1.0}
    book.look()
    assert book.look(41.0) == []
    assert book.look(40.0) == []
    assert book.look(20.0) == [ONE]


def test_a_subject_of_other_types(book: Book) -> None:
    book.probe.levels = {labels.Subject(node=1): 1.0}  # type: ignore[arg-type]
    book.look()
    assert book.look(60.0) == [labels.Subject(node='1')]


def test_all_alarms_of_the_package_are_loaded() -> None:
    loaded = alarms.load(DEFAULTS)
    names = [one.name for one in loaded]
    assert len(names) == len(set(names)) == 13
    assert names == sorted(names)
    for one in loaded:
        assert one.severity in ('info', 'warning', 'critical')
        assert 0 < one.ends_below <= 1
