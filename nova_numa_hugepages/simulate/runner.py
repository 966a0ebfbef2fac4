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
import dataclasses
import logging
import multiprocessing
import signal
import threading
import time
from typing import Any
from typing import TYPE_CHECKING

from nova_numa_hugepages.simulate import results
from nova_numa_hugepages.simulate import scenario
from nova_numa_hugepages.simulate import tasks
from nova_numa_hugepages.simulate import workload

if TYPE_CHECKING:
    from nova_numa_hugepages.simulate import bound

# Seconds between two tellings of how far a run is.
_TELL_EVERY_S = 0.2

# How far the runs are: number of the task, and a share from 0 to 1.
Progress = Callable[[int, float], None]


class WorkerDied(Exception):
    """A process that ran simulations has ended."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a simulation.

    :ivar planned: the runs that there were to be
    """

    found: results.Results
    planned: int


def plan(
    play: scenario.Scenario,
    policies: Sequence[results.PlacementPolicy],
    learning: tasks.Learning,
) -> list[tasks.Task]:
    """List the runs of a scenario.

    Short ones first, and both policies of a seed side by side, so that there
    is something to compare when a simulation is interrupted.
    """
    seeds = (0,) if play.trace is not None else play.arrivals.seeds
    return [
        tasks.Task(play, policy, phase, seed, learning)
        for phase in workload.phases(play)
        for seed in seeds
        for policy in policies
    ]


def run(
    planned: Sequence[tasks.Task],
    *,
    processes: int,
    config_files: Sequence[str] = (),
    progress: Progress | None = None,
) -> Outcome:
    """Run tasks of one scenario.

    An interrupt by the user ends it early: what is done by then is returned.

    :param processes: so many at a time
    :param config_files: Nova's configuration, for its weighers and our options
    :param progress: is called from a thread of its own
    :raises WorkerDied: if a process came to an unexpected end
    """
    context = multiprocessing.get_context('spawn')
    told = context.SimpleQueue()
    done: dict[int, results.Run] = {}
    complete = False
    with _telling(told, progress):
        pool = futures.ProcessPoolExecutor(
            max_workers=max(1, min(processes, len(planned))),
            mp_context=context,
            initializer=_start,
            initargs=(told, tuple(config_files)),
        )
        try:
            with _uninterrupted():
                waiting = {
                    pool.submit(_work, number, task): number
                    for number, task in enumerate(planned)
                }
            for future in futures.as_completed(waiting):
                done[waiting[future]] = future.result()
            complete = True
        except KeyboardInterrupt:
            pass
        except process_futures.BrokenProcessPool as error:
            raise WorkerDied(
                'A process of the simulation was ended from outside, or ran '
                'out of memory. Try again with fewer processes (--jobs).'
            ) from error
        finally:
            _stop(pool, kill=not complete)
    name = planned[0].play.file if planned else ''
    runs = sorted(done.items())
    return Outcome(
        results.Results(name, tuple(run for _, run in runs), complete),
        len(planned),
    )


def _stop(pool: futures.ProcessPoolExecutor, *, kill: bool) -> None:
    pool.shutdown(wait=not kill, cancel_futures=True)
    if not kill:
        return
    for child in multiprocessing.active_children():
        child.terminate()
    for child in multiprocessing.active_children():
        child.join()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put off an interrupt while processes are started.

    These start with it put off, too, until they are ready to ignore it: the
    terminal sends it to all of them.
    """
    pending: list[int] = []
    # Another thread may take the signal, so to block it in this one is not
    # enough; a process that is only half told what to do would complain.
    handlers = {
        number: signal.signal(number, lambda number, _: pending.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for late in pending:
            signal.raise_signal(late)


@contextlib.contextmanager
def _telling(told: Any, progress: Progress | None) -> Iterator[None]:
    """Hand on what the processes tell of their progress."""
    ended = threading.Event()

    def listen() -> None:
        # Nothing is sent to end this: a process that is killed may hold the
        # lock that is needed to send.
        while not ended.wait(_TELL_EVERY_S):
            while not ended.is_set() and not told.empty():
                entry = told.get()
                if progress is not None:
                    progress(*entry)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        ended.set()
        listener.join()


class _Worker:
    """What a process of the simulation knows."""

    told: Any = None


def _start(told: Any, config_files: tuple[str, ...]) -> None:
    # The first process decides when all have to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    logging.getLogger().addHandler(logging.NullHandler())
    tasks.load_nova(config_files)
    _Worker.told = told


def _work(number: int, task: tasks.Task) -> results.Run:
    # Nova has to be set up before.
    from nova_numa_hugepages.simulate import engine

    last = 0.0

    def tell(share: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _TELL_EVERY_S:
            last = now
            _Worker.told.put((number, share))

    found = engine.Engine(task, tell).run()
    _Worker.told.put((number, 1.0))
    return found


def add_bounds(
    play: scenario.Scenario, found: results.Results
) -> results.Results:
    """Add to each run that fills a fleet how many guests were possible.

    :raises: `extras.MissingLibrary` without scipy
    """
    # It imports Nova, which has to be set up before.
    from nova_numa_hugepages.simulate import bound

    solver = bound.Bound(play)
    bounds: dict[int, int] = {}
    runs = []
    for one in found.runs:
        if one.phase is not results.Phase.FILL:
            runs.append(one)
            continue
        if one.seed not in bounds:
            bounds[one.seed] = _bound(play, solver, one.seed)
        runs.append(dataclasses.replace(one, bound=bounds[one.seed]))
    return dataclasses.replace(found, runs=tuple(runs))


def _bound(play: scenario.Scenario, solver: bound.Bound, seed: int) -> int:
    # Longer and longer sequences, until not all of them can be placed.
    length = 256
    while True:
        names = [
            guest.flavor
            for guest, _ in zip(
                workload.arrivals(play, results.Phase.FILL, seed),
                range(length),
                strict=False,
            )
        ]
        most = solver.sequence(names)
        if most < len(names) or len(names) < length:
            return most
        length *= 2
