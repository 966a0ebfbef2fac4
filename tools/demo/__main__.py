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


"""The command line of the demo."""

from __future__ import annotations

import argparse
import logging
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time
from typing import TYPE_CHECKING
import warnings

if TYPE_CHECKING:
    from rich import console as rich_console

    from tools.demo import demo_scenario

_PROJECT = pathlib.Path(__file__).resolve().parents[2]
DEFAULT = _PROJECT / 'etc' / 'nova-numa-hugepages' / 'demo.yaml'
PAGE = _PROJECT / 'build' / 'numa-hugepages-demo.html'

EXIT_FAILED = 1
EXIT_BAD_SCENARIO = 2

CLEANUP_SECONDS = 10


def main(arguments: list[str] | None = None) -> int:
    """Run the demo.

    :returns: the exit code
    """
    parser = argparse.ArgumentParser(
        prog='python -m tools.demo',
        description=(
            'Boot guests in a real Nova with simulated hosts, and show where '
            'they go and why.'
        ),
    )
    parser.add_argument(
        'scenario',
        nargs='?',
        type=pathlib.Path,
        default=DEFAULT,
        help='a YAML file (default: %(default)s, which explains itself)',
    )
    parser.add_argument(
        '--log',
        type=pathlib.Path,
        metavar='FILE',
        help="write the log of Nova's services there",
    )
    parser.add_argument(
        '--page',
        type=pathlib.Path,
        metavar='FILE',
        default=PAGE,
        help="write the monitor's page of a host there (default: %(default)s)",
    )
    options = parser.parse_args(arguments)

    # Read before Nova is imported, so that a mistake is reported at once.
    from nova_numa_hugepages.yamlfile import document
    from tools.demo import demo_scenario

    try:
        play = demo_scenario.read(_relative(options.scenario))
    except document.FileError as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_SCENARIO
    try:
        _keep_quiet(options.log)
        return _run(play, _relative(options.page))
    except BrokenPipeError:
        # Standard output was closed.
        sys.stdout = None
        return EXIT_FAILED
    except Exception as error:
        logging.getLogger(__name__).exception('The demo failed')
        print(_failure(error), file=sys.stderr)
        return EXIT_FAILED


def _run(play: demo_scenario.DemoScenario, page: pathlib.Path) -> int:
    from rich import console as rich

    console = rich.Console(highlight=False, markup=False)
    # All that Nova writes goes there, so that nothing stays behind, however
    # the demo ends.
    with tempfile.TemporaryDirectory(
        prefix='numa-hugepages-demo-', ignore_cleanup_errors=True
    ) as folder:
        tempfile.tempdir = folder
        _leave_on_signals(folder, console)
        with console.status('loading Nova'):
            from tools.demo import run
        try:
            run.Demo(play, console, page).run()
        except run.DemoError as error:
            print(error, file=sys.stderr)
            if isinstance(error, run.RefusedError):
                return EXIT_BAD_SCENARIO
            return EXIT_FAILED
        finally:
            tempfile.tempdir = None
    return 0


def _leave_on_signals(
    folder: str | None = None, console: rich_console.Console | None = None
) -> None:
    """Leave at once and leave nothing when the user interrupts.

    All services are threads of this process, and all files are in one folder.
    An exception instead would be lost in some callback of Nova's, or would
    end in the middle of a clean-up.
    """

    def leave(number: int, _: object) -> None:
        if console is not None:
            console.show_cursor(True)
        # The services are still at it, and may put something into the folder
        # while it is being removed.
        end = time.monotonic() + CLEANUP_SECONDS
        while folder and os.path.exists(folder) and time.monotonic() < end:
            shutil.rmtree(folder, ignore_errors=True)
        os.write(2, b'\ninterrupted; nothing is left behind\n')
        os._exit(128 + number)

    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGTERM, leave)


def _failure(error: BaseException) -> str:
    # Fixtures that fail to set up list all that went wrong, the cause first.
    while type(error).__name__ == 'MultipleExceptions':
        error = error.args[0][1]
    return (
        f'the demo failed: {type(error).__name__}: {error}\n'
        'Use --log FILE to get the log of Nova.'
    )


def _relative(path: pathlib.Path) -> pathlib.Path:
    """Shorten a path for messages, if it is below the current directory."""
    try:
        return path.relative_to(pathlib.Path.cwd())
    except ValueError:
        return path


def _keep_quiet(log: pathlib.Path | None) -> None:
    """Keep logs and warnings of Nova off the terminal."""
    warnings.simplefilter('ignore')
    root = logging.getLogger()
    if log is None:
        root.addHandler(logging.NullHandler())
        return
    handler = logging.FileHandler(log, mode='w', encoding='utf-8')
    handler.setFormatter(
        logging.Formatter('%(asctime)s %(levelname)s %(name)s %(message)s')
    )
    root.addHandler(handler)
    root.setLevel(logging.INFO)


if __name__ == '__main__':
    _leave_on_signals()
    sys.exit(main())
