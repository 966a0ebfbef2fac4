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

"""``nova-numa-hugepages experiment``: what placement and pages bring."""

from __future__ import annotations

import abc
import argparse
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import importlib
import json
import os
import pathlib
import sys
import tempfile
import time
from typing import Any
from typing import TYPE_CHECKING

from cliff import command

from nova_numa_hugepages import exception
from nova_numa_hugepages import interrupts

if TYPE_CHECKING:
    from nova_numa_hugepages.experiment import expectations
    from nova_numa_hugepages.experiment import plan as plans
    from nova_numa_hugepages.experiment import records
    from nova_numa_hugepages.experiment import trial
    from nova_numa_hugepages.experiment.analysis import Comparison
    from nova_numa_hugepages.hugepages.kernel import hostfs

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_NOT_AS_EXPECTED = 3
EXIT_INTERRUPTED = 130

# Quoted, as some shells take the brackets for a pattern.
_INSTALL = "pip install 'nova-numa-hugepages[experiment]'"
_LIBRARIES = ('numpy', 'scipy', 'rich', 'jinja2', 'jsonschema', 'ruamel.yaml')
_RUN = """
Compare small pages, huge pages, and near and far memory on this machine.

Arms that differ in one thing run the same programs in pairs, at the same time
where there are CPUs for that. The report has the ratio of each treatment to
control with its interval, and says plainly where no difference is shown. Raw
data stay beside it.

PLAN is YAML; --example prints one that explains itself. Without it, small
pages are control, and transparent huge pages and pages of 2 MiB treatments.
"""


class _Command(command.Command):
    """A command that tells its errors, and returns an exit code."""

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        try:
            _check_libraries()
            with interrupts.handling(interrupts.interrupt):
                return self._run(parsed_args)
        except exception.NUMAHugepagesError as error:
            print(error, file=sys.stderr)
            return _code(error)
        except KeyboardInterrupt:
            print('Interrupted.', file=sys.stderr)
            return EXIT_INTERRUPTED
        except BrokenPipeError:
            # Standard output was closed.
            sys.stdout = open(os.devnull, 'w')  # noqa: SIM115
            return EXIT_FAILED

    @abc.abstractmethod
    def _run(self, options: argparse.Namespace) -> int:
        """Do it; return the exit code."""


class Run(_Command):
    """Compare small pages, huge pages, and near and far memory."""

    def get_description(self) -> str:
        return _RUN.strip()

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.add_argument(
            'plan',
            nargs='?',
            type=pathlib.Path,
            metavar='PLAN',
            help='the plan',
        )
        parser.add_argument(
            '--local',
            action='store_true',
            help='arms are processes of this machine',
        )
        parser.add_argument(
            '--libvirt',
            nargs='?',
            const='qemu:///system',
            metavar='URI',
            help=(
                'arms are guests of the libvirt of this machine (default: '
                '%(const)s)'
            ),
        )
        parser.add_argument(
            '--kernel',
            type=pathlib.Path,
            metavar='FILE',
            help='with --libvirt: what guests boot (default: as this machine)',
        )
        parser.add_argument(
            '--virt-type',
            choices=('kvm', 'qemu'),
            help=(
                'with --libvirt: how guests run; qemu emulates them, which '
                'tells nothing of real ones (default: kvm where it is there)'
            ),
        )
        parser.add_argument(
            '--quick',
            action='store_true',
            help='less memory and time, and a dozen pairs: some minutes',
        )
        parser.add_argument(
            '--output',
            type=pathlib.Path,
            metavar='FOLDER',
            help=(
                'a new folder for raw data and report (default: '
                'experiment-DATE-TIME)'
            ),
        )
        parser.add_argument(
            '--allocate-pages',
            action='store_true',
            help=(
                'allocate the huge pages that are missing, as root, and give '
                'them back at the end'
            ),
        )
        _add_expect(parser)
        parser.add_argument(
            '--example',
            action='store_true',
            help='print a plan that explains itself',
        )
        parser.add_argument(
            '--schema',
            action='store_true',
            help='print what a plan may have, as JSON schema',
        )
        return parser

    def _run(self, options: argparse.Namespace) -> int:
        from nova_numa_hugepages.experiment import expectations
        from nova_numa_hugepages.experiment import plan_file
        from nova_numa_hugepages.yamlfile import validation

        if options.example:
            print(plan_file.example(), end='')
            return 0
        if options.schema:
            schema = {'$schema': validation.DIALECT, **plan_file.schema()}
            print(json.dumps(schema, indent=2))
            return 0
        if options.local is (options.libvirt is not None):
            raise _BadInput(
                'Give either --local: arms are processes of this machine; or '
                '--libvirt: they are guests on it. See --help.'
            )
        for name in ('kernel', 'virt_type'):
            if getattr(options, name) and options.libvirt is None:
                raise _BadInput(
                    f'--{name.replace("_", "-")} goes with --libvirt only.'
                )
        expected = expectations.parse(options.expect)
        if options.plan is None:
            planned = plan_file.default(quick=options.quick)
        else:
            planned = plan_file.load(options.plan)
            if options.quick:
                raise _BadInput('--quick does not go with a PLAN.')
        expectations.check(expected, planned)
        code, found = _experiment(planned, options)
        return code or _as_expected(expected, found)


