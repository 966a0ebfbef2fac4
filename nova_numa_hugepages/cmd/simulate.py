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


"""``nova-numa-hugepages simulate``: try a fleet before changing it."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import pathlib
import signal
import sys
import time
from typing import Any
from typing import TYPE_CHECKING
import warnings

from cliff import command

from nova_numa_hugepages import exception
from nova_numa_hugepages.simulate import extras

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence

    from nova_numa_hugepages.simulate import scenario
    from nova_numa_hugepages.simulate import tasks

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

_DESCRIPTION = """
Simulate a fleet, and compare this package with stock Nova on it.

The same guests arrive twice: once they are placed by stock Nova's filter, fit
and weighers, once by those of this package. What is told: how many guests are
placed before the first one is refused, which flavors are refused how often
while guests come and go, and how much of the CPUs and huge pages is in use or
stranded.

FILE is YAML and describes hosts, flavors and arrivals; the example that comes
with this package, etc/nova-numa-hugepages/simulate.yaml, explains itself. With
--from-nova hosts and flavors are read from a running cloud instead, whose
databases nova.conf names. Nothing is changed there.
"""


class Simulate(command.Command):
    """Simulate a fleet, and compare this package with stock Nova on it."""

    def get_description(self) -> str:
        return _DESCRIPTION

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.add_argument(
            'file',
            nargs='?',
            type=pathlib.Path,
            metavar='FILE',
            help='the scenario',
        )
        parser.add_argument(
            '--from-nova',
            action='store_true',
            help='read hosts and flavors from the databases of a cloud',
        )
        parser.add_argument(
            '--save',
            type=pathlib.Path,
            metavar='FILE',
            help=(
                'with --from-nova: write what was read as a scenario, to be '
                'changed and simulated later, and do nothing else'
            ),
        )
        parser.add_argument(
            '--config-file',
            action='append',
            default=[],
            metavar='FILE',
            help=(
                'nova.conf, for the databases, the weighers and the options '
                'of this package (can be given several times)'
            ),
        )
        parser.add_argument(
            '--policy',
            choices=('both', 'stock', 'ours'),
            default='both',
            help='which of the two to simulate (default: %(default)s)',
        )
        parser.add_argument(
            '--demand',
            choices=('learned', 'flavors', 'pinned'),
            default='flavors',
            help=(
                'what the weigher of this package knows of the demand: what '
                'it learns from arrivals alone, the flavors too, or the mix '
                'of the scenario (default: %(default)s)'
            ),
        )
        parser.add_argument(
            '--seeds',
            type=_positive,
            metavar='N',
            help='simulate the seeds 1 to N instead of those of the scenario',
        )
        parser.add_argument(
            '--bound',
            action='store_true',
            help='tell also how many guests any scheduler could place at most',
        )
        parser.add_argument(
            '--json',
            type=pathlib.Path,
            metavar='FILE',
            help='write everything as JSON',
        )
        parser.add_argument(
            '--plots',
            type=pathlib.Path,
            metavar='FOLDER',
            help='write plots, as PNG and SVG',
        )
        parser.add_argument(
            '--jobs',
            type=_positive,
            default=len(os.sched_getaffinity(0)),
            metavar='N',
            help='processes at a time (default: %(default)s)',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Simulate.

        :returns: the exit code
        """
        # Of what Nova and its dependencies tell when they are loaded.
        warnings.simplefilter('ignore')
        logging.getLogger().addHandler(logging.NullHandler())
        try:
            import rich  # noqa: F401

            from nova_numa_hugepages.yamlfile import errors
        except ImportError as error:
            print(
                extras.MissingLibrary(str(error.name), 'A simulation'),
                file=sys.stderr,
            )
            return EXIT_FAILED
        if problem := _misuse(parsed_args):
            print(f'{problem}. See --help.', file=sys.stderr)
            return EXIT_BAD_INPUT
        try:
            return _simulate(parsed_args)
        except errors.FileError as error:
            print(error, file=sys.stderr)
            return EXIT_BAD_INPUT
        except (exception.NUMAHugepagesError, _Failure) as error:
            print(error, file=sys.stderr)
            return EXIT_FAILED
        except KeyboardInterrupt:
            print('interrupted; nothing was written', file=sys.stderr)
            return EXIT_INTERRUPTED
        except BrokenPipeError:
            # Whoever read the output has seen enough.
            sys.stdout = open(os.devnull, 'w')  # noqa: SIM115
            return EXIT_FAILED


class _Failure(Exception):
    """The simulation can't go on; the text says why."""


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 0 < number <= 1000:
        raise argparse.ArgumentTypeError(
            f'found {text!r}, expected an integer from 1 to 1000'
        )
    return number


def _misuse(options: argparse.Namespace) -> str | None:
    """Tell what is wrong with options taken together."""
    if (options.file is None) == (not options.from_nova):
        return 'Give either the FILE of a scenario, or --from-nova'
    if options.save is not None and not options.from_nova:
        return '--save goes with --from-nova only'
    return None


