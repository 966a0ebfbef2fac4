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


"""Run Nova's own tests of NUMA placement with our fit in place of Nova's.

Functional tests also have our driver in place of the one for libvirt. To these
come ours of every road on which a guest starts and stops (``roads*.py``).

``python -m tests.nova_own`` runs them all; with an argument it runs those
whose id contains it. ``--stock`` runs them with Nova's own fit, to tell
whether a failure is ours.

A test that can only pass by repeating a defect of Nova's fit is named in
``exclusions.txt`` beside this file, with the reason.
"""

import argparse
import collections
from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import queue
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXCLUSIONS = pathlib.Path(__file__).with_name('exclusions.txt')
WORKER = (sys.executable, '-m', 'tests.nova_own.worker')

# The modules, by the package that sets their environment up. One process runs
# tests of one package only, as Nova does it.
MODULES = {
    'nova.tests.unit': (
        'nova.tests.unit.virt.test_hardware',
        'nova.tests.unit.scheduler.filters.test_numa_topology_filters',
    ),
    'nova.tests.functional': (
        'nova.tests.functional.libvirt.test_numa_servers',
        'nova.tests.functional.libvirt.test_numa_live_migration',
        'nova.tests.functional.libvirt.test_pci_sriov_servers',
    ),
    'tests.nova_own': (
        'tests.nova_own.roads',
        'tests.nova_own.roads_back',
        'tests.nova_own.roads_live',
    ),
}
# Those of them that are ours, made of what Nova's are made of.
OURS = 'tests.nova_own.'

# Seconds for one test, which Nova's fixtures apply, and for a worker that says
# nothing at all.
TEST_TIMEOUT = 300
SILENCE_TIMEOUT = 600


class UsageError(Exception):
    """What was asked for, or the list of exclusions, makes no sense."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one test.

    :ivar test_id: its id
    :ivar outcome: passed, failed or skipped
    :ivar detail: the traceback or the reason
    """

    test_id: str
    outcome: str
    detail: str = ''


def read_exclusions(lines: Iterable[str]) -> dict[str, str]:
    """Read the list of excluded tests.

    :param lines: lines of the form ``test id: reason``; empty ones and those
        that start with ``#`` don't count
    :returns: the reasons by test id
    :raises: :class:`UsageError` if a line gives no reason, or a test twice
    """
    exclusions: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith('#'):
            continue
        test_id, _, reason = (part.strip() for part in text.partition(':'))
        if not reason:
            raise UsageError(f'line {number}: {test_id} has no reason')
        if test_id in exclusions:
            raise UsageError(f'line {number}: {test_id} is there twice')
        exclusions[test_id] = reason
    return exclusions


def environment() -> dict[str, str]:
    """Make the environment of a worker."""
    return {'OS_TEST_TIMEOUT': str(TEST_TIMEOUT), **os.environ}