class Report(_Command):
    """Make the report of an experiment again, from its raw data."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            'folder',
            type=pathlib.Path,
            metavar='FOLDER',
            help='what "experiment run" wrote',
        )
        _add_expect(parser)
        return parser

    def _run(self, options: argparse.Namespace) -> int:
        from nova_numa_hugepages.experiment import expectations
        from nova_numa_hugepages.experiment import records

        expected = expectations.parse(options.expect)
        found = records.read(options.folder)
        expectations.check(expected, found.plan)
        return _as_expected(expected, _write_report(options.folder, found))


class Compare(_Command):
    """Compare the ratios of two experiments."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        for name in ('first', 'second'):
            parser.add_argument(
                name,
                type=pathlib.Path,
                metavar='FOLDER',
                help='what "experiment run" wrote',
            )
        return parser

    def _run(self, options: argparse.Namespace) -> int:
        from rich import console
        from rich import table

        from nova_numa_hugepages.experiment import records
        from nova_numa_hugepages.experiment import report

        first, second = (
            {
                (each.workload, each.load, each.measure.name, each.arm): each
                for each in report.comparisons(records.read(path))
            }
            for path in (options.first, options.second)
        )
        shown = table.Table('Workload', 'Load', 'Measure', 'Arm')
        for path in (options.first, options.second):
            shown.add_column(str(path), justify='right')
        shown.add_column('The ratios')
        for key, one in first.items():
            other = second.get(key)
            if other is None or one.ratio is None or other.ratio is None:
                continue
            apart = (
                one.ratio.high < other.ratio.low
                or other.ratio.high < one.ratio.low
            )
            shown.add_row(
                *key,
                report.interval(one.ratio),
                report.interval(other.ratio),
                'differ' if apart else 'do not differ for certain',
            )
        if not shown.row_count:
            raise _BadInput(
                'These experiments have no comparison in common: the same '
                'arm, workload, load and measure.'
            )
        console.Console(highlight=False, markup=False).print(shown)
        return 0


class _BadInput(exception.NUMAHugepagesError):
    """Options that make no sense."""


def _code(error: exception.NUMAHugepagesError) -> int:
    from nova_numa_hugepages.experiment import expectations
    from nova_numa_hugepages.yamlfile import document

    bad = (_BadInput, document.FileError, expectations.BadExpectation)
    return EXIT_BAD_INPUT if isinstance(error, bad) else EXIT_FAILED


def _check_libraries() -> None:
    """Check that the libraries of the extra are installed."""
    for name in _LIBRARIES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            print(
                f'An experiment needs {error.name}, which is not installed. '
                f'Install it: {_INSTALL}',
                file=sys.stderr,
            )
            raise SystemExit(EXIT_FAILED) from error


def _add_expect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--expect',
        action='append',
        default=[],
        metavar='"ARM/WORKLOAD/MEASURE<RATIO"',
        help=(
            f'exit with status {EXIT_NOT_AS_EXPECTED} unless the whole '
            'interval of that ratio is below the number, or with > above it '
            '(can be given several times)'
        ),
    )


