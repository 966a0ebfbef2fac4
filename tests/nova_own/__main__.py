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

Functional tests also have our driver in place of the one for libvirt. The
functional tests of our own, of instances that start, stop and move, are in
``lifecycle*.py``.

``python -m tests.nova_own`` runs them, with ``--nightly`` those as well that
take half of the time, and with an argument all whose id contains it.
``--stock`` runs them with Nova's own fit, to find out whether a failure is
ours.

A test that can only pass by repeating a defect of Nova's fit is named in
``exclusions.txt`` beside this file, with the reason.
"""

import argparse
import collections
from collections.abc import Iterable
from collections.abc import Sequence
import importlib.metadata
import os
import pathlib
import subprocess
import sys
import time

from packaging import specifiers

from tests.nova_own import workers

EXCLUSIONS = pathlib.Path(__file__).with_name('exclusions.txt')

# The modules, by the package that sets their environment up. A process runs
# tests of one package only, as Nova does.
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
        'tests.nova_own.lifecycle',
        'tests.nova_own.lifecycle_recovery',
        'tests.nova_own.lifecycle_live_migration',
    ),
}
# Tests of devices, of which those of units cover what our fit has to do with.
NIGHTLY = 'nova.tests.functional.libvirt.test_pci_sriov_servers.'
# Those of them that are ours, built from the parts of Nova's.
OURS = 'tests.nova_own.'


class UsageError(Exception):
    """An argument, or the list of exclusions, is invalid."""


def read_exclusions(
    lines: Iterable[str], release: str | None = None
) -> dict[str, str]:
    """Return the excluded tests, with their reasons.

    :param lines: lines of the form ``test id: reason``, or ``test id (<34):
        reason`` for some releases of Nova only; empty lines and those that
        start with ``#`` are ignored
    :param release: the release of Nova; by default the installed one
    :returns: the reasons by test id
    :raises: :class:`UsageError` if a line has no reason, or a test again
    """
    release = release or importlib.metadata.version('nova')
    exclusions: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith('#'):
            continue
        subject, _, reason = (part.strip() for part in text.partition(':'))
        test_id, _, releases = subject.partition(' (')
        if not reason:
            raise UsageError(f'line {number}: {test_id} has no reason')
        if release not in specifiers.SpecifierSet(releases.removesuffix(')')):
            continue
        if test_id in exclusions:
            raise UsageError(f'line {number}: {test_id} is there twice')
        exclusions[test_id] = reason
    return exclusions


def list_ids(modules: Sequence[str]) -> list[str]:
    """Return the ids of the tests in some modules.

    :param modules: names of test modules
    :returns: the ids of all their tests, each once, in the modules' order
    :raises: :class:`UsageError` if there is none in one of the modules
    """
    done = subprocess.run(
        [*workers.COMMAND, 'list', *modules],
        cwd=workers.ROOT,
        env=workers.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UsageError(f"Nova's tests can't be listed:\n{done.stderr}")
    # A library may print when it is imported.
    ids = [i for i in done.stdout.split() if i.startswith(tuple(modules))]
    for module in modules:
        if not any(test_id.startswith(f'{module}.') for test_id in ids):
            raise UsageError(f'there is no test in {module}')
    return list(dict.fromkeys(ids))


def main(argv: Sequence[str] | None = None) -> int:
    """Run Nova's own tests.

    :returns: 0 if all chosen tests ran and passed, else 1
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
        '--nightly',
        action='store_true',
        help='run those of many devices as well',
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
            if any(part in test_id for part in args.parts)
            or (
                not args.parts
                and (args.nightly or not test_id.startswith(NIGHTLY))
            )
        ]
        if args.stock:
            wanted = [i for i in wanted if not i.startswith(OURS)]
        excluded = [i for i in wanted if i in exclusions]
        chosen = [i for i in wanted if i not in exclusions]
        if not chosen:
            raise UsageError('there is no test to run')
        outcomes = workers.run(
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
