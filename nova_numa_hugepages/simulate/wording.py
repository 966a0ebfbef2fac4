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

"""The figures of a simulation in words."""

from __future__ import annotations

import dataclasses

from nova_numa_hugepages.simulate import results
from nova_numa_hugepages.simulate import summary
from nova_numa_hugepages.simulate.summary import Metric

NAMES = {
    results.PlacementPolicy.STOCK: 'stock Nova',
    results.PlacementPolicy.OURS: 'this package',
}

PHASES = {
    results.Phase.FILL: (
        'Fill: instances arrive and stay, until one is refused'
    ),
    results.Phase.CHURN: 'Churn: instances arrive, and leave after a while',
    results.Phase.TRACE: 'Trace: instances come and go as in the file',
}

# How a sentence about a phase begins.
DURING = {
    results.Phase.FILL: 'While the fleet fills up',
    results.Phase.CHURN: 'Under churn',
    results.Phase.TRACE: 'Over the trace',
}


def count(number: float) -> str:
    """Write a median count."""
    return f'{number:.0f}' if number == int(number) else f'{number:.1f}'


def percent(number: float) -> str:
    """Write a percentage without its sign; only 0 becomes 0."""
    if not number or number >= 10:
        return f'{number:.0f}' if number in (0, 100) else f'{number:.1f}'
    if number >= 1:
        return f'{number:.1f}'
    return f'{number:.2g}' if number >= 0.1 else f'{number:.1g}'


def times(ratio: float) -> str:
    """Write a ratio."""
    return f'{ratio:.2f}' if ratio >= 0.1 or not ratio else f'{ratio:.2g}'


def headline(phase: summary.PhaseSummary) -> str:
    """Return the result of a phase, in a sentence."""
    if phase.phase is results.Phase.FILL:
        return placed_sentence(phase)
    return refused_sentence(phase)


def placed_sentence(phase: summary.PhaseSummary) -> str:
    """Return how many guests are placed before the first refusal."""
    possible = ''
    if phase.bound is not None:
        possible = f'; at most {count(phase.bound)} were possible'
    ours, stock = phase.policies[-1], phase.policies[0]
    placed = [
        count(policy.figures[Metric.PLACED].median) for policy in (ours, stock)
    ]
    if not any(policy.first_refused for policy in phase.policies):
        places = f'{capital(NAMES[ours.policy])} places'
        if ours is not stock:
            places = 'Both place'
        return (
            f'{places} all {placed[0]} instances. With more arrivals the '
            'fleet would fill up.'
        )
    ratio = phase.ratios.get(Metric.PLACED)
    if not (ratio and stock.first_refused and ours.first_refused):
        return f'{_placed_by_each(phase)}{possible}.'
    many = 'as many'
    if abs(ratio.median - 1) >= 0.005:
        many = f'{times(ratio.median)} times as many'
    text = (
        f'{NAMES[ours.policy]} places {many} instances before the first '
        f'refusal as {NAMES[stock.policy]}'
    )
    if max(len(stock.seeds), len(ours.seeds)) > 1:
        # The median of ratios is not the ratio of the medians.
        share = ours.figures.get(Metric.OF_BOUND_PERCENT)
        if share:
            text += f', {percent(share.median)} % of what is possible'
        return f'In the median {text}.'
    return f'{capital(text)} ({" against ".join(placed)}){possible}.'


def _placed_by_each(phase: summary.PhaseSummary) -> str:
    parts: list[str] = []
    all_refused = all(policy.first_refused for policy in phase.policies)
    for policy in reversed(phase.policies):
        words = placed = count(policy.figures[Metric.PLACED].median)
        if not policy.first_refused:
            words = f'all {placed} instances'
        elif not (parts and all_refused):
            words = f'{placed} instances before the first refusal'
        verb = '' if parts else ' places'
        parts.append(f'{NAMES[policy.policy]}{verb} {words}')
    return capital(', '.join(parts))


def refused_sentence(phase: summary.PhaseSummary) -> str:
    """Return how many guests are refused."""
    if not any(policy.refusals.refused for policy in phase.policies):
        who = f'{NAMES[phase.policies[0].policy]} refuses no instance'
        if len(phase.policies) > 1:
            who = 'neither policy refuses an instance'
        return f'{DURING[phase.phase]} {who}.'
    parts: list[str] = []
    for policy in reversed(phase.policies):
        share = policy.figures[Metric.REFUSED_PERCENT].median
        _, arrivals, refused = dataclasses.astuple(policy.refusals)
        words = f'{percent(share)} %' if refused else 'none'
        # Some runs refuse some, but not the one in the middle.
        more = ''
        if refused and not share:
            more = f' in the median ({refused} of {arrivals} in all)'
        if not parts:
            words = f'refuses {words} of the instances'
        parts.append(f'{NAMES[policy.policy]} {words}{more}')
    return f'{DURING[phase.phase]} {", ".join(parts)}.'


def capital(text: str) -> str:
    """Begin a text with a capital letter."""
    return text[:1].upper() + text[1:]
