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

"""The report of an experiment, in words and numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
import datetime
import json
from typing import Any

from nova_numa_hugepages.experiment import analysis
from nova_numa_hugepages.experiment import surroundings
from nova_numa_hugepages.experiment import workload
from nova_numa_hugepages.experiment.analysis import Comparison
from nova_numa_hugepages.experiment.ratios import Ratio
from nova_numa_hugepages.experiment.records import Records

# Of the JSON; raised when a key changes its meaning or goes away.
VERSION = 1

_HEADINGS = (
    'Workload', 'Load', 'Measure', 'Arm', 'Control', 'Arm has', 'Ratio',
    'What it shows',
)  # fmt: skip


def comparisons(records: Records) -> list[Comparison]:
    """Compare the arms of an experiment.

    :raises workload.UnknownWorkload: if a workload isn't installed any more
    """
    classes = workload.classes()
    missing = sorted(set(records.plan.workloads) - set(classes))
    if missing:
        raise workload.UnknownWorkload(
            f'The workload {missing[0]} of this experiment is not installed '
            'here. Install what brings it.'
        )
    return analysis.compare(
        records.plan,
        [
            classes[name](settings)
            for name, settings in records.plan.workloads.items()
        ],
        records.pairs,
    )


def percent(ratio: float) -> str:
    """Write a ratio as a difference, for example ``12.3 % less``."""
    change = (ratio - 1) * 100
    if abs(change) < 0.05:
        return 'the same'
    if ratio >= 2:
        return f'{ratio:.2f} times'
    return f'{abs(change):.1f} % {"more" if change > 0 else "less"}'


def interval(ratio: Ratio) -> str:
    """Write a ratio with its interval."""
    return f'{ratio.mean:.3f} ({ratio.low:.3f} to {ratio.high:.3f})'


def verdict(found: Comparison) -> str:
    """Write what a comparison shows."""
    if found.ratio is None:
        return 'too few pairs'
    if not found.ratio.differs:
        within = found.ratio.within
        least = (
            f'{100 * within:.1f} %'
            if within < 1
            else f'{1 + within:.1f} times'
        )
        return f'no difference shown; it is {least} at most'
    better = 'better' if found.is_better else 'worse'
    return f'{percent(found.ratio.mean)}: {better}'


def value(number: float | None, unit: str) -> str:
    """Write a number with its unit."""
    if number is None:
        return 'unknown'
    digits = '.0f' if number >= 1000 else '.3g'
    return (
        f'{number:{digits}} {unit}'
        if unit[0] != '/'
        else (f'{number:{digits}}{unit}')
    )


def facts(records: Records) -> list[str]:
    """Say how the experiment was made, a sentence each."""
    plan, decision = records.plan, records.decision
    texts = []
    if decision is None:
        texts.append(
            'It ended before it was known how many pairs it takes: nothing '
            'here counts.'
        )
    else:
        texts.append(
            f'{decision.pairs} pairs of each kind were planned before the '
            f'first one that counts. Intervals hold all together with '
            f'{100 * plan.confidence:g} % confidence.'
        )
        if decision.needed > decision.pairs:
            texts.append(
                f'To find a difference of {100 * plan.difference:g} % '
                f'everywhere it would take {decision.needed} pairs '
                '(most_pairs is less).'
            )
        if not records.is_complete:
            texts.append('It was ended early: fewer pairs than planned count.')
    beside = {pair.side_by_side for pair in records.pairs}
    if beside == {True}:
        texts.append(
            'Both arms of a pair ran at the same time, on CPUs of one NUMA '
            'node, and took turns on them.'
        )
    elif beside == {False}:
        texts.append(
            'The arms of a pair ran one after the other, in a random order.'
        )
    return texts


def left_out(records: Records) -> list[str]:
    """Say why pairs don't count, a sentence for each reason."""
    reasons: Counter[tuple[str, str, str]] = Counter()
    for pair in records.pairs:
        for trial in pair.trials:
            for problem in trial.problems:
                reasons[pair.workload, trial.arm, problem] += 1
    return [
        f'{count} of {name} in the arm {arm} did not count: {problem}.'
        for (name, arm, problem), count in sorted(reasons.items())
    ]


