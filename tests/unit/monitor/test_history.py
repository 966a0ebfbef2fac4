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

"""What is kept of a host's past, for how long, and what can happen to it."""

from __future__ import annotations

from collections.abc import Iterator
import pathlib
import shutil
import sqlite3

import pytest

from nova_numa_hugepages.monitor import history
from tests.unit.monitor import watched

FREE = history.Series('pool_free_pages', node='0', page_size='2MiB')
USED = history.Series('instance_used_kib', resource='a')
DAY_S = 86400


@pytest.fixture
def clock() -> watched.Clock:
    return watched.Clock(1_000_000 * 3600.0)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / 'history.sqlite'


@pytest.fixture
def past(
    path: pathlib.Path, clock: watched.Clock
) -> Iterator[history.History]:
    found = history.History(path, clock=clock)
    yield found
    found.close()


def live(
    past: history.History, clock: watched.Clock, minutes: int, value: float = 1
) -> None:
    """Let time go by, with a look each minute."""
    for _ in range(minutes):
        past.add(clock.now, {FREE: value})
        clock.now += 60


def minutes(past: history.History, since: float = 0) -> list[history.Point]:
    """Read the minutes of `FREE`."""
    return past.minutes(lambda one: one == FREE, since).get(FREE, [])


def hours(past: history.History) -> list[history.Point]:
    """Read the hours of `FREE`."""
    return past.hours(lambda one: one == FREE, 0).get(FREE, [])


def test_a_minute_has_the_least_the_mean_and_the_most(
    past: history.History, clock: watched.Clock
) -> None:
    for value in (4, 1, 7):
        past.add(clock.now, {FREE: value, USED: 2})
        clock.now += 15
    assert minutes(past) == []
    clock.now += 60
    past.add(clock.now, {FREE: 3})
    (only,) = minutes(past)
    assert only == (1_000_000 * 3600, 1, 4, 7)


def test_an_hour_has_those_of_its_minutes(
    past: history.History, clock: watched.Clock
) -> None:
    live(past, clock, 30, 2)
    live(past, clock, 30, 4)
    live(past, clock, 61, 9)
    assert hours(past)[0] == (1_000_000 * 3600, 2, 3, 4)
    assert [point.mean for point in hours(past)] == [3, 9]


def test_only_what_is_wanted_and_young_enough_is_read(
    past: history.History, clock: watched.Clock
) -> None:
    past.add(clock.now, {FREE: 1, USED: 2})
    live(past, clock, 5)
    assert past.minutes(lambda one: one == USED, 0).keys() == {USED}
    assert len(minutes(past, clock.now - 180)) == 2


