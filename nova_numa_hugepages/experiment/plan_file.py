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

"""Plan files of an experiment."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import pathlib
from typing import Any

from nova_numa_hugepages.core import units
from nova_numa_hugepages.experiment import loads
from nova_numa_hugepages.experiment import plan
from nova_numa_hugepages.experiment import ratios
from nova_numa_hugepages.experiment import workload
from nova_numa_hugepages.experiment.plan import Arm
from nova_numa_hugepages.experiment.plan import Plan
from nova_numa_hugepages.yamlfile import document
from nova_numa_hugepages.yamlfile import formats
from nova_numa_hugepages.yamlfile import validation
from nova_numa_hugepages.yamlfile.validation import Finding

_NAME = validation.text(
    r'^[A-Za-z0-9][A-Za-z0-9 ._-]{0,39}\Z',
    'a name of up to 40 letters, digits, spaces and . _ -',
)
_PAGES = validation.text(
    rf'^({plan.SMALL}|{plan.THP}|[1-9][0-9]{{0,6}} ?(KiB|MiB|GiB))\Z',
    f'one of {plan.SMALL}, {plan.THP}, or a page size such as 2MiB or 1GiB',
)
_ARM = validation.mapping(
    {'pages': _PAGES, 'memory': {'enum': ['near', 'far']}}, required=('pages',)
)
_PAIRS = validation.integer(ratios.LEAST_PAIRS, ratios.MOST_PAIRS)
_MOST_ARMS = 8


def schema() -> dict[str, Any]:
    """Return the JSON schema of a plan, with all workloads that there are.

    :raises workload.UnknownWorkload: if one of them can't be loaded
    """
    return validation.mapping(
        {
            'arms': validation.named(_ARM, _NAME, maxProperties=_MOST_ARMS),
            'workloads': {
                **validation.mapping(
                    {
                        name: {
                            'if': {'type': 'null'},
                            'else': validation.mapping(found.properties, ()),
                        }
                        for name, found in workload.classes().items()
                    },
                    required=(),
                ),
                'minProperties': 1,
            },
            'loads': {
                'type': 'array',
                'items': {'enum': [plan.IDLE, *loads.ARGUMENTS]},
                'minItems': 1,
                'uniqueItems': True,
            },
            'difference_percent': validation.number(0.1, 100),
            'confidence_percent': validation.number(80, 99.9),
            'pairs': _PAIRS,
            'first_pairs': validation.integer(ratios.LEAST_FIRST_PAIRS, 1000),
            'most_pairs': _PAIRS,
            'seed': validation.integer(0, (1 << 32) - 1),
        },
        required=('arms', 'workloads'),
    )


def example() -> str:
    """Return the plan that comes with the package.

    :raises document.UnreadableError: if it isn't installed
    """
    return document.installed('experiment.yaml')


def load(path: pathlib.Path) -> Plan:
    """Read a plan file.

    :raises document.FileError: with every problem that was found
    :raises workload.UnknownWorkload: if a workload can't be loaded
    """
    return _plan(document.read(path, schema(), _contradictions).data)


def default(*, quick: bool) -> Plan:
    """Return the plan that is carried out if none is given."""
    return Plan(
        arms=(
            Arm('small pages'),
            Arm('transparent', plan.THP),
            Arm('huge pages', str(2 * units.KIB_PER_MIB)),
        ),
        workloads={
            name: found.quick if quick else {}
            for name, found in workload.classes().items()
            if name in ('chase', 'stream', 'sort', 'lookups')
        },
        pairs=12 if quick else None,
    )


def _plan(data: Mapping[str, Any]) -> Plan:
    values = {
        key: data[key]
        for key in ('pairs', 'first_pairs', 'most_pairs', 'seed')
        if key in data
    }
    for key in ('difference', 'confidence'):
        if f'{key}_percent' in data:
            values[key] = data[f'{key}_percent'] / 100
    return Plan(
        arms=tuple(_arm(name, arm) for name, arm in data['arms'].items()),
        workloads={
            name: dict(settings or {})
            for name, settings in data['workloads'].items()
        },
        loads=tuple(data.get('loads', (plan.IDLE,))),
        **values,
    )


def _arm(name: str, arm: Mapping[str, Any]) -> Arm:
    pages = str(arm['pages'])
    if pages not in (plan.SMALL, plan.THP):
        pages = str(formats.page_kib(pages))
    return Arm(name, pages, arm.get('memory') == 'far')


def _contradictions(data: Any) -> Iterator[Finding]:
    arms = [_arm(name, arm) for name, arm in data['arms'].items()]
    if len(arms) < 2:
        yield (
            ('arms',),
            'found one arm, expected control and one or more to compare it '
            'with',
        )
    for index, arm in enumerate(arms):
        size = arm.page_kib
        if size is not None and size & (size - 1):
            yield (
                ('arms', arm.name, 'pages'),
                f'{units.format_kib(size)} is no page size, as it is no power '
                'of two',
            )
        for other in arms[:index]:
            if not arm.differs_in(other):
                yield (
                    ('arms', arm.name),
                    f'it has {arm.describe()}, as {other.name} does, so there '
                    'is nothing to compare',
                )
