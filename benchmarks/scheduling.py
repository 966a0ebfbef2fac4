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

"""The time a scheduler takes for a destination, ours against stock Nova.

The whole call is measured, with Placement and the databases in the same
process. The cloud needs a process of its own: it takes Nova with native
threads, and the other benchmarks load Nova without asking for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent import futures
import logging
import multiprocessing
import traceback
import warnings

from benchmarks.timings import Result
from benchmarks.timings import Times

# Not to be imported here: anything of Nova. See `_measure`.

HOSTS = 200


def measure(*, hosts: int, repeats: int) -> list[Result]:
    """Measure in a process of its own.

    :param hosts: two at least
    :raises RuntimeError: if there are too few for a guest of some cells
    """
    with futures.ProcessPoolExecutor(
        max_workers=1, mp_context=multiprocessing.get_context('spawn')
    ) as pool:
        return pool.submit(_measure, hosts, repeats).result()


def _measure(hosts: int, repeats: int) -> list[Result]:
    warnings.simplefilter('ignore')
    # A service that starts warns that its host is not known yet.
    logging.disable(logging.WARNING)
    from benchmarks import selecting

    try:
        return selecting.measure(hosts=hosts, repeats=repeats)
    except Exception as error:
        # Those of Nova and of fixtures can't be sent to another process.
        raise RuntimeError(f'{error}\n{traceback.format_exc()}') from None


def table(results: Sequence[Result]) -> str:
    """Lay out the results in Markdown."""
    lines = [
        '| guest cells | stock Nova | ours | ratio | CPU time, stock Nova '
        '| CPU time, ours | filters and weighers, stock Nova '
        '| filters and weighers, ours | same hosts |',
        '| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |',
    ]
    lines.extend(
        f'| {result.guest_cells} | {result.stock.wall_ms:.0f} ms '
        f'| {result.ours.wall_ms:.0f} ms | {result.ratio:.2f} '
        f'| {result.stock.cpu_ms:.0f} ms | {result.ours.cpu_ms:.0f} ms '
        f'| {_part(result.stock)} | {_part(result.ours)} '
        f'| {"yes" if result.same else "NO"}, {result.passed} of '
        f'{result.candidates} |'
        for result in results
    )
    return '\n'.join(lines)


def _part(times: Times) -> str:
    share = times.choosing_ms / times.wall_ms
    return f'{times.choosing_ms:.0f} ms, {share:.0%}'


def misses(results: Sequence[Result]) -> list[str]:
    """List the goals that were missed."""
    found = [
        f'select_destinations, {result.guest_cells} cells: '
        f'{result.ours.cpu_ms:.0f} ms of CPU time, stock Nova takes '
        f'{result.stock.cpu_ms:.0f} ms'
        for result in results
        if result.ours.cpu_ms > result.stock.cpu_ms
    ]
    found += [
        f'select_destinations, {result.guest_cells} cells: not the same '
        'hosts pass'
        for result in results
        if not result.same
    ]
    return found