def warnings(records: Records) -> list[str]:
    """Say what makes the figures worth less."""
    return [
        *surroundings.warnings(dict(records.surroundings)),
        *(
            f'The arm {arm.name} differs from control in '
            f'{" and ".join(differs)}: which of them makes the difference '
            'is not told here.'
            for arm in records.plan.treatments
            if len(differs := arm.differs_in(records.plan.control)) > 1
        ),
    ]


def when(records: Records) -> str:
    """Write when the experiment began."""
    moment = datetime.datetime.fromtimestamp(
        records.surroundings['time'], datetime.UTC
    )
    return f'{moment:%Y-%m-%d %H:%M} UTC'


def as_json(records: Records, found: Sequence[Comparison]) -> str:
    """Return the report for machines."""
    return (
        json.dumps(
            {
                'version': VERSION,
                'complete': records.is_complete,
                'plan': records.plan.as_json(),
                'surroundings': dict(records.surroundings),
                'warnings': warnings(records),
                'comparisons': [_as_json(each) for each in found],
            },
            indent=1,
        )
        + '\n'
    )


def _as_json(found: Comparison) -> dict[str, Any]:
    ratio = found.ratio
    return {
        'workload': found.workload,
        'load': found.load,
        'arm': found.arm,
        'measure': found.measure.name,
        'unit': found.measure.unit,
        'control': found.control,
        'treatment': found.treatment,
        'ratio': ratio and ratio.mean,
        'low': ratio and ratio.low,
        'high': ratio and ratio.high,
        'effect_size': ratio and ratio.effect,
        'pairs': ratio.pairs if ratio else 0,
        'left_out': found.left_out,
        'better': found.is_better,
    }


def rows(found: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """Return the table of the report."""
    return [
        (
            each.workload,
            each.load,
            each.measure.name,
            each.arm,
            value(each.control, each.measure.unit),
            value(each.treatment, each.measure.unit),
            interval(each.ratio) if each.ratio else 'unknown',
            verdict(each),
        )
        for each in found
    ]


def markdown(records: Records, found: Sequence[Comparison]) -> str:
    """Return the report as Markdown."""
    lines = [
        f'# Experiment on {records.surroundings["host"]}, {when(records)}',
        '',
        *(f'- {text}' for text in facts(records)),
        *(f'- **{text}**' for text in warnings(records)),
        *(f'- {text}' for text in left_out(records)),
        '',
        '## Arms',
        '',
        *(
            f'- {arm.name}{" (control)" if index == 0 else ""}: '
            f'{arm.describe()}'
            for index, arm in enumerate(records.plan.arms)
        ),
        '',
        '## Figures',
        '',
        '| ' + ' | '.join(_HEADINGS) + ' |',
        '|---' * len(_HEADINGS) + '|',
        *('| ' + ' | '.join(row) + ' |' for row in rows(found)),
        '',
        '## Surroundings',
        '',
        *(
            f'- {name.replace("_", " ")}: {text}'
            for name, text in records.surroundings.items()
            if name not in ('nodes', 'time') and text is not None
        ),
        *(
            f'- NUMA node {node["id"]}: CPUs {node["cpus"] or "none"}, '
            f'{node["memory_mib"]} MiB, distances '
            f'{", ".join(map(str, node["distances"]))}'
            for node in records.surroundings['nodes']
        ),
    ]
    return '\n'.join(lines) + '\n'


def text(records: Records, found: Sequence[Comparison]) -> str:
    """Return the report for a terminal: what it shows, a line each."""
    lines = [
        f'{each.workload}, {each.load}, {each.measure.name}, {each.arm}: '
        f'{verdict(each)}'
        for each in found
    ]
    return '\n'.join(
        [*facts(records), *warnings(records), *left_out(records), '', *lines]
    )
