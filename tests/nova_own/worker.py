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


"""A process that lists or runs tests of Nova.

``python -m tests.nova_own.worker list MODULE...`` prints the ids of the tests
in some modules. ``python -m tests.nova_own.worker run PACKAGE`` reads ids from
standard input and runs these tests with our fit, functional ones also with our
driver. It prints a line of JSON for each: its id, its outcome, its time, and
the details of a failure.

Nova's test package is imported first, as it decides on eventlet; then the fit
is installed; the test modules are imported last.
"""

import argparse
from collections.abc import Iterator
import importlib
import importlib.metadata
import json
import os
import sys
import time
from typing import Any
from typing import TextIO
import unittest

PASTE_FILE = 'etc/nova/api-paste.ini'

# The package that sets the environment up for tests that aren't Nova's.
ENVIRONMENTS = {'tests.nova_own': 'nova.tests.functional'}


class Reporter(unittest.TestResult):
    """Writes the outcome of each test when it ends.

    :param stream: where to write
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._report_stream = stream
        self._outcome = 'passed'
        self._detail = ''
        self._started = 0.0

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._outcome, self._detail = 'passed', ''
        self._started = time.monotonic()

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        line = {
            'id': test.id(),
            'outcome': self._outcome,
            'seconds': round(time.monotonic() - self._started, 3),
            'detail': self._detail,
        }
        print(json.dumps(line), file=self._report_stream, flush=True)

    def _fail(self, test: Any, err: Any) -> None:
        self._outcome = 'failed'
        self._detail += self._exc_info_to_string(err, test)  # type: ignore

    def addError(self, test: Any, err: Any) -> None:
        self._fail(test, err)

    def addFailure(self, test: Any, err: Any) -> None:
        self._fail(test, err)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self._fail(test, err)

    def addUnexpectedSuccess(self, test: Any) -> None:
        self._outcome = 'failed'
        self._detail += 'passed, but is marked as an expected failure'

    def addSkip(self, test: Any, reason: str) -> None:
        if self._outcome == 'passed':
            self._outcome, self._detail = 'skipped', reason


def cases(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """Yield the tests of nested suites."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from cases(test)
        else:
            yield test


def find_paste_file() -> str:
    """Return the path of Nova's API description as pip installed it."""
    for file in importlib.metadata.files('nova') or ():
        if file.match(PASTE_FILE):
            return os.path.abspath(str(file.locate()))
    raise SystemExit(f'Nova is installed without {PASTE_FILE}')


def point_to_paste_file() -> None:
    """Make Nova's fixtures find the description of its API.

    They look beside the package, where it only is in a checkout of Nova.
    """
    from nova.conf import paths

    original = paths.state_path_def
    paste_file = find_paste_file()

    def state_path_def(*args: str) -> str:
        return paste_file if args == (PASTE_FILE,) else original(*args)

    paths.state_path_def = state_path_def


def check_installed() -> None:
    """Check that every caller in this process gets our fit."""
    from nova.virt import hardware as nova_hardware

    from nova_numa_hugepages.nova_fit import numa_fit

    if (
        nova_hardware.numa_fit_instance_to_host
        is not numa_fit.numa_fit_instance_to_host
    ):
        raise SystemExit(
            'nova.virt.hardware.numa_fit_instance_to_host is not our fit'
        )


def list_tests(modules: list[str], stream: TextIO) -> None:
    """Print the ids of the tests of some modules.

    :param modules: full names of modules
    :param stream: where to write them, one a line
    """
    loader = unittest.TestLoader()
    for module in modules:
        for test in cases(loader.loadTestsFromName(module)):
            print(test.id(), file=stream)
    if loader.errors:
        raise SystemExit('\n'.join(loader.errors))


def run_tests(package: str, ids: list[str], *, stock: bool) -> Reporter:
    """Run tests and report each on standard output.

    :param package: the package of Nova's tests that all ids are in
    :param ids: the ids
    :param stock: run them with Nova's own fit
    :returns: the result, for its stream
    """
    # Standard output is for the reports; what the tests print goes elsewhere.
    stream = os.fdopen(os.dup(sys.stdout.fileno()), 'w')
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    importlib.import_module(ENVIRONMENTS.get(package, package))
    point_to_paste_file()
    if not stock:
        from nova_numa_hugepages.nova_fit import numa_fit

        numa_fit.install()
        check_installed()
        if package == 'nova.tests.functional':
            from tests.nova_own import driver_under_test

            driver_under_test.install()
    reporter = Reporter(stream)
    suite = unittest.TestLoader().loadTestsFromNames(ids)
    for test in list(cases(suite)):
        test.run(reporter)
    if not stock:
        check_installed()
    return reporter


def main() -> None:
    parser = argparse.ArgumentParser(prog='tests.nova_own.worker')
    commands = parser.add_subparsers(dest='command', required=True)
    lister = commands.add_parser('list')
    lister.add_argument('modules', nargs='+')
    runner = commands.add_parser('run')
    runner.add_argument('package')
    runner.add_argument('--stock', action='store_true')
    args = parser.parse_args()
    if args.command == 'list':
        list_tests(args.modules, sys.stdout)
    else:
        run_tests(args.package, sys.stdin.read().split(), stock=args.stock)
    sys.stdout.flush()
    # Otherwise threads and green threads left by a test would be waited for.
    os._exit(0)


if __name__ == '__main__':
    main()
