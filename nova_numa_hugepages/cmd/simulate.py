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
import dataclasses
import importlib
import json
import os
import pathlib
import sys
from typing import Any
from typing import TYPE_CHECKING
import warnings

from cliff import command

from nova_numa_hugepages import exception
from nova_numa_hugepages import interrupts

if TYPE_CHECKING:
    from nova_numa_hugepages.simulate import results
    from nova_numa_hugepages.simulate import scenario

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

# Quoted, as some shells take the brackets for a pattern.
_INSTALL = "pip install 'nova-numa-hugepages[simulate]'"

_DESCRIPTION = """
Simulate a fleet, and compare this package with stock Nova on it.

The same instances arrive twice: once they are placed by stock Nova's filter,
fit and weighers, once by those of this package. The report shows how many
instances are placed before the first one is refused, how often each flavor is
refused while instances come and go, and how much of the CPUs and huge pages is
in use or stranded.

FILE is YAML and describes hosts, flavors and arrivals. --example prints one
that explains itself.
With --from-nova hosts and flavors are read from a running cloud instead, whose
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
            '--phase',
            choices=('both', 'fill', 'churn'),
            default='both',
            help=(
                'fill the fleet, or let instances come and go, instead of '
                'both (default: %(default)s)'
            ),
        )
        parser.add_argument(
            '--scale',
            type=_share,
            default=1.0,
            metavar='SHARE',
            help=(
                'simulate a part of the fleet, and of the instances, for '
                'example 0.1 (default: all)'
            ),
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
            '--lending',
            action='store_true',
            help=(
                'report also how many more instances fit if idle memory of '
                'elastic ones is lent, and how often one has to wait for it '
                'in a week of the use that the scenario describes'
            ),
        )
        parser.add_argument(
            '--ready',
            action='store_true',
            help=(
                'report also how many instances would have found their huge '
                'pages ready, with what compute services learn and with a '
                'fixed margin; for instances that come and go for two days '
                'or more'
            ),
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
            '--example',
            action='store_true',
            help='print the scenario that comes as an example',
        )
        parser.add_argument(
            '--schema',
            action='store_true',
            help='print what a scenario may have, as JSON schema',
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
            _check_options(parsed_args)
            _check_libraries(parsed_args)
            with interrupts.handling(interrupts.interrupt):
                return _simulate(parsed_args)
        except exception.NUMAHugepagesError as error:
            print(error, file=sys.stderr)
            return error.code if isinstance(error, _Failure) else EXIT_FAILED
        except KeyboardInterrupt:
            # Each file that was written has been reported.
            print('Interrupted.', file=sys.stderr)
            return EXIT_INTERRUPTED
        except BrokenPipeError:
            # Standard output was closed.
            sys.stdout = open(os.devnull, 'w')  # noqa: SIM115
            return EXIT_FAILED


class _Failure(exception.NUMAHugepagesError):
    """The simulation cannot go on; the text says why."""

    def __init__(self, text: str, code: int = EXIT_FAILED) -> None:
        super().__init__(text)
        self.code = code


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


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    # Also false for what is no number.
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(
            f'found {text!r}, expected a number above 0, up to 1'
        )
    return number


def _check_options(options: argparse.Namespace) -> None:
    """Check options that need or exclude others."""
    given = (
        options.file is not None,
        options.from_nova,
        options.example,
        options.schema,
    )
    if sum(given) != 1:
        raise _Failure(
            'Give either the FILE of a scenario, or --from-nova, --example or '
            '--schema. See --help.',
            EXIT_BAD_INPUT,
        )
    if options.save is not None and not options.from_nova:
        raise _Failure(
            '--save goes with --from-nova only. See --help.', EXIT_BAD_INPUT
        )


def _check_libraries(options: argparse.Namespace) -> None:
    """Check that the libraries of the extra ``simulate`` are installed."""
    needed = {
        'numpy': 'A simulation',
        'rich': 'A simulation',
        'nova_numa_hugepages.simulate.scenario_file': 'A simulation',
    }
    if options.plots is not None:
        needed['matplotlib.figure'] = 'Plotting'
    if options.bound:
        needed['scipy.optimize'] = 'The bound'
    for module, purpose in needed.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise _Failure(
                f'{purpose} needs {error.name}, which is not installed. '
                f'Install it: {_INSTALL}'
            ) from error


def _check_files(options: argparse.Namespace) -> None:
    """Check the files to write, as the runs may take minutes."""
    from nova_numa_hugepages.simulate import output

    folder, file = options.plots, options.json
    if folder is not None:
        output.check_folder(folder)
    if file is not None and (
        folder is None
        or folder.exists()
        or file.parent.resolve() != folder.resolve()
    ):
        # Else the folder will be made for both.
        output.check_writable(file)
    if options.save is not None:
        output.check_writable(options.save)


def _check_inputs_stay(
    options: argparse.Namespace, play: scenario.Scenario | None
) -> None:
    """Check that no file is written in the place of one that is read."""
    inputs = [options.file, *map(pathlib.Path, options.config_file)]
    if play is not None and play.trace_file is not None:
        inputs.append(play.trace_file)
    read = {path.resolve() for path in inputs if path is not None}
    for name, path in (('--json', options.json), ('--save', options.save)):
        if path is not None and path.resolve() in read:
            raise _Failure(
                f'{name} {path} would overwrite a file that is read here. '
                'Name another file.',
                EXIT_BAD_INPUT,
            )


def _simulate(options: argparse.Namespace) -> int:
    from rich import console as rich

    from nova_numa_hugepages.simulate import results
    from nova_numa_hugepages.simulate import runner
    from nova_numa_hugepages.simulate import scenario
    from nova_numa_hugepages.simulate import scenario_file
    from nova_numa_hugepages.yamlfile import validation

    if options.example:
        print(scenario_file.example(), end='')
        return 0
    if options.schema:
        print(
            json.dumps(
                {'$schema': validation.DIALECT, **scenario_file.SCHEMA},
                indent=2,
            )
        )
        return 0
    # The report goes to stdout, all else to stderr.
    notes = rich.Console(stderr=True, highlight=False, markup=False)
    # Most mistakes are reported before Nova is loaded.
    _check_files(options)
    play = None
    if options.file is not None:
        play = _with_seeds(_load(options.file), options.seeds)
        _check_phase(options, play)
    _check_inputs_stay(options, play)
    _load_nova(options.config_file, notes)
    if play is None:
        play = _read_cloud(notes, options.seeds)
        notes.print(
            'The networks of instances are not read, nor what hosts have of '
            'traits, devices and aggregates.',
            soft_wrap=True,
        )
    _tell_unjudged(play, notes)
    if options.save is not None:
        return _save(play, options.save, notes)
    if options.scale != 1:
        play = _scaled(play, options.scale, notes)
    play = _without_unplaceable(play, notes)
    if options.ready:
        _check_long(options, play)
    if options.lending:
        _check_elastic(play)
        from nova_numa_hugepages.simulate import lending
    policies = [
        policy
        for policy in results.PlacementPolicy
        if options.policy in ('both', policy.value)
    ]
    planned = runner.plan(
        play,
        policies,
        scenario.Learning(options.demand),
        phases=[
            phase
            for phase in results.Phase
            if options.phase in ('both', phase.value)
        ],
        lend_ratios=lending.RATIOS if options.lending else (),
        with_ready=options.ready,
    )
    notes.print(runner.estimate(planned), soft_wrap=True)
    with runner.progress_bar(notes, planned) as report:
        found = runner.run(
            planned,
            processes=options.jobs,
            config_files=options.config_file,
            progress=report,
        )
    code = 0 if found.complete else EXIT_INTERRUPTED
    if options.bound and found.runs:
        found, failure = _add_bounds(play, found, notes)
        code = failure or code
    _deliver(options, found, len(planned), notes)
    return code


def _load(path: pathlib.Path) -> scenario.Scenario:
    from nova_numa_hugepages.simulate import scenario_file
    from nova_numa_hugepages.yamlfile import document

    try:
        return scenario_file.load(path)
    except document.FileError as error:
        raise _Failure(str(error), EXIT_BAD_INPUT) from error


def _with_seeds(
    play: scenario.Scenario, seeds: int | None
) -> scenario.Scenario:
    if seeds is None:
        return play
    if play.trace is not None:
        raise _Failure(
            '--seeds does not go with a trace, which is not drawn at random.',
            EXIT_BAD_INPUT,
        )
    return dataclasses.replace(
        play,
        arrivals=dataclasses.replace(
            play.arrivals, seeds=tuple(range(1, seeds + 1))
        ),
    )


def _tell_unjudged(play: scenario.Scenario, notes: Any) -> None:
    from nova_numa_hugepages.simulate import unjudged

    if words := unjudged.describe(play.flavors):
        notes.print(words, soft_wrap=True)


def _check_phase(options: argparse.Namespace, play: scenario.Scenario) -> None:
    """Check that the scenario has what the options ask for."""
    for name, given in (
        ('--phase', options.phase != 'both'),
        ('--scale', options.scale != 1),
    ):
        if given and play.trace is not None:
            raise _Failure(f'{name} does not go with a trace.', EXIT_BAD_INPUT)
    if options.phase == 'churn' and play.arrivals.mean_lifetime is None:
        raise _Failure(
            "--phase churn needs a 'mean_lifetime' in the arrivals: without "
            'one all instances stay.',
            EXIT_BAD_INPUT,
        )


def _check_long(options: argparse.Namespace, play: scenario.Scenario) -> None:
    """Check that there is something to learn from."""
    from nova_numa_hugepages.simulate import readiness
    from nova_numa_hugepages.simulate import scenario

    comes_and_goes = play.trace is not None or (
        play.arrivals.mean_lifetime is not None and options.phase != 'fill'
    )
    if not comes_and_goes or options.policy == 'stock':
        raise _Failure(
            '--ready needs instances that come and go, placed by this '
            "package: a trace, or arrivals with a 'mean_lifetime'.",
            EXIT_BAD_INPUT,
        )
    from nova import conf

    if not conf.CONF.numa_hugepages.ready_risk_percent:
        raise _Failure(
            '--ready: with ready_risk_percent = 0 in the configuration no '
            'pages are made ready.',
            EXIT_BAD_INPUT,
        )
    days = scenario.lasts_s(play) / 86400
    if days * 86400 < readiness.LEAST_S:
        raise _Failure(
            f'--ready needs two days or more, and instances come for '
            f'{days:.1f} days.',
            EXIT_BAD_INPUT,
        )


def _check_elastic(play: scenario.Scenario) -> None:
    """Check that the scenario has instances whose memory is elastic."""
    from nova_numa_hugepages import extra_specs

    if play.trace is not None:
        raise _Failure('--lending does not go with a trace.', EXIT_BAD_INPUT)
    if not any(
        extra_specs.elastic_base(flavor.extra_specs) for flavor in play.flavors
    ):
        raise _Failure(
            '--lending needs a flavor with the extra spec '
            f'{extra_specs.ELASTIC_BASE_PERCENT} or '
            f'{extra_specs.ELASTIC_BASE_MIB}.',
            EXIT_BAD_INPUT,
        )


def _scaled(
    play: scenario.Scenario, share: float, notes: Any
) -> scenario.Scenario:
    from nova_numa_hugepages.simulate import scenario

    found = scenario.scaled(play, share)
    before, after = (
        sum(host.count for host in hosts)
        for hosts in (play.hosts, found.hosts)
    )
    notes.print(f'{after} of {before} hosts are simulated.')
    return found


def _load_nova(config_files: list[str], notes: Any) -> None:
    from oslo_config import cfg

    from nova_numa_hugepages.simulate import runner

    try:
        with notes.status('loading Nova'):
            runner.load_nova(config_files)
    except cfg.Error as error:
        raise _Failure(f'The configuration cannot be read: {error}') from error


def _without_unplaceable(
    play: scenario.Scenario, notes: Any
) -> scenario.Scenario:
    """Leave out the flavors that fit on no host of the fleet.

    A fleet that is filled until the first refusal would be full at once.
    Arrivals of a trace stay as they are.
    """
    from nova_numa_hugepages.simulate import unplaceable

    reasons = unplaceable.unplaceable(play)
    for name, reason in reasons.items():
        notes.print(
            f'Flavor {name} fits on no host of the fleet ({reason}). It is '
            + ('refused.' if play.trace is not None else 'left out.'),
            soft_wrap=True,
        )
    left = tuple(
        flavor for flavor in play.flavors if flavor.name not in reasons
    )
    if not left:
        raise _Failure(
            'No flavor fits on a host of the fleet.', EXIT_BAD_INPUT
        )
    if play.trace is not None:
        return play
    return dataclasses.replace(play, flavors=left)


def _read_cloud(notes: Any, seeds: int | None) -> scenario.Scenario:
    """Read hosts and flavors from the databases that nova.conf names."""
    from nova import conf
    from nova import context

    from nova_numa_hugepages.simulate import from_nova
    from nova_numa_hugepages.simulate import scenario
    from nova_numa_hugepages.simulate import scenario_file

    if not conf.CONF.api_database.connection:
        raise _Failure(
            'There is no [api_database] connection in the configuration. Name '
            'the nova.conf of the cloud with --config-file.'
        )
    # What is left out of the cloud is logged as a warning.
    with notes.status('reading the databases'):
        hosts, flavors = from_nova.read(context.get_admin_context())
    arrivals = scenario_file.suggest_arrivals(hosts, flavors)
    return _with_seeds(
        scenario.Scenario('the cloud', hosts, flavors, arrivals), seeds
    )


def _save(play: scenario.Scenario, path: pathlib.Path, notes: Any) -> int:
    from nova_numa_hugepages.simulate import output
    from nova_numa_hugepages.simulate import scenario_file

    content = scenario_file.to_yaml(play).encode()
    output.write({path: content}, lambda path: _print_written(path, notes))
    return 0


def _add_bounds(
    play: scenario.Scenario, found: results.Results, notes: Any
) -> tuple[results.Results, int]:
    """Add the bounds; if that fails, the results are reported without.

    :returns: the results and the exit code
    """
    from nova_numa_hugepages.simulate import bound

    try:
        with notes.status('solving for the bound'):
            return bound.add_bounds(play, found), 0
    except KeyboardInterrupt:
        notes.print('Interrupted before the bound was known.')
        return found, EXIT_INTERRUPTED
    except bound.BoundError as error:
        notes.print(f'The bound is not known: {error}')
        return found, EXIT_FAILED


def _deliver(
    options: argparse.Namespace,
    found: results.Results,
    planned: int,
    notes: Any,
) -> None:
    """Write the files, and print the results on standard output.

    No file is written if there is no run. Files are written although standard
    output is closed, and results are printed although a file cannot be
    written.
    """
    from rich import console as rich

    from nova_numa_hugepages.simulate import output
    from nova_numa_hugepages.simulate import tables

    stdout = rich.Console(highlight=False, markup=False)
    written: list[pathlib.Path] = []
    try:
        if options.plots is not None and found.runs:
            output.make_folder(options.plots)
        if options.json is not None and found.runs:
            content = output.dump(found).encode()
            output.write({options.json: content}, written.append)
        if options.plots is not None:
            from nova_numa_hugepages.simulate import plots

            contents = {
                options.plots / name: content
                for name, content in plots.render(found).items()
            }
            output.write(contents, written.append)
    finally:
        try:
            tables.print_report(found, stdout, planned=planned)
        finally:
            for path in written:
                _print_written(path, notes)


def _print_written(path: pathlib.Path, notes: Any) -> None:
    # A name longer than the line must not be broken.
    notes.print(f'Written: {path}', soft_wrap=True)
