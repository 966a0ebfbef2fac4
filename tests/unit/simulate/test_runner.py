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


"""Tests of the runs, in processes of their own."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import io
import multiprocessing
import os
import pickle
import signal
import time

import pytest
from rich import console as rich

from nova_numa_hugepages.simulate import bound
from nova_numa_hugepages.simulate import results
from nova_numa_hugepages.simulate import runner
from nova_numa_hugepages.simulate import scenario
from tests.unit.simulate import running
from tests.unit.simulate.running import drawn
from tests.unit.simulate.scenes import host
from tests.unit.simulate.scenes import node
from tests.unit.simulate.scenes import pinned
from tests.unit.simulate.scenes import play
from tests.unit.simulate.simulated import CHURN
from tests.unit.simulate.simulated import churn
from tests.unit.simulate.simulated import FILL
from tests.unit.simulate.simulated import fill
from tests.unit.simulate.simulated import OURS
from tests.unit.simulate.simulated import STOCK
from tests.unit.simulate.simulated import TRACE

SCENE = play(
    [host(node(8), node(8))],
    [pinned('four', 4), pinned('twin', 4, numa_nodes=2)],
)
BOTH = [STOCK, OURS]


@pytest.fixture(autouse=True)
def nova() -> Iterator[None]:
    # Ignored where the tests run in the background of a script.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with running.nova():
            yield
    finally:
        signal.signal(signal.SIGINT, before)


def two_seeds(**fields: float) -> scenario.Scenario:
    return drawn(SCENE, 20, seeds=(3, 5), **fields)


def timeless(found: results.Results) -> results.Results:
    return dataclasses.replace(
        found,
        runs=tuple(
            dataclasses.replace(one, seconds=0.0) for one in found.runs
        ),
    )


@pytest.mark.parametrize(
    ('scene', 'policies', 'planned'),
    [
        (
            two_seeds(mean_lifetime=4.0),
            BOTH,
            [
                (FILL, 3, STOCK),
                (FILL, 3, OURS),
                (FILL, 5, STOCK),
                (FILL, 5, OURS),
                (CHURN, 3, STOCK),
                (CHURN, 3, OURS),
                (CHURN, 5, STOCK),
                (CHURN, 5, OURS),
            ],
        ),
        (two_seeds(), [OURS], [(FILL, 3, OURS), (FILL, 5, OURS)]),
        # A trace has no seeds.
        (
            dataclasses.replace(two_seeds(), trace=()),
            BOTH,
            [(TRACE, 0, STOCK), (TRACE, 0, OURS)],
        ),
    ],
)
def test_which_runs_are_planned(scene, policies, planned):
    found = runner.plan(scene, policies, scenario.Learning.LEARNED)

    assert found == [
        scenario.Task(scene, policy, phase, seed, scenario.Learning.LEARNED)
        for phase, seed, policy in planned
    ]


def test_several_processes_find_what_one_does():
    # given
    planned = runner.plan(two_seeds(), BOTH, scenario.Learning.FLAVORS)
    told: dict[int, list[float]] = {}

    # when
    found = runner.run(
        planned,
        processes=2,
        progress=lambda number, share: told.setdefault(number, []).append(
            share
        ),
    )

    # then
    assert timeless(found) == results.Results(
        'fleet.yaml',
        tuple(
            running.run(task.play, task.policy, task.phase, task.seed)
            for task in planned
        ),
    )
    assert multiprocessing.active_children() == []
    for shares in told.values():
        assert shares == sorted(shares)
        assert 0 <= shares[0] <= shares[-1] <= 1


def test_without_anything_to_do_nothing_is_done():
    assert runner.run([], processes=3) == results.Results('', ())


# A short run, and one that would take minutes.
ENDLESS = drawn(SCENE, 1_000_000, mean_lifetime=3.0)
PLANNED = runner.plan(ENDLESS, [OURS], scenario.Learning.FLAVORS)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_keeps_what_is_done(number):
    # given: the user interrupts as soon as the first run is done
    def interrupt(task: int, share: float) -> None:
        if (task, share) == (0, 1.0):
            # Until its result is there, too.
            time.sleep(1)
            for child in multiprocessing.active_children():
                os.kill(child.pid, number)
            # Until a process that dies of it is missed.
            time.sleep(1)
            os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)

    # when
    try:
        found = runner.run(PLANNED, processes=2, progress=interrupt)
    finally:
        signal.signal(signal.SIGTERM, before)

    # then
    assert timeless(found) == results.Results(
        'fleet.yaml', (running.run(ENDLESS, OURS, FILL, 1),), complete=False
    )
    assert multiprocessing.active_children() == []
    # An interrupt counts again.
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_a_process_that_dies_beside_a_signal():
    # given: the second process is killed as the user interrupts
    def interrupt(task: int, share: float) -> None:
        if (task, share) == (0, 1.0):
            time.sleep(1)
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGKILL)
            time.sleep(1)
            os.kill(os.getpid(), signal.SIGINT)

    # when
    found = runner.run(PLANNED, processes=2, progress=interrupt)

    # then
    assert timeless(found) == results.Results(
        'fleet.yaml', (running.run(ENDLESS, OURS, FILL, 1),), complete=False
    )


def test_a_process_that_cannot_be_started():
    # given: what no other process can be given
    unnamed = lambda: None  # noqa: E731

    with pytest.raises((AttributeError, pickle.PicklingError)):
        runner.run(PLANNED, processes=1, config_files=[unnamed])

    # Signals count again.
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_process_that_is_killed():
    # given: the system runs out of memory
    def kill(number: int, share: float) -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)

    # when
    with pytest.raises(runner.WorkerDied) as caught:
        runner.run(PLANNED[1:], processes=1, progress=kill)

    # then
    assert str(caught.value) == (
        'A process of the simulation was killed, or ran out of '
        'memory. Try again with fewer processes (--jobs).'
    )
    # A process takes a moment to end.
    for child in multiprocessing.active_children():
        child.join(10)
    assert multiprocessing.active_children() == []


def test_bounds_are_those_of_the_sequences():
    # given: runs of two seeds, and one in which guests leave
    runs = (
        fill(STOCK, 3, seed=3),
        fill(OURS, 4, seed=3),
        fill(OURS, 4, seed=5),
    )
    leaving = churn(OURS, {})
    found = results.Results('fleet.yaml', (*runs, leaving), complete=False)

    # when
    bounded = bound.add_bounds(SCENE, found)

    # then
    assert bounded == dataclasses.replace(
        found,
        runs=(
            *(
                dataclasses.replace(one, bound=at_most(one.seed))
                for one in runs
            ),
            leaving,
        ),
    )


def at_most(seed: int) -> int:
    arriving = scenario.arrivals(SCENE, FILL, seed)
    return bound.Bound(SCENE).sequence(
        [next(arriving).flavor for _ in range(20)]
    )


def test_a_fleet_of_more_guests_than_are_looked_at_first():
    # given: room for 400 guests
    scene = drawn(
        play([host(node(4), count=100)], [pinned('one', 1)]), 1, seeds=(1,)
    )

    # when
    (bounded,) = bound.add_bounds(
        scene, results.Results('fleet.yaml', (fill(OURS, 390),))
    ).runs

    # then
    assert bounded.bound == 400


def test_a_trace_that_fits_is_its_own_bound():
    # given
    scene = dataclasses.replace(
        SCENE, trace=(scenario.TraceEntry(0.0, 'four', None),) * 3
    )

    # when
    (bounded,) = bound.add_bounds(
        scene, results.Results('fleet.yaml', (fill(OURS, 3, seed=0),))
    ).runs

    # then
    assert bounded.bound == 3


def task(policy, phase):
    return scenario.Task(SCENE, policy, phase, 1)


def test_runs_that_take_longer_weigh_more():
    def weight(policy, phase):
        return runner._weight(task(policy, phase))

    assert weight(STOCK, FILL) > weight(OURS, FILL)
    assert weight(STOCK, CHURN) > weight(OURS, CHURN) > weight(STOCK, FILL)
    assert weight(STOCK, TRACE) == weight(STOCK, CHURN)


def shown(*shares, terminal):
    """Show a run that makes this progress, and one that makes none."""
    file = io.StringIO()
    console = rich.Console(file=file, force_terminal=terminal, width=80)
    runs = [task(OURS, FILL), task(STOCK, FILL)]
    with runner.progress_bar(console, runs) as report:
        for share in shares:
            report(0, share)
    return file.getvalue()


def test_a_terminal_shows_a_bar():
    text = shown(0.0, 1.0, terminal=True)

    # A third, as stock Nova takes twice as long.
    assert '2 runs' in text
    assert '33%' in text


def test_where_there_is_no_terminal_a_line_is_shown_now_and_then(
    monkeypatch,
):
    assert shown(0.0, 1.0, terminal=False) == ''

    monkeypatch.setattr(runner, '_PRINT_EVERY_S', 0.0)

    # A third, as stock Nova takes twice as long.
    assert shown(0.3, 1.0, terminal=False) == (
        '10% of 2 runs done, about 1 min left\n'
        '33% of 2 runs done, about 1 min left\n'
    )


def test_nothing_is_estimated_from_nothing(monkeypatch):
    monkeypatch.setattr(runner, '_PRINT_EVERY_S', 0.0)

    assert shown(0.0, terminal=False) == '0% of 2 runs done\n'


@pytest.mark.parametrize(
    ('seconds', 'words'),
    [(1, '1 min'), (3599, '1 h 0 min'), (36000 + 90, '10 h 2 min')],
)
def test_times_are_in_minutes(seconds, words):
    assert runner._minutes(seconds) == words


def test_only_the_phases_that_are_wanted():
    def phases(wanted):
        planned = runner.plan(
            two_seeds(mean_lifetime=4.0),
            [OURS],
            scenario.Learning.FLAVORS,
            phases=wanted,
        )
        return [(one.phase, one.seed) for one in planned]

    assert phases([CHURN]) == [(CHURN, 3), (CHURN, 5)]
    assert phases([FILL]) == [(FILL, 3), (FILL, 5)]