def list_ids(modules: Sequence[str]) -> list[str]:
    """Ask Nova for its tests.

    :param modules: names of test modules
    :returns: the ids of all their tests, each once, in the modules' order
    :raises: :class:`UsageError` if there is none in one of the modules
    """
    done = subprocess.run(
        [*WORKER, 'list', *modules],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UsageError(f"Nova's tests can't be listed:\n{done.stderr}")
    # A library may print on import.
    found = [i for i in done.stdout.split() if i.startswith(tuple(modules))]
    for module in modules:
        if not any(test_id.startswith(f'{module}.') for test_id in found):
            raise UsageError(f'there is no test in {module}')
    return list(dict.fromkeys(found))


class Worker:
    """A process that runs some tests, and the thread that listens to it.

    :param package: the package of Nova's tests that all ids are in
    :param ids: the tests
    :param stock: run them with Nova's own fit
    :param outcomes: where the outcomes go, and None when the worker is done
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
        self._process = subprocess.Popen(
            [*WORKER, 'run', package, *(['--stock'] if stock else [])],
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
        for test_id in self._missing:
            self._outcomes.put(Outcome(test_id, 'failed', why))
            why = 'did not run, for the same reason'
        self._outcomes.put(None)

    def stop(self) -> None:
        """End the process, whatever it does; it may have ended already."""
        self._process.kill()


class Progress:
    """Say how far the run is: on a terminal in place, else now and then.

    :param total: the number of tests
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._step = max(1, total // 10)
        self._terminal = sys.stdout.isatty()

    def show(self, done: int, failed: int) -> None:
        """Say it.

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
    """Run tests, package after package, in several processes.

    :param ids_by_package: the ids by the package of Nova's tests
    :param stock: run them with Nova's own fit
    :param jobs: the number of processes at a time
    :returns: the outcome of each test, in the order in which they ended
    """
    total = sum(len(ids) for ids in ids_by_package.values())
    progress = Progress(total)
    ended: list[Outcome] = []
    failed = 0
    for package, ids in ids_by_package.items():
        outcomes: queue.Queue[Outcome | None] = queue.Queue()
        # Neighbours take about the same time, so dealing them out in turn
        # gives each process its share.
        shares = [ids[start::jobs] for start in range(jobs)]
        workers = [
            Worker(package, share, stock=stock, outcomes=outcomes)
            for share in shares
            if share
        ]
        running = len(workers)
        try:
            while running:
                outcome = outcomes.get(timeout=SILENCE_TIMEOUT)
                if outcome is None:
                    running -= 1
                    continue
                ended.append(outcome)
                failed += outcome.outcome == 'failed'
                progress.show(len(ended), failed)
        except queue.Empty:
            raise UsageError(
                f'no test ended in {SILENCE_TIMEOUT} s; giving up'
            ) from None
        finally:
            for worker in workers:
                worker.stop()
    return ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run Nova's own tests.

    :returns: 0 if every test that was to run did so and passed, else 1
    """
    parser = argparse.ArgumentParser(
        prog='python -m tests.nova_own',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'parts', nargs='*', metavar='TEST', help='part of a test id'
    )
    parser.add_argument(
        '--stock',
        action='store_true',
        help="run with Nova's own fit and driver",
    )
    parser.add_argument(
        '--jobs',
        type=int,
        default=os.cpu_count() or 1,
        metavar='N',
        help='processes at a time (default: one per CPU)',
    )
    args = parser.parse_args(argv)
    started = time.monotonic()
    try:
        exclusions = (
            {}
            if args.stock
            else read_exclusions(EXCLUSIONS.read_text().splitlines())
        )
        every = list_ids([m for ms in MODULES.values() for m in ms])
        for unknown in exclusions.keys() - set(every):
            raise UsageError(f'{EXCLUSIONS.name}: no such test: {unknown}')
        wanted = [
            test_id
            for test_id in every
            if not args.parts or any(part in test_id for part in args.parts)
        ]
        if args.stock:
            wanted = [i for i in wanted if not i.startswith(OURS)]
        excluded = [i for i in wanted if i in exclusions]
        chosen = [i for i in wanted if i not in exclusions]
        if not chosen:
            raise UsageError('there is no test to run')
        outcomes = run(
            {
                package: [i for i in chosen if i.startswith(f'{package}.')]
                for package in MODULES
            },
            stock=args.stock,
            jobs=max(1, args.jobs),
        )
    except UsageError as error:
        print(error, file=sys.stderr)
        return 1

    bad = [outcome for outcome in outcomes if outcome.outcome == 'failed']
    for outcome in bad:
        print(f'\nFAILED {outcome.test_id}\n{outcome.detail}')
    for outcome in outcomes:
        if outcome.outcome == 'skipped':
            print(f'skipped {outcome.test_id}: {outcome.detail}')
    for test_id in excluded:
        print(f'excluded {test_id}: {exclusions[test_id]}')
    for outcome in bad:
        print(f'FAILED {outcome.test_id}')
    counts = collections.Counter(outcome.test_id for outcome in outcomes)
    complete = counts == collections.Counter(chosen)
    if not complete:
        print(f'{len(chosen)} tests were to run, and {len(outcomes)} did')
    skipped = sum(outcome.outcome == 'skipped' for outcome in outcomes)
    print(
        f'Nova {importlib.metadata.version("nova")}, '
        f'{"its own" if args.stock else "our"} fit and driver: '
        f'{len(wanted)} tests, {len(bad)} failed, {skipped} skipped, '
        f'{len(excluded)} excluded '
        f'({time.monotonic() - started:.0f} s)'
    )
    return 1 if bad or not complete else 0


if __name__ == '__main__':
    sys.exit(main())
