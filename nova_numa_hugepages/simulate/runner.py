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

"""The runs of a simulation, several at a time in processes of their own."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent import futures
from concurrent.futures import process as process_futures
import contextlib
import logging
import multiprocessing
import signal
import time
from typing import Any
import warnings

from rich import console as rich
from rich import progress as rich_progress

from nova_numa_hugepages import exception
from nova_numa_hugepages import interrupts
from nova_numa_hugepages.simulate import results
from nova_numa_hugepages.simulate import scenario

# Seconds between two reports of progress.
_REPORT_EVERY_S = 0.2

# Seconds between two lines of progress, where there is no terminal.
_PRINT_EVERY_S = 30.0

# The time that runs take, in relation to each other: stock Nova takes longer
# for a guest, and a fleet is full long before guests have come and gone.
_STOCK_WEIGHT = 2.0
_COME_AND_GO_WEIGHT = 6.0

# The progress of a run: the number of its task, and a share from 0 to 1.
Progress = Callable[[int, float], None]


class WorkerDied(exception.NUMAHugepagesError):
    """A process that ran simulations was killed."""


def plan(
    play: scenario.Scenario,
    policies: Sequence[results.PlacementPolicy],
    learning: scenario.Learning,
    *,
    phases: Sequence[results.Phase] = tuple(results.Phase),
    lend_ratios: Sequence[float] = (),
    with_ready: bool = False,
) -> list[scenario.Task]:
    """List the runs of a scenario.

    Short ones first, and both policies of a seed side by side, so that there
    is something to compare when a simulation is interrupted.

    :param phases: those that are wanted, of those that the scenario has
    :param lend_ratios: with which ratios the fleet is filled to lend memory
    :param with_ready: whether pages made ready ahead are replayed, with the
        first seed
    """
    seeds = play.arrivals.seeds
    has = [results.Phase.FILL]
    if play.trace is not None:
        seeds = (0,)
        has = [results.Phase.TRACE]
    elif play.arrivals.mean_lifetime is not None:
        has.append(results.Phase.CHURN)
    return [
        scenario.Task(
            play,
            policy,
            phase,
            seed,
            learning,
            with_ready=with_ready
            and policy is results.PlacementPolicy.OURS
            and not phase.fills
            and seed == seeds[0],
        )
        for phase in has
        if phase in phases
        for seed in seeds
        for policy in policies
    ] + [
        scenario.Task(
            play,
            results.PlacementPolicy.OURS,
            results.Phase.LENDING,
            seeds[0],
            learning,
            ratio,
        )
        for ratio in lend_ratios
    ]


def estimate(planned: Sequence[scenario.Task]) -> str:
    """Describe how much work there is, in a sentence."""
    play = planned[0].play
    hosts = sum(kind.count for kind in play.hosts)
    arrivals = {
        results.Phase.FILL: round(scenario.holds(play.hosts, play.flavors)),
        results.Phase.CHURN: play.arrivals.count,
        results.Phase.TRACE: len(play.trace or ()),
    }
    arrivals[results.Phase.LENDING] = arrivals[results.Phase.FILL]
    most = sum(arrivals[task.phase] for task in planned)
    return f'{_runs(planned)}, {hosts} hosts, about {most} arrivals at most.'


def _runs(planned: Sequence[scenario.Task]) -> str:
    return '1 run' if len(planned) == 1 else f'{len(planned)} runs'


@contextlib.contextmanager
def progress_bar(
    console: rich.Console, planned: Sequence[scenario.Task]
) -> Iterator[Progress]:
    """Show a bar if the console is a terminal, or else a line now and then.

    :returns: a function to call with the progress of a run
    """
    weights = [_weight(task) for task in planned]
    shares = [0.0] * len(planned)
    runs = _runs(planned)
    begin = printed = time.monotonic()
    with rich_progress.Progress(
        rich_progress.TextColumn('{task.description}'),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        rich_progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        whole = bar.add_task(runs, total=sum(weights))

        def report(number: int, share: float) -> None:
            nonlocal printed
            shares[number] = share
            done = sum(
                share * weight
                for share, weight in zip(shares, weights, strict=True)
            )
            bar.update(whole, completed=done)
            now = time.monotonic()
            if bar.disable and now - printed >= _PRINT_EVERY_S:
                printed = now
                part = done / sum(weights)
                words = f'{part:.0%} of {runs} done'
                if part:
                    left_s = (now - begin) * (1 - part) / part
                    words += f', about {_minutes(left_s)} left'
                console.print(words)

        yield report


def _minutes(seconds: float) -> str:
    hours, minutes = divmod(max(1, round(seconds / 60)), 60)
    return f'{hours} h {minutes} min' if hours else f'{minutes} min'


def _weight(task: scenario.Task) -> float:
    weight = 1.0
    if task.policy is results.PlacementPolicy.STOCK:
        weight *= _STOCK_WEIGHT
    if task.phase is not results.Phase.FILL:
        # As does a week of elastic instances.
        weight *= _COME_AND_GO_WEIGHT
    return weight


def run(
    planned: Sequence[scenario.Task],
    *,
    processes: int,
    config_files: Sequence[str] = (),
    progress: Progress | None = None,
) -> results.Results:
    """Run the tasks of one scenario.

    SIGINT and SIGTERM end it early: the runs that are done by then are
    returned.

    :param processes: the number of processes
    :param config_files: Nova's configuration, for its weighers and our options
    :raises WorkerDied: if a process was killed
    """
    context = multiprocessing.get_context('spawn')
    reports = context.SimpleQueue()
    pool = futures.ProcessPoolExecutor(
        max_workers=max(1, min(processes, len(planned))),
        mp_context=context,
        initializer=_start,
        initargs=(reports, tuple(config_files)),
    )
    signals: list[int] = []
    with interrupts.handling(lambda number, _: signals.append(number)):
        try:
            with _blocked_signals():
                runs = [
                    pool.submit(_work, number, task)
                    for number, task in enumerate(planned)
                ]
            waiting = set(runs)
            while waiting and not signals:
                done, waiting = futures.wait(
                    waiting, _REPORT_EVERY_S, futures.FIRST_COMPLETED
                )
                while not reports.empty():
                    report = reports.get()
                    if progress is not None:
                        progress(*report)
                if not signals:
                    for future in done:
                        future.result()
            # What fails beside a signal takes no run away that is done.
            found = tuple(
                future.result()
                for future in runs
                if future.done() and future.exception() is None
            )
        except process_futures.BrokenProcessPool as error:
            raise WorkerDied(
                'A process of the simulation was killed, or ran out of '
                'memory. Try again with fewer processes (--jobs).'
            ) from error
        finally:
            _stop(pool)
    name = planned[0].play.file if planned else ''
    complete = len(found) == len(planned)
    return results.Results(name, found, complete)


@contextlib.contextmanager
def _blocked_signals() -> Iterator[None]:
    """Start processes with the signals blocked, until they ignore them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, interrupts.SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stop(pool: futures.ProcessPoolExecutor) -> None:
    """End the processes, whatever they are doing."""
    pool.shutdown(wait=False, cancel_futures=True)
    for child in multiprocessing.active_children():
        child.kill()
    for child in multiprocessing.active_children():
        child.join()