def _experiment(
    planned: plans.Plan, options: argparse.Namespace
) -> tuple[int, list[Comparison]]:
    """Carry out a plan; write raw data and report.

    :returns: the exit code, and what was compared
    """
    from nova_numa_hugepages.experiment import procedure
    from nova_numa_hugepages.experiment import records
    from nova_numa_hugepages.experiment import surroundings
    from nova_numa_hugepages.experiment import workload
    from nova_numa_hugepages.hugepages.kernel import hostfs

    fs = hostfs.HostFS()
    classes = workload.classes()
    workloads = [
        classes[name](settings) for name, settings in planned.workloads.items()
    ]
    code = 0
    folder: records.Folder | None = None
    with tempfile.TemporaryDirectory(prefix='experiment-') as scratch:
        place = _place(planned, options, pathlib.Path(scratch), fs)
        try:
            place.prepare(workloads)
            if options.output is None:
                options.output = pathlib.Path(
                    time.strftime('experiment-%Y%m%d-%H%M%S')
                )
            folder = records.Folder(options.output)
            around = surroundings.read(fs)
            if place.emulates:
                around['emulated'] = True
            folder.begin(planned, around)
            with _progress() as progress:
                made = procedure.Procedure(
                    planned, workloads, place, folder.add, progress
                )
                decision = made.decide()
                folder.begin(planned, around, decision)
                made.run(decision)
        except (KeyboardInterrupt, exception.NUMAHugepagesError) as error:
            if folder is None:
                raise
            code = EXIT_FAILED
            text = str(error)
            if isinstance(error, KeyboardInterrupt):
                code = EXIT_INTERRUPTED
                text = 'Interrupted.'
            print(f'{text}\nWhat was measured counts.', file=sys.stderr)
        finally:
            place.close()
    return code, _write_report(options.output, records.read(options.output))


def _place(
    planned: plans.Plan,
    options: argparse.Namespace,
    folder: pathlib.Path,
    fs: hostfs.HostFS,
) -> trial.Place:
    """Return where the arms run."""
    from nova_numa_hugepages.experiment import libvirt_host
    from nova_numa_hugepages.experiment import local

    if options.libvirt is None:
        return local.LocalHost(
            planned, folder, fs, allocate=options.allocate_pages
        )
    return libvirt_host.LibvirtHost(
        planned,
        folder,
        fs,
        uri=options.libvirt,
        kernel=options.kernel,
        virt_type=options.virt_type,
        allocate=options.allocate_pages,
    )


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int, str], None]]:
    """Show how far it is: a bar, or a line each tenth without a terminal."""
    from rich import console as rich
    from rich import progress as bars

    console = rich.Console(stderr=True, highlight=False, markup=False)
    told = -1
    with bars.Progress(
        bars.TextColumn('{task.description}', markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task('', total=None)

        def report(done: int, of: int, what: str) -> None:
            nonlocal told
            bar.update(task, completed=done, total=of, description=what)
            tenth = done * 10 // of
            if not console.is_terminal and tenth != told:
                told = tenth
                print(f'{done} of {of} pairs', file=sys.stderr, flush=True)

        yield report


def _write_report(
    path: pathlib.Path, found: records.Records
) -> list[Comparison]:
    """Write the report beside the raw data, and print what it shows.

    :returns: what was compared
    """
    from nova_numa_hugepages.experiment import records
    from nova_numa_hugepages.experiment import report
    from nova_numa_hugepages.experiment import report_page

    compared = report.comparisons(found)
    contents: dict[str, Any] = {
        'report.html': report_page.render(found, compared),
        'report.md': report.markdown(found, compared),
        'report.json': report.as_json(found, compared),
    }
    for name, content in contents.items():
        records.write(path / name, content)
    print(report.text(found, compared))
    for name in contents:
        print(f'Written: {path / name}', file=sys.stderr)
    return compared


def _as_expected(
    expected: Sequence[expectations.Expectation],
    found: Sequence[Comparison],
) -> int:
    """Print which ratios are not as expected; return the exit code."""
    from nova_numa_hugepages.experiment import expectations

    texts = list(expectations.unmet(expected, found))
    for text in texts:
        print(text, file=sys.stderr)
    return EXIT_NOT_AS_EXPECTED if texts else 0
