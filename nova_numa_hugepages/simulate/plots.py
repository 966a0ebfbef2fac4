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

"""The results of a simulation as plots.

Each is a PNG and an SVG file, the same for the same results. They are made
to be read at a width of 800 pixels. The colours can be told apart with any
colour vision (those of M. Okabe and K. Ito, "Color Universal Design", 2008).
"""

from __future__ import annotations

from collections.abc import Sequence
import io
import statistics
import textwrap
from typing import Any

import matplotlib
from matplotlib import axes
from matplotlib import figure
import numpy as np

from nova_numa_hugepages.simulate import results
from nova_numa_hugepages.simulate import summary
from nova_numa_hugepages.simulate import wording
from nova_numa_hugepages.simulate.summary import Metric

# Twice as many as a page shows, for screens that have them.
_PNG_DOTS_PER_INCH = 200

_STYLE: Any = {
    'axes.spines.right': False,
    'axes.spines.top': False,
    'axes.titlelocation': 'left',
    'figure.constrained_layout.use': True,
    'figure.titlesize': 12,
    'figure.titleweight': 'bold',
    'font.family': 'DejaVu Sans',
    'font.size': 11,
    'legend.frameon': False,
    # Else the ids in an SVG file are drawn at random.
    'svg.hashsalt': 'nova-numa-hugepages',
    # A name of a flavor may have dollar signs.
    'text.parse_math': False,
}

_WIDTH_INCHES = 8

_COLOURS = {
    results.PlacementPolicy.STOCK: '#E69F00',
    results.PlacementPolicy.OURS: '#0072B2',
}
_USED = '#56B4E9'
_STRANDED = '#D55E00'
_FREE = '#E8E8E8'
_BOUND = '#000000'
_QUIET = '#555555'
# Points of a curve.
_POINTS = 400


def render(found: results.Results) -> dict[str, bytes]:
    """Draw all plots for which there are runs.

    ``placed`` compares the guests before the first refusal, ``fleet-PHASE``
    shows what becomes of the CPUs and pages, and ``refusals-PHASE`` which
    flavors are refused where guests leave.

    :returns: the content of each file by its name, in ascending order
    """
    contents: dict[str, bytes] = {}
    # The user's own style doesn't count: the plots are to be the same.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        for name, drawn in sorted(_plots(found).items()):
            for suffix, metadata in (
                ('png', {'Software': None}),
                ('svg', {'Date': None}),
            ):
                buffer = io.BytesIO()
                drawn.savefig(
                    buffer,
                    format=suffix,
                    dpi=_PNG_DOTS_PER_INCH,
                    metadata=metadata,
                )
                contents[f'{name}.{suffix}'] = buffer.getvalue()
    return contents


def _plots(found: results.Results) -> dict[str, figure.Figure]:
    plots: dict[str, figure.Figure] = {}
    for phase in summary.summarise(found):
        if not plots:
            # If there is a fill, it is the first phase, and shows most.
            plots['placed'] = _placed(found, phase)
        plots[f'fleet-{phase.phase}'] = _fleet(found, phase)
        if phase.phase is not results.Phase.FILL:
            plots[f'refusals-{phase.phase}'] = _refusals(phase)
    return plots


def _figure(height: float, title: str) -> figure.Figure:
    """Make a figure, with a title in lines that fit the width."""
    drawn = figure.Figure((_WIDTH_INCHES, height))
    # A number stays with its unit.
    title = title.removesuffix('.').replace(' %', '\N{NO-BREAK SPACE}%')
    lines = textwrap.wrap(title, 76)
    drawn.suptitle('\n'.join(lines), x=0.01, ha='left')
    return drawn


