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

"""The results as tables, on the terminal and in the documents."""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
import re

from benchmarks import filtering
from benchmarks import placement
from benchmarks import weighing
from nova_numa_hugepages.simulate.results import Phase
from nova_numa_hugepages.simulate.results import PlacementPolicy
from nova_numa_hugepages.simulate.scenario import Learning
from nova_numa_hugepages.simulate.summary import Metric


def usual_table(results: Sequence[filtering.UsualResult]) -> str:
    """Lay out the usual cases in Markdown."""
    lines = [
        '| guest / host cells | stock Nova | ours | ratio | ours, stock '
        'compute | ratio | same hosts |',
        '| --- | ---: | ---: | ---: | ---: | ---: | --- |',
    ]
    lines.extend(
        f'| {result.case.name} | {result.stock_us:,.0f} µs '
        f'| {result.ours_us:.0f} µs | {result.ratio:.0f} '
        f'| {result.ours_on_stock_us:.0f} µs | {result.ratio_on_stock:.0f} '
        f'| {"yes" if result.same else "NO"}, {result.passed} of '
        f'{result.hosts} |'
        for result in results
    )
    return '\n'.join(lines)


def explosive_table(results: Sequence[filtering.ExplosiveResult]) -> str:
    """Lay out the explosive cases in Markdown."""
    lines = [
        '| one host | stock Nova | ours | ours, stock compute |',
        '| --- | ---: | ---: | ---: |',
    ]
    lines.extend(
        f'| {result.case.name} | {_milliseconds(result.stock_ms)} '
        f'| {result.ours_ms:.2f} ms | {result.ours_on_stock_ms:.2f} ms |'
        for result in results
    )
    return '\n'.join(lines)


def weigher_table(results: Sequence[weighing.Result]) -> str:
    """Lay out what the weigher takes in Markdown."""
    lines = [
        '| hosts | kinds of guests | first request of a kind | later ones '
        '| the filter, beside it |',
        '| ---: | --- | ---: | ---: | ---: |',
    ]
    lines.extend(
        f'| {result.case.hosts} | {result.case.kinds}'
        f'{", some isolate threads" if result.case.cores else ""} '
        f'| {result.first_us:.0f} µs | {result.us:.0f} µs '
        f'| {result.filter_us:.0f} µs |'
        for result in results
    )
    return '\n'.join(lines)


def placement_table(results: Sequence[placement.Result]) -> str:
    """Lay out how many guests fit in Markdown."""
    lines = [
        '| guests | stock Nova | ours | ratio of these | of the bound '
        '| refused, stock Nova | refused, ours |',
        '| --- | ---: | ---: | ---: | ---: | ---: | ---: |',
    ]
    for result in results:
        placed = [
            _figure(result, Phase.FILL, Metric.PLACED, policy, '.0f')
            for policy in PlacementPolicy
        ]
        of_bound = _figure(
            result,
            Phase.FILL,
            Metric.OF_BOUND_PERCENT,
            PlacementPolicy.OURS,
            '.1f',
        )
        refused = [
            _figure(result, Phase.CHURN, Metric.REFUSED_PERCENT, policy, '.2f')
            for policy in PlacementPolicy
        ]
        lines.append(
            f'| {result.case.words} | {placed[0]} | {placed[1]} '
            f'| {placement.ratio(result):.2f} | {of_bound} % '
            f'| {_percent(refused[0])} | {_percent(refused[1])} |'
        )
    return '\n'.join(lines)


def known_demand(results: Sequence[placement.Result]) -> str:
    """Describe what it would help to know the demand beforehand."""
    return '\n'.join(
        f'With the flavors known from the first guest on, ours places '
        f'{result.known[Learning.FLAVORS]:.0f} of the first mix; with the '
        f'mix given, {result.known[Learning.PINNED]:.0f}.'
        for result in results
        if result.known
    )


def _figure(
    result: placement.Result,
    phase: Phase,
    metric: Metric,
    policy: PlacementPolicy,
    form: str,
) -> str:
    value = placement.figure(result, phase, metric, policy)
    return '' if value is None else format(value, form)


def _percent(text: str) -> str:
    return f'{text} %' if text else ''


def write(path: pathlib.Path, name: str, text: str) -> None:
    """Put a text between the marks of a name in a document.

    :raises ValueError: if the document has no such marks
    """
    begin, end = f'<!-- {name}:begin -->', f'<!-- {name}:end -->'
    before = path.read_text(encoding='utf-8')
    after, count = re.subn(
        f'{re.escape(begin)}.*?{re.escape(end)}',
        lambda _: f'{begin}\n{text}\n{end}',
        before,
        flags=re.DOTALL,
    )
    if count != 1:
        raise ValueError(
            f'{path}: expected the marks {begin} and {end} once, found '
            f'them {count} times'
        )
    path.write_text(after, encoding='utf-8')


def _milliseconds(value: float | None) -> str:
    return 'not run' if value is None else f'{value:,.0f} ms'