def _simulate(options: argparse.Namespace) -> int:
    from rich import console as rich

    from nova_numa_hugepages.simulate import results
    from nova_numa_hugepages.simulate import runner
    from nova_numa_hugepages.simulate import tasks

    # What is reported on goes to stdout, all else to stderr.
    notes = rich.Console(stderr=True, highlight=False, markup=False)
    _check_outputs(options)
    play = None
    if options.file is not None:
        # Before Nova is loaded, so that a mistake is told at once.
        play = _load(options.file)
    with notes.status('loading Nova'):
        _load_nova(options.config_file)
    if play is None:
        play = _read_cloud(notes)
        if options.save is not None:
            return _save(play, options.save, notes)
    if options.seeds is not None:
        play = dataclasses.replace(
            play,
            arrivals=dataclasses.replace(
                play.arrivals, seeds=tuple(range(1, options.seeds + 1))
            ),
        )
    policies = [
        policy
        for policy in results.Policy
        if options.policy in ('both', policy.value)
    ]
    planned = runner.plan(play, policies, tasks.Learning(options.demand))
    with _interruptible(), _progress(notes, planned) as progress:
        try:
            outcome = runner.run(
                planned,
                processes=options.jobs,
                config_files=options.config_file,
                progress=progress,
            )
        except runner.WorkerDied as error:
            raise _Failure(str(error)) from error
    return _report(options, play, outcome, notes)


def _load(path: pathlib.Path) -> scenario.Scenario:
    from nova_numa_hugepages.simulate import load

    return load.load(path)


def _load_nova(config_files: Sequence[str]) -> None:
    from oslo_config import cfg

    from nova_numa_hugepages.simulate import tasks

    try:
        tasks.load_nova(config_files)
    except cfg.Error as error:
        raise _Failure(f'The configuration cannot be read: {error}') from error


def _read_cloud(notes: Any) -> scenario.Scenario:
    """Read hosts and flavors from the databases that nova.conf names."""
    from nova import context

    from nova_numa_hugepages.simulate import dump
    from nova_numa_hugepages.simulate import from_nova
    from nova_numa_hugepages.simulate import scenario

    # What had to be left out of the cloud is told.
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter('%(message)s'))
    ours = logging.getLogger('nova_numa_hugepages')
    ours.addHandler(handler)
    try:
        with notes.status('reading the databases'):
            hosts, flavors = from_nova.read(context.get_admin_context())
    finally:
        ours.removeHandler(handler)
    return scenario.Scenario(
        'the cloud', hosts, flavors, dump.suggest_arrivals(hosts, flavors)
    )


def _save(play: scenario.Scenario, path: pathlib.Path, notes: Any) -> int:
    from nova_numa_hugepages.simulate import dump
    from nova_numa_hugepages.simulate import output

    text = dump.to_yaml(play.hosts, play.flavors, play.arrivals)
    output.write_all({path: text.encode()})
    notes.print(f'The scenario is in {path}')
    return 0


def _check_outputs(options: argparse.Namespace) -> None:
    """Find out now what would be in the way after minutes."""
    from nova_numa_hugepages.simulate import bound
    from nova_numa_hugepages.simulate import output
    from nova_numa_hugepages.simulate import plots

    if options.bound:
        bound.check_library()
    if options.plots is not None:
        plots.check_library()
        output.make_folder(options.plots)
    for path in (options.json, options.save):
        if path is not None:
            output.check_writable(path)


def _report(
    options: argparse.Namespace,
    play: scenario.Scenario,
    outcome: Any,
    notes: Any,
) -> int:
    from rich import console as rich

    from nova_numa_hugepages.simulate import output
    from nova_numa_hugepages.simulate import plots
    from nova_numa_hugepages.simulate import report
    from nova_numa_hugepages.simulate import runner

    found = outcome.found
    if options.bound and found.runs:
        with notes.status('solving for the bound'):
            found = runner.add_bounds(play, found)
    report.print_report(
        found,
        rich.Console(highlight=False, markup=False),
        planned=outcome.planned,
    )
    written: list[pathlib.Path] = []
    if options.json is not None:
        output.write_all({options.json: output.dump(found).encode()})
        written.append(options.json)
    if options.plots is not None and found.runs:
        written += plots.write_plots(found, options.plots)
    for path in written:
        notes.print(f'Written: {path}')
    return 0 if found.complete else EXIT_INTERRUPTED


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Take a request to end as an interrupt by the user."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _progress(notes: Any, planned: Sequence[tasks.Task]) -> Iterator[Any]:
    """Show how far the runs are, and how much time is left."""
    from rich import progress as rich_progress

    from nova_numa_hugepages.simulate import results

    # Stock Nova takes longer for a guest, and a fleet is full sooner than
    # guests have come and gone.
    weights = [
        (4.0 if task.policy is results.Policy.STOCK else 1.0)
        * (1.0 if task.phase is results.Phase.FILL else 4.0)
        for task in planned
    ]
    shares = [0.0] * len(planned)
    begin = time.monotonic()
    with rich_progress.Progress(
        rich_progress.TextColumn('{task.description}'),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        rich_progress.TextColumn('{task.fields[left]}'),
        console=notes,
        transient=True,
    ) as bar:
        whole = bar.add_task(
            f'{len(planned)} runs', total=sum(weights), left=''
        )

        def tell(number: int, share: float) -> None:
            shares[number] = max(shares[number], share)
            done = sum(a * b for a, b in zip(shares, weights, strict=True))
            left = ''
            if done:
                spent = time.monotonic() - begin
                seconds = spent * (sum(weights) - done) / done
                left = f'about {_duration(seconds)} left'
            bar.update(whole, completed=done, left=left)

        yield tell


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f'{minutes} min {rest} s' if minutes else f'{rest} s'
