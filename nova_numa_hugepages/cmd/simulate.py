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
import os
import pathlib
import signal
import sys
from typing import Any
from typing import TYPE_CHECKING
import warnings

from cliff import command

from nova_numa_hugepages import exception
from nova_numa_hugepages.simulate import extras

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence

    from nova_numa_hugepages.simulate import results
    from nova_numa_hugepages.simulate import scenario

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

_DESCRIPTION = """
Simulate a fleet, and compare this package with stock Nova on it.

The same instances arrive twice: once they are placed by stock Nova's filter,
fit and weighers, once by those of this package. The report shows how many
instances are placed before the first one is refused, how often each flavor is
refused while instances come and go, and how much of the CPUs and huge pages is
in use or stranded.

FILE is YAML and describes hosts, flavors and arrivals; the example that comes
with this package, etc/nova-numa-hugepages/simulate.yaml, explains itself. With
--from-nova hosts and flavors are read from a running cloud instead, whose
databases nova.conf names. Nothing is changed there.
"""


class Simulate(command.Command):
    """Simulate a fleet, and compare this package with stock Nova on it."""

    def get_description(self) -> str:
        return _DESCRIPTION.strip()

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
                'with --from-nova: write what was read to a scenario file, '
                'and do not simulate it'
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
            help='which scheduler to simulate (default: %(default)s)',
        )
        parser.add_argument(
            '--demand',
            choices=('learned', 'flavors', 'pinned'),
            default='flavors',
            help=(
                'what the weigher of this package knows of the demand: what '
                'it learns from arrivals, the flavors as well, or the mix of '
                'the scenario (default: %(default)s)'
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
            help='report also how many instances any scheduler could place',
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
            help='number of processes (default: %(default)s)',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Simulate.

        :returns: the exit code
        """
        # Nova's dependencies warn of each other.
        warnings.simplefilter('ignore')
        try:
            import rich  # noqa: F401

            from nova_numa_hugepages.simulate import load  # noqa: F401
            from nova_numa_hugepages.yamlfile import file_errors
        except ImportError as error:
            print(
                extras.MissingLibrary(str(error.name), 'A simulation'),
                file=sys.stderr,
            )
            return EXIT_FAILED
        try:
            _check_use(parsed_args)
            with _interruptible():
                return _simulate(parsed_args)
        except (file_errors.FileError, _Misuse) as error:
            print(error, file=sys.stderr)
            return EXIT_BAD_INPUT
        except (exception.NUMAHugepagesError, _Failure) as error:
            print(error, file=sys.stderr)
            return EXIT_FAILED
        except KeyboardInterrupt:
            # Each file that was written has been reported.
            print('Interrupted.', file=sys.stderr)
            return EXIT_INTERRUPTED
        except BrokenPipeError:
            # Standard output was closed.
            sys.stdout = open(os.devnull, 'w')  # noqa: SIM115
            return EXIT_FAILED


class _Failure(Exception):
    """The simulation cannot go on; the text says why."""


class _Misuse(Exception):
    """Options or files exclude each other; the text says which."""


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


def _check_use(options: argparse.Namespace) -> None:
    """Check options that need or exclude others."""
    if (options.file is None) == (not options.from_nova):
        raise _Misuse(
            'Give either the FILE of a scenario, or --from-nova. See --help.'
        )
    if options.save is not None and not options.from_nova:
        raise _Misuse('--save goes with --from-nova only. See --help.')


def _simulate(options: argparse.Namespace) -> int:
    from rich import console as rich

    from nova_numa_hugepages.simulate import delivery
    from nova_numa_hugepages.simulate import load
    from nova_numa_hugepages.simulate import output
    from nova_numa_hugepages.simulate import progress
    from nova_numa_hugepages.simulate import results
    from nova_numa_hugepages.simulate import runner
    from nova_numa_hugepages.simulate import tasks

    # The report goes to stdout, all else to stderr.
    notes = rich.Console(stderr=True, highlight=False, markup=False)
    # Most mistakes are reported before Nova is loaded.
    target = delivery.Delivery(options.json, options.plots)
    target.check()
    if options.save is not None:
        output.check_writable(options.save)
    play = None
    if options.file is not None:
        play = _with_seeds(load.load(options.file), options.seeds)
    if options.bound:
        _check_solver()
    with _status(notes, 'loading Nova'):
        _load_nova(options.config_file)
    if play is None:
        _check_database()
        play = _read_cloud(notes, options.seeds)
        if options.save is not None:
            return _save(play, options.save, notes)
    policies = [
        policy
        for policy in results.PlacementPolicy
        if options.policy in ('both', policy.value)
    ]
    planned = runner.plan(play, policies, tasks.Learning(options.demand))
    with progress.shown(notes, planned) as report:
        try:
            found = runner.run(
                planned,
                processes=options.jobs,
                config_files=options.config_file,
                progress=report,
            )
        except runner.WorkerDied as error:
            raise _Failure(str(error)) from error
    code = 0 if found.complete else EXIT_INTERRUPTED
    if options.bound and found.runs:
        found, failure = _add_bounds(play, found, notes)
        code = failure or code
    target.deliver(found, notes=notes, planned=len(planned))
    return code


@contextlib.contextmanager
def _status(notes: Any, words: str) -> Iterator[None]:
    """Show what is going on, if the console is a terminal."""
    with (
        notes.status(words) if notes.is_terminal else contextlib.nullcontext()
    ):
        yield


def _with_seeds(
    play: scenario.Scenario, seeds: int | None
) -> scenario.Scenario:
    if seeds is None:
        return play
    if play.trace is not None:
        raise _Misuse(
            '--seeds does not go with a trace, which is not drawn at random.'
        )
    return dataclasses.replace(
        play,
        arrivals=dataclasses.replace(
            play.arrivals, seeds=tuple(range(1, seeds + 1))
        ),
    )


def _check_solver() -> None:
    # It imports Nova.
    from nova_numa_hugepages.simulate import bound

    bound.check_library()


def _load_nova(config_files: Sequence[str]) -> None:
    from oslo_config import cfg

    from nova_numa_hugepages.simulate import tasks

    try:
        tasks.load_nova(config_files)
    except cfg.Error as error:
        raise _Failure(f'The configuration cannot be read: {error}') from error


def _check_database() -> None:
    from nova import conf

    if not conf.CONF.api_database.connection:
        raise _Failure(
            'There is no [api_database] connection in the configuration. Name '
            'the nova.conf of the cloud with --config-file.'
        )


def _read_cloud(notes: Any, seeds: int | None) -> scenario.Scenario:
    """Read hosts and flavors from the databases that nova.conf names."""
    from nova import context

    from nova_numa_hugepages.simulate import dump
    from nova_numa_hugepages.simulate import from_nova
    from nova_numa_hugepages.simulate import scenario

    # What is left out of the cloud is logged as a warning.
    with _status(notes, 'reading the databases'):
        hosts, flavors = from_nova.read(context.get_admin_context())
    arrivals = dump.suggest_arrivals(hosts, flavors)
    return _with_seeds(
        scenario.Scenario('the cloud', hosts, flavors, arrivals), seeds
    )


def _save(play: scenario.Scenario, path: pathlib.Path, notes: Any) -> int:
    from nova_numa_hugepages.simulate import delivery
    from nova_numa_hugepages.simulate import dump
    from nova_numa_hugepages.simulate import output

    text = dump.to_yaml(play.hosts, play.flavors, play.arrivals)
    output.write(path, text.encode())
    delivery.print_written(path, notes)
    return 0


def _add_bounds(
    play: scenario.Scenario, found: results.Results, notes: Any
) -> tuple[results.Results, int]:
    """Add the bounds; if that fails, the results are reported without.

    :returns: the results and the exit code
    """
    from nova_numa_hugepages.simulate import bound
    from nova_numa_hugepages.simulate import runner

    try:
        with _status(notes, 'solving for the bound'):
            return runner.add_bounds(play, found), 0
    except KeyboardInterrupt:
        notes.print('Interrupted before the bound was known.')
        return found, EXIT_INTERRUPTED
    except bound.BoundError as error:
        notes.print(f'The bound is not known: {error}')
        return found, EXIT_FAILED


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGINT and SIGTERM.

    Also where the shell has had the interrupt ignored, as it does for what it
    runs in the background of a script.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
