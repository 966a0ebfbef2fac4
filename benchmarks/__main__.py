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

"""Measure our filter against stock Nova's: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import pathlib
import platform
import sys
import warnings

warnings.simplefilter('ignore')

from nova import objects  # noqa: E402
from nova import version  # noqa: E402

_HERE = pathlib.Path(__file__).parent
_LIMIT_MS = 10.0


def main() -> int:
    """Run all cases, print the tables, and tell whether the goals are met."""
    parser = argparse.ArgumentParser(prog='benchmarks', description=__doc__)
    parser.add_argument('--hosts', type=int, default=1000)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument(
        '--write',
        action='store_true',
        help='put the tables into README.md and benchmarks/README.md',
    )
    arguments = parser.parse_args()
    objects.register_all()
    # Nova's objects have to be registered before.
    from benchmarks import report
    from benchmarks import run

    usual = []
    for case in run.USUAL:
        _progress(f'guest / host cells {case.name}')
        usual.append(
            run.usual(case, hosts=arguments.hosts, repeats=arguments.repeats)
        )
    explosive = []
    for hard in run.EXPLOSIVE:
        _progress(hard.name)
        explosive.append(run.explosive(hard, repeats=arguments.repeats))
    machine = (
        f'Up to {arguments.hosts} hosts, {run.USED:.0%} used; CPU time, '
        f'medians of '
        f'{arguments.repeats} runs that take turns; Nova '
        f'{version.version_string()}, Python {platform.python_version()}, '
        f'{_processor()}.'
    )
    tables = (report.usual_table(usual), report.explosive_table(explosive))
    text = f'{machine}\n\n{tables[0]}\n\n{tables[1]}'
    print(text)
    if arguments.write:
        report.write(_HERE / 'README.md', text)
        report.write(_HERE.parent / 'README.md', f'{machine}\n\n{tables[0]}')
    misses = [
        f'{result.case.name}: {result.ratio:.1f} times stock Nova, the goal '
        f'is {result.case.goal}'
        for result in usual
        if result.ratio < result.case.goal
    ]
    misses += [
        f'{result.case.name}: not the same hosts pass'
        for result in usual
        if not result.same
    ]
    misses += [
        f'{result.case.name}: {slowest:.1f} ms, the goal is {_LIMIT_MS} ms'
        for result in explosive
        if (slowest := max(result.ours_ms, result.ours_on_stock_ms))
        >= _LIMIT_MS
    ]
    for miss in misses:
        print(f'Goal missed: {miss}', file=sys.stderr)
    return 1 if misses else 0


def _progress(what: str) -> None:
    print(f'measuring {what} ...', file=sys.stderr, flush=True)


def _processor() -> str:
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text(encoding='utf-8')
    except OSError:
        return platform.machine()
    for line in lines.splitlines():
        if line.startswith('model name'):
            return line.partition(':')[2].strip()
    return platform.machine()


if __name__ == '__main__':
    sys.exit(main())
