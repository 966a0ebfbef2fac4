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

"""The processes that run Nova's tests, and the outcomes of the tests."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import json
import os
import pathlib
import queue
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, '-m', 'tests.nova_own.worker')

# Seconds that Nova's fixtures allow a test.
TEST_TIMEOUT = 300
# Seconds without output after which a worker counts as hanging. Under load,
# greenthreads with locks of Nova's database fixture sometimes wait for each
# other in a test of a live migration, and no time limit of Nova's ends that.
HANG_S = 180.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of one test.

    :ivar test_id: its id
    :ivar outcome: passed, failed or skipped
    :ivar detail: the traceback or the reason
    """

    test_id: str
    outcome: str
    detail: str = ''


def environment() -> dict[str, str]:
    """Return the environment of a worker."""
    return {'OS_TEST_TIMEOUT': str(TEST_TIMEOUT), **os.environ}


class Worker:
    """A process that runs some tests, and the thread that reads its reports.

    :param package: the package of Nova's tests that all ids are in
    :param ids: the tests
    :param stock: run them with Nova's own fit
    :param outcomes: receives the outcomes, and None when the worker is done
    """

    def __init__(
        self,
        package: str,
        ids: Sequence[str],
        *,
        stock: bool,
        outcomes: queue.Queue[Outcome | None],
    ) -> None:
        self._missing = dict.fromkeys(ids)
        self._outcomes = outcomes
        self._errors = collections.deque[str](maxlen=40)
        self._last_word = time.monotonic()
        self._abandoned = False
        self._process = subprocess.Popen(
            [*COMMAND, 'run', package, *(['--stock'] if stock else [])],
            cwd=ROOT,
            env=environment(),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        errors = threading.Thread(
            target=self._errors.extend, args=(process.stderr,), daemon=True
        )
        errors.start()
        try:
            process.stdin.write('\n'.join(self._missing))
            process.stdin.close()
        except BrokenPipeError:
            pass
        for line in process.stdout:
            report = json.loads(line)
            self._last_word = time.monotonic()
            self._missing.pop(report['id'], None)
            self._outcomes.put(
                Outcome(report['id'], report['outcome'], report['detail'])
            )
        process.wait()
        errors.join(timeout=10)
        why = (
            f'did not run: its process ended with {process.returncode}\n'
            + ''.join(self._errors)
        )
        for test_id in () if self._abandoned else self._missing:
            self._outcomes.put(Outcome(test_id, 'failed', why))
            why = 'did not run, for the same reason'
        self._outcomes.put(None)

    @property
    def hangs(self) -> bool:
        """Whether it runs but has reported nothing for too long."""
        silent = time.monotonic() - self._last_word
        return silent > HANG_S and self._process.poll() is None

    def abandon(self) -> list[str]:
        """End the process.

        :returns: the tests that did not end, the running one first
        """
        self._abandoned = True
        self.stop()
        return list(self._missing)

    def stop(self) -> None:
        """Kill the process, unless it has ended."""
        self._process.kill()


class Progress:
    """Prints the progress of a run: in place on a terminal, else in lines.

    :param total: the number of tests
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._step = max(1, total // 10)
        self._terminal = sys.stdout.isatty()

    def show(self, done: int, failed: int) -> None:
        """Print the progress.

        :param done: the number of tests that ended
        :param failed: how many of these failed
        """
        text = f'  {done} of {self._total} done, {failed} failed'
        if self._terminal:
            end = '\n' if done == self._total else ''
            print(f'\r{text}', end=end, flush=True)
        elif done % self._step == 0 or done == self._total:
            print(text, flush=True)


def run(
    ids_by_package: dict[str, list[str]], *, stock: bool, jobs: int
) -> list[Outcome]:
    """Run tests in several processes, one package after the other.

    A test that hangs is repeated once, in a new process.

    :param ids_by_package: the ids by the package of Nova's tests
    :param stock: run them with Nova's own fit
    :param jobs: the number of processes at a time
    :returns: the outcome of each test, in the order in which they ended
    """
    total = sum(len(ids) for ids in ids_by_package.values())
    progress = Progress(total)
    ended: list[Outcome] = []
    for package, ids in ids_by_package.items():
        # Neighbouring tests take about the same time, so dealing them out in
        # turn balances the processes.
        shares = [ids[start::jobs] for start in range(jobs)]
        for outcome in _run_package(
            package, [share for share in shares if share], stock=stock
        ):
            ended.append(outcome)
            failed = sum(one.outcome == 'failed' for one in ended)
            progress.show(len(ended), failed)
    return ended


def _run_package(
    package: str, shares: list[list[str]], *, stock: bool
) -> Iterator[Outcome]:
    outcomes: queue.Queue[Outcome | None] = queue.Queue()
    workers: list[Worker] = []
    repeated: set[str] = set()

    def start(ids: list[str]) -> None:
        workers.append(Worker(package, ids, stock=stock, outcomes=outcomes))

    try:
        for share in shares:
            start(share)
        running = len(workers)
        while running:
            try:
                outcome = outcomes.get(timeout=1)
            except queue.Empty:
                for worker in [one for one in workers if one.hangs]:
                    left = worker.abandon()
                    workers.remove(worker)
                    if left and left[0] in repeated:
                        why = f'no end in {HANG_S:.0f} s, twice'
                        outcomes.put(Outcome(left.pop(0), 'failed', why))
                    elif left:
                        repeated.add(left[0])
                        print(f'  {left[0]} hangs and is repeated', flush=True)
                    if left:
                        start(left)
                        running += 1
                continue
            if outcome is None:
                running -= 1
            else:
                yield outcome
    finally:
        for worker in workers:
            worker.stop()
