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


def closing(found: summary.Summary) -> str:
    """Return the results of all phases, in a sentence for each.

    :returns: an empty text without any runs
    """
    return ' '.join(headline(phase) for phase in found.phases)


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
    if len(phase.policies) == 1:
        (only,) = phase.policies
        return f'{capital(_who(only))} places {_placed(only)}{possible}.'
    stock, ours = phase.policies
    if not stock.first_refused and not ours.first_refused:
        return (
            f'Both place {_placed(ours)}. With more arrivals the fleet would '
            'fill up.'
        )
    ratio = phase.ratios.get(Metric.PLACED)
    if not (ratio and stock.first_refused and ours.first_refused):
        placed = count(stock.figures[Metric.PLACED].median)
        if not stock.first_refused or not ours.first_refused:
            placed = _placed(stock)
        return (
            f'{capital(_who(ours))} places {_placed(ours)}, {_who(stock)} '
            f'{placed}{possible}.'
        )
    many = 'as many'
    if abs(ratio.median - 1) >= 0.005:
        many = f'{times(ratio.median)} times as many'
    text = (
        f'{_who(ours)} places {many} instances before the first refusal as '
        f'{_who(stock)}'
    )
    if max(len(stock.seeds), len(ours.seeds)) > 1:
        # The median of ratios is not the ratio of the medians.
        share = ours.figures.get(Metric.OF_BOUND_PERCENT)
        if share:
            text += f', {percent(share.median)} % of what is possible'
        return f'In the median {text}.'
    both = ' against '.join(
        count(policy.figures[Metric.PLACED].median) for policy in (ours, stock)
    )
    return f'{capital(text)} ({both}){possible}.'


def refused_sentence(phase: summary.PhaseSummary) -> str:
    """Return how many guests are refused."""
    shares = [
        (policy, policy.figures[Metric.REFUSED_PERCENT].median)
        for policy in reversed(phase.policies)
    ]
    during = DURING[phase.phase]
    if len(shares) > 1 and not any(share for _, share in shares):
        return f'{during} neither policy refuses an instance.'
    (policy, share), *others = shares
    parts = [f'{_who(policy)} refuses {_share(share)} of the instances']
    parts += [f'{_who(policy)} {_share(share)}' for policy, share in others]
    return f'{during} {", ".join(parts)}.'


def _share(refused: float) -> str:
    return f'{percent(refused)} %' if refused else 'none'


def _placed(policy: summary.PolicySummary) -> str:
    placed = count(policy.figures[Metric.PLACED].median)
    if policy.first_refused:
        return f'{placed} instances before the first refusal'
    return f'all {placed} instances'


def _who(policy: summary.PolicySummary) -> str:
    return NAMES[policy.policy]


def capital(text: str) -> str:
    """Begin a text with a capital letter."""
    return text[:1].upper() + text[1:]
