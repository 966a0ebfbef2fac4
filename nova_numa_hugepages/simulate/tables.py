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

"""The results of a simulation as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich import console as rich
from rich import table
from rich import text

from nova_numa_hugepages.simulate import results
from nova_numa_hugepages.simulate import summary
from nova_numa_hugepages.simulate import wording
from nova_numa_hugepages.simulate.summary import Metric

_NOTHING = '-'

_ROWS: tuple[tuple[Metric, str], ...] = (
    (Metric.PLACED, 'placed before first refusal'),
    (Metric.OF_BOUND_PERCENT, 'share of the bound'),
    (Metric.REFUSED_PERCENT, 'arrivals refused'),
    (Metric.CPUS_USED_PERCENT, 'CPUs used'),
    (Metric.CPUS_STRANDED_PERCENT, 'CPUs stranded'),
    (Metric.PAGES_USED_PERCENT, 'pages used'),
    (Metric.PAGES_STRANDED_PERCENT, 'pages stranded'),
    (Metric.CELL_DISTANCE, 'distance between cells'),
    (Metric.CELL_DISTANCE_P95, 'of 95 % at most'),
    (Metric.OVER_SOCKETS_PERCENT, 'instances over sockets'),
    (Metric.REMOTE_PERCENT, 'memory that is remote'),
    (Metric.LATENCY_NS, 'latency'),
)
# Of figures that are no percentages.
_UNITS = {
    Metric.PLACED: '',
    Metric.CELL_DISTANCE: '',
    Metric.CELL_DISTANCE_P95: '',
    Metric.LATENCY_NS: ' ns',
}

_INTERVALS = {
    summary.Interval.RANGE: 'ranges from the least to the most',
    summary.Interval.CONFIDENCE: '95 % confidence intervals',
}

_STRANDED = (
    'Stranded: free, but in the wrong place for an average instance of the '
    'mix.'
)


def print_report(
    found: results.Results, console: rich.Console, *, planned: int
) -> None:
    """Print the figures of each phase, and what they say.

    :param console: where to; it decides on width and colours
    :param planned: how many runs there were to be
    """
    phases = summary.summarise(found)
    for phase in phases:
        _print_phase(phase, console)
    if phases:
        _print(console, _STRANDED, 'dim')
        console.print()
    if weeks := found.of(results.Phase.LENDING, results.PlacementPolicy.OURS):
        _print_lending(weeks, console)
    for run in found.runs:
        if run.ready is not None:
            _print_ready(run.ready, console)
    if not found.complete:
        _print(console, _interrupted(len(found.runs), planned), 'bold yellow')
    if phases:
        headlines = ' '.join(wording.headline(phase) for phase in phases)
        _print(console, headlines, 'bold')


def _print(console: rich.Console, words: str, style: str = '') -> None:
    console.print(text.Text(words, style), highlight=False)


def _interrupted(done: int, planned: int) -> str:
    if not done:
        return 'Interrupted before the first run was done.'
    return (
        f'Interrupted after {done} of {planned} runs; the figures are of '
        'these only.'
    )


def _print_phase(phase: summary.PhaseSummary, console: rich.Console) -> None:
    _print(console, wording.PHASES[phase.phase], 'bold')
    console.print(_figures(phase), highlight=False)
    _print(console, _medians(phase), 'dim')
    console.print()
    if phase.phase is results.Phase.FILL:
        for policy in phase.policies:
            _print(console, _first_refused(policy))
    elif any(policy.refusals.refused for policy in phase.policies):
        console.print(_refusals(phase), highlight=False)
    else:
        _print(console, 'No instance was refused.')
    console.print()


def _print_lending(runs: Sequence[results.Run], console: rich.Console) -> None:
    """Print what lending idle memory of elastic instances comes to."""
    _print(console, 'Lending: a week of elastic instances', 'bold')
    grid = table.Table(box=box.SIMPLE_HEAD, pad_edge=False)
    grid.add_column('elastic_lend_ratio')
    for name in (
        'placed before first refusal',
        'more',
        'waits',
        'median, longest',
        'share of the time',
        'largest regret',
    ):
        grid.add_column(name, justify='right')
    none_lent = next((run for run in runs if run.lend_ratio == 1.0), None)
    for run in runs:
        week = run.week
        if week is None:
            continue
        more = _NOTHING
        if none_lent and none_lent.placed:
            share = run.placed / none_lent.placed - 1
            more = f'{wording.percent(100 * share)} %'
        waited = (
            f'{week.median_wait_s / 60:.0f}, {week.longest_wait_s / 60:.0f} '
            'min'
            if week.waits
            else _NOTHING
        )
        grid.add_row(
            f'{run.lend_ratio:g}',
            str(run.placed),
            more,
            str(week.waits),
            waited,
            f'{wording.percent(100 * week.waiting_share)} %',
            f'{week.most_lent_mib / 1024:.0f} GiB',
        )
    console.print(grid, highlight=False)
    _print(
        console,
        'Waits: an elastic instance needs memory that others have. Regret: '
        'what all could want at once and is not there. Of one run each.',
        'dim',
    )
    console.print()


def _print_ready(found: results.Ready, console: rich.Console) -> None:
    """Print what pages made ready ahead come to."""
    _print(console, 'Pages made ready ahead', 'bold')
    grid = table.Table(box=box.SIMPLE_HEAD, pad_edge=False)
    grid.add_column('')
    for name in ('learned', f'fixed, {found.fixed_mib} MiB', 'less'):
        grid.add_column(name, justify='right')
    grid.add_row(
        'starts that found their pages',
        f'{wording.percent(100 * found.ready_share)} %',
        'as many',
        '',
    )
    less = (
        f'{100 * (1 - found.idle_gib_hours / found.fixed_gib_hours):.0f} %'
        if found.fixed_gib_hours
        else _NOTHING
    )
    grid.add_row(
        'idle GiB hours',
        f'{found.idle_gib_hours:.0f}',
        f'{found.fixed_gib_hours:.0f}',
        less,
    )
    console.print(grid, highlight=False)
    _print(
        console,
        f'Of {found.starts} starts in the last {found.hours:.0f} hours, after '
        'what came before was learned from. The fixed margin is the same on '
        'all pools.',
        'dim',
    )
    console.print()


def _table(phase: summary.PhaseSummary, first: str) -> table.Table:
    grid = table.Table(box=box.SIMPLE_HEAD, pad_edge=False)
    grid.add_column(first, overflow='fold')
    for policy in phase.policies:
        grid.add_column(wording.NAMES[policy.policy], justify='right')
    return grid


def _figures(phase: summary.PhaseSummary) -> table.Table:
    grid = _table(phase, '')
    compared = len(phase.policies) > 1
    if compared:
        grid.add_column('ratio', justify='right')
    for metric, label in _ROWS:
        cells = [_figure(policy, metric) for policy in phase.policies]
        if not any(cells):
            continue
        if compared:
            cells.append(_ratio(phase, metric))
        grid.add_row(label, *(cell or _NOTHING for cell in cells))
    return grid


def _ratio(phase: summary.PhaseSummary, metric: Metric) -> str:
    ratio = phase.ratios.get(metric)
    unrefused = any(policy.unrefused for policy in phase.policies)
    if ratio is None or (metric is Metric.PLACED and unrefused):
        # How many more would have fitted is unknown.
        return ''
    return wording.times(ratio.median)


def _figure(policy: summary.PolicySummary, metric: Metric) -> str:
    """Write a figure with its interval; nothing if there is none."""
    figure = policy.figures.get(metric)
    if figure is None:
        return ''
    number, unit = wording.percent, ' %'
    if metric in _UNITS:
        number, unit = wording.count, _UNITS[metric]
    if metric is Metric.PLACED and not policy.first_refused:
        return f'all {number(figure.median)}'
    words = number(figure.median) + unit
    if figure.low is None or figure.high is None:
        return words
    low, high = number(figure.low), number(figure.high)
    return words if low == high else f'{words} ({low}-{high})'


def _medians(phase: summary.PhaseSummary) -> str:
    seeds = [len(policy.seeds) for policy in phase.policies]
    if max(seeds) == 1:
        return 'Of one run.' if len(seeds) == 1 else 'Of one run each.'
    runs = ' and '.join(map(str, dict.fromkeys(seeds)))
    intervals = {
        figure.interval
        for policy in phase.policies
        for figure in policy.figures.values()
    }
    words = ' or '.join(
        description
        for interval, description in _INTERVALS.items()
        if interval in intervals
    )
    text = f'Medians of {runs} runs, with {words}'
    if len(seeds) > 1:
        text += '; ratios of the same seeds'
    return f'{text}.'


def _first_refused(policy: summary.PolicySummary) -> str:
    runs = len(policy.seeds)
    who = wording.NAMES[policy.policy]
    if not policy.first_refused:
        return f'{who}: no instance was refused'
    if runs == 1:
        return f'{who}: first refused was {policy.first_refused[0][0]}'
    flavors = ', '.join(
        f'{flavor} ({count} of {runs} runs)'
        for flavor, count in policy.first_refused
    )
    return f'{who}: first refused was {flavors}'


def _refusals(phase: summary.PhaseSummary) -> table.Table:
    """Make a table of refusals by flavor, most arrivals first."""
    grid = _table(phase, 'refused of arrivals')
    by_policy = [
        {refusals.flavor: refusals for refusals in policy.by_flavor}
        for policy in phase.policies
    ]
    # In the order of the first policy, then what only the second one has.
    flavors = dict.fromkeys(
        flavor for refusals in by_policy for flavor in refusals
    )
    for number, flavor in enumerate(flavors, 1):
        grid.add_row(
            text.Text(flavor),
            *(_refused(refusals.get(flavor)) for refusals in by_policy),
            end_section=number == len(flavors),
        )
    grid.add_row(
        'all', *(_refused(policy.refusals) for policy in phase.policies)
    )
    return grid


def _refused(refusals: summary.FlavorRefusals | None) -> str:
    if refusals is None:
        return _NOTHING
    return (
        f'{refusals.refused} of {refusals.arrivals} '
        f'({wording.percent(refusals.percent)} %)'
    )