def _placed(
    found: results.Results, phase: summary.PhaseSummary
) -> figure.Figure:
    """Draw a bar for each policy, a dot for each seed, and the bound."""
    drawn = _figure(
        1.6 + 0.75 * len(phase.policies), wording.placed_sentence(phase)
    )
    panel = drawn.add_subplot()
    medians = [
        policy.figures[Metric.PLACED].median for policy in phase.policies
    ]
    # Above 0, so that there is a scale.
    longest = max(
        1.0,
        *(
            max(run.placed, run.bound or 0)
            for run in found.runs
            if run.phase is phase.phase
        ),
    )
    for row, policy in enumerate(phase.policies):
        runs = found.of(phase.phase, policy.policy)
        median = medians[row]
        panel.barh(row, median, color=_COLOURS[policy.policy], height=0.62)
        if len(runs) > 1:
            panel.plot(
                [run.placed for run in runs],
                [row + offset for offset in _spread(len(runs))],
                linestyle='none',
                marker='o',
                markersize=4.5,
                markerfacecolor='white',
                markeredgecolor='black',
                markeredgewidth=0.8,
            )
        # In the bar, where no dots are, or beside one that is too short.
        short = median < 0.15 * longest
        dark = not short and policy.policy is results.PlacementPolicy.OURS
        panel.annotate(
            wording.count(median),
            (median if short else 0, row),
            xytext=(8, 0),
            textcoords='offset points',
            va='center',
            color='white' if dark else 'black',
            fontsize=15,
            fontweight='bold',
        )
    panel.set_yticks(
        range(len(phase.policies)),
        [wording.NAMES[policy.policy] for policy in phase.policies],
    )
    panel.tick_params(axis='y', length=0)
    panel.invert_yaxis()
    panel.set_xlim(0, 1.04 * longest)
    label = 'instances placed before the first refusal'
    if any(len(policy.seeds) > 1 for policy in phase.policies):
        label += ' (bar: median; dots: seeds)'
    panel.set_xlabel(label)
    _mark_bounds(panel, found, phase)
    return drawn


def _mark_bounds(
    panel: axes.Axes, found: results.Results, phase: summary.PhaseSummary
) -> None:
    """Mark the bounds: by a line if they are equal, else beside the dots."""
    bounds = [
        run.bound
        for run in found.runs
        if run.phase is phase.phase and run.bound is not None
    ]
    if not bounds:
        return
    words = 'at most possible'
    if len(set(bounds)) == 1:
        panel.axvline(bounds[0], color=_BOUND, linestyle='--', linewidth=1.4)
        words += f': {wording.count(bounds[0])}'
    else:
        words = '| ' + words
        for row, policy in enumerate(phase.policies):
            runs = found.of(phase.phase, policy.policy)
            marks = [
                (run.bound, row + offset)
                for run, offset in zip(runs, _spread(len(runs)), strict=True)
                if run.bound is not None
            ]
            panel.plot(
                [bound for bound, _ in marks],
                [place for _, place in marks],
                linestyle='none',
                marker='|',
                markersize=9,
                markeredgecolor=_BOUND,
                markeredgewidth=2,
            )
    panel.annotate(
        words,
        (max(bounds), 1),
        xycoords=('data', 'axes fraction'),
        xytext=(-4 if len(set(bounds)) == 1 else 4, 3),
        textcoords='offset points',
        ha='right',
        va='bottom',
        fontsize=10,
    )


def _spread(count: int) -> list[float]:
    """Set dots apart, up and down, so that equal ones are seen."""
    if count == 1:
        return [0.0]
    return [0.2 * (2 * index / (count - 1) - 1) for index in range(count)]


def _fleet(
    found: results.Results, phase: summary.PhaseSummary
) -> figure.Figure:
    """Draw what is used, stranded and free over the arrivals."""
    columns = len(phase.policies)
    drawn = _figure(5.6, _fleet_title(phase))
    grid = drawn.subplots(2, columns, sharex=True, sharey=True, squeeze=False)
    rows = (
        ('% of dedicated CPUs', 'cpus_used', 'cpus_stranded'),
        ('% of huge pages', 'pages_used', 'pages_stranded'),
    )
    end = 1.0
    for column, policy in enumerate(phase.policies):
        runs = found.of(phase.phase, policy.policy)
        for row, (_, used, stranded) in enumerate(rows):
            _areas(grid[row][column], runs, used, stranded)
            _mark_refusal(grid[row][column], policy, runs, label=row == 0)
        end = max(end, _end(runs))
        grid[0][column].set_title(
            wording.capital(wording.NAMES[policy.policy]), pad=20
        )
        grid[-1][column].set_xlabel('instances that have arrived')
    for row, (name, _, _) in enumerate(rows):
        grid[row][0].set_ylabel(name)
    # A mark at the very end is to be seen.
    grid[0][0].set_xlim(0, end * 1.02)
    grid[0][0].set_ylim(0, 100)
    handles, labels = grid[0][0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc='outside lower center', ncols=3)
    return drawn


def _areas(
    panel: axes.Axes, runs: Sequence[results.Run], used: str, stranded: str
) -> None:
    arrivals = np.linspace(0, _end(runs), _POINTS + 1)
    lower = 100 * _curve(runs, used, arrivals)
    # Medians of several runs may exceed the whole together.
    middle = np.minimum(100 * _curve(runs, stranded, arrivals), 100 - lower)
    panel.stackplot(
        arrivals,
        lower,
        middle,
        100 - middle - lower,
        colors=[_USED, _STRANDED, _FREE],
        labels=['used', 'free, but stranded', 'free'],
        linewidth=0,
    )


