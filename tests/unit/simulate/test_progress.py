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


"""Tests of what is told of the progress of the runs."""

import io

import pytest
from rich import console as rich

from nova_numa_hugepages.simulate import progress
from nova_numa_hugepages.simulate import tasks
from tests.unit.simulate.scenes import play
from tests.unit.simulate.simulated import CHURN
from tests.unit.simulate.simulated import FILL
from tests.unit.simulate.simulated import OURS
from tests.unit.simulate.simulated import STOCK
from tests.unit.simulate.simulated import TRACE


def planned(*runs):
    scene = play([], [])
    return [tasks.Task(scene, policy, phase, 1) for policy, phase in runs]


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self):
        return self.now


def test_the_time_left_is_what_it_took_so_far():
    # given: two runs that take equally long
    clock = Clock()
    estimate = progress.Estimate(
        planned((OURS, FILL), (OURS, FILL)), clock=clock
    )

    # when: the first one begins to tell after a while of loading
    told = [estimate.update(0, 0.0)]
    clock.now += 10
    told.append(estimate.update(0, 0.5))
    clock.now += 10
    told += [estimate.update(1, 0.5), estimate.update(1, 1.0)]

    # then
    assert told == [(0.0, None), (0.5, 30.0), (1.0, 20.0), (1.5, 20 / 3)]
    assert estimate.total == 2


def test_no_time_is_told_too_early():
    clock = Clock()
    estimate = progress.Estimate(planned((OURS, FILL)), clock=clock)

    told = [estimate.update(0, 0.1)]
    clock.now += 1
    told.append(estimate.update(0, 0.2))
    clock.now += 1
    told.append(estimate.update(0, 0.3))

    assert told == [(0.1, None), (0.2, None), (0.3, pytest.approx(7.0))]


def test_a_run_never_goes_back():
    estimate = progress.Estimate(planned((OURS, FILL)), clock=Clock())

    assert estimate.update(0, 0.5) == estimate.update(0, 0.25) == (0.5, None)


def test_runs_that_take_longer_weigh_more():
    def weight(policy, phase):
        return progress.Estimate(planned((policy, phase))).total

    assert weight(STOCK, FILL) > weight(OURS, FILL)
    assert weight(STOCK, CHURN) > weight(OURS, CHURN) > weight(STOCK, FILL)
    assert weight(STOCK, TRACE) == weight(STOCK, CHURN)


def shown(*, terminal):
    """Show a run from its begin to its end."""
    file = io.StringIO()
    console = rich.Console(file=file, force_terminal=terminal, width=80)
    with progress.shown(console, planned((OURS, FILL))) as tell:
        tell(0, 0.0)
        tell(0, 1.0)
    return file.getvalue()


def test_a_terminal_shows_a_bar():
    text = shown(terminal=True)

    assert '1 run' in text
    assert '100%' in text


def test_where_there_is_no_terminal_nothing_is_shown():
    assert shown(terminal=False) == ''


@pytest.mark.parametrize(
    ('seconds', 'words'),
    [
        (0.4, '0 s'),
        (59.9, '59 s'),
        (60, '1 min 0 s'),
        (599, '9 min 59 s'),
        (600, '10 min'),
        (3599, '59 min'),
        (3600, '1 h 0 min'),
        (90061, '25 h 1 min'),
    ],
)
def test_durations_as_text(seconds, words):
    assert progress.duration(seconds) == words