def load_nova(config_files: Sequence[str]) -> None:
    """Import Nova and set it up. Takes seconds; to be done once a process.

    :param config_files: none for Nova's defaults
    :raises oslo_config.cfg.Error: if a file can't be read
    :raises exception.InvalidOption: if an option of ours is out of range
    """
    # Of what Nova's dependencies think of each other.
    warnings.simplefilter('ignore')
    from nova import conf as nova_conf
    from nova import objects

    from nova_numa_hugepages import conf

    objects.register_all()
    conf.register_opts(nova_conf.CONF)
    nova_conf.CONF([], project='nova', default_config_files=[*config_files])
    conf.validate(nova_conf.CONF)


class _Worker:
    """The state of a process of the simulation."""

    reports: Any = None


def _start(reports: Any, config_files: tuple[str, ...]) -> None:
    # The first process decides when all have to end.
    for number in interrupts.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, interrupts.SIGNALS)
    logging.getLogger().addHandler(logging.NullHandler())
    load_nova(config_files)
    _Worker.reports = reports


def _work(number: int, task: scenario.Task) -> results.Run:
    # Nova has to be set up before.
    from nova_numa_hugepages.simulate import engine

    last = 0.0

    def report(share: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _REPORT_EVERY_S:
            last = now
            _Worker.reports.put((number, share))

    found = engine.Engine(task, report).run()
    _Worker.reports.put((number, 1.0))
    return found