def _end(runs: Sequence[results.Run]) -> float:
    """Return the median of the arrivals at the ends of the runs."""
    return statistics.median(run.samples[-1].arrivals for run in runs)


def _curve(runs: Sequence[results.Run], field: str, arrivals: Any) -> Any:
    """Return the median of the runs at some moments, as an array.

    Runs are sampled at moments of their own. Between samples a run is a
    straight line, and after the last one it stays as it was.

    :param field: a field of `results.Sample`
    """
    lines = [
        np.interp(
            arrivals,
            [sample.arrivals for sample in run.samples],
            [getattr(sample, field) for sample in run.samples],
        )
        for run in runs
    ]
    return np.median(lines, axis=0)


def _mark_refusal(
    panel: axes.Axes,
    policy: summary.PolicySummary,
    runs: Sequence[results.Run],
    *,
    label: bool,
) -> None:
    """Mark the first refusal, which comes after the median of those placed."""
    if not policy.first_refused:
        return
    moment = policy.figures[Metric.PLACED].median + 1
    panel.axvline(moment, color='black', linewidth=1.4, linestyle=':')
    if not label:
        return
    panel.annotate(
        f'first refusal: instance {wording.count(moment)}',
        (moment, 1),
        xycoords=('data', 'axes fraction'),
        xytext=(0, 3),
        textcoords='offset points',
        ha='right'
        if moment > 0.5 * max(run.arrivals for run in runs)
        else 'left',
        va='bottom',
        fontsize=9.5,
        annotation_clip=False,
    )


def _fleet_title(phase: summary.PhaseSummary) -> str:
    """Return how much is stranded once the fleet refuses guests."""
    shares = [
        (stranded.median, wording.NAMES[policy.policy])
        for policy in phase.policies
        if (stranded := policy.figures.get(Metric.CPUS_STRANDED_PERCENT))
    ]
    if not shares:
        return wording.PHASES[phase.phase]
    when = wording.DURING[phase.phase]
    if phase.phase is results.Phase.FILL:
        refused = any(policy.first_refused for policy in phase.policies)
        when = 'At the first refusal' if refused else 'At the end'
    (share, who), *others = shares
    parts = [
        f'{when} {wording.percent(share)} % of the CPUs are free, but '
        f'stranded, with {who}'
    ]
    parts += [
        f'{wording.percent(share)} % with {who}' for share, who in others
    ]
    return ', '.join(parts)


def _refusals(phase: summary.PhaseSummary) -> figure.Figure:
    """Draw for each flavor how much of it each policy refuses."""
    shares = [
        {one.flavor: one.percent for one in policy.by_flavor}
        for policy in phase.policies
    ]
    # The most refused one first.
    flavors = sorted(
        set().union(*shares),
        key=lambda name: (-max(by.get(name, 0.0) for by in shares), name),
    )
    count = len(phase.policies)
    drawn = _figure(
        1.9 + 0.22 * max(1, len(flavors)) * max(1.4, count),
        wording.refused_sentence(phase),
    )
    panel = drawn.add_subplot()
    height = 0.8 / count
    for number, policy in enumerate(phase.policies):
        widths = [shares[number].get(flavor, 0.0) for flavor in flavors]
        offset = (number - (count - 1) / 2) * height
        rows = [row + offset for row in range(len(flavors))]
        panel.barh(
            rows,
            widths,
            height=height * 0.92,
            color=_COLOURS[policy.policy],
            label=wording.NAMES[policy.policy],
        )
        for row, share in zip(rows, widths, strict=True):
            panel.annotate(
                f'{wording.percent(share)} %',
                (share, row),
                xytext=(4, 0),
                textcoords='offset points',
                va='center',
                fontsize=9,
                color='black' if share else _QUIET,
            )
    panel.set_yticks(range(len(flavors)), flavors)
    panel.tick_params(axis='y', length=0)
    panel.invert_yaxis()
    largest = max(max(by.values(), default=0.0) for by in shares)
    # Room for the number at the longest bar.
    panel.set_xlim(0, largest * 1.12 or 1)
    panel.set_xlabel('refused, % of the arrivals of the flavor')
    if count > 1:
        drawn.legend(loc='outside lower center', ncols=count)
    return drawn
