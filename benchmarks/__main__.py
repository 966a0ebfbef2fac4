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


"""Measure this package against stock Nova: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
import os
import pathlib
import platform
import sys
import warnings

warnings.simplefilter('ignore')

from nova import version  # noqa: E402

from nova_numa_hugepages.simulate import runner  # noqa: E402

_HERE = pathlib.Path(__file__).parent
_README = _HERE.parent / 'README.md'
_PLOTS = _HERE.parent / 'doc' / 'source' / '_static' / 'benchmarks'
_PICTURE = (
    '![Guests placed before the first refusal, stock Nova and this package]'
    '(doc/source/_static/benchmarks/usual-placed.svg)'
)
_LIMIT_MS = 10.0


def main() -> int:
    """Run the benchmarks.

    :returns: the exit status, 1 if a goal is missed
    """
    parser = argparse.ArgumentParser(prog='benchmarks', description=__doc__)
    parser.add_argument(
        '--only',
        action='append',
        choices=tuple(_PARTS),
        help='what to measure (default: everything; can be repeated)',
    )
    parser.add_argument(
        '--hosts',
        type=int,
        default=1000,
        help='hosts that the filter is measured on, and at most those of the '
        'scheduler (default: %(default)s)',
    )
    parser.add_argument(
        '--repeats',
        type=int,
        default=5,
        help='of which medians are taken (default: %(default)s)',
    )
    parser.add_argument(
        '--write',
        action='store_true',
        help='put tables and plots into the documents',
    )
    arguments = parser.parse_args()
    runner.load_nova([])
    misses: list[str] = []
    for name in arguments.only or _PARTS:
        misses += _PARTS[name](arguments)
    for miss in misses:
        print(f'Goal missed: {miss}', file=sys.stderr)
    return 1 if misses else 0


def _filter(arguments: argparse.Namespace) -> list[str]:
    # Nova's objects have to be registered before.
    from benchmarks import filtering
    from benchmarks import report

    usual = []
    for case in filtering.USUAL:
        _progress(f'guest / host cells {case.name}')
        usual.append(
            filtering.usual(
                case, hosts=arguments.hosts, repeats=arguments.repeats
            )
        )
    explosive = []
    for hard in filtering.EXPLOSIVE:
        _progress(hard.name)
        explosive.append(filtering.explosive(hard, repeats=arguments.repeats))
    machine = (
        f'Up to {arguments.hosts} hosts, {filtering.USED:.0%} used; CPU time, '
        f'medians of {arguments.repeats} runs that take turns; {_software()}.'
    )
    tables = (report.usual_table(usual), report.explosive_table(explosive))
    text = f'{machine}\n\n{tables[0]}\n\n{tables[1]}'
    print(text)
    if arguments.write:
        report.write(_HERE / 'README.md', 'benchmark', text)
        report.write(_README, 'benchmark', f'{machine}\n\n{tables[0]}')
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
    return misses


def _weigher(arguments: argparse.Namespace) -> list[str]:
    from benchmarks import report
    from benchmarks import weighing

    results = []
    for case in weighing.CASES:
        _progress(f'the weigher, {case.hosts} hosts, {case.kinds} kinds')
        results.append(weighing.measure(case, repeats=arguments.repeats))
    text = (
        f'CPU time a host, for each host that the filter saw; hosts of 4 '
        f'cells, {weighing.USED:.0%} used; medians over all kinds and '
        f'{arguments.repeats} rounds; {_software()}.\n\n'
        f'{report.weigher_table(results)}'
    )
    print(text)
    if arguments.write:
        report.write(_HERE / 'README.md', 'weigher', text)
    return [
        f'the weigher, {result.case.hosts} hosts, {result.case.kinds} kinds: '
        f'{slowest:.0f} µs a host, the goal is {weighing.GOAL_US:.0f}'
        for result in results
        if result.case.goal
        and (slowest := max(result.us, result.first_us)) >= weighing.GOAL_US
    ]


def _placement(arguments: argparse.Namespace) -> list[str]:
    from benchmarks import placement
    from benchmarks import report
    from nova_numa_hugepages.simulate import plots

    results = []
    for case in placement.CASES:
        _progress(f'placement, {case.name}')
        results.append(
            placement.measure(
                case,
                processes=len(os.sched_getaffinity(0)),
                progress=_percent,
            )
        )
    text = (
        'Guests placed before the first one is refused, and guests refused '
        'while they come and go; 100 hosts, medians over 7 seeds (3 for the '
        'last two), demand learned from nothing on. The bound is what no '
        'scheduler can exceed.'
        f'\n\n{report.placement_table(results)}'
    )
    known = report.known_demand(results)
    print(f'{text}\n\n{known}')
    if arguments.write:
        report.write(_HERE / 'README.md', 'placement', f'{text}\n\n{known}')
        report.write(_README, 'placement', f'{text}\n\n{_PICTURE}')
        _PLOTS.mkdir(parents=True, exist_ok=True)
        for name, content in plots.render(results[0].found).items():
            if name.endswith('.svg'):
                path = _PLOTS / f'{results[0].case.name}-{name}'
                path.write_bytes(content)
    return [miss for result in results for miss in placement.misses(result)]


def _pools(arguments: argparse.Namespace) -> list[str]:
    from benchmarks import pools
    from benchmarks import report

    if reason := pools.reason_not_to_run():
        print(f'The page pools are not measured: {reason}.', file=sys.stderr)
        return []
    _progress('page pools, on this machine')
    result = pools.measure(repeats=arguments.repeats)
    text = (
        'On one node of this machine: from the call of `hold` until all pages '
        'are there, against one write to the kernel for as many; medians of '
        f'{arguments.repeats} runs that take turns; Linux '
        f'{platform.release()}, {_software()}.\n\n{pools.table(result)}'
    )
    print(text)
    if arguments.write:
        report.write(_HERE / 'README.md', 'pools', text)
    return pools.misses(result)


def _scheduling(arguments: argparse.Namespace) -> list[str]:
    from benchmarks import report
    from benchmarks import scheduling

    hosts = min(arguments.hosts, scheduling.HOSTS)
    _progress(f'select_destinations, {hosts} hosts')
    results = scheduling.measure(hosts=hosts, repeats=arguments.repeats)
    text = (
        f'One call of `select_destinations` with {hosts} hosts of 2 and 4 '
        f'cells, half used; wall time, medians of {arguments.repeats} runs '
        'that take turns; Placement and the databases (SQLite) are in the '
        f'same process; {_software()}.\n\n{scheduling.table(results)}'
    )
    print(text)
    if arguments.write:
        report.write(_HERE / 'README.md', 'scheduling', text)
    return scheduling.misses(results)


_PARTS: dict[str, Callable[[argparse.Namespace], list[str]]] = {
    'filter': _filter,
    'weigher': _weigher,
    'scheduling': _scheduling,
    'placement': _placement,
    'pools': _pools,
}


def _progress(what: str) -> None:
    print(f'measuring {what} ...', file=sys.stderr, flush=True)


def _percent(what: str, share: float) -> None:
    if sys.stderr.isatty():
        print(f'\r  {what}: {share:.0%} ', end='', file=sys.stderr)


def _software() -> str:
    return (
        f'Nova {version.version_string()}, Python '
        f'{platform.python_version()}, {_processor()}'
    )


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
