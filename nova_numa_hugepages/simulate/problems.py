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

"""What is wrong with a scenario file of a simulation, and in which line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nova_numa_hugepages.simulate import scenario_schema
from nova_numa_hugepages.yamlfile import host_format
from nova_numa_hugepages.yamlfile import lines
from nova_numa_hugepages.yamlfile import shape


def find(document: lines.Document) -> list[tuple[int, str]]:
    """Find what is wrong, but for what Nova has to be asked.

    :returns: (line, what was found and expected), by line; none if the
        document is a scenario
    """
    return shape.find(
        document, scenario_schema.SCENARIO, scenario_schema.PATTERNS, _meaning_problems
    )


def _meaning_problems(
    document: lines.Document,
) -> Iterator[tuple[int, str]]:
    data = document.data
    for name in data['hosts']:
        yield from _host_problems(document, name)
    total = sum(host.get('count', 1) for host in data['hosts'].values())
    if total > scenario_schema.MAX_HOSTS:
        yield (
            document.line(('hosts',)),
            f'hosts: found {total} hosts in all, expected {scenario_schema.MAX_HOSTS} '
            'or fewer',
        )
    if 'arrivals' in data:
        yield from _arrivals_problems(document, data['arrivals'])
    elif 'trace' not in data:
        yield (
            document.line(()),
            "found neither 'arrivals' nor 'trace', expected one of them",
        )


def _host_problems(
    document: lines.Document, name: str
) -> Iterator[tuple[int, str]]:
    path: lines.Path = ('hosts', name)
    host = document.data['hosts'][name]
    if 'memory_gib' in host and 'memory_mib' in host:
        yield (
            document.line((*path, 'memory_mib')),
            f"{lines.where(path)}found 'memory_gib' and 'memory_mib', "
            'expected one of them',
        )
    elif 'memory_gib' not in host and 'memory_mib' not in host:
        yield (
            document.line(path),
            f"{lines.where(path)}found no 'memory_gib', expected it here",
        )
    else:
        yield from host_format.problems(document, path)


def _arrivals_problems(
    document: lines.Document, arrivals: dict[str, Any]
) -> Iterator[tuple[int, str]]:
    count, warm_up = arrivals['count'], arrivals.get('warm_up', 0)
    if warm_up >= count:
        yield (
            document.line(('arrivals', 'warm_up')),
            f'arrivals.warm_up: found {warm_up}, expected fewer than the '
            f'{count} arrivals',
        )
    seeds = arrivals.get('seeds')
    if isinstance(seeds, list):
        for index, seed in enumerate(seeds):
            if seed in seeds[:index]:
                yield (
                    document.line(('arrivals', 'seeds', index)),
                    f'arrivals.seeds[{index}]: found {seed} again, expected '
                    'each seed once',
                )