def test_as_many_are_kept_as_are_to_be(
    past: history.History,
    clock: watched.Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin = clock.now
    monkeypatch.setattr(history, '_ROWS', {60: 90, 3600: 5})
    live(past, clock, 100)
    assert len(minutes(past)) == 90
    assert minutes(past)[0].time > begin
    assert hours(past)[0].time == begin
    for _ in range(6):
        live(past, clock, 1)
        clock.now += 3540
    assert len(hours(past)) == 5
    assert hours(past)[0].time > begin


def test_minutes_are_kept_for_a_day_and_hours_for_sixty() -> None:
    assert history._ROWS == {60: 1440, 3600: 60 * 24}


def test_it_survives_a_restart(
    past: history.History, path: pathlib.Path, clock: watched.Clock
) -> None:
    live(past, clock, 3)
    past.keep('kinds', {'a': [1]})
    past.close()
    again = history.History(path, clock=clock)
    assert len(minutes(again)) == 3
    assert again.kept('kinds') == {'a': [1]}
    assert again.kept('other') is None
    again.close()


def test_it_survives_a_kill(
    past: history.History,
    path: pathlib.Path,
    tmp_path: pathlib.Path,
    clock: watched.Clock,
) -> None:
    live(past, clock, 3)
    for name in ('', '-wal'):
        shutil.copy(f'{path}{name}', f'{tmp_path}/copy.sqlite{name}')
    again = history.History(tmp_path / 'copy.sqlite', clock=clock)
    assert len(minutes(again)) == 2
    assert again.problem == ''
    again.close()


def test_a_damaged_one_is_set_aside(
    past: history.History,
    path: pathlib.Path,
    clock: watched.Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    live(past, clock, 30)
    past.close()
    with path.open('r+b') as file:
        file.seek(5000)
        file.write(b'\xaa' * 3000)
    again = history.History(path, clock=clock)
    assert again.problem == ''
    assert 'is damaged' in caplog.text
    assert len([*path.parent.glob('*.damaged-*')]) == 1
    live(again, clock, 2)
    assert len(minutes(again)) == 1
    again.close()


def test_one_that_is_damaged_while_it_is_used_is_set_aside(
    past: history.History, clock: watched.Clock
) -> None:
    live(past, clock, 2)
    past._database.execute("UPDATE rows SET data = x'00'")
    live(past, clock, 1)
    assert 'does not end' in past.problem
    live(past, clock, 2)
    assert past.problem == ''
    assert len(minutes(past)) == 2


def test_a_page_that_is_made_at_the_end_does_no_harm(
    past: history.History, path: pathlib.Path, clock: watched.Clock
) -> None:
    live(past, clock, 3)
    past.close()
    assert minutes(past) == []
    assert past.problem == ''
    assert [*path.parent.glob('*.damaged-*')] == []


def test_another_monitor_has_it(
    past: history.History,
    path: pathlib.Path,
    clock: watched.Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history, '_TIMEOUT_S', 0.0)
    live(past, clock, 3)
    other = history.History(path, clock=clock)
    assert 'database is locked' in other.problem
    live(other, clock, 3)
    other.close()
    assert len(minutes(past)) == 2


def test_one_that_is_removed_is_begun_again(
    past: history.History,
    path: pathlib.Path,
    clock: watched.Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    live(past, clock, 3)
    path.rename(path.with_name('elsewhere'))
    live(past, clock, 3)
    assert 'was removed while it was in use' in caplog.text
    assert past.problem == ''
    past.close()
    again = history.History(path, clock=clock)
    assert len(minutes(again)) == 4
    again.close()


def test_a_newer_one_is_left_alone(
    past: history.History, path: pathlib.Path, clock: watched.Clock
) -> None:
    live(past, clock, 3)
    past.close()
    with sqlite3.connect(path) as other:
        other.execute('PRAGMA user_version = 99')
    other.close()
    before = path.read_bytes()
    again = history.History(path, clock=clock)
    assert 'newer version' in again.problem
    live(again, clock, 3)
    assert len(minutes(again)) == 2
    assert 'newer version' in again.problem
    again.close()
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_left_alone(
    path: pathlib.Path, clock: watched.Clock
) -> None:
    with sqlite3.connect(path) as other:
        other.execute('CREATE TABLE theirs (a)')
    other.close()
    _check_left_alone(path, clock)


def test_another_file_is_left_alone(
    path: pathlib.Path, clock: watched.Clock
) -> None:
    path.write_text('[DEFAULT]\nstate_path = /var/lib/nova\n')
    _check_left_alone(path, clock)


def _check_left_alone(path: pathlib.Path, clock: watched.Clock) -> None:
    before = path.read_bytes()
    past = history.History(path, clock=clock)
    assert 'it is no history' in past.problem
    live(past, clock, 3)
    assert len(minutes(past)) == 2
    past.close()
    assert path.read_bytes() == before
    assert [*path.parent.glob('*.damaged-*')] == []


def test_no_folder_is_a_problem_that_does_not_end_it(
    tmp_path: pathlib.Path, clock: watched.Clock
) -> None:
    past = history.History(tmp_path / 'no' / 'history', clock=clock)
    assert f'{tmp_path}/no is no folder' in past.problem
    live(past, clock, 3)
    assert len(minutes(past)) == 2


def test_what_happened_in_a_time_that_jumped_is_kept(
    past: history.History, clock: watched.Clock
) -> None:
    live(past, clock, 10)
    clock.now += 400 * DAY_S
    live(past, clock, 5)
    clock.now -= 400 * DAY_S
    live(past, clock, 5)
    # What is yet to come isn't shown.
    assert len(minutes(past)) == 19 - 5


def test_one_that_is_in_use_is_read_and_left_alone(
    past: history.History,
    path: pathlib.Path,
    clock: watched.Clock,
) -> None:
    live(past, clock, 10)
    past.keep('leaks', ['one'])
    files = {
        file: file.read_bytes() for file in path.parent.glob(f'{path.name}*')
    }
    other = history.History(None, clock=clock)
    other.load(path)
    live(other, clock, 3)

    assert other.problem == ''
    assert len(minutes(other)) == 11
    assert other.kept('leaks') == ['one']
    other.close()
    assert files == {
        file: file.read_bytes() for file in path.parent.glob(f'{path.name}*')
    }


@pytest.mark.parametrize('content', [b'', b'mine', b'SQLite format 3\0' * 9])
def test_what_is_no_history_is_told_and_left_alone(
    path: pathlib.Path, clock: watched.Clock, content: bytes
) -> None:
    path.write_bytes(content)
    other = history.History(None, clock=clock)
    other.load(path)

    assert f'the history {path} cannot be read' in other.problem
    assert path.read_bytes() == content
    live(other, clock, 3)
    assert len(minutes(other)) == 2
    other.close()


def test_of_damaged_ones_the_last_stays(
    path: pathlib.Path, clock: watched.Clock
) -> None:
    for number in range(3):
        clock.now += 1000
        history.History(path, clock=clock).close()
        with path.open('r+b') as file:
            file.seek(4096)
            file.write(bytes([number + 1]) * 9000)
    again = history.History(path, clock=clock)
    (aside,) = path.parent.glob('*.damaged-*')

    assert aside.name.endswith(f'-{clock.now:.0f}')
    again.close()


def test_it_does_not_outgrow_its_limit(
    past: history.History,
    path: pathlib.Path,
    clock: watched.Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history, '_MOST_PAGES', 40)
    past.close()
    small = history.History(path, clock=clock)
    for number in range(60):
        values = {
            FREE._replace(resource=f'{number * 7919 * at:x}'): number * at
            for at in range(200)
        }
        small.add(clock.now, values)
        clock.now += 60
    assert small.problem == ''
    files = path.parent.glob(f'{path.name}*')
    size = sum(file.stat().st_size for file in files)
    assert size <= 40 * 4096 + history._LOG_BYTES
    found = small.minutes(lambda one: True, 0)
    assert max(
        point.time for points in found.values() for point in points
    ) == (clock.now - 120)
    small.close()


def test_a_full_disk_is_told_and_loses_nothing(
    past: history.History,
    clock: watched.Clock,
) -> None:
    live(past, clock, 10)
    (count,) = past._database.execute('PRAGMA page_count').fetchone()
    past._database.execute(f'PRAGMA max_page_count = {count}')
    past.add(
        clock.now,
        {FREE._replace(resource=f'{at * 104729:x}'): at for at in range(5000)},
    )
    clock.now += 60
    past.add(clock.now, {FREE: 1})
    assert 'full' in past.problem
    assert len(minutes(past)) == 10
    # It is so until something can be written.
    assert 'full' in past.problem
