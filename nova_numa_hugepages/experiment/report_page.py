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

"""The report of an experiment as a page: one file, with no other."""

from __future__ import annotations

from collections.abc import Sequence
import math
import re
from typing import Any
from typing import NamedTuple

import jinja2

from nova_numa_hugepages.experiment import report
from nova_numa_hugepages.experiment.analysis import Comparison
from nova_numa_hugepages.experiment.records import Records

# The width of the picture of an interval, in its own units.
_WIDTH = 200.0
_CHART_WIDTH, _CHART_HEIGHT = 620.0, 260.0
_MARGIN = 46.0
# The least that a picture of intervals shows on each side.
_LEAST_SPAN = math.log(1.05)
_SIZE = re.compile(r'^latency, (\d+) MiB$')
# M. Okabe and K. Ito, "Color Universal Design", 2008.
_COLOURS = (
    '#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9',
    '#777777', '#000000',
)  # fmt: skip


class _Interval(NamedTuple):
    """Where the parts of an interval are in its picture."""

    low: float
    mean: float
    high: float


class _Curve(NamedTuple):
    """The latencies of an arm.

    :ivar points: as SVG takes them
    """

    name: str
    colour: str
    points: str


def render(records: Records, found: Sequence[Comparison]) -> str:
    """Write the page."""
    loader = jinja2.PackageLoader('nova_numa_hugepages.experiment')
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined
    )
    span = _span(found)
    return environment.get_template('report.html').render(
        records=records,
        when=report.when(records),
        facts=report.facts(records),
        warnings=report.warnings(records),
        left_out=report.left_out(records),
        rows=[
            {
                'cells': row,
                'picture': _picture(each, span),
                'class': {True: 'better', False: 'worse', None: 'same'}[
                    each.is_better
                ],
            }
            for row, each in zip(report.rows(found), found, strict=True)
        ],
        width=_WIDTH,
        middle=_WIDTH / 2,
        chart=_chart(records, found),
    )


def _span(found: Sequence[Comparison]) -> float:
    """Return the largest logarithm that the pictures show."""
    ends = [
        abs(math.log(end))
        for each in found
        if each.ratio
        for end in (each.ratio.low, each.ratio.high)
    ]
    return max([_LEAST_SPAN, *ends]) * 1.05


def _picture(each: Comparison, span: float) -> _Interval | None:
    if each.ratio is None:
        return None
    return _Interval(
        *(
            round(_WIDTH / 2 * (1 + math.log(end) / span), 1)
            for end in (each.ratio.low, each.ratio.mean, each.ratio.high)
        )
    )


def _chart(
    records: Records, found: Sequence[Comparison]
) -> dict[str, Any] | None:
    """Draw the latencies over sizes, without a load beside."""
    by_arm: dict[str, dict[int, float]] = {}
    for each in found:
        size = _SIZE.match(each.measure.name)
        if not size or each.load != records.plan.loads[0]:
            continue
        for name, latency in (
            (records.plan.control.name, each.control),
            (each.arm, each.treatment),
        ):
            if latency is not None:
                by_arm.setdefault(name, {})[int(size[1])] = latency
    sizes = sorted({size for points in by_arm.values() for size in points})
    if len(sizes) < 2:
        return None
    most = max(max(points.values()) for points in by_arm.values())
    step = _nice(most / 4)
    top = step * math.ceil(most / step)

    def x(size: int) -> float:
        share = math.log(size / sizes[0]) / math.log(sizes[-1] / sizes[0])
        return round(_MARGIN + share * (_CHART_WIDTH - 2 * _MARGIN), 1)

    def y(latency: float) -> float:
        return round(
            _CHART_HEIGHT - _MARGIN - latency / top * (_CHART_HEIGHT - 66), 1
        )

    return {
        'width': _CHART_WIDTH,
        'height': _CHART_HEIGHT,
        'curves': [
            _Curve(
                arm.name,
                _COLOURS[index % len(_COLOURS)],
                ' '.join(
                    f'{x(size)},{y(latency)}'
                    for size, latency in sorted(by_arm[arm.name].items())
                ),
            )
            for index, arm in enumerate(records.plan.arms)
            if arm.name in by_arm
        ],
        'sizes': [(size, x(size)) for size in sizes],
        'marks': [
            (f'{step * mark:g}', y(step * mark))
            for mark in range(round(top / step) + 1)
        ],
        'left': _MARGIN,
        'right': _CHART_WIDTH - _MARGIN,
        'bottom': _CHART_HEIGHT - _MARGIN,
    }


def _nice(number: float) -> float:
    """Return 1, 2 or 5 times a power of ten, at least a number."""
    power = 10 ** math.floor(math.log10(number))
    return next(
        step * power for step in (1, 2, 5, 10) if step * power >= number
    )
